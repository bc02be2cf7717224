"""Stores written by hand, in a few shards."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from brainmri.store.format import shard_name
from brainmri.store.writer import encode_shard, write_store

IMAGES = np.random.default_rng(0).integers(0, 256, (70, 20, 20, 1), np.uint8)
LABELS = np.arange(70) % 3
SHARD_SIZE = 32


def make_store(
    path: Path,
    images: np.ndarray = IMAGES,
    labels: Sequence[int] = LABELS,
    classes: int = 3,
    compression: str = "none",
) -> None:
    """Write an index file, and shards of 32 images each."""
    parts = [images[start : start + SHARD_SIZE] for start in range(0, len(images), SHARD_SIZE)]
    folder = path.parent / "new-shards"
    folder.mkdir(exist_ok=True)
    names = []
    for part in parts:
        content = encode_shard(part, compression)
        names.append(shard_name(content))
        (folder / f"{names[-1]}.h5").write_bytes(content)
    sizes = [len(part) for part in parts]
    write_store(path, folder, names, sizes, list(labels), images.shape[1], classes)


def shard_paths(path: Path) -> list[Path]:
    """Return the shards of a store, sorted."""
    return sorted((path.parent / "shards").iterdir())
