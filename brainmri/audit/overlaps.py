"""Images, and patients, that are on two sides: of classes, of a split, of two collections."""

from typing import NamedTuple

import numpy as np

from brainmri.audit.collection import Collection
from brainmri.sampling.near_duplicates import nearest_duplicates

TRAINING = "training"


class Pair(NamedTuple):
    """An image, its nearest one on the other side, and in how many of 256 bits they differ."""

    row: int
    other: int
    bits: int


def nearest_pairs(hashes: np.ndarray, others: np.ndarray, bits: int) -> list[Pair]:
    """Pair each image that has a near duplicate among others with the nearest; nearest first.

    Parameters
    ----------
    hashes, others, bits : see `nearest_duplicates`
    """
    nearest, distances = nearest_duplicates(hashes, others, bits)
    pairs = [
        Pair(int(row), int(nearest[row]), int(distances[row]))
        for row in np.flatnonzero(nearest >= 0)
    ]
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
    rows, training = np.flatnonzero(~is_training), np.flatnonzero(is_training)
    hashes = collection.hashes
    pairs = nearest_pairs(hashes[rows], hashes[training], collection.bits)
    return [Pair(int(rows[pair.row]), int(training[pair.other]), pair.bits) for pair in pairs]


def pairs_with(collection: Collection, other: Collection) -> list[Pair]:
    """Pair the images that have a near duplicate in another collection; `other` is its row."""
    if not collection.files or not other.files:
        return []
    return nearest_pairs(collection.hashes, other.hashes, collection.bits)


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
