"""Near duplicates: images of which a perceptual hash differs in few bits."""

import math
from functools import reduce

import numpy as np

# Of a block of distances; its words fit into the cache of a core
BLOCK_ROWS = 16
BLOCK_COLUMNS = 8192


def nearest_duplicates(
    hashes: np.ndarray, others: np.ndarray, bits: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest of other images for each image, if it is a near duplicate.

    Parameters
    ----------
    hashes : ndarray of uint8, shape (n, bytes) or (n, hashes, bytes)
        Perceptual hashes of the images, of a multiple of 8 bytes.
    others : ndarray of uint8, shape (m, bytes) or (m, hashes, bytes)
        Perceptual hashes of the other images.
    bits : int or None
        Largest Hamming distance of near duplicates, by any of their hashes. With None no image has
        a near duplicate, not even one with equal hashes.

    Returns
    -------
    nearest : ndarray of int, shape (n,)
        Index of the nearest other image, the first of several; −1 if it has no near duplicate.
    distances : ndarray of int, shape (n,)
        Hamming distance to it, in bits; −1 if it has no near duplicate.
    """
    nearest = np.full(len(hashes), -1)
    if bits is None or not len(hashes) or not len(others):
        return nearest, nearest.copy()
    words, other_words = to_words(hashes), to_words(others)
    distances = np.full(len(hashes), bits + 1)
    for rows in blocks(0, len(hashes), BLOCK_ROWS):
        for columns in blocks(0, len(others), BLOCK_COLUMNS):
            block = hamming_distances(words[:, :, rows, None], other_words[:, :, columns])
            column = block.argmin(axis=1)
            distance = block.min(axis=1)
            is_nearer = distance < distances[rows]
            nearest[rows][is_nearer] = columns.start + column[is_nearer]
            distances[rows][is_nearer] = distance[is_nearer]
    distances[nearest < 0] = -1
    return nearest, distances


def near_pairs(words: np.ndarray, rows: slice, bits: int, groups: np.ndarray) -> np.ndarray:
    """Find the pairs of near duplicates of a block of images that are not in one group yet.

    Parameters
    ----------
    words : ndarray of uint64, shape (hashes, words, n)
        See `to_words`. The more informative the first word, the faster the search.
    rows : slice
        The block. It is compared with all images from its first on.
    bits : int
        Largest Hamming distance of near duplicates, by any of their hashes.
    groups : ndarray of int, shape (n,)
        Group of each image so far.

    Returns
    -------
    ndarray of int, shape (2, pairs)
        Indices of the images.
    """
    pairs = [np.empty((2, 0), int)]
    for columns in blocks(rows.start, len(groups), BLOCK_COLUMNS):
        if _is_one_group(groups[rows], groups[columns]):
            continue
        # The distances are no smaller; few candidates remain
        bounds = hamming_distances(words[:, :1, rows, None], words[:, :1, columns])
        first, second = np.divmod(np.flatnonzero(bounds <= bits), bounds.shape[1])
        candidates = np.stack([first + rows.start, second + columns.start])
        candidates = candidates[:, np.not_equal(*groups[candidates])]
        distances = hamming_distances(*(words.take(images, axis=2) for images in candidates))
        pairs.append(candidates[:, distances <= bits])
    return np.concatenate(pairs, axis=1)


def hamming_distances(words: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Compute Hamming distances of images, each by the hash in which they differ least.

    Parameters
    ----------
    words, others : ndarray of uint64, shape (hashes, words, ...)
        Hashes; the shapes after these axes are broadcast.

    Returns
    -------
    ndarray of int
        Bits, in the broadcast shape.
    """
    distances = []
    for words_of_hash, others_of_hash in zip(words, others, strict=True):
        pairs_of_words = zip(words_of_hash, others_of_hash, strict=True)
        distances.append(sum(_differing_bits(*pair) for pair in pairs_of_words))
    return reduce(np.minimum, distances)


def to_words(hashes: np.ndarray) -> np.ndarray:
    """Convert hashes, shape (n, bytes) or (n, hashes, bytes), to uint64 (hashes, words, n)."""
    words = np.ascontiguousarray(hashes).view(np.uint64)
    words = words.reshape(len(hashes), math.prod(hashes.shape[1:-1]), -1)
    return np.ascontiguousarray(np.moveaxis(words, 0, 2))


def sort_bits(hashes: np.ndarray) -> np.ndarray:
    """Sort the bits of each hash by their variance over images, which changes no distance.

    Parameters
    ----------
    hashes : ndarray of uint8, shape (n, bytes) or (n, hashes, bytes)

    Returns
    -------
    ndarray of uint8, same shape
        The bit of largest variance is the first.
    """
    bits = np.unpackbits(hashes, axis=-1)
    order = np.argsort(np.abs(bits.mean(axis=0) - 0.5), axis=-1)
    return np.packbits(np.take_along_axis(bits, order[None], axis=-1), axis=-1)


def blocks(start: int, stop: int, size: int) -> list[slice]:
    """Split a range of indices into slices of a size; the last may be smaller."""
    return [slice(first, min(first + size, stop)) for first in range(start, stop, size)]


def _differing_bits(words: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.bitwise_count(words ^ others).astype(np.uint16)  # sums of uint8 would overflow


def _is_one_group(*groups: np.ndarray) -> bool:
    """Return whether arrays of groups hold a single one."""
    first = groups[0][0]
    return all(np.all(part == first) for part in groups)
