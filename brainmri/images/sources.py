"""List the images of a source: of class folders, or of a table; and those of a given test set.

Names are compared in composed Unicode (NFC): a class is named in that form, whatever its folder.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from brainmri.common.errors import UserError
from brainmri.common.file_names import stored_paths, to_nfc
from brainmri.common.params import Data
from brainmri.images.folder_tree import walk_source
from brainmri.images.folder_words import is_augmented, letters_of
from brainmri.images.labels_table import LabelsTable, read_labels_table
from brainmri.images.layout import check_layout, find_masks, join_names

TEST, TRAINING = "test", "training"
MAX_NUMBERED = 9  # classes, such as grades


class SourceFile(NamedTuple):
    """A file that may hold an image.

    Attributes
    ----------
    path : str
        Name in the store: the path below the source in composed Unicode, unless two files would
        share it; of `data.test`, with the folder's name before it.
    source : Path
        `data.source` or `data.test`.
    below : str
        Path below it.
    class_name : str
    patient : str or None
        As the table has it; it must not be stored.
    split : {"test", "training"} or None
        None where the source gives no test set.
    """

    path: str
    source: Path
    below: str
    class_name: str
    patient: str | None = None
    split: str | None = None

    @property
    def file(self) -> Path:
        """The file itself."""
        return self.source / self.below


class Source(NamedTuple):
    """What a source holds.

    Attributes
    ----------
    classes : list of str
        Names in composed Unicode, sorted.
    files : list of SourceFile
        Sorted by class and by path in composed Unicode; the given test images last.
    rejected : list of dict
        `path` and `reason` of what is not read.
    """

    classes: list[str]
    files: list[SourceFile]
    rejected: list[dict]


def list_images(data: Data) -> Source:
    """List the classes and the files of a source; hidden and system files are skipped.

    Raises
    ------
    UserError
        If there are fewer than two classes, a folder can't be listed, the class folders are
        elsewhere in the source, the table does not fit the source, the test folder has other
        classes, or a file is a link out of the source.
    """
    source = Path(data.source)
    if data.labels:
        listed = _list_table(source, read_labels_table(Path(data.labels)))
    else:
        listed = _list_class_folders("data.source", source)
    _warn_of_spellings(listed.classes)
    _warn_of_numbered_classes(listed.classes)
    if data.test:
        listed = _add_test_folder(listed, Path(data.test))
    _warn_of_augmented_copies(listed.files, data.patient)
    return listed


def add_part(source: Source, part: Source, folder: Path, split: str) -> Source:
    """Add a part of a split; its folder's name comes before its paths, changed if it is taken."""
    taken = {file.path.partition("/")[0] for file in source.files}
    prefix = to_nfc(folder.name)
    while prefix in taken:
        prefix += f"-{split}"
    files = [file._replace(path=f"{prefix}/{file.path}", split=split) for file in part.files]
    rejected = [{**file, "path": f"{prefix}/{file['path']}"} for file in part.rejected]
    classes = sorted({*source.classes, *part.classes})
    return Source(classes, source.files + files, source.rejected + rejected)


def spelling(name: str) -> str | float:
    """Return what names of the same class probably share: a number, or what is no punctuation.

    Case and spaces don't count either, but between digits: `1-2` is not `12`.
    """
    try:
        return float(name.replace("_", " "))
    except ValueError:
        pass
    spaced = [" " if unicodedata.category(char)[0] in "PZ" else char for char in name.casefold()]
    words = " ".join("".join(spaced).split())
    return re.sub(r"(?<!\d) | (?!\d)", "", words)


def spelled_alike(names: Iterable[str], key: Callable[[str], str | float]) -> list[list[str]]:
    """Return the different names that share a key, such as `spelling`, with others, together."""
    names_of: dict[str | float, list[str]] = defaultdict(list)
    for name in dict.fromkeys(names):
        names_of[key(name)].append(name)
    return [alike for alike in names_of.values() if len(alike) > 1]


def describe_first(rejected: list[dict]) -> str:
    """Describe the first file that is not used, and why, for the end of a sentence."""
    return "".join(f" ({file['path']!r}: {file['reason']})" for file in rejected[:1])


def _warn_of_spellings(classes: list[str]) -> None:
    """Warn of classes whose names differ only in punctuation, spaces and case."""
    for names in spelled_alike(classes, spelling):
        listing = f"{', '.join(map(repr, names[:-1]))} and {names[-1]!r}"
        print(f"warning: {listing} are {len(names)} classes; are they meant to be one?")


def _warn_of_numbered_classes(classes: list[str]) -> None:
    """Warn of so many classes that differ only in numbers that they may be patients."""
    [(letters, count)] = Counter(map(letters_of, classes)).most_common(1)
    if count > MAX_NUMBERED:
        first, second = [name for name in classes if letters_of(name) == letters][:2]
        print(
            f"warning: {count} classes, such as {first!r} and {second!r}, differ only in numbers;"
            " if they are patients, give a table with the columns class and patient (data.labels)"
        )


def _warn_of_augmented_copies(files: list[SourceFile], pattern: str | None) -> None:
    """Warn of folders of augmented copies, unless patients keep these beside their originals."""
    if pattern or any(file.patient for file in files):
        return
    copies = [file for file in files if is_augmented(f"{file.source.name}/{file.below}")]
    if copies:
        print(
            f"warning: {len(copies)} of {len(files)} images are augmented copies by their names,"
            f" such as {copies[0].path!r}; copies that are not recognized as near duplicates leak:"
            " use the originals alone, or see docs/faq.md"
        )


def _list_class_folders(parameter: str, source: Path) -> Source:
    if not source.is_dir():
        raise UserError(
            f"{parameter}: {str(source)!r} is not a folder; expected a folder of class folders"
            " (if it is an archive, unpack it)"
        )
    tree, rejected = walk_source(source, parameter)
    if note := check_layout(tree):
        print(note)
    classes = sorted({to_nfc(folder) for folder in tree.folders[""]})
    if len(classes) < (2 if parameter == "data.source" else 1):
        raise UserError(
            f"{parameter}: {str(source)!r} has {len(classes)} class folder(s);"
            " expected two or more, one for each class, or a table of labels"
            f" (data.labels){describe_first(rejected)}"
        )
    rejected += [{"path": path, "reason": "not in a class folder"} for path in tree.files[""]]
    masks = find_masks(tree)
    rejected += [{"path": path, "reason": "a mask, by its name"} for path in sorted(masks)]
    paths = [path for folder in tree.files if folder for path in tree.files[folder]]
    paths = [path for path in paths if path not in masks]
    names = stored_paths(paths)
    files = [
        SourceFile(names[path], source, path, to_nfc(path.partition("/")[0])) for path in paths
    ]
    return Source(classes, _sort(files), sorted(rejected, key=lambda file: file["path"]))


def _add_test_folder(training: Source, folder: Path) -> Source:
    """Add the images of `data.test`, which may lack a class, but has no other ones."""
    test = _list_class_folders("data.test", folder)
    if others := sorted({*test.classes} - {*training.classes}):
        raise UserError(
            f"data.test: {str(folder)!r} has the classes {join_names(test.classes)}, data.source"
            f" {join_names(training.classes)}; expected no others, such as {join_names(others)}"
        )
    if lacking := sorted({*training.classes} - {*test.classes}):
        print(f"warning: data.test: {str(folder)!r} has no folder {join_names(lacking)}")
    files = [file._replace(split=TRAINING) for file in training.files]
    return add_part(training._replace(files=files), test, folder, TEST)


def _list_table(source: Path, table: LabelsTable) -> Source:
    """List the images of a table; files that it does not name are rejected."""
    if not source.is_dir():
        raise UserError(
            f"data.source: {str(source)!r} is not a folder; expected the folder of the images that"
            " data.labels lists (if it is an archive, unpack it)"
        )
    tree, rejected = walk_source(source)
    paths = [path for folder in tree.files.values() for path in folder]
    expected = f"{str(source)!r}: correct data.source, or the table"
    row_of = table.find({path: path for path in paths}, expected)
    names = stored_paths(list(row_of))
    files = [
        SourceFile(names[path], source, path, row.class_name, row.patient, row.split)
        for path, row in row_of.items()
    ]
    own = table.path.resolve()
    rejected += [
        {"path": path, "reason": "not in data.labels"}
        for path in paths
        if path not in row_of and (source / path).resolve() != own
    ]
    classes = sorted({row.class_name for row in table.rows})
    return Source(classes, _sort(files), sorted(rejected, key=lambda file: file["path"]))


def _sort(files: list[SourceFile]) -> list[SourceFile]:
    return sorted(files, key=lambda file: (file.class_name, to_nfc(file.path), file.below))
