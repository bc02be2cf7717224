"""Objects of DVC's cache, and copies that were not finished."""

import hashlib
import re
import time
from pathlib import Path

import yaml

from brainmri.common.progress import progress
from brainmri.repair.running import other_command

# As dvc-objects names a copy until it is whole
HALF_COPY = re.compile(r".*\.[A-Za-z0-9_-]{22}\.tmp")
OUTPUTS = ("data", "models", "metrics", "plots", "docs")
MIN_AGE_S = 5.0  # of a file that nobody writes any more
MIN_AGE_SHARED_S = 3600.0  # where commands of other clones may write it


def remove_damaged_objects() -> list[str]:
    """Remove objects whose content is not what their name says; return a line for each.

    DVC trusts an object that is read-only, and would restore a damaged one.
    """
    lines = []
    cache = cache_folder()
    objects = [path for path in sorted((cache / "files/md5").glob("??/*")) if path.is_file()]
    for path in progress(objects, len(objects), "checking DVC's cache"):
        if HALF_COPY.fullmatch(path.name) or _is_whole(path):
            continue
        _remove(path)
        lines.append(f"{path}, an object of DVC's cache, was damaged: removed")
    for path in sorted((cache / "runs").glob("??/*/*")):
        if path.is_file() and _age(path) > MIN_AGE_S and not _is_run(path):
            _remove(path)
            lines.append(f"{path}, an entry of DVC's run cache, was damaged: removed")
    return lines


def remove_half_copies() -> list[str]:
    """Remove copies that a full disk or a killed process has left half done; return a line for
    each.

    In a cache outside this clone, which others may share, only those that are old enough.
    """
    cache = cache_folder()
    min_age = 0.0 if cache.resolve().is_relative_to(Path.cwd()) else MIN_AGE_SHARED_S
    copies = [
        path
        for folder, age in ((cache, min_age), *((Path(folder), 0.0) for folder in OUTPUTS))
        for path in folder.rglob("*.tmp")
        if HALF_COPY.fullmatch(path.name) and path.is_file() and _age(path) >= age
    ]
    if not copies or other_command():
        return []
    for path in copies:
        _remove(path)
    return [f"{path}, a copy that was not finished: removed" for path in copies]


def cache_folder() -> Path:
    """Return the folder of DVC's cache, which projects may share."""
    from dvc.config import Config  # takes a second

    return Path(Config(dvc_dir=".dvc")["cache"].get("dir", ".dvc/cache"))


def _is_whole(path: Path) -> bool:
    expected = (path.parent.name + path.name).removesuffix(".dir")
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest() == expected
    except FileNotFoundError:  # another command has removed it
        return True


def _is_run(path: Path) -> bool:
    try:
        return isinstance(yaml.safe_load(path.read_text("utf-8")), dict)
    except FileNotFoundError:
        return True
    except (yaml.YAMLError, UnicodeDecodeError):
        return False


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
