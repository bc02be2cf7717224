"""Print predictions as a table, as CSV, or as JSON."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from brainmri.common.errors import printable
from brainmri.common.files import to_json
from brainmri.common.tables import format_csv
from brainmri.evaluation.names import columns, pad, shorten_all
from brainmri.evaluation.prediction_sets import missing_sets
from brainmri.evaluation.results import Decision
from brainmri.predict.prediction import PatientPrediction, Prediction

FILE_WIDTH = 40  # columns of the table
NAME_WIDTH = 20
MIN_WIDTH = 8
MAX_CLASSES = 8  # with a column each
MAX_LISTED, LISTED_WIDTH = 3, 12  # classes of a prediction set, and columns of each

Record = dict[str, str | int | float | bool | list[str] | None]


def encodable(path: Path) -> str:
    """Return a path, which need not be UTF-8, as text that is."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def record_of(prediction: Prediction, classes: list[str]) -> Record:
    """Return a prediction as programs read it: a row of the CSV, or a JSON object.

    Parameters
    ----------
    prediction : Prediction
    classes : list of str

    Returns
    -------
    dict
        Probabilities are between 0 and 1; entropy and mutual information are in nats.
    """
    return {
        "file": encodable(prediction.path),
        **_vote(prediction, classes),
        "entropy": round(prediction.entropy, 6),
        "mutual_information": round(prediction.mutual_information, 6),
        "novelty": round(prediction.novelty, 4),
        "unlike_training_images": prediction.is_novel,
    }


def patient_record(patient: PatientPrediction, classes: list[str]) -> Record:
    """Return the prediction for a patient as `record_of` does that for an image."""
    return {
        "patient": patient.number,
        "slices": patient.slices,
        "first_file": encodable(patient.first),
        **_vote(patient, classes),
        "slices_unlike_training_images": patient.novel,
    }


def describe_decision(prediction: Prediction | PatientPrediction, classes: list[str]) -> str | None:
    """Describe what is decided: a class, or "unsure" and the reason; None without prediction sets.

    An image unlike the training images has no decision, whatever its set: of such images nothing is
    promised.
    """
    if prediction.is_novel:
        return "unsure: unlike the training images"
    if prediction.prediction_set is None:
        return None
    names = [classes[label] for label in prediction.prediction_set]
    return names[0] if len(names) == 1 else f"unsure: {', '.join(names)}"


def why_no_sets(decision: Decision, by_patient: bool) -> str | None:
    """Explain in one line why predictions have no prediction sets; None if they have."""
    calibration = decision["patients"] if by_patient else decision["images"]
    if calibration is None:
        reason = "no prediction sets: the patients of the training images are unknown"
        if decision["rule"]["threshold"] is not None:
            reason += "; the threshold was chosen on images, and keeps no rate for patients"
        return reason
    return missing_sets(calibration, decision["error"])


def _decision_cell(prediction: Prediction | PatientPrediction, classes: list[str]) -> str:
    """Return what `describe_decision` does, no longer than a column of the table."""
    if not prediction.is_novel and len(prediction.prediction_set or ()) > MAX_LISTED:
        return f"unsure: {len(prediction.prediction_set)} of {len(classes)} classes"
    return describe_decision(prediction, shorten_all(classes, LISTED_WIDTH)) or ""


def _vote(prediction: Prediction | PatientPrediction, classes: list[str]) -> Record:
    sets = prediction.prediction_set
    return {
        "class": classes[prediction.label],
        **{
            f"probability of {name}": round(float(probability), 6)
            for name, probability in zip(classes, prediction.probabilities, strict=True)
        },
        "prediction_set": None if sets is None else [classes[label] for label in sets],
        "decision": describe_decision(prediction, classes),
    }


def format_records(records: Iterable[Record]) -> bytes:
    """Format records as CSV, with a header; empty without records."""
    return format_csv(_csv_rows(records))


def print_csv(records: Iterable[Record]) -> None:
    """Print records as CSV, with a header; on a terminal, what it may take for commands is
    escaped.
    """
    for cells in _csv_rows(records):
        shown = map(_printable_cell, cells) if sys.stdout.isatty() else cells
        print(format_csv([shown]).decode(), end="")


def _csv_rows(records: Iterable[Record]) -> Iterator[list[str | float]]:
    """Yield the header, if there are records, and the cells of each record, as they come."""
    for row, record in enumerate(records):
        if row == 0:
            yield [*record]
        yield [_csv_cell(value) for value in record.values()]


def _csv_cell(value: str | float | list[str] | None) -> str | float:
    if isinstance(value, list):
        return "; ".join(value)
    return "" if value is None else value


def _printable_cell(cell: str | float) -> str | float:
    return printable(cell) if isinstance(cell, str) else cell


def print_json_lines(records: Iterable[Record]) -> None:
    """Print each record as a JSON object on a line of its own."""
    for record in records:
        print(to_json(record))


def print_table(predictions: Iterable[Prediction], classes: list[str]) -> None:
    """Print predictions as a table, each line as soon as it is known.

    Names are shortened, and of more than `MAX_CLASSES` classes only the two most probable are
    shown: CSV and JSON have all.
    """
    names, width = _column_names(classes)
    uncertainty = ["entropy", "mutual inf."]
    header = [pad("file", FILE_WIDTH), *_vote_header(names, width), *uncertainty, "decision"]
    print("  ".join(header))
    for prediction in predictions:
        cells = [
            _file_cell(prediction.path),
            *_vote_cells(prediction, names, width),
            f"{prediction.entropy:7.3f}",
            f"{prediction.mutual_information:11.3f}",
            _decision_cell(prediction, classes),
        ]
        if prediction.is_novel:
            cells[-1] += f" ({prediction.novelty:.1f})"
        print("  ".join(cells).rstrip(), flush=True)


def print_patient_table(patients: Iterable[PatientPrediction], classes: list[str]) -> None:
    """Print the predictions for patients as `print_table` does those for images."""
    names, width = _column_names(classes)
    header = ["patient", "slices", pad("first file", FILE_WIDTH), *_vote_header(names, width)]
    print("  ".join([*header, "decision"]))
    for patient in patients:
        cells = [
            f"{patient.number:7}",
            f"{patient.slices:6}",
            _file_cell(patient.first),
            *_vote_cells(patient, names, width),
            _decision_cell(patient, classes),
        ]
        if patient.novel:
            cells.append(f"{patient.novel} of {patient.slices} unlike the training images")
        print("  ".join(cells).rstrip())


def _column_names(classes: list[str]) -> tuple[list[str], int]:
    """Return the names of the classes as they fit into columns, and the width of these."""
    names = shorten_all(classes, NAME_WIDTH)
    return names, max(MIN_WIDTH, *map(columns, names))


def _file_cell(path: Path) -> str:
    text = printable(path)
    if columns(text) > FILE_WIDTH:
        while columns(text) >= FILE_WIDTH:
            text = text[1:]
        text = f"…{text}"
    return pad(text, FILE_WIDTH)


def _vote_header(names: list[str], width: int) -> list[str]:
    if len(names) > MAX_CLASSES:
        return [pad("class", width), "probability", pad("next", width), "probability"]
    return [pad("class", width), *(" " * (width - columns(name)) + name for name in names)]


def _vote_cells(
    prediction: Prediction | PatientPrediction, names: list[str], width: int
) -> list[str]:
    """Return the predicted class and the probabilities, in the columns of `_vote_header`."""
    probabilities, label = prediction.probabilities, prediction.label
    if len(names) > MAX_CLASSES:
        ranked = np.argsort(-probabilities, kind="stable")
        following = next(other for other in ranked if other != label)
        return [
            pad(names[label], width),
            f"{probabilities[label]:11.3f}",
            pad(names[following], width),
            f"{probabilities[following]:11.3f}",
        ]
    return [
        pad(names[label], width),
        *(f"{probability:{width}.3f}" for probability in probabilities),
    ]
