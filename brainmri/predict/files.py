"""Image files that command line arguments stand for, and their classes."""

import glob
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from brainmri.common.errors import UserError, printable
from brainmri.common.file_names import is_hidden, is_system_name, to_nfc

STANDARD_INPUT = "-"


class GivenPath(NamedTuple):
    """How a file was given.

    Attributes
    ----------
    below : str
        Path below the folder that stands for the file; the path as it is if the file was named or
        matched.
    folder : Path or None
        That folder.
    """

    below: str
    folder: Path | None = None


def list_files(paths: Iterable[str]) -> dict[Path, GivenPath]:
    """List the files that paths stand for, each once; see `expand_paths`."""
    files: dict[Path, tuple[Path, GivenPath]] = {}
    for file, given in expand_paths(paths):
        files.setdefault(_absolute(file), (file, given))
    return dict(files.values())


def expand_paths(paths: Iterable[str]) -> Iterator[tuple[Path, GivenPath]]:
    """List the files that paths stand for; a path that does not exist is yielded as it is.

    Hidden files are skipped, except for those that are named, and so are system files.

    Parameters
    ----------
    paths : iterable of str
        Files; folders, for all files in them; patterns; "-", for a list on standard input.

    Yields
    ------
    file, given : Path, GivenPath
    """
    for path in paths:
        if is_system_name(Path(path).name):  # a shell expands its patterns to those, too
            continue
        if path == STANDARD_INPUT:
            yield from expand_paths(_read_list())
        elif Path(path).is_dir():
            folder = Path(path)
            for file in _files_in(folder):
                yield file, GivenPath(file.relative_to(folder).as_posix(), folder)
        elif not Path(path).exists() and glob.has_magic(path):
            yield from _matches(path)
        else:
            yield Path(path), GivenPath(path)


def label_files(files: dict[Path, GivenPath], classes: list[str]) -> dict[Path, int]:
    """Return the label of each image: the class of the outermost folder that is named as one.

    So does `ingest`: of class folders with folders of patients, these may be named as classes, too.
    A folder that was given is a class folder itself if it is named as one, unless it holds folders
    of several classes. Folders above those that were given count only if none of the files has a
    class folder below, the innermost first; a line says so.

    Parameters
    ----------
    files : dict of Path to GivenPath
        See `list_files`.
    classes : list of str

    Returns
    -------
    dict of Path to int
        Without files beside the class folders, such as a README, which a line names.

    Raises
    ------
    UserError
        If another file has no such folder, or if it is not clear which folder is its class.
    """
    label_of = {to_nfc(name): label for label, name in enumerate(classes)}

    def labels_in(folders: Iterable[str]) -> list[int]:
        return [label_of[name] for name in map(to_nfc, folders) if name in label_of]

    below_of = {file: labels_in(Path(given.below).parts[:-1]) for file, given in files.items()}
    labels: dict[Path, int | None]
    if not any(below_of.values()):
        labels = {file: _last(labels_in(_absolute(file).parts[:-1])) for file in files}
        for label in sorted({*labels.values()} - {None}):
            count = list(labels.values()).count(label)
            print(
                f"labels: {count} of {len(files)} images are {classes[label]!r}, by the name of a"
                " folder above the given paths",
                file=sys.stderr,
            )
    else:
        files_of: dict[Path | None, list[Path]] = defaultdict(list)
        for file, given in files.items():
            files_of[given.folder].append(file)
        labels = {}
        for folder, inside in files_of.items():
            own = _last(labels_in([_absolute(folder).name])) if folder else None
            labels |= _label_given({file: below_of[file] for file in inside}, folder, own, classes)
        for file, given in files.items():
            if labels[file] is None and given.folder and given.below == file.name:
                print(f"skipped: {printable(file)} is in no class folder", file=sys.stderr)
                del labels[file]
    for file, label in labels.items():
        if label is None:
            raise UserError(
                f"{file} is in no class folder; expected folders named {', '.join(classes)} with"
                " --labels"
            )
    return labels


def _label_given(
    labels_of: dict[Path, list[int]], folder: Path | None, own: int | None, classes: list[str]
) -> dict[Path, int | None]:
    """Return the labels of the files of a given folder, or of files that were named.

    Parameters
    ----------
    labels_of : dict of Path to list of int
        Classes as which folders below the given one are named, the outermost first; of a file that
        was named, folders of its path.
    folder : Path or None
        The folder; None for files that were named.
    own : int, optional
        The class as which the folder is named.
    classes : list of str
    """
    outermost = {labels[0] for labels in labels_of.values() if labels}
    if folder is None:
        ambiguous = [file for file, labels in labels_of.items() if len(set(labels)) > 1]
    elif own is not None and len(outermost) < 2:
        ambiguous = [file for file, labels in labels_of.items() if {own, *labels} != {own}]
        labels_of = {file: labels or [own] for file, labels in labels_of.items()}
    else:
        ambiguous = []
    if ambiguous:
        raise UserError(
            f"{ambiguous[0]} is in folders of two classes; expected a folder of class folders with"
            " --labels: give the one that holds them"
        )
    innermost = {labels[-1] for labels in labels_of.values() if labels}
    if len(outermost) == 1 and folder and len(innermost) > 1:
        [label] = outermost
        raise UserError(
            f"{folder} has images in a folder of class {classes[label]!r} alone, in folders of"
            " several classes; expected a folder of class folders with --labels: give the one that"
            " holds them"
        )
    return {file: next(iter(labels), None) for file, labels in labels_of.items()}


def _absolute(path: Path) -> Path:
    """Return an absolute path without "." and ".."; links are files of their own."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def _last(labels: list[int]) -> int | None:
    return labels[-1] if labels else None


def _read_list() -> Iterator[str]:
    """Read paths from standard input, one a line."""
    for line in sys.stdin.buffer.read().splitlines():
        if line not in (b"", STANDARD_INPUT.encode()):
            yield os.fsdecode(line)


def _files_in(folder: Path) -> list[Path]:
    """List a folder's files, and the folders that can't be listed or are links: they are unread."""
    files, unlisted = [], []
    for path, folders, names in os.walk(folder, onerror=unlisted.append):
        links = [name for name in folders if (Path(path) / name).is_symlink()]
        files += [Path(path) / name for name in [*names, *links]]
    files += [Path(error.filename) for error in unlisted]
    return sorted(file for file in files if not any(map(is_hidden, file.relative_to(folder).parts)))


def _matches(pattern: str) -> Iterator[tuple[Path, GivenPath]]:
    # Path.glob takes no absolute pattern
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
    if not matches:
        yield Path(pattern), GivenPath(pattern)
    named = Path(pattern).parts
    for match in matches:
        others = [part for part in Path(match).parts if part not in named]
        if not any(map(is_hidden, others)):
            yield from expand_paths([match])
