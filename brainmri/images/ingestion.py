"""Decode the files of a source that are not in the decode cache, check them, and write all into
shards.
"""

from itertools import pairwise

from brainmri.common.errors import UserError, printable
from brainmri.common.progress import progress
from brainmri.common.resources import usable_cores
from brainmri.images.cache import DecodeCache, ImageRecord, file_identity
from brainmri.images.limits import ImageError
from brainmri.images.sources import SourceFile
from brainmri.images.workers import decode_all
from brainmri.store.boundaries import shard_boundaries


def decode_new(
    files: list[SourceFile], cache: DecodeCache
) -> tuple[dict[str, ImageRecord], dict[str, str]]:
    """Decode the files that the cache does not hold.

    Returns
    -------
    records : dict of str to ImageRecord
        Of each usable image, by path.
    reasons : dict of str to str
        Why the other files can't be used, by path.
    """
    identities = {file.path: file_identity(f"{file.source}/{file.below}") for file in files}
    records = {
        path: record for path, identity in identities.items() if (record := cache.get(identity))
    }
    new = [file for file in files if file.path not in records]
    reasons = {}
    settings = cache.settings
    decoded = decode_all(
        (file.file for file in new), settings.image_size, settings.crop, usable_cores()
    )
    for file, (_, image) in zip(new, progress(decoded, len(new), "reading images"), strict=True):
        if isinstance(image, ImageError):
            reasons[file.path] = str(image)
        else:
            records[file.path] = cache.add(identities[file.path], image)
    return records, reasons


def conflicting_classes(files: list[SourceFile], records: dict[str, ImageRecord]) -> dict[str, str]:
    """Find images that are in several classes, none of which is known to be the right one.

    Returns
    -------
    dict of str to str
        The reason to skip an image, by path.
    """
    first_copies: dict[str, dict[str, str]] = {}  # by pixels and class, the first path
    for file in files:
        if file.path in records:
            copies = first_copies.setdefault(records[file.path].pixels, {})
            copies.setdefault(file.class_name, file.path)
    reasons = {}
    for file in files:
        copies = first_copies[records[file.path].pixels] if file.path in records else {}
        others = [path for name, path in copies.items() if name != file.class_name]
        if others:
            reasons[file.path] = f"the same image is in another class: {others[0]!r}"
    return reasons


def check_source(source: str, counts: dict[str, int], rejected: list[dict], strict: bool) -> None:
    """Print skipped files; refuse an unusable source before anything is written.

    Parameters
    ----------
    source : str
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
        print(f"skipped: {file['path']!r}: {printable(file['reason'])}")
    if empty := [name for name, count in counts.items() if not count]:
        names = ", ".join(map(repr, empty))
        raise UserError(
            f"{source}: no usable image of class {names}; add images, or remove the class"
        )
    if rejected and strict:
        raise UserError(
            f"{source}: {len(rejected)} files can't be used, and ingest.strict allows none;"
            " repair or remove them"
        )


def write_shards(
    files: list[SourceFile],
    records: dict[str, ImageRecord],
    skipped: dict[str, str],
    cache: DecodeCache,
) -> tuple[list[str], list[int]]:
    """Write the images into shards in the folder of the cache.

    Parameters
    ----------
    files : list of SourceFile
        All files, skipped ones among them, so that a file that becomes usable changes one shard.
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
    paths = [file.path for file in files]
    for start, end in pairwise([*shard_boundaries(paths), len(paths)]):
        pixels = [records[path].pixels for path in paths[start:end] if path not in skipped]
        if pixels:
            names.append(cache.write_shard(pixels))
            sizes.append(len(pixels))
    return names, sizes
