"""Tables as CSV, in which a spreadsheet takes no name for a formula.

A cell of text that a spreadsheet would compute or cut, since it begins with one of `=`, `+`, `-`,
`@`, a tab or a carriage return, gets an apostrophe before it; so does one that begins with
apostrophes and then one of these. Reading takes that apostrophe away, so any name comes back as it
was. Numbers such as -0.5 are no formulas.
"""

import csv
import io
import re
from collections.abc import Iterable

FORMULA = re.compile(r"'*[=+\-@\t\r]")
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
GUARDED = re.compile(r"'+[=+\-@\t\r]")


def guard(text: str) -> str:
    """Return a text as a cell that a spreadsheet does not take for a formula."""
    return "'" + text if FORMULA.match(text) and not NUMBER.fullmatch(text) else text


def unguard(cell: str) -> str:
    """Return the text of which `guard` made a cell."""
    return cell[1:] if GUARDED.match(cell) else cell


def format_row(cells: Iterable) -> str:
    """Format a row of CSV, with its line feed; text is guarded."""
    row = io.StringIO(newline="")
    csv.writer(row).writerow([guard(cell) if isinstance(cell, str) else cell for cell in cells])
    return row.getvalue().removesuffix("\r\n") + "\n"  # csv quotes only the ends that it writes


def format_csv(rows: Iterable[Iterable]) -> bytes:
    """Format rows as CSV in UTF-8; what is not UTF-8 in a path becomes a backslash escape."""
    return "".join(map(format_row, rows)).encode("utf-8", "backslashreplace")


def parse_csv(text: str) -> list[list[str]]:
    """Parse what `format_csv` made.

    Raises
    ------
    csv.Error
        If it is no CSV.
    """
    return [[*map(unguard, row)] for row in csv.reader(io.StringIO(text, newline=""))]
