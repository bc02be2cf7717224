"""Images that are unlike all others of a collection."""

import numpy as np
from threadpoolctl import threadpool_limits

from brainmri.models.principal_components import FOLDS, NOISE_LEVEL, held_out_errors

MIN_IMAGES = 20  # fewer have no components to speak of


def novelties(thumbnails: np.ndarray, groups: np.ndarray) -> np.ndarray | None:
    """Compute the error of each image's reconstruction from components of the other images.

    Components are fitted to four fifths of the groups, errors computed of the last, in turn, so
    that neither an image nor a near duplicate of it explains itself.

    Parameters
    ----------
    thumbnails : ndarray of uint8, shape (n, pixels)
    groups : ndarray of int, shape (n,)
        Of near duplicates, numbered from 0.

    Returns
    -------
    ndarray of float, shape (n,), or None
        A fraction of the image's variance; None for fewer than `MIN_IMAGES` images.
    """
    if len(thumbnails) < MIN_IMAGES or groups.max() < FOLDS:
        return None
    standardized = _standardize(thumbnails)
    with threadpool_limits(1):  # or the last bits depend on the number of cores
        return held_out_errors(standardized, groups)


def _standardize(thumbnails: np.ndarray) -> np.ndarray:
    """Return thumbnails of zero mean and unit variance: float32, shape (n, pixels)."""
    levels = thumbnails.astype(np.float32)
    levels -= levels.mean(axis=1, keepdims=True)
    return levels / np.sqrt(levels.var(axis=1, keepdims=True) + NOISE_LEVEL**2)
