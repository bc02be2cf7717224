"""The RAD: the disk store of the images, an HDF5 file, with what is known of each image in a JSON file beside it."""

import os
import threading
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import h5py
import numpy as np

from stages.shared.errors import UserError
from stages.shared.files import read_json

IMAGES = Path("data/rad/image_data.h5")
METADATA = Path("data/rad/metadata.json")
SPLIT = Path("data/split.json")
BATCH = 32
KNOWN = {"path", "class", "sha256", "perceptual_hash"}


def write_rad(path: str | Path, batches: Iterable[tuple[np.ndarray, np.ndarray]], size: int, classes: int) -> None:
    """Write images and labels batch by batch; equal batches give equal bytes.

    Parameters
    ----------
    path : str or Path
        Of the HDF5 file. It appears whole or not at all.
    batches : iterable of (images, labels)
        Images: uint8, shape (n, size, size, 1). Labels: integers, shape (n,).
    size : int
        Height and width of the images, pixels.
    classes : int
        Number of classes: up to 256 give uint8 labels, more uint16.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with h5py.File(temporary, "w") as file:
            images = file.create_dataset(
                "images", (0, size, size, 1), np.uint8, maxshape=(None, size, size, 1), chunks=(1, size, size, 1)
            )
            label_type = np.uint8 if classes <= 256 else np.uint16
            labels = file.create_dataset("labels", (0,), label_type, maxshape=(None,), chunks=(4096,))
            for batch_images, batch_labels in batches:
                start = len(images)
                for dataset, rows in ((images, batch_images), (labels, batch_labels)):
                    dataset.resize(start + len(rows), axis=0)
                    dataset[start:] = rows
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class RadReader:
    """Reads images and labels by index; holds no more in memory than what it returns.

    One reader may be shared by threads, and be handed to other processes, by fork or by pickling: each process opens the
    file for itself. Use it as a context manager, or call `close`.

    Parameters
    ----------
    path : str or Path
        Of the HDF5 file.

    Raises
    ------
    UserError
        If the file is missing, is no HDF5 file, or lacks `images` (uint8, n×h×w×1) or `labels` (n unsigned integers), or if
        their values lie in other files.
    """

    def __init__(self, path: str | Path = IMAGES):
        self.path = Path(path)
        self._lock = threading.Lock()
        self._files: dict[int, h5py.File] = {}
        with self._lock:
            images, labels = self._datasets()
            self.shape: tuple[int, int, int, int] = images.shape
            self.labels: np.ndarray = labels[:].astype(np.int64)

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
        rows, places = np.unique(indices, return_inverse=True)
        batch = np.empty((len(rows), *self.shape[1:]), np.uint8)
        with self._lock:
            dataset, _ = self._datasets()
            for run in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) != 1) + 1):
                if run.size:  # neighbours are read at once
                    dataset.read_direct(batch, np.s_[rows[run[0]] : rows[run[-1]] + 1], np.s_[run[0] : run[-1] + 1])
        return batch[places]

    def close(self) -> None:
        """Close the file; a later read opens it again."""
        with self._lock:
            file = self._files.pop(os.getpid(), None)
            if file:
                file.close()

    def __enter__(self) -> "RadReader":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __getstate__(self) -> dict:
        return {"path": self.path}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state["path"])

    def _datasets(self) -> tuple[h5py.Dataset, h5py.Dataset]:
        file = self._files.get(os.getpid())
        if file is None:
            file = self._files[os.getpid()] = self._open()
        return file["images"], file["labels"]

    def _open(self) -> h5py.File:
        if not self.path.is_file():
            raise UserError(f"{self.path} is missing; run `dvc repro` to make it")
        try:
            file = h5py.File(self.path, "r")
        except OSError as error:
            raise UserError(f"{self.path} is not a whole HDF5 file ({error}); run `dvc repro --force ingest`") from None
        images, labels = (self._own_dataset(file, name) for name in ("images", "labels"))
        fits = (
            images is not None
            and labels is not None
            and (images.dtype, images.ndim, images.shape[3:]) == (np.uint8, 4, (1,))
            and (labels.dtype.kind, labels.shape) == ("u", images.shape[:1])
        )
        if not fits:
            file.close()
            raise UserError(
                f"{self.path} lacks `images` (uint8, n×h×w×1) or `labels` (n integers); run `dvc repro --force ingest`"
            )
        return file

    @staticmethod
    def _own_dataset(file: h5py.File, name: str) -> h5py.Dataset | None:
        """The dataset, if its values lie in this very file: a file from elsewhere must not make others be read."""
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            return None
        dataset = file[name]
        own = isinstance(dataset, h5py.Dataset) and not dataset.is_virtual and not dataset.external
        return dataset if own else None


def read_metadata(path: str | Path = METADATA) -> dict:
    """What is known of the images: `classes` (names), `images` (one mapping for each row), `rejected` (path and reason).

    Raises
    ------
    UserError
        If the file is missing, is no JSON, lacks one of the three, or does not tell all of each image.
    """
    metadata = read_json(path, "classes", "images", "rejected")
    classes, images = metadata["classes"], metadata["images"]
    fits = all(isinstance(part, list) for part in (classes, images, metadata["rejected"]))
    fits = fits and all(isinstance(name, str) for name in classes)
    if not fits or not all(isinstance(image, dict) and image.keys() >= KNOWN and image["class"] in classes for image in images):
        raise UserError(f"{path} does not tell what is known of each image; run `dvc repro --force ingest` to make it again")
    return metadata


def read_split(images: int) -> dict[str, list[int]]:
    """Which images are tested: `test` and `training`, rows of the RAD, and `groups`, each row's group of near duplicates.

    Raises
    ------
    UserError
        If data/split.json is missing, is no JSON, or is not of so many images.
    """
    split = read_json(SPLIT, "test", "training", "groups")
    if not all(_whole(split[key]) for key in ("test", "training", "groups")) or (
        sorted(split["test"] + split["training"]) != list(range(images)) or len(split["groups"]) != images
    ):
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
        If its file is missing, is no JSON, or was not drawn from these rows.
    """
    path = Path(f"data/bootstrap/{member}.json")
    sample = read_json(path, "in_bag", "out_of_bag")
    in_bag, out_of_bag = sample["in_bag"], sample["out_of_bag"]
    fits = _whole(in_bag) and _whole(out_of_bag) and in_bag and out_of_bag and {*in_bag, *out_of_bag} <= {*among}
    if not fits or {*in_bag} & {*out_of_bag}:
        raise UserError(f"{path} was not drawn from these images; run `dvc repro --force bootstrap-sample`")
    return in_bag, out_of_bag


def _whole(numbers: object) -> bool:
    return isinstance(numbers, list) and all(type(number) is int for number in numbers)
