"""Reads a folder of class folders into the RAD, the project's disk store.

    dvc repro ingest

Reads   params: data.source, ingest
Writes  data/rad/image_data.h5   pixels and labels, by way of
        data/rad/shards          the pixels, in files that are named by their content
        data/rad/metadata.json   what is known of each image, and what was left out and why
        metrics/ingest.json      how many of each
"""

from collections import Counter
from itertools import pairwise
from pathlib import Path

from stages.shared.decoded import Decoded, Facts, identity
from stages.shared.errors import UserError
from stages.shared.files import write_json
from stages.shared.images import ImageError, decode_all
from stages.shared.machine import usable_cores
from stages.shared.params import Ingest, load_params
from stages.shared.progress import progress
from stages.shared.rad import IMAGES, METADATA
from stages.shared.running import run_stage
from stages.shared.shards import cuts, write_rad
from stages.shared.sources import find_files, stored_paths


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

        stored = stored_paths([path for _, path in files])
        names, sizes = [], []
        for start, end in pairwise([*cuts([stored[path] for _, path in files]), len(files)]):
            pixels = [facts[path].pixels for _, path in files[start:end] if path not in unusable]
            if pixels:
                names.append(decoded.shard(pixels))
                sizes.append(len(pixels))
        labels = [classes.index(name) for name, _ in rows]
        write_rad(IMAGES, decoded.folder, names, sizes, labels, params.ingest.image_size, len(classes))
        decoded.keep({*identities.values()}, names)
    images = [{"path": stored[path], "class": name, **told(facts[path])} for name, path in rows]
    write_json(METADATA, {"classes": classes, "images": images, "rejected": rejected})
    write_json(
        "metrics/ingest.json",
        {"images": len(rows), "rejected": len(rejected), "classes": {name: counts[name] for name in classes}},
    )
    print(f"{len(rows)} images of {len(classes)} classes, {len(rejected)} files left out")


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
    return {key: value for key, value in facts._asdict().items() if key != "pixels"}


if __name__ == "__main__":
    run_stage(main)
