"""Where a member's files lie, and the table of class probabilities that it predicts."""

import csv
import functools
import hashlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import yaml

from stages.shared.errors import UserError
from stages.shared.files import write_bytes

MODELS = Path("models/members")
METRICS = Path("metrics/members")
SCRATCH = Path(".dvc/tmp/members")  # of members that were trained, and that DVC has not taken over yet


def scratch(name: str) -> Path:
    """The folder to train a member in: another one whenever something changed that the member depends on.

    That is what dvc.yaml lists as dependencies and parameters of its training.

    Raises
    ------
    UserError
        If a dependency is missing.
    """
    stage = yaml.safe_load(Path("dvc.yaml").read_text("utf-8"))["stages"]["train"]["do"]
    params = yaml.safe_load(Path("params.yaml").read_text("utf-8"))
    inputs = {path: _hash(Path(path)) for path in (dep.replace("${key}", name) for dep in stage["deps"])}
    for key in (param.replace("${key}", name) for param in stage["params"]):
        inputs[key] = functools.reduce(lambda block, part: block[part], key.split("."), params)
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    return SCRATCH / f"{name}-{digest[:32]}"


def is_trained(folder: Path) -> bool:
    """Whether the training in this scratch folder came to its end: metrics are written last."""
    return (folder / "metrics.json").is_file()


def put_in_place(folder: Path, name: str) -> None:
    """Move what was trained in a scratch folder to where DVC expects it."""
    write_bytes(METRICS / f"{name}.json", (folder / "metrics.json").read_bytes())
    shutil.rmtree(MODELS / name, ignore_errors=True)
    shutil.copytree(folder, MODELS / name, ignore=shutil.ignore_patterns("metrics.json"))
    shutil.rmtree(folder)


@functools.cache
def _hash(path: Path) -> str:
    """SHA-256 of a file, or of a folder's files with their names."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return hashlib.sha256("".join(f"{file}\0{_hash(file)}\n" for file in files).encode()).hexdigest()
    if not path.is_file():
        raise UserError(f"{path} is missing; run `dvc repro` to make it")
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    except ValueError as error:
        raise UserError(f"{path} is not a table of predictions ({error}); run `dvc repro --force` to make it again") from None
    if not fits or probabilities.shape != (len(rows), len(classes)) or not np.isfinite(probabilities).all():
        raise UserError(f"{path} does not fit the images and classes it should be of; run `dvc repro --force` to make it again")
    return probabilities
