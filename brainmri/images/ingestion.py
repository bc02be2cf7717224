"""Decode the files of a source that are not in the decode cache, check them, and write all into
shards.
"""

from itertools import pairwise
from pathlib import Path

from brainmri.common.errors import UserError
from brainmri.common.progress import progress
from brainmri.common.resources import usable_cores
from brainmri.images.cache import DecodeCache, ImageRecord, file_identity
from brainmri.images.decoding import decode_all
from brainmri.images.files import ImageError
from brainmri.store.boundaries import shard_boundaries

Files = list[tuple[str, str]]  # class and path below the source


def decode_new(
    source: Path, files: Files, cache: DecodeCache
) -> tuple[dict[str, ImageRecord], dict[str, str]]:
    """Decode the files that the cache does not hold.

    Returns
    -------
    records : dict of str to ImageRecord
        Of each usable image, by path.
    reasons : dict of str to str
        Why the other files can't be used, by path.
    """
    identities = {path: file_identity(f"{source}/{path}") for _, path in files}
    records = {
        path: record for path, identity in identities.items() if (record := cache.get(identity))
    }
    new = [path for path in identities if path not in records]
    reasons = {}
    new_files = (source / path for path in new)
    settings = cache.settings
    decoded = decode_all(new_files, settings.image_size, settings.crop, usable_cores())
    for path, (_, image) in zip(new, progress(decoded, len(new), "reading images"), strict=True):
        if isinstance(image, ImageError):
            reasons[path] = str(image)
        else:
            records[path] = cache.add(identities[path], image)
    return records, reasons


def conflicting_classes(files: Files, records: dict[str, ImageRecord]) -> dict[str, str]:
    """Find images that are in several classes, none of which is known to be the right one.

    Returns
    -------
    dict of str to str
        The reason to skip an image, by path.
    """
    first_copies: dict[str, dict[str, str]] = {}  # by pixels and class, the first path
    for name, path in files:
        if path in records:
            first_copies.setdefault(records[path].pixels, {}).setdefault(name, path)
    reasons = {}
    for name, path in files:
        copies = first_copies[records[path].pixels] if path in records else {}
        others = [other for other_name, other in copies.items() if other_name != name]
        if others:
            reasons[path] = f"the same image is in another class: {others[0]!r}"
    return reasons


def check_source(source: Path, counts: dict[str, int], rejected: list[dict], strict: bool) -> None:
    """Print skipped files; refuse an unusable source before anything is written.

    Parameters
    ----------
    source : Path
    counts : dict of str to int
        Number of usable images of each class.
    rejected : list of dict
        `path` and `reason` of each skipped file.
    strict : bool
        Whether to refuse a source with skipped files.

    Raises
    ------
    UserError
        If a class has no usable image, or `strict` forbids the skipped files.
    """
    for file in rejected:
        print(f"skipped: {file['path']!r}: {file['reason']}")
    if empty := [name for name, count in counts.items() if not count]:
        names = ", ".join(map(repr, empty))
        raise UserError(
            f"{source}: no usable image in class folder {names}; add images or remove the folder"
        )
    if rejected and strict:
        raise UserError(
            f"{source}: {len(rejected)} files can't be used, and ingest.strict allows none;"
            " repair or remove them"
        )


def write_shards(
    files: Files,
    stored: dict[str, str],
    records: dict[str, ImageRecord],
    skipped: dict[str, str],
    cache: DecodeCache,
) -> tuple[list[str], list[int]]:
    """Write the images into shards in the folder of the cache.

    Parameters
    ----------
    files : list of (class, path)
        All files, skipped ones among them, so that a file that becomes usable changes one shard.
    stored : dict of str to str
        Path in the store, by path.
    records : dict of str to ImageRecord
        By path.
    skipped : dict of str to str
        Reason to skip a file, by path.
    cache : DecodeCache

    Returns
    -------
    names : list of str
        Names of the shards, in the order of their images.
    sizes : list of int
        Number of images in each.
    """
    names: list[str] = []
    sizes: list[int] = []
    starts = shard_boundaries([stored[path] for _, path in files])
    for start, end in pairwise([*starts, len(files)]):
        pixels = [records[path].pixels for _, path in files[start:end] if path not in skipped]
        if pixels:
            names.append(cache.write_shard(pixels))
            sizes.append(len(pixels))
    return names, sizes
