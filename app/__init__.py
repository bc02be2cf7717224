"""A local page to try the ensemble."""
