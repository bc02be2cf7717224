"""Figures for people; functions named `draw_…` return the bytes of a PNG file."""
