"""Predict the classes of images that were decoded as `ingest` decodes them."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import keras
import numpy as np

from brainmri.common.errors import UserError
from brainmri.evaluation.decisions import decide_votes
from brainmri.evaluation.prediction_sets import list_sets
from brainmri.evaluation.voting import soft_vote
from brainmri.images.decoding import DecodedImage
from brainmri.models.about import About
from brainmri.models.ensemble import batch_predictor
from brainmri.predict.prediction import Prediction

BATCH_SIZE = 32


def predict_images(
    images: Iterable[tuple[Path, DecodedImage]],
    model: keras.Model,
    about: About,
    model_file: str | Path,
) -> Iterator[Prediction]:
    """Predict the class of each image, a batch at a time.

    Parameters
    ----------
    images : iterable of (path, DecodedImage)
        Read as they are needed.
    model, about : see `brainmri.models.ensemble.load_ensemble`
    model_file : str or Path
        From which the model was loaded, to be named in an error.

    Yields
    ------
    Prediction
        In the order of the images.

    Raises
    ------
    UserError
        If an output of the model is not finite.
    """
    predict = batch_predictor(model)
    weights = np.array(list(about["weights"].values()))
    images = iter(images)
    while batch := list(islice(images, BATCH_SIZE)):
        pixels = np.stack([image.pixels for _, image in batch])
        outputs = predict(pixels[..., np.newaxis])
        if not all(np.isfinite(values).all() for values in outputs.values()):
            raise UserError(
                f"{model_file} predicts values that are not finite;"
                " expected an ensemble that `dvc repro export` writes"
            )
        members = outputs["members"].astype(float).transpose(1, 0, 2)
        mean_vote = soft_vote(members, weights)
        total = entropy(mean_vote)
        mutual_information = total - entropy(outputs["members"]) @ weights
        probabilities = outputs["probabilities"].astype(float)
        decided = decide_votes(probabilities, members, weights, about["decision"])
        decision = about["decision"]
        sets = list_sets(decided.p_values, decided.labels, decision["images"], decision["error"])
        for index, (path, image) in enumerate(batch):
            yield Prediction(
                path=path,
                image=image,
                probabilities=probabilities[index],
                entropy=max(0.0, float(total[index])),
                mutual_information=max(0.0, float(mutual_information[index])),
                novelty=max(0.0, float(outputs["novelty"][index])),
                label=int(decided.labels[index]),
                prediction_set=sets[index],
                members=members[:, index],
            )


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Compute the entropy of distributions along the last axis, in nats.

    Parameters
    ----------
    probabilities : ndarray of float, shape (…, classes)

    Returns
    -------
    ndarray of float, shape (…)
    """
    return -np.sum(probabilities * np.log(np.maximum(probabilities, 1e-12)), axis=-1)
