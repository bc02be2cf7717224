"""Predictions for uploaded files, as the page shows them."""

from pathlib import Path

import keras
import numpy as np

from brainmri.app.requests import MAX_FILES
from brainmri.common.resources import usable_cores
from brainmri.images.limits import ImageError
from brainmri.images.workers import decode_all
from brainmri.models.about import About
from brainmri.predict.inference import predict_images
from brainmri.predict.output import describe_decision
from brainmri.predict.overlays import draw_overlays
from brainmri.predict.prediction import Prediction
from brainmri.report.rendering import environment_of

TEMPLATES = Path(__file__).parent / "templates"
Gallery = list[tuple[np.ndarray, str]]  # images with captions


def predict_files(
    files: list[str] | None, model: keras.Model, about: About, model_file: str | Path
) -> tuple[str, Gallery]:
    """Predict the classes of image files.

    Parameters
    ----------
    files : list of str, optional
        Paths; no more than the first `MAX_FILES` are read.
    model, about : see `brainmri.models.ensemble.load_ensemble`
    model_file : see `brainmri.predict.inference.predict_images`

    Returns
    -------
    table : str
        HTML: a row for each file, those that could not be read last; empty without files.
    gallery : list of (ndarray of uint8, shape (height, width, 3); str)
        Overlay and caption of each image that could be read.
    """
    if not files:
        return "", []
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
    table = render_table(predictions, errors, about["classes"])
    return table, list(zip(overlays, captions, strict=True))


def caption_of(prediction: Prediction, classes: list[str]) -> str:
    """Return the caption of an overlay: the file's name, the predicted class, its probability."""
    probability = prediction.probabilities[prediction.label]
    return f"{prediction.path.name}: {classes[prediction.label]} {probability:.2f}"


def render_table(
    predictions: list[Prediction], errors: list[tuple[str, str]], classes: list[str]
) -> str:
    """Render predictions, and the files that could not be read, as an HTML table.

    Parameters
    ----------
    predictions : list of Prediction
    errors : list of (str, str)
        Name of the file, and why it could not be read.
    classes : list of str
    """
    template = environment_of(TEMPLATES).get_template("predictions.html.j2")
    decisions = [describe_decision(prediction, classes) for prediction in predictions]
    return template.render(
        predictions=predictions, decisions=decisions, errors=errors, classes=classes
    )
