"""The members' samples: bootstrap samples, subsamples and committees. Pure functions on arrays."""

import numpy as np

from brainmri.common.errors import UserError
from brainmri.common.params import committee_folds
from brainmri.sampling.folds import stratified_group_folds

MAX_DRAWS = 100


def draw_sample(
    scheme: str,
    labels: np.ndarray,
    groups: np.ndarray,
    classes: list[str],
    fraction: float,
    seed: int,
    index: int,
    whole_groups: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a member's in-bag images, on which it is trained, and its out-of-bag ones.

    They depend on the member's number, not on how many members there are.

    Parameters
    ----------
    scheme : {"bootstrap", "subsample", "committee"}
        "bootstrap" draws images with replacement, "subsample" without: see `bootstrap_sample`.
        "committee" assigns the images to 1 / (1 − fraction) folds, or to as many as a class has
        groups if these are fewer; each member holds out the next of them, and after the last one
        the images are assigned again. So every image is out-of-bag for some member even if there
        are few.
    labels, groups, classes : see `bootstrap_sample`
    fraction : float
        See `bootstrap_sample`; below 1 except for "bootstrap".
    seed : int
        Of the ensemble's samples. Ensembles whose seeds are 1000 or more apart have none in common.
    index : int
        The member's number.
    whole_groups : bool
        See `bootstrap_sample`.

    Returns
    -------
    in_bag, out_of_bag : ndarray of int
        See `bootstrap_sample`; of a committee's member, a class may be missing out-of-bag.

    Raises
    ------
    UserError
        If a class would have no in-bag image; see also `bootstrap_sample`.

    References
    ----------
    B. Parmanto, P. Munro, H. Doyle, "Improving Committee Diagnosis with Resampling Techniques",
    NIPS 1995 (committees).
    """
    if scheme != "committee":
        replace = scheme == "bootstrap"
        return bootstrap_sample(
            labels, groups, classes, fraction, seed + index, replace, whole_groups
        )
    folds = folds_of_committee(labels, groups, fraction)
    round_index, fold = divmod(index, folds)
    fold_of = stratified_group_folds(
        labels, groups, classes, folds, seed + round_index * folds, "folds of recipes' fraction"
    )
    in_bag, out_of_bag = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
    for label, name in enumerate(classes):
        if label not in labels[in_bag]:
            raise UserError(
                f"all images of class {name!r} are held out by one member: they share groups; add"
                " images of other patients, raise recipes' fraction, or draw bootstrap samples:"
                " bootstrap.scheme"
            )
    return in_bag, out_of_bag


def folds_of_committee(labels: np.ndarray, groups: np.ndarray, fraction: float) -> int:
    """Return the number of folds of which each member of a committee holds out one.

    It is that of the fraction, or no more than the groups of the class that has the fewest.
    """
    fewest = min(len(np.unique(groups[labels == label])) for label in np.unique(labels))
    return max(2, min(committee_folds(fraction), fewest))


def bootstrap_sample(
    labels: np.ndarray,
    groups: np.ndarray,
    classes: list[str],
    fraction: float,
    seed: int,
    replace: bool = True,
    whole_groups: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a stratified sample, with or without replacement, and find its out-of-bag images.

    Parameters
    ----------
    labels, groups : ndarray of int, shape (n,)
        Class and group of each training image.
    classes : list of str
    fraction : float
        Images, or groups, drawn of each class, as a fraction of its images, or groups; above 0.
    seed : int
        The same seed draws the same sample.
    replace : bool
        Whether an image, or group, may be drawn more than once (a bootstrap sample). If not, the
        fraction must be below 1.
    whole_groups : bool
        Whether to draw groups, and take all their images of the class (a cluster bootstrap). Of
        patients with many slices, draws of images would leave hardly any patient out.

    Returns
    -------
    in_bag : ndarray of int
        Positions that were drawn, sorted; a position may repeat.
    out_of_bag : ndarray of int
        Positions of images of whose group none was drawn, sorted.

    Raises
    ------
    UserError
        If in none of 100 draws the out-of-bag images are of every class.

    References
    ----------
    L. Breiman, "Bagging Predictors", Machine Learning 24, 1996. A. C. Davison, D. V. Hinkley,
    "Bootstrap Methods and their Application", 1997, section 3.8 (groups).
    """
    rng = np.random.default_rng(seed)
    units_of = []
    for label in range(len(classes)):
        positions = np.flatnonzero(labels == label)
        units_of.append(_split_by(groups[positions], positions) if whole_groups else positions)
    for _ in range(MAX_DRAWS):
        drawn = []
        for units in units_of:
            count = max(1, round(fraction * len(units)))
            chosen = rng.choice(len(units), count, replace)
            drawn += [units[unit] for unit in chosen] if whole_groups else [units[chosen]]
        in_bag = np.sort(np.concatenate(drawn))
        out_of_bag = np.flatnonzero(~np.isin(groups, groups[in_bag]))
        missing = [name for label, name in enumerate(classes) if label not in labels[out_of_bag]]
        if not missing:
            return in_bag, out_of_bag
    raise UserError(
        f"class {missing[0]!r} has no out-of-bag image in any of {MAX_DRAWS} draws (near duplicates"
        " of in-bag images, and other images of their patients, do not count); add images of it,"
        " or lower recipes' fraction"
    )


def _split_by(groups: np.ndarray, positions: np.ndarray) -> list[np.ndarray]:
    """Split positions by their groups."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order])) + 1
    return np.split(positions[order], starts)
