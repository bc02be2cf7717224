"""Image files that command line arguments stand for, and their classes."""

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from brainmri.common.errors import UserError
from brainmri.common.file_names import is_hidden, is_system_name, to_nfc

STANDARD_INPUT = "-"


def list_files(paths: Iterable[str]) -> dict[Path, str]:
    """List the files that paths stand for, each once; see `expand_paths`.

    Returns
    -------
    dict of Path to str
        Path of each file below the folder that stands for it; of a file that was named or matched,
        its path as it is.
    """
    files: dict[Path, str] = {}
    for file, below in expand_paths(paths):
        files.setdefault(file, below)
    return files


def expand_paths(paths: Iterable[str]) -> Iterator[tuple[Path, str]]:
    """List the files that paths stand for; a path that does not exist is yielded as it is.

    Hidden files are skipped, except for those that are named, and so are system files.

    Parameters
    ----------
    paths : iterable of str
        Files; folders, for all files in them; patterns; "-", for a list on standard input.

    Yields
    ------
    file, below : Path, str
        See `list_files`.
    """
    for path in paths:
        if is_system_name(Path(path).name):  # a shell expands its patterns to those, too
            continue
        if path == STANDARD_INPUT:
            yield from expand_paths(_read_list())
        elif Path(path).is_dir():
            folder = Path(path)
            yield from ((file, file.relative_to(folder).as_posix()) for file in _files_in(folder))
        elif not Path(path).exists() and glob.has_magic(path):
            yield from _matches(path)
        else:
            yield Path(path), path


def label_of(path: Path, classes: list[str]) -> int:
    """Return the label of an image: the class of the innermost folder that is named as one.

    Raises
    ------
    UserError
        If no folder above the file is named as a class.
    """
    labels = {to_nfc(name): label for label, name in enumerate(classes)}
    folders = path.absolute().parts[:-1]
    for folder in map(to_nfc, reversed(folders)):
        if folder in labels:
            return labels[folder]
    raise UserError(
        f"{path} is in no class folder; expected folders named {', '.join(classes)} with --labels"
    )


def _read_list() -> Iterator[str]:
    """Read paths from standard input, one a line."""
    for line in sys.stdin.buffer.read().splitlines():
        if line not in (b"", STANDARD_INPUT.encode()):
            yield os.fsdecode(line)


def _files_in(folder: Path) -> list[Path]:
    files = [file for file in folder.rglob("*") if not file.is_dir()]
    return sorted(file for file in files if not any(map(is_hidden, file.relative_to(folder).parts)))


def _matches(pattern: str) -> Iterator[tuple[Path, str]]:
    # Path.glob takes no absolute pattern
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
    if not matches:
        yield Path(pattern), pattern
    named = Path(pattern).parts
    for match in matches:
        others = [part for part in Path(match).parts if part not in named]
        if not any(map(is_hidden, others)):
            yield from expand_paths([match])
