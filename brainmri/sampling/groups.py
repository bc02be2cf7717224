"""Groups of near duplicates, by perceptual hashes."""

from collections.abc import Iterable, Sequence

import numpy as np

from brainmri.sampling.near_duplicates import (
    BLOCK_ROWS,
    blocks,
    near_pairs,
    orient,
    sort_bits,
    to_words,
)
from brainmri.store.metadata import Image

LARGE = 0.1  # fraction of a class
UNKNOWN = -1


def decode_hashes(images: Iterable[Sequence[str]]) -> np.ndarray:
    """Decode the `perceptual_hashes` of images.

    Returns
    -------
    ndarray of uint8, shape (images, 4, 32)
        Of the head, of the whole image, and both of the mirror image.
    """
    decoded = [[list(bytes.fromhex(digits)) for digits in hashes] for hashes in images]
    return np.array(decoded, np.uint8)


def near_duplicate_groups(hashes: np.ndarray, bits: int | None) -> np.ndarray:
    """Group images that a chain of near duplicates connects.

    Parameters
    ----------
    hashes : ndarray of uint8, shape (n, 4, 32)
        See `decode_hashes`.
    bits : int or None
        Largest distance of near duplicates; see `near_duplicates.distances`. With None no image
        has a near duplicate, not even one with equal hashes.

    Returns
    -------
    ndarray of int, shape (n,)
        The group of each image, numbered from 0 in order of first appearance.
    """
    groups = np.arange(len(hashes))
    if bits is None or not len(hashes):
        return groups
    oriented = to_words(sort_bits(orient(hashes)))
    pairs, count = [], 0
    for rows in blocks(0, len(groups), BLOCK_ROWS):
        pairs.append(near_pairs(oriented, rows, bits, groups))
        count += pairs[-1].shape[1]
        # Of many pairs at once, since it takes time for each image; of few, to bound the memory
        if count > len(groups) or rows.stop == len(groups):
            groups = _connect(groups, np.concatenate(pairs, axis=1))
            pairs, count = [], 0
    return groups


def join_groups(groups: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Join groups of images with other groups of them, such as near duplicates with patients.

    Parameters
    ----------
    groups : ndarray of int, shape (n,)
    others : ndarray of int, shape (n,)
        The other group of each image; −1 where it is unknown, which connects no images.

    Returns
    -------
    ndarray of int, shape (n,)
        Group of each image, numbered from 0 in order of first appearance. Images are in one group
        if a chain of images with a common group, or a common other group, connects them.
    """
    joined = np.arange(len(groups))
    for numbers, images in ((groups, joined), (others, np.flatnonzero(others != UNKNOWN))):
        _, first, inverse = np.unique(numbers[images], return_index=True, return_inverse=True)
        joined = _connect(joined, np.stack([images, images[first[inverse]]]))
    return joined


def large_group_warnings(groups: np.ndarray, images: list[Image], classes: list[str]) -> list[str]:
    """Describe each group that holds more than a tenth of a class: its images may only look alike.

    Parameters
    ----------
    groups : ndarray of int, shape (n,)
    images : list of Image, length n
    classes : list of str

    Returns
    -------
    list of str
        A line for each class and large group.
    """
    lines = []
    for name in classes:
        rows = np.array([row for row, image in enumerate(images) if image["class"] == name])
        for group, count in zip(*np.unique(groups[rows], return_counts=True), strict=True):
            if count <= max(1, LARGE * len(rows)):
                continue
            first, second = (images[row]["path"] for row in rows[groups[rows] == group][:2])
            lines.append(
                f"warning: {count} of {len(rows)} images of class {name!r} are one group of near"
                f" duplicates, such as {first!r} and {second!r}; if they are not, lower"
                " split.near_duplicate_bits"
            )
    return lines


def joined_patients_warnings(groups: np.ndarray, patients: np.ndarray) -> list[str]:
    """Describe the largest group that near duplicates make of patients, if it is large.

    Parameters
    ----------
    groups : ndarray of int, shape (n,)
        Of near duplicates and patients.
    patients : ndarray of int, shape (n,)
        −1 where they are unknown.

    Returns
    -------
    list of str
        A line if a tenth of the patients, and more than two, are one group.
    """
    pairs = np.unique(np.stack([groups, patients])[:, patients != UNKNOWN], axis=1)
    joined = np.bincount(pairs[0]).max(initial=0)
    count = pairs.shape[1]
    if joined <= max(2, LARGE * count):
        return []
    return [
        f"warning: {joined} of {count} patients are one group, since near duplicates connect them;"
        " if their images only look alike, lower split.near_duplicate_bits"
    ]


def _connect(groups: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Join the groups of pairs of images; numbers stay in order of first appearance."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    firsts, seconds = groups[pairs]
    graph = coo_matrix((np.ones(len(firsts), bool), (firsts, seconds)), (len(groups), len(groups)))
    return connected_components(graph, directed=False)[1][groups]
