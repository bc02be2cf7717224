"""Parameters, paths, files, errors, progress: what every room uses."""
