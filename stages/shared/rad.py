"""The RAD: the disk store of the images, HDF5 files, with what is known of each image in a JSON file beside them.

`data/rad/image_data.h5` is the door: `images` is a virtual data set over the shards in `data/rad/shards`, each named by its
content. `shards` and `shard_sizes` list them in the order of the rows. Writing is in `shards.py`.

Each file is compared with its checksum before the HDF5 library sees it, which crashes on some damaged files: the door's stands
in its user block, a shard's is its name.
"""

import hashlib
import re
import resource
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import h5py
import numpy as np
from pydantic import Field
from typing_extensions import TypedDict

from stages.shared.errors import UserError
from stages.shared.files import read_json

IMAGES = Path("data/rad/image_data.h5")
METADATA = Path("data/rad/metadata.json")
SPLIT = Path("data/split.json")
SHARD_NAME = re.compile(rb"[0-9a-f]{32}")
USER_BLOCK = 512  # bytes before the HDF5 content of the door, the least that HDF5 allows
MOST_FILES = 4096  # that a process wants to be allowed to have open
AGAIN = "run `dvc repro --force ingest` to make it again"
Rows = list[Annotated[int, Field(ge=0)]]
Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Image = TypedDict(  # see `images.Picture`
    "Image",
    {
        "path": str,
        "class": str,
        "sha256": Hash,
        "perceptual_hash": Hash,
        "whole_hash": Hash,
        "width": int,
        "height": int,
        "mode": str,
        "levels": Annotated[list[float], Field(min_length=2, max_length=2)],
    },
)


class Metadata(TypedDict):
    """What data/rad/metadata.json tells: the classes' names, one `Image` for each row, and path and reason of files left out."""

    classes: Annotated[list[str], Field(min_length=2)]
    images: Annotated[list[Image], Field(min_length=2)]
    rejected: list[dict]  # whose paths need not be UTF-8


class Split(TypedDict):
    """What data/split.json tells: rows of the RAD, and each row's group of near duplicates."""

    test: Rows
    training: Rows
    groups: Rows


class Sample(TypedDict):
    """What a member's file in data/bootstrap tells: rows of the RAD."""

    in_bag: Annotated[Rows, Field(min_length=1)]
    out_of_bag: Annotated[Rows, Field(min_length=1)]


class RadReader:
    """Reads images and labels by index, from shards that are mapped into memory.

    It holds nothing but what it returns; the pages of the files that it has read count as the process's memory for as long as
    the system has no other use for them. One reader may be shared by threads, and be handed to other processes, by fork or by
    pickling. Use it as a context manager, or call `close`.

    Parameters
    ----------
    path : str or Path
        Of the door; the shards are looked for in the folder `shards` beside it.

    Raises
    ------
    UserError
        If the file is missing, is damaged, or lacks `images` (uint8, n×h×w×1), `labels` (n unsigned integers) or a list
        of shards that hold n rows in all. `images` raises it for a shard that is missing or damaged.
    """

    def __init__(self, path: str | Path = IMAGES):
        self.path = Path(path)
        with _whole_file(self.path):
            content = self.path.read_bytes()
            if content != sealed(content):
                raise ValueError("its content does not fit its checksum")
        with _whole_file(self.path), h5py.File(self.path, "r") as file:
            images = own_dataset(file, "images", virtual=True)
            labels, names, sizes = (own_dataset(file, name) for name in ("labels", "shards", "shard_sizes"))
            fits = images is not None and (images.dtype, images.ndim, images.shape[3:]) == (np.uint8, 4, (1,))
            fits = fits and labels is not None and (labels.dtype.kind, labels.shape) == ("u", images.shape[:1])
            fits = fits and names is not None and (names.dtype, names.ndim) == (np.dtype("S32"), 1)
            fits = fits and sizes is not None and (sizes.dtype.kind, sizes.shape) == ("u", names.shape)
            if not fits:
                raise UserError(f"{self.path} lacks `images` (uint8, n×h×w×1), `labels` or `shards`; {AGAIN}")
            self.shape: tuple[int, int, int, int] = images.shape
            self.labels: np.ndarray = labels[:].astype(np.int64)
            names, sizes = names[:].tolist(), sizes[:].astype(np.int64)
        if not all(map(SHARD_NAME.fullmatch, names)) or sizes.sum() != len(self) or not (sizes > 0).all():
            raise UserError(f"{self.path} lists shards that can't be its own; {AGAIN}")
        self._names = [name.decode() for name in names]
        self._starts = np.cumsum(sizes) - sizes
        self._open = OpenShards(self.path.parent / "shards", self.shape[1:], dict(zip(self._names, sizes.tolist(), strict=True)))

    def __len__(self) -> int:
        return self.shape[0]

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The images at the given rows, in that order; rows may repeat.

        Returns
        -------
        ndarray of uint8, shape (len(indices), height, width, 1)

        Raises
        ------
        IndexError
            If a row is below 0 or not in the store.
        """
        indices = np.asarray(indices, np.int64)
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(f"rows 0 to {len(self) - 1} are in {self.path}; asked for {indices.min()} to {indices.max()}")
        shards = np.searchsorted(self._starts, indices, "right") - 1
        rows = indices - self._starts[shards]
        batch = np.empty((len(indices), *self.shape[1:]), np.uint8)
        names, opened = self._names, self._open
        for place, (shard, row) in enumerate(zip(shards.tolist(), rows.tolist(), strict=True)):
            batch[place] = opened[names[shard]][row]
        return batch

    def close(self) -> None:
        """Close the shards; a later read opens them again."""
        self._open.clear()

    def __enter__(self) -> "RadReader":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __getstate__(self) -> dict:
        return {"path": self.path}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state["path"])


class OpenShards(dict):
    """Shards by name, opened when they are first asked for; a shard's rows are asked for by index.

    Parameters
    ----------
    folder : Path
        Where they lie.
    shape : tuple of int
        Of an image: height, width, 1.
    sizes : dict
        How many images each shard holds.
    """

    def __init__(self, folder: Path, shape: tuple[int, int, int], sizes: dict[str, int]):
        super().__init__()
        self._folder, self._shape, self._sizes = folder, shape, sizes
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if len(sizes) > soft // 2:
            soft = min(hard, max(soft, MOST_FILES))
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self._most = soft // 2

    def __missing__(self, name: str) -> "np.ndarray | CompressedShard":
        if len(self) >= self._most:
            self.clear()
        self[name] = shard = open_shard(self._folder / f"{name}.h5", (self._sizes[name], *self._shape))
        return shard


class CompressedShard:
    """A shard whose images are compressed by themselves; what it gives for a row is unpacked anew.

    Parameters
    ----------
    path : Path
        Of the file.
    places : list of (offset, size)
        Of each image in the file, bytes.
    shape : tuple of int
        Of an image.
    """

    def __init__(self, path: Path, places: list[tuple[int, int]], shape: tuple[int, ...]):
        self._path, self._places, self._shape = path, places, shape
        self._content = np.memmap(path, np.uint8, "r")

    def __getitem__(self, row: int) -> np.ndarray:
        offset, size = self._places[row]
        expected = int(np.prod(self._shape))
        with _whole_file(self._path):
            unpacked = zlib.decompressobj().decompress(self._content[offset : offset + size], expected)
            if len(unpacked) != expected:
                raise ValueError(f"{len(unpacked)} bytes in an image of {expected}")
        return np.frombuffer(unpacked, np.uint8).reshape(self._shape)


def open_shard(path: Path, shape: tuple[int, int, int, int]) -> np.ndarray | CompressedShard:
    """Open a shard.

    Parameters
    ----------
    path : Path
        An HDF5 file with a data set `images`, named by its content; all of it is read once.
    shape : tuple of int
        That it must have: n, height, width, 1.

    Returns
    -------
    ndarray or CompressedShard
        To be asked for rows; uint8, read from the file as they are used.

    Raises
    ------
    UserError
        If the file is missing, damaged, or holds something else.
    """
    with _whole_file(path):
        if shard_name(path.read_bytes()) != path.stem:
            raise ValueError("its content is not what its name tells")
        with h5py.File(path, "r") as file:
            dataset = own_dataset(file, "images")
            if dataset is None or (dataset.dtype, dataset.shape) != (np.uint8, shape):
                raise ValueError("no `images` of that shape")
            offset, compressed, places = dataset.id.get_offset(), dataset.compression == "gzip", []
            if compressed and (dataset.chunks, dataset.shuffle, dataset.fletcher32) == ((1, *shape[1:]), False, False):
                chunks = (dataset.id.get_chunk_info_by_coord((row, 0, 0, 0)) for row in range(len(dataset)))
                places = [(chunk.byte_offset, chunk.size) for chunk in chunks]
        if places:
            return CompressedShard(path, places, shape[1:])
        if offset is None:
            raise ValueError("its values are stored in another way")
        return np.memmap(path, np.uint8, "r", offset, shape).view(np.ndarray)


def shard_name(content: bytes) -> str:
    """A shard's name: the first half of its SHA-256, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()[:32]


def sealed(content: bytes) -> bytes:
    """The content of a door with its checksum, the SHA-256 of all after the user block, in hexadecimal."""
    after = content[USER_BLOCK:]
    return hashlib.sha256(after).hexdigest().encode().ljust(USER_BLOCK, b"\0") + after


@contextmanager
def _whole_file(path: Path) -> Iterator[None]:
    """What reading a missing or damaged file raises becomes a `UserError`."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {AGAIN}") from None
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, OverflowError, MemoryError, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error}); {AGAIN}") from None


def own_dataset(file: h5py.File, name: str, virtual: bool = False) -> h5py.Dataset | None:
    """The dataset, if its values lie in this very file: a file from elsewhere must not make others be read.

    Parameters
    ----------
    virtual : bool
        Whether a virtual data set will do, of which no value is read.
    """
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        return None
    dataset = file[name]
    own = isinstance(dataset, h5py.Dataset) and dataset.is_virtual <= virtual and not dataset.external
    return dataset if own else None


def read_metadata() -> Metadata:
    """What is known of the images.

    Raises
    ------
    UserError
        If the file is missing, is damaged, has a path that leads out of the source, or a class that is not in its list.
    """
    metadata = read_json(METADATA, Metadata)
    paths = [image["path"] for image in metadata["images"]]
    if outside := [path for path in paths if path.startswith("/") or ".." in path.split("/")]:
        raise UserError(f"{METADATA} has a path that leads out of data.source: {outside[0]!r}; {AGAIN}")
    if strange := {image["class"] for image in metadata["images"]} - {*metadata["classes"]}:
        raise UserError(f"{METADATA} does not list the class {min(strange)!r}; {AGAIN}")
    return metadata


def read_split(images: int) -> Split:
    """Which images are tested.

    Raises
    ------
    UserError
        If data/split.json is missing, is damaged, or is not of so many images.
    """
    split = read_json(SPLIT, Split)
    if sorted(split["test"] + split["training"]) != list(range(images)) or len(split["groups"]) != images:
        raise UserError(f"{SPLIT} is not a split of the {images} images of the RAD; run `dvc repro --force split`")
    return split


def read_sample(member: str, among: Collection[int]) -> tuple[list[int], list[int]]:
    """A member's in-bag and out-of-bag images, rows of the RAD.

    Parameters
    ----------
    member : str
        Its name.
    among : collection of int
        The rows that may have been drawn.

    Raises
    ------
    UserError
        If its file is missing, is damaged, or was not drawn from these rows.
    """
    path = Path(f"data/bootstrap/{member}.json")
    sample = read_json(path, Sample)
    in_bag, out_of_bag = sample["in_bag"], sample["out_of_bag"]
    if not {*in_bag, *out_of_bag} <= {*among} or {*in_bag} & {*out_of_bag}:
        raise UserError(f"{path} was not drawn from these images; run `dvc repro --force bootstrap-sample`")
    return in_bag, out_of_bag
