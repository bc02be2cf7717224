"""Evaluate predictions of images whose classes are known."""

import sys
from pathlib import Path

import numpy as np

from brainmri.evaluation.intervals import missing_metrics
from brainmri.evaluation.summary import summarize
from brainmri.models.about import HASH_PREFIX, About
from brainmri.predict.prediction import Prediction
from brainmri.sampling.groups import decode_hashes, near_duplicate_groups

# The pipeline's defaults
BINS = 10
RESAMPLES = 2000
NEAR_DUPLICATE_BITS = 20
SEED = 0


def evaluate_labeled(
    predictions: list[Prediction], labels: dict[Path, int], about: About
) -> dict[str, object]:
    """Compute the metrics that `evaluate` reports of test images; warn if they mean little.

    Parameters
    ----------
    predictions : list of Prediction
    labels : dict of Path to int
        True class of each image, by the path of its file.
    about : see `brainmri.models.ensemble.load_ensemble`

    Returns
    -------
    dict
        `brainmri.evaluation.summary.summarize`, and how many images there are, how many of them
        are training images, and how many are unlike these.
    """
    trained_on = set(about["training_images"]["sha256_prefixes"])
    overlap = sum(prediction.image.sha256[:HASH_PREFIX] in trained_on for prediction in predictions)
    if overlap:
        print(
            f"warning: the ensemble was trained on {overlap} of these {len(predictions)} images",
            file=sys.stderr,
        )
    summary = summarize(
        labels=np.array([labels[prediction.path] for prediction in predictions]),
        probabilities=np.stack([prediction.probabilities for prediction in predictions]),
        groups=_near_duplicates(predictions),
        classes=about["classes"],
        threshold=about["threshold"],
        bins=BINS,
        resamples=RESAMPLES,
        seed=SEED,
    )
    if reason := missing_metrics(summary["independent_groups"]):
        print(f"warning: {reason}", file=sys.stderr)
    return {
        **summary,
        "images": len(predictions),
        "training_images": overlap,
        "unlike_training_images": sum(prediction.is_novel for prediction in predictions),
    }


def _near_duplicates(predictions: list[Prediction]) -> np.ndarray:
    images = [prediction.image for prediction in predictions]
    hashes = decode_hashes((image.perceptual_hash, image.whole_hash) for image in images)
    return near_duplicate_groups(hashes, NEAR_DUPLICATE_BITS)
