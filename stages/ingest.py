"""Reads a folder of class folders into the RAD, the project's disk store.

    dvc repro ingest

Reads   params: data.source, ingest
Writes  data/rad/image_data.h5   pixels and labels, written in batches of 32
        data/rad/metadata.json   what is known of each image, and what was left out and why
        metrics/ingest.json      how many of each
"""

import hashlib
import os
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
from stages.shared.rad import BATCH, IMAGES, METADATA, RadReader, write_rad
from stages.shared.running import run_stage


def main() -> None:
    params = load_params()
    source, size = Path(params.data.source), params.ingest.size
    classes, files, rejected = find_files(source)
    rows: list[dict] = []
    contents: list[bytes] = []  # hashes of the pixels of each row

    decoded = decode_all((source / path for _, path in files), size, params.ingest.crop, usable_cores())
    pictures = (picture for _, picture in progress(decoded, len(files), "reading images"))
    accepted = accept(files, pictures, classes, rows, rejected, contents)
    write_rad(IMAGES, in_batches(accepted), size, len(classes))
    if contradictions := in_two_classes(rows, contents):
        rejected += [{"path": rows[row]["path"], "reason": reason} for row, reason in contradictions.items()]
        kept = [row for row in range(len(rows)) if row not in contradictions]
        with RadReader() as rad:
            stored = ((rad.images([row])[0, ..., 0], int(rad.labels[row])) for row in kept)
            write_rad(IMAGES, in_batches(stored), size, len(classes))
        rows = [rows[row] for row in kept]

    for file in rejected:
        print(f"left out: {file['path']!r}: {file['reason']}")
    counts = Counter(row["class"] for row in rows)
    empty = [name for name in classes if not counts[name]]
    if empty or (rejected and params.ingest.strict):
        IMAGES.unlink()
        if empty:
            names = ", ".join(map(repr, empty))
            raise UserError(f"{source}: no usable image in class folder {names}; add images or remove the folder")
        raise UserError(f"{source}: {len(rejected)} files can't be used, and ingest.strict allows none; mend or remove them")
    write_json(METADATA, {"classes": classes, "images": rows, "rejected": rejected})
    write_json(
        "metrics/ingest.json",
        {"images": len(rows), "rejected": len(rejected), "classes": {name: counts[name] for name in classes}},
    )
    print(f"{len(rows)} images of {len(classes)} classes, {len(rejected)} files left out")


def find_files(source: Path) -> tuple[list[str], list[tuple[str, str]], list[dict]]:
    """What is in the source. Hidden files are passed over.

    Returns
    -------
    classes : list of str
        The class folders' names, sorted.
    files : list of (class, path)
        Paths below the source, sorted by class and path.
    rejected : list of dict
        `path` and `reason` of what is not read: files beside the class folders, and links that lead out of the source or to
        folders, so that the images are those that the source itself holds.
    """
    if not source.is_dir():
        raise UserError(f"data.source: {str(source)!r} is not a folder; expected a folder of class folders")
    inside = source.resolve()
    rejected = []

    def walk(folder: str) -> Iterator[tuple[str, bool]]:
        """Paths below the source, with whether they are folders."""
        try:
            entries = sorted(os.scandir(source / folder), key=lambda entry: entry.name)
        except OSError as error:
            raise UserError(f"{str(source / folder)!r} can't be listed ({error.strerror}); mend it or remove it") from None
        for entry in entries:
            path = f"{folder}/{entry.name}".removeprefix("/")
            if is_hidden(entry.name):
                continue
            if entry.is_symlink() and (reason := wrong_link(entry, inside)):
                rejected.append({"path": path, "reason": reason})
            else:
                yield path, entry.is_dir()

    top = list(walk(""))
    classes = [name for name, is_folder in top if is_folder]
    if len(classes) < 2:
        why = "".join(f" ({file['path']!r}: {file['reason']})" for file in rejected[:1])
        raise UserError(
            f"data.source: {str(source)!r} has {len(classes)} class folder(s); expected two or more, one for each class{why}"
        )
    rejected += [{"path": name, "reason": "not in a class folder"} for name, is_folder in top if not is_folder]
    files = []
    for name in classes:
        folders, found = [name], []
        while folders:
            for path, is_folder in walk(folders.pop()):
                (folders if is_folder else found).append(path)
        files += [(name, path) for path in sorted(found)]
    return classes, files, sorted(rejected, key=lambda file: file["path"])


def wrong_link(entry: os.DirEntry, inside: Path) -> str | None:
    """Why a symbolic link is not followed, if it is not."""
    try:
        target = Path(entry.path).resolve(strict=True)
    except (OSError, RuntimeError):  # Python before 3.13 raises the latter for a loop
        return "a symbolic link to nowhere"
    if not target.is_relative_to(inside):
        return "a symbolic link out of data.source"
    return "a symbolic link to a folder" if target.is_dir() else None


def accept(
    files: list[tuple[str, str]],
    pictures: Iterator[Picture | ImageError],
    classes: list[str],
    rows: list[dict],
    rejected: list[dict],
    contents: list[bytes],
) -> Iterator[tuple[np.ndarray, int]]:
    """Pass on pixels and label of each usable image; note each file in `rows` and `contents`, or in `rejected`."""
    for (name, path), picture in zip(files, pictures, strict=True):
        if isinstance(picture, ImageError):
            rejected.append({"path": path, "reason": str(picture)})
            continue
        known = {"sha256": picture.sha256, "perceptual_hash": picture.perceptual_hash}
        rows.append(
            {"path": path, "class": name, **known, "width": picture.width, "height": picture.height, "mode": picture.mode}
        )
        contents.append(hashlib.blake2b(picture.pixels, digest_size=16).digest())
        yield picture.pixels, classes.index(name)


def in_two_classes(rows: list[dict], contents: list[bytes]) -> dict[int, str]:
    """Rows whose picture is in another class as well, with the reason to leave them out: nobody knows which class is right."""
    same: dict[bytes, list[int]] = {}
    for row, content in enumerate(contents):
        same.setdefault(content, []).append(row)
    reasons = {}
    for alike in same.values():
        for row in alike:
            if others := [other for other in alike if rows[other]["class"] != rows[row]["class"]]:
                reasons[row] = f"the same picture is in another class: {rows[others[0]]['path']!r}"
    return dict(sorted(reasons.items()))


def in_batches(images: Iterator[tuple[np.ndarray, int]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of 32 images, n×h×w×1, with their labels."""
    while batch := list(islice(images, BATCH)):
        pixels, labels = zip(*batch, strict=True)
        yield np.stack(pixels)[..., np.newaxis], np.array(labels)


if __name__ == "__main__":
    run_stage(main)
