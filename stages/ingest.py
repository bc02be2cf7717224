"""Reads a folder of class folders into the RAD, the project's disk store.

    dvc repro ingest

Reads   params: data.source, ingest
Writes  data/rad/image_data.h5   pixels and labels, written in batches of 32
        data/rad/metadata.json   what is known of each image, and what was left out and why
        metrics/ingest.json      how many of each
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from stages.shared.errors import UserError
from stages.shared.files import write_json
from stages.shared.images import ImageError, Picture, decode
from stages.shared.machine import usable_cores
from stages.shared.params import load_params
from stages.shared.progress import progress
from stages.shared.rad import BATCH, IMAGES, METADATA, write_rad
from stages.shared.running import run_stage

CHUNK = 8  # files that a thread decodes in one go
SYSTEM_FILES = {"thumbs.db", "desktop.ini"}


def main() -> None:
    params = load_params()
    source, size = Path(params.data.source), params.ingest.size
    read = partial(decode, size=size, crop=params.ingest.crop)
    classes, files = find_files(source)
    rows, rejected = [], [{"path": path, "reason": "not in a class folder"} for path in stray_files(source)]

    threads = usable_cores()
    with ThreadPoolExecutor(threads) as pool:
        decoded = decode_all(pool, read, source, files, ahead=4 * threads)
        decoded = progress(decoded, len(files), "reading images")
        accepted = accept(decoded, classes, rows, rejected)
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


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_FILES


def decode_all(
    pool: ThreadPoolExecutor, read: Callable[[Path], Picture], source: Path, files: list[tuple[str, str]], ahead: int
) -> Iterator[tuple[str, str, Picture | ImageError]]:
    """Decode the files in parallel, in chunks, so many of which are in work or waiting at a time."""

    def attempt(path: str) -> Picture | ImageError:
        try:
            return read(source / path)
        except ImageError as error:
            return error

    def attempt_all(chunk: list[tuple[str, str]]) -> list[tuple[str, str, Picture | ImageError]]:
        return [(name, path, attempt(path)) for name, path in chunk]

    chunks = (files[start : start + CHUNK] for start in range(0, len(files), CHUNK))
    todo = (pool.submit(attempt_all, chunk) for chunk in chunks)
    waiting = deque(islice(todo, ahead))
    while waiting:
        decoded = waiting.popleft().result()
        waiting.extend(islice(todo, 1))
        yield from decoded


def accept(
    decoded: Iterator[tuple[str, str, Picture | ImageError]], classes: list[str], rows: list[dict], rejected: list[dict]
) -> Iterator[tuple[np.ndarray, int]]:
    """Pass on pixels and label of each usable image; note each file in `rows` or in `rejected`."""
    for name, path, picture in decoded:
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
