"""Predictions for uploaded files, as the page shows them."""

from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from brainmri.app.requests import MAX_FILES
from brainmri.common.resources import usable_cores
from brainmri.images.limits import ImageError
from brainmri.images.workers import decode_all
from brainmri.models.about import About
from brainmri.predict.files import GivenPath
from brainmri.predict.inference import predict_images
from brainmri.predict.output import (
    describe_decision,
    format_records,
    patient_record,
    record_of,
    why_no_sets,
)
from brainmri.predict.overlays import draw_overlays
from brainmri.predict.patients import (
    find_patients,
    identify_patients,
    is_identified,
    predict_patients,
    why_unidentified,
)
from brainmri.predict.prediction import Prediction

Rows = list[list[str | float]]
Errors = list[tuple[str, str]]  # name of a file, and why it has no prediction


class Table(NamedTuple):
    """A table as the page shows it.

    Attributes
    ----------
    header : list of str
    rows : list of list
    csv : bytes
        The predictions as `python -m brainmri.predict --csv` prints them; empty without any.
    note : str
        Why they have no prediction sets; empty if they have.
    """

    header: list[str]
    rows: Rows
    csv: bytes
    note: str


EMPTY = Table([], [], b"", "")
Gallery = list[tuple[np.ndarray, str]]  # images with captions


def predict_files(
    files: list[str] | None,
    model: keras.Model,
    about: About,
    model_file: str | Path,
    pattern: str | None = None,
) -> tuple[Table, Table, Gallery]:
    """Predict the classes of image files, and of patients where they are known.

    Parameters
    ----------
    files : list of str, optional
        Paths; no more than the first `MAX_FILES` are read.
    model, about : see `brainmri.models.ensemble.load_ensemble`
    model_file : see `brainmri.predict.inference.predict_images`
    pattern : str, optional
        Regular expression whose one group is the patient in the name of a file; None: DICOM's
        PatientIDs are the patients.

    Returns
    -------
    images : Table
        A row for each file, those that could not be read last.
    patients : Table
        A row for each patient, then one for each image that has none; no row without a pattern if
        no image has a PatientID.
    gallery : list of (ndarray of uint8, shape (height, width, 3); str)
        Overlay and caption of each image that could be read.
    """
    if not files:
        return EMPTY, EMPTY, []
    paths = [Path(file) for file in files[:MAX_FILES]]
    images, errors = [], []
    for path, image in decode_all(paths, about["size"], about["crop"], usable_cores()):
        if isinstance(image, ImageError):
            errors.append((path.name, f"can't be read: {image}"))
        else:
            images.append((path, image))
    for file in files[MAX_FILES:]:
        errors.append((Path(file).name, f"can't be read: more than {MAX_FILES} images at once"))

    given = {path: GivenPath(path.name) for path, _ in images}
    patients = find_patients(given, pattern) if pattern else {}
    identified = identify_patients(images, patients)
    predictions = list(predict_images(identified, model, about, model_file))
    overlays = draw_overlays(predictions, model, about) if predictions else []
    captions = [caption_of(prediction, about["classes"]) for prediction in predictions]
    gallery = list(zip(overlays, captions, strict=True))
    table_of_images = tabulate_images(predictions, errors, about)
    return table_of_images, tabulate_patients(predictions, patients, about), gallery


def caption_of(prediction: Prediction, classes: list[str]) -> str:
    """Return the caption of an overlay: the file's name, the predicted class, its probability."""
    probability = prediction.probabilities[prediction.label]
    return f"{prediction.path.name}: {classes[prediction.label]} {probability:.2f}"


def tabulate_images(predictions: list[Prediction], errors: Errors, about: About) -> Table:
    """Make the table of predictions, and of the files that could not be read."""
    classes = about["classes"]
    header = ["image", "decision", *classes, "entropy, nats", "mutual information, nats", "novelty"]
    rows: Rows = []
    for prediction in predictions:
        rows.append(
            [
                prediction.path.name,
                describe_decision(prediction, classes) or classes[prediction.label],
                *_rounded(prediction.probabilities),
                round(prediction.entropy, 3),
                round(prediction.mutual_information, 3),
                round(prediction.novelty, 2),
            ]
        )
    empty = [""] * (len(header) - 2)
    rows += [[name, reason, *empty] for name, reason in errors]
    csv = format_records([record_of(prediction, classes) for prediction in predictions])
    return Table(header, rows, csv, why_no_sets(about["decision"], by_patient=False) or "")


def tabulate_patients(
    predictions: list[Prediction], patients: dict[Path, str | None], about: About
) -> Table:
    """Make the table of patients, and of the images that have none.

    Parameters
    ----------
    predictions : list of Prediction
        For images with the identifiers of their patients.
    patients, about : see `brainmri.predict.patients.identify_patients`, `predict_files`
    """
    identified = [prediction for prediction in predictions if is_identified(prediction.image)]
    if not (identified or patients):
        return EMPTY
    classes = about["classes"]
    header = ["patient", "slices", "first file", "class", *classes, "decision", "novel slices"]
    voted = predict_patients(identified, about)
    rows: Rows = [
        [
            patient.number,
            patient.slices,
            patient.first.name,
            classes[patient.label],
            *_rounded(patient.probabilities),
            describe_decision(patient, classes) or "",
            patient.novel,
        ]
        for patient in voted
    ]
    reason, empty = why_unidentified(patients), [""] * (len(classes) + 1)
    for prediction in predictions:
        if not is_identified(prediction.image):
            rows.append(["", "", prediction.path.name, *empty, reason, ""])
    csv = format_records([patient_record(patient, classes) for patient in voted])
    return Table(header, rows, csv, why_no_sets(about["decision"], by_patient=True) or "")


def _rounded(probabilities: np.ndarray) -> list[float]:
    return [round(float(value), 3) for value in probabilities]
