"""Evaluate predictions of images whose classes are known."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from brainmri.evaluation.decision_metrics import describe_decisions
from brainmri.evaluation.decisions import Decided, decide_votes
from brainmri.evaluation.intervals import explain_missing
from brainmri.evaluation.metrics import HEADLINES, METRIC_NAMES, format_metric
from brainmri.evaluation.patients import describe_patients
from brainmri.evaluation.summary import decide_patients, summarize_votes
from brainmri.models.about import About, TrainingImages
from brainmri.predict.output import encodable
from brainmri.predict.prediction import Prediction
from brainmri.sampling.groups import decode_hashes, join_groups, near_duplicate_groups
from brainmri.sampling.near_duplicates import nearest_duplicates

# The pipeline's defaults
BINS = 10
RESAMPLES = 2000
SEED = 0

MAX_SHOWN = 3  # near duplicates in a warning
PARTS = {
    "without_near_duplicates": "without near duplicates of training images",
    "without_near_duplicates_and_unlike": (
        "without near duplicates and images unlike the training images"
    ),
    "all": "in all",
}


def evaluate_labeled(
    predictions: list[Prediction],
    labels: dict[Path, int],
    about: About,
    patients: np.ndarray | None = None,
) -> dict[str, object]:
    """Compute the metrics that `evaluate` reports of test images; warn if they mean little.

    A near duplicate of a training image is no test of the ensemble, and neither is another slice of
    the same patient. So the metrics are computed with and without them, and once more without the
    images that are unlike the training images, of which nothing is expected.

    Parameters
    ----------
    predictions : list of Prediction, length n
    labels : dict of Path to int
        True class of each image, by the path of its file.
    about : see `brainmri.models.ensemble.load_ensemble`
    patients : ndarray of int, shape (n,), or None
        Patient of each image, numbered from 0; None if patients are unknown.

    Returns
    -------
    dict
        `images`, `near_duplicates_of_training_images` and `unlike_training_images` are counts;
        for each of `PARTS`, the number of its images and `evaluation.summary.summarize_votes`, or
        None if it has no image; `near_duplicates` lists `file` and `bits`, the distance to the
        nearest training image, nearest first. If the ensemble has no hashes of its training images,
        what needs their near duplicates is None.
    """
    groups, distances = _find_near_duplicates(predictions, about["training_images"])
    is_known = about["training_images"]["perceptual_hashes"] is not None
    is_near = distances >= 0
    is_novel = np.array([prediction.is_novel for prediction in predictions])
    if patients is not None:
        groups = join_groups(groups, patients)
    truth = np.array([labels[prediction.path] for prediction in predictions])
    probabilities = np.stack([prediction.probabilities for prediction in predictions])
    members = np.stack([prediction.members for prediction in predictions], axis=1)
    weights, decision = np.array(list(about["weights"].values())), about["decision"]
    decided = decide_votes(probabilities, members, weights, decision)

    def summarize_part(is_included: np.ndarray) -> dict[str, object] | None:
        if not is_included.any():
            return None
        of_images = truth[is_included], probabilities[is_included], groups[is_included]
        of_patients = None
        if patients is not None:
            of_patients = decide_patients(
                *of_images, patients[is_included], members[:, is_included], weights, decision
            )
        part = Decided(decided.labels[is_included], decided.p_values[is_included])
        summary = summarize_votes(*of_images, part, of_patients, decision, BINS, RESAMPLES, SEED)
        return {"images": int(is_included.sum()), **summary}

    included = _images_of_parts(is_near, is_novel, is_known, patients)
    nearest_first = np.argsort(distances, kind="stable")
    metrics = {
        "images": len(predictions),
        "near_duplicates_of_training_images": int(is_near.sum()) if is_known else None,
        "unlike_training_images": int(is_novel.sum()),
        **{name: summarize_part(is_included) for name, is_included in included.items()},
        "near_duplicates": [
            {"file": encodable(predictions[row].path), "bits": int(distances[row])}
            for row in nearest_first
            if is_near[row]
        ]
        if is_known
        else None,
    }
    _print_warnings(metrics)
    return metrics


def describe_metrics(metrics: dict) -> Iterator[str]:
    """Describe what `evaluate_labeled` returns in a few lines for each of `PARTS`."""
    for name, description in PARTS.items():
        part = metrics[name]
        if part is None and metrics["near_duplicates"] is None:
            yield f"{description}: unknown, since this ensemble has no hashes of training images"
            continue
        if part is None:
            yield f"0 images {description}: no metrics"
            continue
        headlines = [
            f"{METRIC_NAMES[headline]} {format_metric(part[headline])}" for headline in HEADLINES
        ]
        yield f"{part['images']} images {description}: {', '.join(headlines)}"
        yield from describe_decisions(part)
        if "by_patient" in part:
            for line in describe_patients(part["by_patient"]):
                yield f"  {line}"


def _images_of_parts(
    is_near: np.ndarray, is_novel: np.ndarray, is_known: bool, patients: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Return which images each of `PARTS` has: bool, shape (n,).

    Parameters
    ----------
    is_near, is_novel : ndarray of bool, shape (n,)
        Whether an image is a near duplicate of a training image, and whether it is unlike them.
    is_known : bool
        Whether near duplicates are known; if not, the parts without them have no image.
    patients : see `evaluate_labeled`
    """
    is_excluded = is_near if patients is None else np.isin(patients, patients[is_near])
    is_test = ~is_excluded & is_known
    return {
        "without_near_duplicates": is_test,
        "without_near_duplicates_and_unlike": is_test & ~is_novel,
        "all": np.ones(len(is_near), bool),
    }


def _find_near_duplicates(
    predictions: list[Prediction], training: TrainingImages
) -> tuple[np.ndarray, np.ndarray]:
    """Compare images with each other and with the training images.

    Returns
    -------
    groups : ndarray of int, shape (n,)
        See `brainmri.sampling.groups.near_duplicate_groups`.
    distances : ndarray of int, shape (n,)
        To the nearest training image; see `brainmri.sampling.near_duplicates.nearest_duplicates`.
    """
    bits = training["near_duplicate_bits"]
    images = [prediction.image for prediction in predictions]
    hashes = decode_hashes(image.perceptual_hashes for image in images)
    training_hashes = decode_hashes(training["perceptual_hashes"] or [])
    _, distances = nearest_duplicates(hashes, training_hashes, bits)
    return near_duplicate_groups(hashes, bits), distances


def _print_warnings(metrics: dict) -> None:
    near = metrics["near_duplicates"]
    if near is None:
        print(
            "warning: this ensemble has no hashes of its training images (export.training_hashes:"
            " false): near duplicates of them are unknown, and make metrics too good",
            file=sys.stderr,
        )
    if near:
        shown = [f"{image['file']!r} ({image['bits']} of 256 bits)" for image in near[:MAX_SHOWN]]
        more = ", …" if len(near) > MAX_SHOWN else ""
        print(
            f"warning: {len(near)} of these {metrics['images']} images are near duplicates of"
            f" training images, such as {', '.join(shown)}{more}",
            file=sys.stderr,
        )
    headline = metrics["without_near_duplicates"] or metrics["all"]
    if reason := explain_missing(headline):
        print(f"warning: {reason}", file=sys.stderr)
