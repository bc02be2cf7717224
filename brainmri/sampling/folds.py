"""Stratified folds that keep groups together."""

import numpy as np

from brainmri.common.errors import UserError


def stratified_group_folds(
    labels: np.ndarray,
    groups: np.ndarray,
    classes: list[str],
    folds: int,
    seed: int,
    parameter: str = "split.folds",
) -> np.ndarray:
    """Assign images to folds with about equal class fractions; a group stays in one fold.

    Parameters
    ----------
    labels, groups : ndarray of int, shape (n,)
        Class and group of each image.
    classes : list of str
    folds : int
        Number of folds.
    seed : int
        Of the shuffling.
    parameter : str
        What the error calls the number of folds.

    Returns
    -------
    ndarray of int, shape (n,)
        The fold of each image.

    Raises
    ------
    UserError
        If a class has fewer groups than there are folds, so that a fold would lack it.
    """
    # It takes a second to import, and `bootstrap` needs this module too.
    from sklearn.model_selection import StratifiedGroupKFold

    counts = [len(np.unique(groups[labels == label])) for label in range(len(classes))]
    for name, independent in zip(classes, counts, strict=True):
        if independent < folds:
            hint = f", or lower {parameter} to {independent}" if independent > 1 else ""
            if max(counts) == 1:
                hint = "; if the class folders are patients, give a table of classes: data.labels"
            raise UserError(
                f"class {name!r} has {independent} independent group(s) of images (near duplicates,"
                f" and images of a patient, are one group), too few for {parameter}: {folds}; add"
                f" images of other groups{hint}"
            )
    fold_of = np.empty(len(labels), np.int64)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for fold, (_, test) in enumerate(splitter.split(labels, labels, groups)):
        fold_of[test] = fold
    return fold_of
