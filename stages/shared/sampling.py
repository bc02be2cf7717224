"""Who is in which set: groups of near duplicates, stratified group folds, bootstrap samples. Pure functions on arrays."""

from collections.abc import Iterable

import numpy as np

from stages.shared.errors import UserError

ATTEMPTS = 100


def hash_array(images: Iterable[tuple[str, ...]]) -> np.ndarray:
    """Turn the hexadecimal hashes of each image, as many for each, into bytes: uint8, shape (images, hashes, bytes)."""
    return np.array([[list(bytes.fromhex(one)) for one in hashes] for hashes in images], np.uint8)


def near_duplicate_groups(hashes: np.ndarray, bits: int | None) -> np.ndarray:
    """Join images whose perceptual hashes are close, and whatever is joined to them in turn.

    Parameters
    ----------
    hashes : ndarray of uint8, shape (n, bytes) or (n, hashes, bytes)
        Perceptual hashes.
    bits : int or None
        Largest Hamming distance of two images that are joined, by any of their hashes; None joins none, not even equal ones.

    Returns
    -------
    ndarray of int, shape (n,)
        The group of each image, numbered from 0 in order of first appearance.
    """
    if bits is None:
        return np.arange(len(hashes))
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    words = np.ascontiguousarray(hashes).view(np.uint64).reshape(len(hashes), -1, hashes.shape[-1] // 8)
    firsts, seconds = [], []
    for first, word in enumerate(words):
        distances = np.bitwise_count(words[first:] ^ word).sum(axis=2, dtype=np.int64).min(axis=1)
        near = first + np.flatnonzero(distances <= bits)
        firsts.append(np.full(len(near), first))
        seconds.append(near)
    pairs = np.concatenate(firsts), np.concatenate(seconds)
    joined = coo_matrix((np.ones(len(pairs[0]), bool), pairs), shape=(len(words), len(words)))
    return connected_components(joined, directed=False)[1]


def stratified_group_folds(
    labels: np.ndarray, groups: np.ndarray, classes: list[str], folds: int, seed: int, parameter: str = "split.folds"
) -> np.ndarray:
    """Deal the images to folds of like class shares; a group stays in one fold.

    Parameters
    ----------
    labels, groups : ndarray of int, shape (n,)
        Class and group of each image.
    classes : list of str
        The classes' names.
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
        If a class has fewer groups than there are folds, so that a fold would have to do without it.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # takes a second to import, and others need this module too

    for label, name in enumerate(classes):
        independent = len(np.unique(groups[labels == label]))
        if independent < folds:
            raise UserError(
                f"class {name!r} has {independent} independent image(s) (near duplicates count as one), too few for"
                f" {parameter}: {folds}; add images, or lower {parameter} or split.near_duplicate_bits"
            )
    fold_of = np.empty(len(labels), np.int64)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for fold, (_, test) in enumerate(splitter.split(labels, labels, groups)):
        fold_of[test] = fold
    return fold_of


def draw_sample(
    scheme: str, labels: np.ndarray, groups: np.ndarray, classes: list[str], fraction: float, seed: int, index: int
) -> tuple[np.ndarray, np.ndarray]:
    """What a member learns from, and what it is judged on. It depends on the member's number, not on how many there are.

    Parameters
    ----------
    scheme : {"bootstrap", "subsample", "committee"}
        "bootstrap" draws images with replacement, "subsample" without: see `bootstrap_sample`. "committee" deals the images
        to 1 / (1 − fraction) folds, and each member leaves out one of them in turn; when all had their turn, they are dealt
        anew. So few members have an out-of-bag prediction for every image.
    labels, groups, classes : see `bootstrap_sample`
    fraction : float
        See `bootstrap_sample`; below 1 but for "bootstrap".
    seed : int
        Of the ensemble's samples; ensembles of seeds 1000 and more apart share none.
    index : int
        The member's number.

    Returns
    -------
    in_bag, out_of_bag : ndarray of int
        See `bootstrap_sample`.

    References
    ----------
    B. Parmanto, P. Munro, H. Doyle, "Improving Committee Diagnosis with Resampling Techniques", NIPS 1995 (committees).
    """
    if scheme != "committee":
        return bootstrap_sample(labels, groups, classes, fraction, seed + index, replace=scheme == "bootstrap")
    folds = max(2, round(1 / (1 - fraction)))
    turn, fold = divmod(index, folds)
    left_out = stratified_group_folds(labels, groups, classes, folds, seed + turn * folds, "folds of recipes' fraction") == fold
    return np.flatnonzero(~left_out), np.flatnonzero(left_out)


def bootstrap_sample(
    labels: np.ndarray, groups: np.ndarray, classes: list[str], fraction: float, seed: int, replace: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a stratified sample, with replacement (a bootstrap sample) or without, and the images that it says nothing of.

    Parameters
    ----------
    labels, groups : ndarray of int, shape (n,)
        Class and group of near duplicates of each training image.
    classes : list of str
        The classes' names.
    fraction : float
        Images drawn from each class, as a share of its images; above 0.
    seed : int
        The same seed draws the same sample.
    replace : bool
        Whether an image may be drawn again; without, the fraction must be below 1.

    Returns
    -------
    in_bag : ndarray of int
        Positions drawn, sorted; a position may repeat.
    out_of_bag : ndarray of int
        Positions of images that were not drawn, and no near duplicate of which was drawn, sorted.

    Raises
    ------
    UserError
        If in 100 draws no out-of-bag set holds every class.

    References
    ----------
    L. Breiman, "Bagging Predictors", Machine Learning 24, 1996.
    """
    rng = np.random.default_rng(seed)
    images_of = [np.flatnonzero(labels == label) for label in range(len(classes))]
    for _ in range(ATTEMPTS):
        drawn = [rng.choice(images, max(1, round(fraction * len(images))), replace) for images in images_of]
        in_bag = np.sort(np.concatenate(drawn))
        out_of_bag = np.flatnonzero(~np.isin(groups, groups[in_bag]))
        missing = [name for label, name in enumerate(classes) if label not in labels[out_of_bag]]
        if not missing:
            return in_bag, out_of_bag
    raise UserError(
        f"class {missing[0]!r} has no out-of-bag image in any of {ATTEMPTS} draws (near duplicates of in-bag images"
        " do not count); add images of it, or lower recipes' fraction"
    )
