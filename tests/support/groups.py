"""Groups of images, computed plainly."""

import numpy as np


def connected_groups(is_pair: np.ndarray) -> list[int]:
    """Number the groups of images that chains of pairs connect, in order of first appearance.

    Parameters
    ----------
    is_pair : ndarray of bool, shape (n, n)
        Symmetric.

    Returns
    -------
    list of int, length n
    """
    groups = [-1] * len(is_pair)
    for first in range(len(is_pair)):
        waiting = [first] if groups[first] == -1 else []
        number = max(groups) + 1
        while waiting:
            image = waiting.pop()
            groups[image] = number
            waiting += [other for other in np.flatnonzero(is_pair[image]) if groups[other] == -1]
    return groups


def without_mirror_images(*hashes: np.ndarray) -> np.ndarray:
    """Return perceptual hashes of which those of the mirror images are near no others.

    Parameters
    ----------
    *hashes : ndarray of uint8, shape (n, bytes)
        Of the head, of the whole image.

    Returns
    -------
    ndarray of uint8, shape (n, twice as many, bytes)
    """
    upright = np.stack(hashes, axis=1)
    return np.concatenate([upright, np.full_like(upright, 0b01010101)], axis=1)
