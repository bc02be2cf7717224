"""The table of class probabilities that a member predicts."""

import csv
from pathlib import Path

import numpy as np

from brainmri.common.errors import UserError
from brainmri.common.files import write_bytes
from brainmri.common.tables import format_csv, parse_csv


def write_predictions(
    path: str | Path, rows: list[int], probabilities: np.ndarray, classes: list[str]
) -> None:
    """Write predictions as CSV: a row of the store, then the probability of each class.

    Probabilities have the digits that a float32 needs to be read again bit for bit.

    Parameters
    ----------
    path : str or Path
    rows : list of int, length n
        Of the store.
    probabilities : ndarray of float32, shape (n, classes)
        Each row sums to 1.
    classes : list of str
    """
    lines = [
        [row, *(f"{value:.9g}" for value in values)]
        for row, values in zip(rows, probabilities, strict=True)
    ]
    write_bytes(path, format_csv([["row", *classes], *lines]))


def read_predictions(path: str | Path, rows: list[int], classes: list[str]) -> np.ndarray:
    """Read the table that `write_predictions` wrote for these rows and classes.

    Returns
    -------
    ndarray of float64, shape (len(rows), len(classes))

    Raises
    ------
    UserError
        If the file is missing, is no such table, or is of other rows or classes.
    """
    repair = "run `dvc repro --force` to make it again"
    try:
        with open(path, newline="", encoding="utf-8") as file:
            header, *lines = parse_csv(file.read())
        values = [[float(value) for value in line[1:]] for line in lines]
        probabilities = np.array(values).reshape(len(lines), -1)
        row_names = ["".join(line[:1]) for line in lines]
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run `dvc repro` to make it") from None
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} is not a table of predictions ({error}); {repair}") from None
    is_expected = header == ["row", *classes] and row_names == [str(row) for row in rows]
    has_shape = probabilities.shape == (len(rows), len(classes))
    if not (is_expected and has_shape and np.isfinite(probabilities).all()):
        raise UserError(f"{path} is of other images or classes, or damaged; {repair}")
    return probabilities
