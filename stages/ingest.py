"""Reads a folder of class folders into the RAD, the project's disk store.

    dvc repro ingest

Reads   params: data.source, ingest
Writes  data/rad/image_data.h5   pixels and labels, by way of
        data/rad/shards          the pixels, in files that are named by their content
        data/rad/metadata.json   what is known of each image, and what was left out and why
        metrics/ingest.json      how many of each
"""

import os
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from stages.shared.decoded import Decoded, Facts, identity
from stages.shared.errors import UserError
from stages.shared.files import is_hidden, write_json
from stages.shared.images import ImageError, decode_all
from stages.shared.machine import usable_cores
from stages.shared.params import Ingest, load_params
from stages.shared.progress import progress
from stages.shared.rad import IMAGES, METADATA
from stages.shared.running import run_stage
from stages.shared.shards import cuts, write_rad


def main() -> None:
    params = load_params()
    source = Path(params.data.source)
    classes, files, rejected = find_files(source)
    with Decoded(params.ingest) as decoded:
        identities = {path: identity(f"{source}/{path}") for _, path in files}
        facts, unusable = look_at(source, identities, decoded, params.ingest)
        unusable |= in_two_classes(files, facts)
        rejected += [{"path": path, "reason": unusable[path]} for _, path in files if path in unusable]
        rows = [(name, path) for name, path in files if path not in unusable]
        counts = Counter(name for name, _ in rows)
        check(source, classes, counts, rejected, params.ingest.strict)

        names, sizes = [], []
        for start, end in pairwise([*cuts([path for _, path in files]), len(files)]):
            pixels = [facts[path].pixels for _, path in files[start:end] if path not in unusable]
            if pixels:
                names.append(decoded.shard(pixels))
                sizes.append(len(pixels))
        labels = [classes.index(name) for name, _ in rows]
        write_rad(IMAGES, decoded.folder, names, sizes, labels, params.ingest.image_size, len(classes))
        decoded.keep({*identities.values()}, names)
    images = [{"path": path, "class": name, **told(facts[path])} for name, path in rows]
    write_json(METADATA, {"classes": classes, "images": images, "rejected": rejected})
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
        `path` and `reason` of what is not read: files beside the class folders; links that lead out of the source or to
        folders, so that the images are those that the source itself holds; names that are no UTF-8, which DVC can't track.
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
            reason = None if is_utf8(entry.name) else "its name is not UTF-8; rename it"
            if reason := reason or (entry.is_symlink() and wrong_link(entry, inside)):
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


def is_utf8(name: str) -> bool:
    """Whether a file's name, as Python tells it, is UTF-8 on the disk."""
    return not any("\udc80" <= letter <= "\udcff" for letter in name)


def wrong_link(entry: os.DirEntry, inside: Path) -> str | None:
    """Why a symbolic link is not followed, if it is not."""
    try:
        target = Path(entry.path).resolve(strict=True)
    except (OSError, RuntimeError):  # Python before 3.13 raises the latter for a loop
        return "a symbolic link to nowhere"
    if not target.is_relative_to(inside):
        return "a symbolic link out of data.source"
    return "a symbolic link to a folder" if target.is_dir() else None


def look_at(
    source: Path, identities: dict[str, str | None], decoded: Decoded, settings: Ingest
) -> tuple[dict[str, Facts], dict[str, str]]:
    """What is known of each image file, by its path, and why others can't be used; files that are not known are decoded."""
    facts = {path: known for path, file in identities.items() if (known := decoded.known(file))}
    new = [path for path in identities if path not in facts]
    unusable = {}
    pictures = decode_all((source / path for path in new), settings.image_size, settings.crop, usable_cores())
    for path, (_, picture) in zip(new, progress(pictures, len(new), "reading images"), strict=True):
        if isinstance(picture, ImageError):
            unusable[path] = str(picture)
        else:
            facts[path] = decoded.add(identities[path], picture)
    return facts, unusable


def in_two_classes(files: list[tuple[str, str]], facts: dict[str, Facts]) -> dict[str, str]:
    """Paths whose picture is in another class as well, with the reason to leave them out: nobody knows which class is right."""
    first: dict[str, dict[str, str]] = {}  # of each picture: by class, the first path
    for name, path in files:
        if path in facts:
            first.setdefault(facts[path].pixels, {}).setdefault(name, path)
    reasons = {}
    for name, path in files:
        alike = first[facts[path].pixels] if path in facts else {}
        if others := [other for of_class, other in alike.items() if of_class != name]:
            reasons[path] = f"the same picture is in another class: {others[0]!r}"
    return reasons


def check(source: Path, classes: list[str], counts: Counter, rejected: list[dict], strict: bool) -> None:
    """Tell what is left out, and refuse a source that can't be used, before anything is written."""
    for file in rejected:
        print(f"left out: {file['path']!r}: {file['reason']}")
    if empty := [name for name in classes if not counts[name]]:
        names = ", ".join(map(repr, empty))
        raise UserError(f"{source}: no usable image in class folder {names}; add images or remove the folder")
    if rejected and strict:
        raise UserError(f"{source}: {len(rejected)} files can't be used, and ingest.strict allows none; mend or remove them")


def told(facts: Facts) -> dict:
    """What metadata.json tells of an image, besides its path and class."""
    return {key: getattr(facts, key) for key in ("sha256", "perceptual_hash", "width", "height", "mode")}


if __name__ == "__main__":
    run_stage(main)
