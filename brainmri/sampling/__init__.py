"""Groups of near duplicates, cross-validation folds, members' samples."""
