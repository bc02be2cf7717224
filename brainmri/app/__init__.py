"""A web page on this machine that shows predictions for new images."""
