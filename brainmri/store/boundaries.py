"""Where one shard of the store ends and the next begins.

A shard begins at a path whose hash is the smallest among its neighbors. A boundary depends on the
paths near it and on nothing else, so that images added or removed change only the shards that they
fall into.

References
----------
A. Muthitacharoen, B. Chen, D. Mazières, "A low-bandwidth network file system", SOSP 2001
(content-defined chunking).

N. Bjørner, A. Blass, Y. Gurevich, "Content-dependent chunking for differential compression, the
local maximum approach", Journal of Computer and System Sciences 76, 2010.
"""

import hashlib
import os
from collections.abc import Sequence

import numpy as np

MAX_SHARDS = 700  # in the mean
MIN_WINDOW = 3
MAX_HASH = 2**64 - 1


def shard_boundaries(paths: Sequence[str]) -> list[int]:
    """Find the paths at which shards begin.

    These are the first path, and each whose hash is the smallest of the w paths before it and the
    w paths after it.

    Parameters
    ----------
    paths : sequence of str
        Sorted.

    Returns
    -------
    list of int
        Rising indices. Two of them, but for the first, are more than w apart, 2w + 1 in the mean.
        w is 3, or the next of 7, 15, 31, … that gives no more than `MAX_SHARDS` shards in the mean.
    """
    window = MIN_WINDOW
    while len(paths) > MAX_SHARDS * (2 * window + 1):
        window = 2 * window + 1
    digests = [hashlib.blake2b(os.fsencode(path), digest_size=8).digest() for path in paths]
    hashes = np.frombuffer(b"".join(digests), np.uint64)
    padded = np.pad(hashes, window, constant_values=MAX_HASH)
    neighbors = np.lib.stride_tricks.sliding_window_view(padded, 2 * window + 1)
    minima = np.flatnonzero(neighbors.min(axis=1) == hashes)
    return sorted({0, *minima.tolist()})
