"""Reads a folder of class folders into the RAD, the project's disk store.

    dvc repro ingest

Reads   params: data.source, ingest
Writes  data/rad/image_data.h5   pixels and labels, written in batches of 32
        data/rad/metadata.json   what is known of each image, and what was left out and why
        metrics/ingest.json      how many of each
"""

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from stages.shared.errors import UserError
from stages.shared.files import is_hidden, write_json
from stages.shared.images import ImageError, Picture, decode_all
from stages.shared.machine import usable_cores
from stages.shared.params import load_params
from stages.shared.progress import progress
from stages.shared.rad import BATCH, IMAGES, METADATA, write_rad
from stages.shared.running import run_stage


def main() -> None:
    params = load_params()
    source, size = Path(params.data.source), params.ingest.size
    classes, files = find_files(source)
    rows, rejected = [], [{"path": path, "reason": "not in a class folder"} for path in stray_files(source)]

    decoded = decode_all((source / path for _, path in files), size, params.ingest.crop, usable_cores())
    pictures = (picture for _, picture in progress(decoded, len(files), "reading images"))
    accepted = accept(files, pictures, classes, rows, rejected)
    write_rad(IMAGES, in_batches(accepted), size, len(classes))

    for file in rejected:
        print(f"left out: {file['path']!r}: {file['reason']}")
    counts = Counter(row["class"] for row in rows)
    if empty := [name for name in classes if not counts[name]]:
        IMAGES.unlink()
        raise UserError(
            f"{source}: no usable image in class folder {', '.join(map(repr, empty))}; add images or remove the folder"
        )
    write_json(METADATA, {"classes": classes, "images": rows, "rejected": rejected})
    write_json(
        "metrics/ingest.json",
        {"images": len(rows), "rejected": len(rejected), "classes": {name: counts[name] for name in classes}},
    )
    print(f"{len(rows)} images of {len(classes)} classes, {len(rejected)} files left out")


def find_files(source: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """The class names, sorted, and the files as (class, path below the source), sorted. Hidden files are passed over."""
    if not source.is_dir():
        raise UserError(f"data.source: {str(source)!r} is not a folder; expected a folder of class folders")
    classes = sorted(folder.name for folder in source.iterdir() if folder.is_dir() and not is_hidden(folder.name))
    if len(classes) < 2:
        raise UserError(
            f"data.source: {str(source)!r} has {len(classes)} class folder(s); expected two or more, one for each class"
        )
    files = []
    for name in classes:
        below = [path.relative_to(source) for path in (source / name).rglob("*") if not path.is_dir()]
        files += sorted((name, path.as_posix()) for path in below if not any(map(is_hidden, path.parts)))
    return classes, files


def stray_files(source: Path) -> list[str]:
    """Files beside the class folders, which belong to no class."""
    return sorted(path.name for path in source.iterdir() if not path.is_dir() and not is_hidden(path.name))


def accept(
    files: list[tuple[str, str]],
    pictures: Iterator[Picture | ImageError],
    classes: list[str],
    rows: list[dict],
    rejected: list[dict],
) -> Iterator[tuple[np.ndarray, int]]:
    """Pass on pixels and label of each usable image; note each file in `rows` or in `rejected`."""
    for (name, path), picture in zip(files, pictures, strict=True):
        if isinstance(picture, ImageError):
            rejected.append({"path": path, "reason": str(picture)})
            continue
        known = {"sha256": picture.sha256, "perceptual_hash": picture.perceptual_hash}
        rows.append(
            {"path": path, "class": name, **known, "width": picture.width, "height": picture.height, "mode": picture.mode}
        )
        yield picture.pixels, classes.index(name)


def in_batches(images: Iterator[tuple[np.ndarray, int]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of 32 images, n×h×w×1, with their labels."""
    while batch := list(islice(images, BATCH)):
        pixels, labels = zip(*batch, strict=True)
        yield np.stack(pixels)[..., np.newaxis], np.array(labels)


if __name__ == "__main__":
    run_stage(main)
