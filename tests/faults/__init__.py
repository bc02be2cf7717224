"""Faults that are caused in the real pipeline, and its recovery from them."""
