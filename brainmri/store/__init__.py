"""The RAD, the on-disk image store: HDF5 files of pixels and labels, and JSON metadata."""
