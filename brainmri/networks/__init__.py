"""Networks of members: architectures, loading of pretrained weights, views, and models on disk."""
