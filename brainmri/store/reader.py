"""Read images and labels from the store.

`data/rad/image_data.h5` is the index file. Its dataset `images` is a virtual dataset over the
shards in `data/rad/shards`, files named by their content; `shards` and `shard_sizes` list them in
the order of their rows. `brainmri.store.writer` writes these files.

Each file is compared with its checksum before the HDF5 library opens it, because the library
crashes on some damaged files. The checksum of the index file is in its user block, that of a shard
is its name.
"""

import resource
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from brainmri.common.errors import UserError
from brainmri.common.paths import STORE_INDEX
from brainmri.store.format import REBUILD, SHARD_NAME, shard_name, with_checksum

MAX_OPEN_FILES = 4096  # the limit that a reader of many shards asks for


class RadReader:
    """Read images by row, from shards that are mapped into memory; labels are in memory.

    Pages of the mapped files count as memory of the process until the system needs the space. A
    reader may be shared by threads, and be passed to other processes by fork or by pickling. It is
    a context manager; otherwise call `close`.

    Parameters
    ----------
    path : str or Path
        The index file. The shards are in the folder `shards` beside it.

    Attributes
    ----------
    shape : tuple of int
        Number of images, height, width, 1.
    labels : ndarray of int64, shape (n,)

    Raises
    ------
    UserError
        If the file is missing, is damaged, or lacks `images` (uint8, n×h×w×1), `labels` (n unsigned
        integers) or a list of shards of n rows in all. `images` raises it for a shard that is
        missing or damaged.
    """

    def __init__(self, path: str | Path = STORE_INDEX):
        self.path = Path(path)
        index = _read_index(self.path)
        self.shape: tuple[int, int, int, int] = index.shape
        self.labels: np.ndarray = index.labels
        self._names = index.names
        self._first_rows = np.cumsum(index.sizes) - index.sizes
        sizes = dict(zip(index.names, index.sizes.tolist(), strict=True))
        self._shards = OpenShards(self.path.parent / "shards", self.shape[1:], sizes)

    def __len__(self) -> int:
        return self.shape[0]

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the images of the given rows, in that order; rows may repeat.

        Returns
        -------
        ndarray of uint8, shape (len(indices), height, width, 1)

        Raises
        ------
        IndexError
            If a row is negative or not in the store.
        """
        indices = np.asarray(indices, np.int64)
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(
                f"{self.path} has rows 0 to {len(self) - 1};"
                f" asked for rows {indices.min()} to {indices.max()}"
            )
        shard_indices = np.searchsorted(self._first_rows, indices, "right") - 1
        rows = indices - self._first_rows[shard_indices]
        batch = np.empty((len(indices), *self.shape[1:]), np.uint8)
        names, shards = self._names, self._shards  # local, which the loop reads faster
        locations = zip(shard_indices.tolist(), rows.tolist(), strict=True)
        for position, (shard_index, row) in enumerate(locations):
            batch[position] = shards[names[shard_index]][row]
        return batch

    def close(self) -> None:
        """Close the shards; a later read opens them again."""
        self._shards.clear()

    def __enter__(self) -> "RadReader":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __getstate__(self) -> dict:
        return {"path": self.path}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state["path"])


class OpenShards(dict):
    """Shards by name, opened at the first access and indexed by row.

    It raises the process's limit of open files if there are too many shards for it.

    Parameters
    ----------
    folder : Path
        Folder of the shards.
    shape : tuple of int
        Height, width, 1 of an image.
    sizes : dict of str to int
        Number of images in each shard, by name.
    """

    def __init__(self, folder: Path, shape: tuple[int, int, int], sizes: dict[str, int]):
        super().__init__()
        self._folder = folder
        self._shape = shape
        self._sizes = sizes
        self._max_open = _max_open_shards(len(sizes))

    def __missing__(self, name: str) -> "np.ndarray | CompressedShard":
        if len(self) >= self._max_open:
            self.clear()
        shape = (self._sizes[name], *self._shape)
        self[name] = shard = open_shard(self._folder / f"{name}.h5", shape)
        return shard


class CompressedShard:
    """A shard whose images are compressed one by one; each access decompresses an image.

    Parameters
    ----------
    path : Path
        The file.
    locations : list of (offset, size)
        Of each image in the file, in bytes.
    shape : tuple of int
        Height, width, 1 of an image.
    """

    def __init__(self, path: Path, locations: list[tuple[int, int]], shape: tuple[int, ...]):
        self._path = path
        self._locations = locations
        self._shape = shape
        self._content = np.memmap(path, np.uint8, "r")

    def __getitem__(self, row: int) -> np.ndarray:
        offset, size = self._locations[row]
        expected = int(np.prod(self._shape))
        with _reported_damage(self._path):
            compressed = self._content[offset : offset + size]
            pixels = zlib.decompressobj().decompress(compressed, expected)
            if len(pixels) != expected:
                raise ValueError(f"{len(pixels)} bytes in an image of {expected}")
        return np.frombuffer(pixels, np.uint8).reshape(self._shape)


def open_shard(path: Path, shape: tuple[int, int, int, int]) -> np.ndarray | CompressedShard:
    """Open a shard; the whole file is read once, to check its content.

    Parameters
    ----------
    path : Path
        An HDF5 file with a dataset `images`, named by its content.
    shape : tuple of int
        Expected shape: n, height, width, 1.

    Returns
    -------
    ndarray or CompressedShard
        Indexed by row; uint8, read from the file on access.

    Raises
    ------
    UserError
        If the file is missing, is damaged, or holds something else.
    """
    with _reported_damage(path):
        if shard_name(path.read_bytes()) != path.stem:
            raise ValueError("its content does not fit its name, a checksum")
        with h5py.File(path, "r") as file:
            dataset = own_dataset(file, "images")
            if dataset is None or (dataset.dtype, dataset.shape) != (np.uint8, shape):
                raise ValueError("no `images` of that shape")
            offset = dataset.id.get_offset()
            locations = _chunk_locations(dataset)
        if locations:
            return CompressedShard(path, locations, shape[1:])
        if offset is None:
            raise ValueError("its values are neither contiguous nor compressed one by one")
        return np.memmap(path, np.uint8, "r", offset, shape).view(np.ndarray)


def own_dataset(file: h5py.File, name: str, virtual: bool = False) -> h5py.Dataset | None:
    """Return a dataset if its values are in this very file, so that no other file is read.

    Parameters
    ----------
    file : h5py.File
    name : str
    virtual : bool
        Whether to accept a virtual dataset. The caller must not read its values.

    Returns
    -------
    h5py.Dataset or None
        None if the name is missing, a link, not a dataset, or stored elsewhere.
    """
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        return None
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        return None
    if dataset.is_virtual and not virtual:
        return None
    return None if dataset.external else dataset


class _Index(NamedTuple):
    """Content of an index file; names and sizes are those of the shards."""

    shape: tuple[int, int, int, int]
    labels: np.ndarray
    names: list[str]
    sizes: np.ndarray


def _read_index(path: Path) -> _Index:
    with _reported_damage(path):
        content = path.read_bytes()
        if content != with_checksum(content):
            raise ValueError("its content does not fit its checksum")
    with _reported_damage(path), h5py.File(path, "r") as file:
        images = own_dataset(file, "images", virtual=True)
        labels = own_dataset(file, "labels")
        names = own_dataset(file, "shards")
        sizes = own_dataset(file, "shard_sizes")
        if not _has_index_layout(images, labels, names, sizes):
            raise UserError(
                f"{path} lacks `images` (uint8, n×h×w×1), `labels` or `shards`; {REBUILD}"
            )
        shape = images.shape
        labels = labels[:].astype(np.int64)
        names = names[:].tolist()
        sizes = sizes[:].astype(np.int64)
    are_valid_names = all(map(SHARD_NAME.fullmatch, names))
    if not are_valid_names or sizes.sum() != shape[0] or not (sizes > 0).all():
        raise UserError(f"{path} lists shards that can't be its own; {REBUILD}")
    return _Index(shape, labels, [name.decode() for name in names], sizes)


def _has_index_layout(
    images: h5py.Dataset | None,
    labels: h5py.Dataset | None,
    names: h5py.Dataset | None,
    sizes: h5py.Dataset | None,
) -> bool:
    if images is None or labels is None or names is None or sizes is None:
        return False
    return (
        (images.dtype, images.ndim, images.shape[3:]) == (np.uint8, 4, (1,))
        and (labels.dtype.kind, labels.shape) == ("u", images.shape[:1])
        and (names.dtype, names.ndim) == (np.dtype("S32"), 1)
        and (sizes.dtype.kind, sizes.shape) == ("u", names.shape)
    )


def _chunk_locations(dataset: h5py.Dataset) -> list[tuple[int, int]]:
    """Locate the images that are compressed one by one, without other filters; [] if they are not.

    Returns
    -------
    list of (offset, size)
        In the file, in bytes.
    """
    filters = (dataset.compression, dataset.shuffle, dataset.fletcher32)
    if filters != ("gzip", False, False) or dataset.chunks != (1, *dataset.shape[1:]):
        return []
    chunks = [dataset.id.get_chunk_info_by_coord((row, 0, 0, 0)) for row in range(len(dataset))]
    return [(chunk.byte_offset, chunk.size) for chunk in chunks]


def _max_open_shards(shards: int) -> int:
    """Compute how many shards may be open; raise the limit of open files if it is too low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if shards > soft // 2:
        soft = min(hard, max(soft, MAX_OPEN_FILES))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft // 2


@contextmanager
def _reported_damage(path: Path) -> Iterator[None]:
    """Turn whatever reading a missing or damaged file raises into a `UserError`."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {REBUILD}") from None
    except (
        OSError,
        RuntimeError,
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
        MemoryError,
        zlib.error,
    ) as error:
        raise UserError(f"{path} is damaged ({error}); {REBUILD}") from None
