"""Walk through the folders of a source: hidden files are skipped, links are followed with care."""

import functools
import os
import re
from pathlib import Path
from typing import NamedTuple

from brainmri.common.errors import UserError
from brainmri.common.file_names import is_hidden, is_utf8

LINK_OUTSIDE = "a symbolic link out of data.source"
# Path of an object below the folder of DVC's cache; without files/md5 before DVC 3
CACHE_OBJECT = re.compile(r"(files/md5/)?[0-9a-f]{2}/[0-9a-f]{30}")


class FolderTree(NamedTuple):
    """Folders and files of a source.

    Attributes
    ----------
    parameter : str
        The parameter that names the source.
    source : Path
    folders, files : dict of str to list of str
        Subfolders and files of each folder, sorted. All are paths below the source; the source
        itself is "".
    """

    parameter: str
    source: Path
    folders: dict[str, list[str]]
    files: dict[str, list[str]]


def walk_source(source: Path, parameter: str = "data.source") -> tuple[FolderTree, list[dict]]:
    """List the folders and files of a source, except hidden and system files.

    Links are followed to files of the source and, for `cache.type symlink`, to objects of DVC's
    cache.

    Returns
    -------
    tree : FolderTree
    rejected : list of dict
        `path` and `reason` of what is skipped: links, and names that are not UTF-8, which DVC can't
        track.

    Raises
    ------
    UserError
        If a folder can't be listed, or a file is a link out of the source.
    """
    root = source.resolve()
    tree = FolderTree(parameter, source, {}, {})
    rejected: list[dict] = []
    pending = [""]
    while pending:
        folder = pending.pop()
        tree.folders[folder] = []
        tree.files[folder] = []
        for entry in _list_folder(source / folder):
            if is_hidden(entry.name):
                continue
            path = f"{folder}/{entry.name}".removeprefix("/")
            reason = _rejection(entry, root)
            if reason == LINK_OUTSIDE and entry.is_file():
                # DVC would not notice if a copy took its place
                raise UserError(
                    f"{str(source / path)!r} is {reason}, which DVC records as if it were the file;"
                    " replace it by a copy of the file, or remove it"
                )
            if reason:
                rejected.append({"path": path, "reason": reason})
            elif entry.is_dir():
                tree.folders[folder].append(path)
            else:
                tree.files[folder].append(path)
        pending += tree.folders[folder]
    return tree, rejected


def link_rejection(entry: os.DirEntry, root: Path) -> str | None:
    """Return why a symbolic link is not followed; None if it is.

    Parameters
    ----------
    entry : os.DirEntry
        The link.
    root : Path
        The source, resolved.
    """
    try:
        target = Path(entry.path).resolve(strict=True)
    except (OSError, RuntimeError):  # Python before 3.13 raises the latter for a loop
        return "a symbolic link to nowhere"
    is_inside = target.is_relative_to(root)
    if target.is_dir():
        return "a symbolic link to a folder" if is_inside else LINK_OUTSIDE
    return None if is_inside or _is_cache_object(target) else LINK_OUTSIDE


@functools.cache
def dvc_cache() -> Path:
    """Return the folder of DVC's cache, resolved; several projects may share it."""
    from dvc.config import Config  # takes a second to import

    return Path(Config(dvc_dir=".dvc")["cache"].get("dir", ".dvc/cache")).resolve()


def _list_folder(folder: Path) -> list[os.DirEntry]:
    try:
        return sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(
            f"{str(folder)!r} can't be listed ({error.strerror}); repair it or remove it"
        ) from None


def _rejection(entry: os.DirEntry, root: Path) -> str | None:
    if not is_utf8(entry.name):
        return "its name is not UTF-8; rename it"
    return link_rejection(entry, root) if entry.is_symlink() else None


def _is_cache_object(path: Path) -> bool:
    cache = dvc_cache()
    if not path.is_relative_to(cache):
        return False
    return CACHE_OBJECT.fullmatch(path.relative_to(cache).as_posix()) is not None
