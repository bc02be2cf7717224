"""Images, and patients, that are on two sides: of classes, of a split, of two collections."""

from typing import NamedTuple

import numpy as np

from brainmri.audit.collection import Collection, group_rows
from brainmri.sampling.groups import near_duplicate_groups

TRAINING = "training"


class Pair(NamedTuple):
    """An image, its nearest one on the other side, and in how many of 256 bits they differ."""

    row: int
    other: int
    bits: int


def nearest_pairs(
    hashes: np.ndarray, groups: np.ndarray, is_other: np.ndarray, bits: int
) -> list[Pair]:
    """Pair each image that has near duplicates on the other side with the nearest of them.

    Parameters
    ----------
    hashes : ndarray of uint8, shape (n, hashes, bytes)
    groups : ndarray of int, shape (n,)
        Of near duplicates: no others need be compared.
    is_other : ndarray of bool, shape (n,)
        Whether an image is on the other side.
    bits : int
        Largest distance of near duplicates.

    Returns
    -------
    list of Pair
        The nearest first; `other` is on the other side.
    """
    pairs = []
    words = np.ascontiguousarray(hashes).view(np.uint64)
    for rows in map(np.array, group_rows(groups.tolist())):
        others = rows[is_other[rows]]
        if not len(others):
            continue
        for row in rows[~is_other[rows]]:
            different = np.bitwise_count(words[row] ^ words[others]).sum(axis=2, dtype=int)
            distances = different.min(axis=1)  # by the nearer of the hashes
            nearest = distances.argmin()
            if distances[nearest] <= bits:
                pairs.append(Pair(int(row), int(others[nearest]), int(distances[nearest])))
    return sorted(pairs, key=lambda pair: (pair.bits, pair.row))


def groups_across_classes(collection: Collection) -> list[list[int]]:
    """Return the groups of near duplicates that are of several classes, the largest first."""
    labels = collection.labels
    return [rows for rows in collection.near_duplicates if len({labels[row] for row in rows}) > 1]


def pairs_across_split(collection: Collection) -> list[Pair]:
    """Pair the images outside the training part that have a near duplicate in it."""
    is_training = np.array([split == TRAINING for split in collection.splits])
    if is_training.all() or not is_training.any():
        return []
    return nearest_pairs(collection.hashes, collection.groups, is_training, collection.bits)


def pairs_with(collection: Collection, other: Collection) -> list[Pair]:
    """Pair the images that have a near duplicate in another collection; `other` is its row."""
    if not collection.files or not other.files:
        return []
    hashes = np.concatenate([collection.hashes, other.hashes])
    groups = near_duplicate_groups(hashes, collection.bits)
    start = len(collection.files)
    pairs = nearest_pairs(hashes, groups, np.arange(len(hashes)) >= start, collection.bits)
    return [pair._replace(other=pair.other - start) for pair in pairs]


def patients_across(collection: Collection, values: list) -> list[list[int]]:
    """Return the rows of each patient whose images have several values, by patient.

    Parameters
    ----------
    collection : Collection
    values : list, length n
        The class, or the part of the split, of each image.
    """
    rows_of: dict[int, list[int]] = {}
    for row, patient in enumerate(collection.patients):
        rows_of.setdefault(patient, []).append(row)
    return [rows for rows in rows_of.values() if len({values[row] for row in rows}) > 1]
