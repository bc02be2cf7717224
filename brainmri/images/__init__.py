"""Image files of any common kind, decoded to gray squares; synthetic slices."""
