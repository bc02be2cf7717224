"""Features of images by frozen networks, computed once and read by all members."""
