"""Writes the RAD's HDF5 files, so that equal images give equal files and a change in a few changes few files.

Images are in the order of their paths. They are cut into shards where a path's hash is the smallest among its neighbours, so
that a cut depends on the names near it and on nothing else: images added or removed change the shards that they fall into.
(The method is that of content-defined chunking: A. Muthitacharoen, B. Chen, D. Mazières, "A low-bandwidth network file
system", SOSP 2001, with the local minima of N. Bjørner, A. Blass, Y. Gurevich, "Content-dependent chunking for differential
compression, the local maximum approach", Journal of Computer and System Sciences 76, 2010.)
"""

import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from stages.shared.files import write_bytes
from stages.shared.rad import USER_BLOCK, sealed

MOST_SHARDS = 700
GZIP_LEVEL = 4


def cuts(paths: Sequence[str]) -> list[int]:
    """Where shards begin: the first path, and each whose hash is the smallest of the w paths before and after it.

    Parameters
    ----------
    paths : sequence of str
        In order.

    Returns
    -------
    list of int
        Indices, rising. Two lie more than w apart, 2w + 1 in the mean; w is 3, or the next of 7, 15, 31, … that gives no more
        than `MOST_SHARDS` shards in the mean.
    """
    w = 3
    while len(paths) > MOST_SHARDS * (2 * w + 1):
        w = 2 * w + 1
    digests = b"".join(hashlib.blake2b(os.fsencode(path), digest_size=8).digest() for path in paths)
    hashes = np.frombuffer(digests, np.uint64)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(hashes, w, constant_values=2**64 - 1), 2 * w + 1)
    return sorted({0, *np.flatnonzero(around.min(axis=1) == hashes).tolist()})


def pack(images: np.ndarray, compression: str) -> bytes:
    """The content of a shard.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, height, width, 1)
    compression : "none" or "gzip"
        With gzip, each image is a chunk.

    Returns
    -------
    bytes
        An HDF5 file with a data set `images`.
    """
    options = {"chunks": (1, *images.shape[1:]), "compression": "gzip", "compression_opts": GZIP_LEVEL}
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.create_dataset("images", data=images, **(options if compression == "gzip" else {}))
    return content.getvalue()


def write_rad(
    path: Path, shards_from: Path, names: list[str], sizes: list[int], labels: list[int], size: int, classes: int
) -> None:
    """Write the door, and put the shards beside it; other shards are removed. At any moment the store is whole.

    Parameters
    ----------
    path : Path
        Of the door.
    shards_from : Path
        The folder where the shards lie. They are linked from there, or copied where that can't be done.
    names : list of str
        Of the shards, in the order of their rows; a shard may stand there more than once.
    sizes : list of int
        How many images each holds.
    labels : list of int
        Of all images.
    size : int
        Height and width of the images, pixels.
    classes : int
        Number of classes: up to 256 give uint8 labels, more uint16.
    """
    folder = path.parent / "shards"
    folder.mkdir(parents=True, exist_ok=True)
    current = {f"{name}.h5" for name in names}
    for name in current:
        _put(shards_from / name, folder / name)
    content = io.BytesIO()
    with h5py.File(content, "w", userblock_size=USER_BLOCK) as file:
        _virtual_dataset(file, names, sizes, (size, size, 1))
        file.create_dataset("labels", data=np.array(labels, np.uint8 if classes <= 256 else np.uint16))
        file.create_dataset("shards", data=np.array(names, "S32"))
        file.create_dataset("shard_sizes", data=np.array(sizes, np.uint32))
    write_bytes(path, sealed(content.getvalue()))
    for file in folder.iterdir():
        if file.name not in current:
            file.unlink()


def _put(source: Path, target: Path) -> None:
    if target.exists() and target.samefile(source):
        return
    temporary = Path(tempfile.mktemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        try:
            os.link(source, temporary)
        except OSError:  # another file system, or one without links
            shutil.copy2(source, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _virtual_dataset(file: h5py.File, names: list[str], sizes: list[int], shape: tuple[int, int, int]) -> None:
    """Create `images`. h5py's own way to do so writes the time into the file."""
    space = h5py.h5s.create_simple((sum(sizes), *shape))
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_obj_track_times(False)
    start = 0
    for name, rows in zip(names, sizes, strict=True):
        space.select_hyperslab((start, 0, 0, 0), (rows, *shape))
        creation.set_virtual(space, f"shards/{name}.h5".encode(), b"images", h5py.h5s.create_simple((rows, *shape)))
        start += rows
    space.select_all()
    h5py.h5d.create(file.id, b"images", h5py.h5t.NATIVE_UINT8, space, creation)
