"""Decoded images, kept from one run of `ingest` to the next, so that only new files are read.

They lie in a folder of their own: the shards of the last run, linked to those of the RAD, and an index. It is no output and
no input of the pipeline: without it, the same files come out. It counts only if the code, the packages and the parameters
that decode are the same, and a file is taken to be the same as DVC takes it to be: by its inode, size and time of change.
"""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import PIL

from stages.shared import image_files, images, shards
from stages.shared.files import write_bytes
from stages.shared.images import Picture
from stages.shared.params import Ingest
from stages.shared.rad import SHARD_NAME, OpenShards, shard_name

FOLDER = Path(".dvc/tmp/ingest")
CHANGES_WITHIN = 100_000_000  # ns: a file changed so shortly before may change again without its time of change showing it


class Facts(NamedTuple):
    """What is known of an image file; `pixels` is the hash of what it decodes to, the rest as in `Picture`."""

    sha256: str
    perceptual_hash: str
    whole_hash: str
    width: int
    height: int
    mode: str
    levels: tuple[float, float]
    pixels: str


def identity(path: str | Path) -> str | None:
    """What tells a file from any other without reading it; None if it can't be told, or could change unnoticed."""
    try:
        found = os.stat(path)  # a Path for each of many files takes longer than the call
    except OSError:
        return None
    return None if time.time_ns() - found.st_mtime_ns < CHANGES_WITHIN else _told(found)


class Decoded:
    """What the last run decoded, and what this one does; a context manager.

    Parameters
    ----------
    settings : Ingest
        How images are decoded and stored.
    folder : Path
        Where they are kept.
    """

    def __init__(self, settings: Ingest, folder: Path = FOLDER):
        self.folder = folder
        self._compression, self._shape = settings.compression, (settings.image_size, settings.image_size, 1)
        modules = b"".join(Path(module.__file__).read_bytes() for module in (image_files, images, shards))
        told = f"{settings.image_size} {settings.crop} {settings.compression} Pillow {PIL.__version__} NumPy {np.__version__}"
        told += f" {h5py.version.info}"
        self._fingerprint = hashlib.sha256(modules + told.encode()).hexdigest()
        self._shards: dict[str, list[str]] = {}  # by name: hashes of the pixels of their images
        self._files: dict[str, Facts] = {}  # by identity
        folder.mkdir(parents=True, exist_ok=True)
        self._load()
        self._names = {tuple(pixels): name for name, pixels in self._shards.items()}
        self._stored = {one: (name, row) for name, pixels in self._shards.items() for row, one in enumerate(pixels)}
        self._files = {file: facts for file, facts in self._files.items() if facts.pixels in self._stored}
        sizes = {name: len(pixels) for name, pixels in self._shards.items()}
        self._open = OpenShards(folder, self._shape, sizes)
        self._new = tempfile.TemporaryFile(dir=folder)  # pixels of images decoded in this run  # noqa: SIM115
        self._rows: dict[str, int] = {}  # where they are in it

    def known(self, file: str | None) -> Facts | None:
        """What is known of the file of that identity."""
        return self._files.get(file)

    def add(self, file: str | None, picture: Picture) -> Facts:
        """Take over a file's picture, and return what is known of it now."""
        pixels = hashlib.blake2b(picture.pixels, digest_size=16).hexdigest()
        if pixels not in self._stored and pixels not in self._rows:
            self._rows[pixels] = len(self._rows)
            self._new.write(picture.pixels)
        facts = Facts(**{key: getattr(picture, key) for key in Facts._fields if key != "pixels"}, pixels=pixels)
        if file:
            self._files[file] = facts
        return facts

    def shard(self, pixels: Sequence[str]) -> str:
        """The name of the shard in `folder` that holds the images of these hashes; it is written if it is not there."""
        if name := self._names.get(tuple(pixels)):
            return name
        content = shards.pack(self._images(pixels), self._compression)
        name = shard_name(content)
        write_bytes(self.folder / f"{name}.h5", content)
        self._names[tuple(pixels)] = name
        return name

    def keep(self, files: set[str], names: list[str]) -> None:
        """Remember these files and shards for the next run, and forget all others."""
        pixels_of = {name: pixels for pixels, name in self._names.items() if name in {*names}}
        index = {
            "fingerprint": self._fingerprint,
            "shards": {name: [_told((self.folder / f"{name}.h5").stat()), pixels] for name, pixels in pixels_of.items()},
            "files": {file: facts for file, facts in self._files.items() if file in files},
        }
        write_bytes(self.folder / "index.json", json.dumps(index).encode())
        self._open.clear()
        for file in self.folder.glob("*.h5"):
            if file.stem not in pixels_of:
                file.unlink()

    def __enter__(self) -> "Decoded":
        return self

    def __exit__(self, *_) -> None:
        self._open.clear()
        self._new.close()

    def _load(self) -> None:
        try:
            index = json.loads((self.folder / "index.json").read_bytes())
            if index["fingerprint"] != self._fingerprint:
                return
            for name, (file, pixels) in index["shards"].items():
                path = self.folder / f"{name}.h5"
                if SHARD_NAME.fullmatch(name.encode()) and path.is_file() and file == _told(path.stat()):
                    self._shards[name] = pixels
            self._files = {file: Facts(*facts) for file, facts in index["files"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # missing or damaged: nothing is known
            self._shards, self._files = {}, {}

    def _images(self, pixels: Sequence[str]) -> np.ndarray:
        batch = np.empty((len(pixels), *self._shape), np.uint8)
        self._new.flush()
        for place, one in enumerate(pixels):
            if one in self._rows:
                os.preadv(self._new.fileno(), [batch[place]], self._rows[one] * batch[place].nbytes)
            else:
                name, row = self._stored[one]
                batch[place] = self._open[name][row]
        return batch


def _told(file: os.stat_result) -> str:
    return f"{file.st_ino}-{file.st_size}-{file.st_mtime_ns}"
