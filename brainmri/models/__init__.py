"""The ensemble as one model: its formats for other runtimes, novelty, and heat maps."""
