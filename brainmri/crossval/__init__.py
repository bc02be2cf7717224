"""Cross-validation over DVC experiments: `python -m brainmri.crossval`."""
