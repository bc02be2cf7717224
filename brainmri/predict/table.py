"""Labels of image files from a table, in place of class folders."""

import sys
from pathlib import Path

from brainmri.common.errors import UserError, printable
from brainmri.common.file_names import to_nfc
from brainmri.images.labels_table import read_labels_table
from brainmri.predict.files import GivenPath

OPTION = "--table"


def read_table(
    path: Path, files: dict[Path, GivenPath], classes: list[str]
) -> tuple[dict[Path, int], dict[Path, str]]:
    """Read a table of labels; see `read_labels_table`.

    Parameters
    ----------
    path : Path
        Of the table.
    files : dict of Path to GivenPath
        See `files.list_files`. Those that the table does not list are skipped, with a line.
    classes : list of str
        Names that the table may have.

    Returns
    -------
    labels : dict of Path to int
        Of the files that the table lists.
    patients : dict of Path to str
        Their identifiers; empty if the table has none.

    Raises
    ------
    UserError
        If the table can't be read, lists a file that is not there, or has another class.
    """
    table = read_labels_table(path, OPTION, fewest_classes=1)
    below_of = {file: given.below for file, given in files.items()}
    row_of = table.find(below_of, "the folders that are given")
    label_of = {to_nfc(name): label for label, name in enumerate(classes)}
    if other := [row for row in table.rows if row.class_name not in label_of]:
        raise UserError(
            f"{path}, line {other[0].line}: the class is {other[0].class_name!r}; expected those of"
            f" the ensemble: {', '.join(classes)}"
        )
    if skipped := [str(file) for file in files if file not in row_of and file != path]:
        print(
            f"skipped: {len(skipped)} files that {printable(path)} does not list, such as"
            f" {skipped[0]!r}",
            file=sys.stderr,
        )
    labels = {file: label_of[row.class_name] for file, row in row_of.items()}
    return labels, {file: row.patient for file, row in row_of.items() if row.patient}
