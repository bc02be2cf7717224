"""Repair what a killed process or a full disk has left in this clone, and DVC does not repair."""
