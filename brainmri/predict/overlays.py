"""Heat maps over new images."""

import io
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from brainmri.common.errors import printable
from brainmri.common.files import write_bytes
from brainmri.evaluation.decisions import positive_of
from brainmri.evaluation.figures.overlays import evidence_label, panel
from brainmri.models.about import About
from brainmri.models.ensemble import member_models
from brainmri.models.heat_maps import explained_classes, heat_maps
from brainmri.predict.prediction import Prediction

BATCH_SIZE = 32
MAX_STEM = 120  # bytes of a file name: most systems take 255 at most, some 143


def draw_overlays(
    predictions: list[Prediction], model: keras.Model, about: About
) -> list[np.ndarray]:
    """Draw each image beside the evidence in it, with the color bar, as `explain` does.

    Parameters
    ----------
    predictions : list of Prediction
    model, about : see `brainmri.models.ensemble.load_ensemble`

    Returns
    -------
    list of ndarray of uint8, shape (height, width, 3)
    """
    images = np.stack([prediction.image.pixels for prediction in predictions])
    predicted = np.array([prediction.label for prediction in predictions])
    maps = heat_maps(
        member_models(model, about),
        about["weights"],
        images[..., np.newaxis],
        explained_classes(predicted, len(about["classes"]), positive_of(about["decision"])),
    )
    label = evidence_label(about["classes"], about["decision"]["positive"])
    return [
        panel(image, heat, about["heat_scale"], label)
        for image, heat in zip(images, maps, strict=True)
    ]


def write_overlays(
    predictions: Iterable[Prediction], model: keras.Model, about: About, folder: Path
) -> Iterator[Prediction]:
    """Write an overlay of each image as a PNG file, and yield the predictions.

    Parameters
    ----------
    predictions : iterable of Prediction
        Read as they are needed.
    model, about : see `brainmri.models.ensemble.load_ensemble`
    folder : Path
        Of the PNG files, which are numbered and named as the images.
    """
    if former := sum(1 for _ in folder.glob("[0-9][0-9][0-9][0-9]-*.png")):
        print(
            f"warning: {folder} has {former} overlays of an earlier run; some may remain",
            file=sys.stderr,
        )
    predictions = iter(predictions)
    number = 0
    while batch := list(islice(predictions, BATCH_SIZE)):
        overlays = draw_overlays(batch, model, about)
        for prediction, overlay in zip(batch, overlays, strict=True):
            number += 1
            stem = printable(prediction.path.stem).encode()[:MAX_STEM].decode(errors="ignore")
            file = io.BytesIO()
            Image.fromarray(overlay).save(file, "PNG")
            write_bytes(folder / f"{number:04d}-{stem}.png", file.getvalue())
            yield prediction
