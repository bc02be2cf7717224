"""Votes, calibration, metrics and figures; no TensorFlow."""
