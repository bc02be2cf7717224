"""Near duplicates: images, or flipped ones, of which a perceptual hash differs in few bits."""

from functools import reduce

import numpy as np

# Of a block of distances; its words fit into the cache of a core
BLOCK_ROWS = 16
BLOCK_COLUMNS = 8192
ROW_BYTES = 2  # of a hash


def nearest_duplicates(
    hashes: np.ndarray, others: np.ndarray, bits: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest of other images for each image, if it is a near duplicate.

    Parameters
    ----------
    hashes : ndarray of uint8, shape (n, 4, 32)
        Of the images; see `groups.decode_hashes`.
    others : ndarray of uint8, shape (m, 4, 32)
        Of the other images.
    bits : int or None
        Largest distance of near duplicates; see `distances`. With None no image has a near
        duplicate, not even one with equal hashes.

    Returns
    -------
    nearest : ndarray of int, shape (n,)
        Index of the nearest other image, the first of several; −1 if it has no near duplicate.
    distances : ndarray of int, shape (n,)
        Distance to it, in bits; −1 if it has no near duplicate.
    """
    nearest = np.full(len(hashes), -1)
    if bits is None or not len(hashes) or not len(others):
        return nearest, nearest.copy()
    oriented, upright = to_words(orient(hashes)), to_words(orient(others))[0]
    smallest = np.full(len(hashes), bits + 1)
    for rows in blocks(0, len(hashes), BLOCK_ROWS):
        for columns in blocks(0, len(others), BLOCK_COLUMNS):
            block = distances(oriented[..., rows, None], upright[..., columns])
            column = block.argmin(axis=1)
            distance = block.min(axis=1)
            is_nearer = distance < smallest[rows]
            nearest[rows][is_nearer] = columns.start + column[is_nearer]
            smallest[rows][is_nearer] = distance[is_nearer]
    smallest[nearest < 0] = -1
    return nearest, smallest


def near_pairs(oriented: np.ndarray, rows: slice, bits: int, groups: np.ndarray) -> np.ndarray:
    """Find the pairs of near duplicates of a block of images that are not in one group yet.

    Parameters
    ----------
    oriented : ndarray of uint64, shape (4, hashes, words, n)
        See `orient` and `to_words`. The more informative the first word, the faster the search.
    rows : slice
        The block. It is compared with all images from its first on.
    bits : int
        Largest distance of near duplicates; see `distances`.
    groups : ndarray of int, shape (n,)
        Group of each image so far.

    Returns
    -------
    ndarray of int, shape (2, pairs)
        Indices of the images.
    """
    pairs = [np.empty((2, 0), int)]
    upright = oriented[0]
    for columns in blocks(rows.start, len(groups), BLOCK_COLUMNS):
        if _is_one_group(groups[rows], groups[columns]):
            continue
        # The distances are no smaller; few candidates remain
        bounds = distances(oriented[:, :, :1, rows, None], upright[:, :1, columns])
        first, second = np.divmod(np.flatnonzero(bounds <= bits), bounds.shape[1])
        candidates = np.stack([first + rows.start, second + columns.start])
        # Not both orders of a pair: of two images with flat parts, it matters which one is flipped
        is_new = (candidates[0] < candidates[1]) & np.not_equal(*groups[candidates])
        candidates = candidates[:, is_new]
        first, second = candidates
        is_near = distances(oriented[..., first], upright[..., second]) <= bits
        pairs.append(candidates[:, is_near])
    return np.concatenate(pairs, axis=1)


def distances(oriented: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Compute distances of images: the Hamming distance of the hash in which they differ least.

    Where an image is flipped, a third is added: a head resembles its own mirror image, so that only
    closer images are taken for copies.

    Parameters
    ----------
    oriented : ndarray of uint64, shape (4, hashes, words, ...)
        Hashes of the images in each orientation; see `orient`.
    others : ndarray of uint64, shape (hashes, words, ...)
        Hashes of other images; the shapes after these axes are broadcast.

    Returns
    -------
    ndarray of int
        Bits, in the broadcast shape.
    """
    upright, *flipped = (_hamming_distances(words, others) for words in oriented)
    nearest_flipped = reduce(np.minimum, flipped)
    return np.minimum(upright, nearest_flipped + (nearest_flipped + 2) // 3)


def orient(hashes: np.ndarray) -> np.ndarray:
    """Return the hashes of images as they are, mirrored, upside down, and turned by 180°.

    Parameters
    ----------
    hashes : ndarray of uint8, shape (n, 2·k, bytes)
        The last k are those of the mirror image.

    Returns
    -------
    ndarray of uint8, shape (4, n, k, bytes)
    """
    upright = np.stack(np.split(hashes, 2, axis=1))
    rows = upright.reshape(*upright.shape[:-1], -1, ROW_BYTES)
    return np.concatenate([upright, rows[..., ::-1, :].reshape(upright.shape)])


def to_words(oriented: np.ndarray) -> np.ndarray:
    """Convert hashes, shape (4, n, hashes, bytes), to uint64 (4, hashes, words, n)."""
    words = np.ascontiguousarray(oriented).view(np.uint64)
    return np.ascontiguousarray(np.moveaxis(words, 1, 3))


def sort_bits(oriented: np.ndarray) -> np.ndarray:
    """Sort the bits of each hash by their variance over images, which changes no distance.

    Parameters
    ----------
    oriented : ndarray of uint8, shape (4, n, hashes, bytes)

    Returns
    -------
    ndarray of uint8, same shape
        The bit of largest variance is the first.
    """
    bits = np.unpackbits(oriented, axis=-1)
    order = np.argsort(np.abs(bits[0].mean(axis=0) - 0.5), axis=-1)
    return np.packbits(np.take_along_axis(bits, order[None, None], axis=-1), axis=-1)


def blocks(start: int, stop: int, size: int) -> list[slice]:
    """Split a range of indices into slices of a size; the last may be smaller."""
    return [slice(first, min(first + size, stop)) for first in range(start, stop, size)]


def _hamming_distances(words: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Compute the distance by each hash; return the smallest."""
    dtype = np.uint8 if words.shape[1] == 1 else np.uint16  # which holds the number of bits
    by_hash = []
    for words_of_hash, others_of_hash in zip(words, others, strict=True):
        pairs_of_words = zip(words_of_hash, others_of_hash, strict=True)
        counts = (np.bitwise_count(word ^ other) for word, other in pairs_of_words)
        by_hash.append(reduce(np.add, (count.astype(dtype, copy=False) for count in counts)))
    return reduce(np.minimum, by_hash)


def _is_one_group(*groups: np.ndarray) -> bool:
    """Return whether arrays of groups hold a single one."""
    first = groups[0][0]
    return all(np.all(part == first) for part in groups)
