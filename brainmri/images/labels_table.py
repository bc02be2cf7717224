"""Read a table of labels: CSV or TSV, with a header."""

import csv
import difflib
import io
import re
import stat
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar

from brainmri.common.errors import UserError
from brainmri.common.file_names import to_nfc
from brainmri.common.tables import unguard
from brainmri.images.folder_words import split_part

REQUIRED, OPTIONAL = ("path", "class"), ("patient", "split")
COLUMNS = REQUIRED + OPTIONAL
MISSING = {"na", "n/a", "#n/a", "<na>", "nan", "null", "?"}
MAX_BYTES = 2**30
SPREADSHEET = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx and .ods; .xls
SEPARATOR_LINE = re.compile(r'\A"?sep=[,;\t]"?(?=\r?\n)', re.IGNORECASE)  # as Excel reads it
Name = TypeVar("Name")  # by which a caller knows a file
SPLITS = {
    "training": "training",
    "train": "training",
    "test": "test",
    "testing": "test",
}


class Row(NamedTuple):
    """A row of the table.

    Attributes
    ----------
    line : int
        Where it is, counted from 1.
    path : str
        Below the source.
    class_name : str
        In composed Unicode.
    patient : str or None
        Identifier in composed Unicode; None without the column.
    split : {"training", "test"} or None
        None without the column.
    """

    line: int
    path: str
    class_name: str
    patient: str | None
    split: str | None


class LabelsTable(NamedTuple):
    """The table's file, and its rows, no two of which have the same path."""

    path: Path
    rows: list[Row]

    def find(self, names: dict[Name, str], expected: str) -> dict[Name, Row]:
        """Find the file of each row.

        Parameters
        ----------
        names : dict of any to str
            Path of each file below the folder of the images.
        expected : str
            For the error: where files are expected.

        Returns
        -------
        dict of any to Row
            The keys of `names`, in the order of the rows.

        Raises
        ------
        UserError
            If a row has no file, or several.
        """
        files_of: dict[str, list[Name]] = defaultdict(list)
        for file, name in names.items():
            files_of[to_nfc(name)].append(file)
        row_files = [(row, files_of.get(to_nfc(row.path), [])) for row in self.rows]
        for row, files in row_files:
            if len(files) > 1:
                raise UserError(
                    f"{self.path}, line {row.line}: {row.path!r} stands for {len(files)} files;"
                    " expected one: give the folder above them, and paths below it"
                )
        if missing := [row for row, files in row_files if not files]:
            hint = ", with / between folders" if "\\" in missing[0].path else ""
            if near := _find_near_name(missing[0].path, names.values()):
                hint = f"; {near!r} is there"
            raise UserError(
                f"{self.path}: {len(missing)} of {len(self.rows)} paths are missing, such as"
                f" {missing[0].path!r} in line {missing[0].line}; expected files below {expected}"
                f"{hint}"
            )
        return {file: row for row, [file] in row_files}


def read_labels_table(
    path: Path, parameter: str = "data.labels", fewest_classes: int = 2
) -> LabelsTable:
    """Read a table of labels.

    It is UTF-8, with or without a byte-order mark; commas, tabs or semicolons separate its columns,
    as its header shows, before which Excel's "sep=;" may be. Equal rows count once. Names may have
    the apostrophe that this project puts before what looks like a formula; see
    `brainmri.common.tables`.

    Parameters
    ----------
    path : Path
    parameter : str
        The parameter or option that names the table, for errors.
    fewest_classes : int
        How many classes it has at least: 1 or 2.

    Raises
    ------
    UserError
        Naming the file, the line, and what was expected.
    """
    text = SEPARATOR_LINE.sub("", _read_text(path, parameter))  # its line counts as a blank one
    header = text.lstrip().partition("\n")[0]
    delimiter = max(",\t;", key=header.count)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    lines = ((reader.line_num, cells) for cells in reader if any(map(str.strip, cells)))
    rows: dict[str, Row] = {}
    try:
        _, names = next(lines, (0, []))
        columns = _read_header(path, names)
        for number, cells in lines:
            row = _read_row(f"{path}, line {number}", columns, number, cells)
            former = rows.setdefault(to_nfc(row.path), row)
            if former[2:] != row[2:]:
                raise UserError(
                    f"{path}: lines {former.line} and {row.line} disagree on {row.path!r}; expected"
                    " one row for each image"
                )
    except csv.Error as error:
        raise UserError(
            f"{path}, line {reader.line_num}: {error}; expected a CSV or TSV table"
        ) from None
    classes = sorted({row.class_name for row in rows.values()})
    if len(classes) < fewest_classes:
        named = f": {classes[0]!r}" if classes else ""
        expected = "one" if fewest_classes == 1 else "two"
        raise UserError(f"{path} has {len(classes)} class(es){named}; expected {expected} or more")
    return LabelsTable(path, list(rows.values()))


def _find_near_name(path: str, names: Iterable[str]) -> str | None:
    """Return the first name that a path equals but for case or a lacking extension."""
    wanted = to_nfc(path).casefold()
    for name in names:
        folded = to_nfc(name).casefold()
        if wanted in (folded, str(PurePosixPath(folded).with_suffix(""))):
            return name
    return None


def _read_text(path: Path, parameter: str) -> str:
    try:
        status = path.stat()
        if stat.S_ISFIFO(status.st_mode) or stat.S_ISCHR(status.st_mode):
            # Reading it may never end
            raise UserError(f"{parameter}: {str(path)!r} is a pipe or a device; expected a file")
        if status.st_size > MAX_BYTES:
            raise UserError(f"{parameter}: {str(path)!r} has more than {MAX_BYTES:,} bytes")
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{parameter}: {str(path)!r} can't be read ({error.strerror}); expected a CSV or TSV"
            " table"
        ) from None
    if content.startswith(SPREADSHEET):
        raise UserError(
            f"{parameter}: {str(path)!r} is a spreadsheet; save it as CSV (UTF-8) and give that"
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(
            f"{parameter}: {str(path)!r} is not UTF-8 text; save it as CSV (UTF-8)"
        ) from None
    if "\0" in text:
        raise UserError(
            f"{parameter}: {str(path)!r} is not text, since it has null bytes; save it as CSV"
            " (UTF-8)"
        )
    if text.lstrip().startswith(("{", "[")):
        raise UserError(
            f"{parameter}: {str(path)!r} starts with {text.lstrip()[0]!r}, as JSON does; expected a"
            f" CSV or TSV table with the columns {', '.join(REQUIRED)}"
        )
    if not text.strip():
        raise UserError(f"{parameter}: {str(path)!r} is empty; expected a header with path, class")
    return text


def _read_header(path: Path, cells: list[str]) -> list[str]:
    """Return the names of the columns, in lower case."""
    columns = [cell.strip().lower() for cell in cells]
    for name in REQUIRED:
        if name not in columns:
            raise UserError(
                f"{path}: no column {name!r} among {', '.join(map(repr, columns))}; expected a"
                f" header with {', '.join(REQUIRED)}, and optionally {', '.join(OPTIONAL)}"
            )
    if unknown := [name for name in columns if name not in COLUMNS]:
        near = difflib.get_close_matches(unknown[0], COLUMNS, n=1)
        hint = f"rename it to {near[0]}, or remove it" if near else "remove it or rename it"
        raise UserError(
            f"{path}: unknown column(s) {', '.join(map(repr, unknown))}; expected"
            f" {', '.join(COLUMNS)}: {hint}"
        )
    if len(set(columns)) < len(columns):
        raise UserError(f"{path}: a column is there twice; expected {', '.join(COLUMNS)} once each")
    return columns


def _read_row(where: str, columns: list[str], line: int, cells: list[str]) -> Row:
    if len(cells) != len(columns):
        raise UserError(f"{where}: {len(cells)} cells; expected {len(columns)}, as in the header")
    values = {name: unguard(cell.strip()) for name, cell in zip(columns, cells, strict=True)}
    for name, value in values.items():
        if not value:
            raise UserError(f"{where}: no {name}; expected a value in every row")
        if value.casefold() in MISSING and name != "path":
            raise UserError(
                f"{where}: {name} is {value!r}, as programs write a missing value; expected a value"
                " in every row: remove the row, or give it another name"
            )
    path = PurePosixPath(values["path"])
    if path.is_absolute() or ".." in path.parts:
        raise UserError(
            f"{where}: {values['path']!r} is not below the images' folder; expected a relative path"
        )
    split = values.get("split")
    if split is not None and split.lower() not in SPLITS:
        hint = ""
        if split_part(split) == "validation":
            hint = "; validation images belong to training: members hold out some of their own"
        raise UserError(f"{where}: split is {split!r}; expected training or test{hint}")
    return Row(
        line,
        str(path),
        to_nfc(values["class"]),
        to_nfc(values["patient"]) if "patient" in values else None,
        SPLITS[split.lower()] if split else None,
    )
