"""What the ensemble tells of pictures that were decoded as `ingest` decodes them."""

import stages.shared.start_tensorflow  # noqa: F401, isort: skip

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import keras
import numpy as np

from stages.shared.explanations import explained_classes, heat_maps
from stages.shared.images import Picture
from stages.shared.models import members_of, predictor

BATCH = 32


@dataclass(frozen=True)
class Prediction:
    """What the ensemble tells of an image.

    Attributes
    ----------
    path : Path
    picture : Picture
    probabilities : ndarray of float, shape (classes,)
        Calibrated; they sum to 1.
    entropy, mutual_information : float
        Of the members' votes, nats; the second is the part of the first that they disagree about.
    novelty : float
        0 or more; above 1 the image is unlike the training images.
    """

    path: Path
    picture: Picture
    probabilities: np.ndarray
    entropy: float
    mutual_information: float
    novelty: float


def predictions(pictures: Iterable[tuple[Path, Picture]], model: keras.Model, about: dict) -> Iterator[Prediction]:
    """What the ensemble tells of each picture, a batch at a time.

    Parameters
    ----------
    pictures : iterable of (path, Picture)
    model, about : see `stages.shared.models.load_ensemble`
    """
    predict, weights, pictures = predictor(model), np.array(list(about["weights"].values())), iter(pictures)
    while batch := list(islice(pictures, BATCH)):
        told = predict(np.stack([picture.pixels for _, picture in batch])[..., np.newaxis])
        together = entropy(np.tensordot(told["members"], weights, (1, 0)))
        disagreed = together - entropy(told["members"]) @ weights
        for place, (path, picture) in enumerate(batch):
            probabilities = told["probabilities"][place].astype(float)
            measures = (max(0.0, float(values[place])) for values in (together, disagreed, told["novelty"]))
            yield Prediction(path, picture, probabilities, *measures)


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Of distributions along the last axis, nats."""
    return -np.sum(probabilities * np.log(np.maximum(probabilities, 1e-12)), axis=-1)


def overlays(told: list[Prediction], model: keras.Model, about: dict) -> list[np.ndarray]:
    """Draw each image beside the evidence in it, as `explain` does, with the color bar: uint8, shape (height, width, 3)."""
    from stages.shared.pictures import evidence_label, panel  # which imports matplotlib

    images = np.stack([one.picture.pixels for one in told])
    asked = explained_classes(np.stack([one.probabilities for one in told]))
    heat = heat_maps(members_of(model, about), about["weights"], images[..., np.newaxis], asked)
    label = evidence_label(about["classes"])
    return [panel(image, warmth, about["heat_scale"], label) for image, warmth in zip(images, heat, strict=True)]
