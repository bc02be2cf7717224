"""Groups of near duplicates, cross-validation folds, bootstrap samples."""
