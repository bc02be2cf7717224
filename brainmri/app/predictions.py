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
from brainmri.predict.inference import predict_images
from brainmri.predict.output import describe_decision, format_records, record_of
from brainmri.predict.overlays import draw_overlays
from brainmri.predict.prediction import Prediction


class Table(NamedTuple):
    """Rows of a table, and their header."""

    header: list[str]
    rows: list[list[str | float]]


Gallery = list[tuple[np.ndarray, str]]  # images with captions


def predict_files(
    files: list[str] | None, model: keras.Model, about: About, model_file: str | Path
) -> tuple[Table, bytes, Gallery]:
    """Predict the classes of image files.

    Parameters
    ----------
    files : list of str, optional
        Paths; no more than the first `MAX_FILES` are read.
    model, about : see `brainmri.models.ensemble.load_ensemble`
    model_file : see `brainmri.predict.inference.predict_images`

    Returns
    -------
    table : Table
        A row for each file, those that could not be read last.
    csv : bytes
        The predictions as `python -m brainmri.predict --csv` prints them; empty without any.
    gallery : list of (ndarray of uint8, shape (height, width, 3); str)
        Overlay and caption of each image that could be read.
    """
    if not files:
        return Table([], []), b"", []
    paths = [Path(file) for file in files[:MAX_FILES]]
    images, errors = [], []
    for path, image in decode_all(paths, about["size"], about["crop"], usable_cores()):
        if isinstance(image, ImageError):
            errors.append((path.name, str(image)))
        else:
            images.append((path, image))
    for file in files[MAX_FILES:]:
        errors.append((Path(file).name, f"more than {MAX_FILES} images at once"))

    predictions = list(predict_images(images, model, about, model_file))
    overlays = draw_overlays(predictions, model, about) if predictions else []
    captions = [caption_of(prediction, about["classes"]) for prediction in predictions]
    records = [record_of(prediction, about["classes"]) for prediction in predictions]
    table = make_table(predictions, errors, about["classes"])
    return table, format_records(records), list(zip(overlays, captions, strict=True))


def caption_of(prediction: Prediction, classes: list[str]) -> str:
    """Return the caption of an overlay: the file's name, the predicted class, its probability."""
    probability = prediction.probabilities[prediction.label]
    return f"{prediction.path.name}: {classes[prediction.label]} {probability:.2f}"


def make_table(
    predictions: list[Prediction], errors: list[tuple[str, str]], classes: list[str]
) -> Table:
    """Make the table of predictions, and of the files that could not be read.

    Parameters
    ----------
    predictions : list of Prediction
    errors : list of (str, str)
        Name of the file, and why it could not be read.
    classes : list of str
    """
    header = ["image", "decision", *classes, "entropy, nats", "disagreement, nats", "novelty"]
    rows: list[list[str | float]] = []
    for prediction in predictions:
        decision = describe_decision(prediction, classes) or classes[prediction.label]
        probabilities = [round(float(value), 3) for value in prediction.probabilities]
        rows.append(
            [
                prediction.path.name,
                decision,
                *probabilities,
                round(prediction.entropy, 3),
                round(prediction.mutual_information, 3),
                round(prediction.novelty, 2),
            ]
        )
    empty = [""] * (len(header) - 2)
    rows += [[name, f"can't be read: {reason}", *empty] for name, reason in errors]
    return Table(header, rows)
