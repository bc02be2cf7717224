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
