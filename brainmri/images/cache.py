"""The decode cache: images decoded by the last run of `ingest`, which the next need not decode.

Its folder holds the shards of the last run, hard-linked to those of the store, and an index. It is
neither output nor input of the pipeline: without it, `ingest` writes the same files. It is valid
while the code, the packages and the parameters that decode are the same. A file counts as unchanged
while its inode, its size, and its times of modification and of the inode's change are the same.
"""

import hashlib
import importlib.metadata
import json
import os
import tempfile
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import PIL

from brainmri.common.files import to_json, write_bytes
from brainmri.common.params import Ingest
from brainmri.common.paths import DECODE_CACHE
from brainmri.images import cropping, decoding, dicom, files, hashing, intensity, levels, limits
from brainmri.images.decoding import DecodedImage
from brainmri.store import writer
from brainmri.store.format import SHARD_NAME, shard_name
from brainmri.store.reader import OpenShards
from brainmri.store.writer import encode_shard

DECODING_MODULES = (limits, files, levels, dicom, decoding, intensity, cropping, hashing, writer)
# A file changed so recently may change again within the resolution of the clock
RECENT_NS = 100_000_000


class ImageRecord(NamedTuple):
    """Metadata of an image file, and the hash of its pixels.

    Attributes
    ----------
    sha256, perceptual_hashes, width, height, mode, levels, patient, study
        See `DecodedImage`.
    pixels : str
        BLAKE2b hash of the decoded pixels, hexadecimal.
    """

    sha256: str
    perceptual_hashes: tuple[str, str, str, str]
    width: int
    height: int
    mode: str
    levels: tuple[float, float]
    patient: str | None
    study: str | None
    pixels: str

    @property
    def metadata(self) -> dict:
        """The image's entry in the metadata of the store, without path and class."""
        excluded = ("patient", "study", "pixels")
        return {key: value for key, value in self._asdict().items() if key not in excluded}


def file_identity(path: str | Path) -> str | None:
    """Identify a file by inode, size, and times of modification and of change of the inode.

    Archives are unpacked with times of modification of their own, into inodes of deleted files.

    Returns
    -------
    str or None
        None if the file is missing, or was changed just now.
    """
    try:
        status = os.stat(path)  # a Path for each of many files takes longer than the call
    except OSError:
        return None
    age_ns = time.time_ns() - status.st_ctime_ns
    return None if age_ns < RECENT_NS else f"{_identity(status)}-{status.st_ctime_ns}"


class DecodeCache:
    """Images decoded by the last run and by this one; a context manager.

    Parameters
    ----------
    settings : Ingest
        Parameters `ingest`.
    folder : Path
        Folder of the cache.
    """

    def __init__(self, settings: Ingest, folder: Path = DECODE_CACHE):
        self.settings = settings
        self.folder = folder
        self._shape = (settings.image_size, settings.image_size, 1)
        self._fingerprint = _fingerprint(settings)
        self._shards: dict[str, list[str]] = {}  # by name: hashes of their images' pixels
        self._records: dict[str, ImageRecord] = {}  # by file identity
        folder.mkdir(parents=True, exist_ok=True)
        self._load()
        self._names = {tuple(pixels): name for name, pixels in self._shards.items()}
        self._rows = {
            image: (name, row)
            for name, pixels in self._shards.items()
            for row, image in enumerate(pixels)
        }
        self._records = {
            identity: record
            for identity, record in self._records.items()
            if record.pixels in self._rows
        }
        sizes = {name: len(pixels) for name, pixels in self._shards.items()}
        self._open_shards = OpenShards(folder, self._shape, sizes)
        # Pixels decoded in this run, and the row of each image there
        self._new = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._new_rows: dict[str, int] = {}
        self._identities: set[str] = set()  # of the files of this run

    def get(self, identity: str | None) -> ImageRecord | None:
        """Return the record of the file of this identity; None if there is none."""
        record = self._records.get(identity)
        if record:
            self._identities.add(identity)
        return record

    def add(self, identity: str | None, image: DecodedImage) -> ImageRecord:
        """Add a decoded file; return its record."""
        pixels = hashlib.blake2b(image.pixels, digest_size=16).hexdigest()
        if pixels not in self._rows and pixels not in self._new_rows:
            self._new_rows[pixels] = len(self._new_rows)
            self._new.write(image.pixels)
        attributes = {key: getattr(image, key) for key in ImageRecord._fields if key != "pixels"}
        record = ImageRecord(**attributes, pixels=pixels)
        if identity:
            self._records[identity] = record
            self._identities.add(identity)
        return record

    def write_shard(self, pixels: Sequence[str]) -> str:
        """Write a shard of the images of these hashes, unless it exists; return its name."""
        if name := self._names.get(tuple(pixels)):
            return name
        content = encode_shard(self._images(pixels), self.settings.compression)
        name = shard_name(content)
        write_bytes(self.folder / f"{name}.h5", content)
        self._names[tuple(pixels)] = name
        return name

    def save_index(self, names: Collection[str]) -> None:
        """Save the records of this run's files, and these shards; delete all others."""
        pixels_of = {name: pixels for pixels, name in self._names.items() if name in {*names}}
        shards = {
            name: [_identity((self.folder / f"{name}.h5").stat()), pixels]
            for name, pixels in pixels_of.items()
        }
        records = {key: record for key, record in self._records.items() if key in self._identities}
        index = {"fingerprint": self._fingerprint, "shards": shards, "files": records}
        write_bytes(self.folder / "index.json", to_json(index).encode())
        self._open_shards.clear()
        for file in self.folder.glob("*.h5"):
            if file.stem not in pixels_of:
                file.unlink()

    def __enter__(self) -> "DecodeCache":
        return self

    def __exit__(self, *_) -> None:
        self._open_shards.clear()
        self._new.close()

    def _load(self) -> None:
        try:
            index = json.loads((self.folder / "index.json").read_bytes())
            if index["fingerprint"] != self._fingerprint:
                return
            for name, (identity, pixels) in index["shards"].items():
                path = self.folder / f"{name}.h5"
                is_shard = SHARD_NAME.fullmatch(name.encode()) and path.is_file()
                if is_shard and identity == _identity(path.stat()):
                    self._shards[name] = pixels
            self._records = {key: ImageRecord(*record) for key, record in index["files"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # missing or damaged
            self._shards, self._records = {}, {}

    def _images(self, pixels: Sequence[str]) -> np.ndarray:
        batch = np.empty((len(pixels), *self._shape), np.uint8)
        self._new.flush()
        for position, image in enumerate(pixels):
            if image in self._new_rows:
                offset = self._new_rows[image] * batch[position].nbytes
                os.preadv(self._new.fileno(), [batch[position]], offset)
            else:
                name, row = self._rows[image]
                batch[position] = self._open_shards[name][row]
        return batch


def _fingerprint(settings: Ingest) -> str:
    """Hash all that decoding depends on besides the image file: code, packages and parameters."""
    code = b"".join(Path(module.__file__).read_bytes() for module in DECODING_MODULES)
    versions = f"{decoding_packages()} {h5py.version.info}"
    values = f"{settings.image_size} {settings.crop} {settings.compression} {versions}"
    return hashlib.sha256(code + values.encode()).hexdigest()


def decoding_packages() -> str:
    """Return the packages that decode images, and their versions."""
    versions = {"Pillow": PIL.__version__, "NumPy": np.__version__}
    versions |= {package: _version(package) for package in dicom.PACKAGES}
    return " ".join(f"{package} {version}" for package, version in versions.items())


def _version(package: str) -> str | None:
    """Return the version of a package, which need not be imported; None if it isn't installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _identity(status: os.stat_result) -> str:
    return f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"
