"""Helpers of several tests and of the benchmarks."""
