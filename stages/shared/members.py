"""The table of class probabilities that a member predicts."""

import csv
import io
from pathlib import Path

import numpy as np

from stages.shared.errors import UserError
from stages.shared.files import write_bytes


def write_predictions(path: str | Path, rows: list[int], probabilities: np.ndarray, classes: list[str]) -> None:
    """Write a CSV file: `row` of the RAD, then the probability of each class, to the last bit of a float32.

    Parameters
    ----------
    path : str or Path
        Of the file.
    rows : list of int, length n
        Rows of the RAD.
    probabilities : ndarray of float32, shape (n, classes)
        Each row sums to 1.
    classes : list of str
        The classes' names.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["row", *classes])
    for row, values in zip(rows, probabilities, strict=True):
        table.writerow([row, *(f"{value:.9g}" for value in values)])
    write_bytes(path, text.getvalue().encode())


def read_predictions(path: str | Path, rows: list[int], classes: list[str]) -> np.ndarray:
    """The probabilities that `write_predictions` wrote for these rows and classes.

    Returns
    -------
    ndarray of float64, shape (len(rows), len(classes))

    Raises
    ------
    UserError
        If the file is missing, is no such table, or is of other rows or classes.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            header, *lines = csv.reader(file)
        probabilities = np.array([[float(value) for value in line[1:]] for line in lines]).reshape(len(lines), -1)
        fits = header == ["row", *classes] and [line[0] for line in lines] == [str(row) for row in rows]
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run `dvc repro` to make it") from None
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} is not a table of predictions ({error}); run `dvc repro --force` to make it again") from None
    if not fits or probabilities.shape != (len(rows), len(classes)) or not np.isfinite(probabilities).all():
        raise UserError(f"{path} does not fit the images and classes it should be of; run `dvc repro --force` to make it again")
    return probabilities
