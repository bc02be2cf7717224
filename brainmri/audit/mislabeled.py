"""Images that look mislabeled: confident votes of members that were not trained on them."""

import hashlib
from typing import NamedTuple

import numpy as np
import yaml

from brainmri.audit.collection import Collection
from brainmri.common.errors import UserError
from brainmri.common.params import Params
from brainmri.common.paths import LOCK_FILES, METADATA
from brainmri.evaluation.calibration import calibrate, fit_calibration
from brainmri.evaluation.classes import positive_class
from brainmri.evaluation.weighting import (
    read_out_of_bag_predictions,
    vote_out_of_bag,
    weight_members,
)
from brainmri.sampling.files import read_split
from brainmri.store.metadata import Metadata, image_labels, read_metadata

ROUNDING = 1e-6  # of probabilities that are equal


class Votes(NamedTuple):
    """Out-of-bag votes of a run.

    Attributes
    ----------
    rows : list of int, length n
        Of the collection: the images that are out-of-bag for a member or more.
    classes : list of str
    labels : ndarray of int, shape (n,)
    probabilities : ndarray of float, shape (n, classes)
    """

    rows: list[int]
    classes: list[str]
    labels: np.ndarray
    probabilities: np.ndarray


class LabelIssue(NamedTuple):
    """An image whose label the votes contradict.

    Attributes
    ----------
    row : int
        Of the collection.
    suggested : str
        The class that the votes suggest.
    label_probability, suggested_probability : float
    is_confident : bool
        See `find_label_issues`.
    """

    row: int
    suggested: str
    label_probability: float
    suggested_probability: float
    is_confident: bool


def find_label_issues(labels: np.ndarray, probabilities: np.ndarray) -> dict[int, int]:
    """Find labels that predictions contradict with confidence, the clearest first.

    A prediction names a class with confidence if its probability is no less than the mean
    probability of that class over the images so labeled. An image is an issue if the most probable
    of these classes is not its label.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
    probabilities : ndarray of float, shape (n, classes)
        Of models that were not trained on the image.

    Returns
    -------
    dict of int to int
        The suggested class, by row.

    References
    ----------
    C. G. Northcutt, L. Jiang, I. L. Chuang, "Confident Learning: Estimating Uncertainty in Dataset
    Labels", Journal of Artificial Intelligence Research 70, 2021: the off-diagonal entries of the
    confident joint.
    """
    thresholds = [
        probabilities[labels == label, label].mean() if np.any(labels == label) else np.inf
        for label in range(probabilities.shape[1])
    ]
    confident = np.where(probabilities >= np.array(thresholds) - ROUNDING, probabilities, -1.0)
    suggested = confident.argmax(axis=1)
    is_issue = (confident.max(axis=1) >= 0) & (suggested != labels)
    rows = np.arange(len(labels))
    margins = probabilities[rows, suggested] - probabilities[rows, labels]
    order = np.lexsort((rows, -margins))
    return {int(row): int(suggested[row]) for row in order if is_issue[row]}


def label_issues(votes: Votes) -> list[LabelIssue]:
    """List the images whose labels the votes contradict.

    First those of `find_label_issues`, then those where another class is merely more probable, the
    clearest first.
    """
    probabilities, labels = votes.probabilities, votes.labels
    confident = find_label_issues(labels, probabilities)
    voted = probabilities.argmax(axis=1)
    rows = np.arange(len(labels))
    margins = probabilities[rows, voted] - probabilities[rows, labels]
    others = [
        int(row)
        for row in np.lexsort((rows, -margins))
        if voted[row] != labels[row] and int(row) not in confident
    ]
    suggested = confident | {row: int(voted[row]) for row in others}
    return [
        LabelIssue(
            votes.rows[index],
            votes.classes[label],
            float(probabilities[index, labels[index]]),
            float(probabilities[index, label]),
            index in confident,
        )
        for index, label in suggested.items()
    ]


def read_votes(params: Params, collection: Collection) -> Votes:
    """Read the out-of-bag votes of the run in this folder, if it is of this collection.

    Raises
    ------
    UserError
        Saying what is missing.
    """
    if not METADATA.exists():
        raise UserError("there is no run in this folder")
    metadata = read_metadata()
    _check_images(metadata, collection)
    _check_recorded()
    classes, labels = metadata["classes"], image_labels(metadata)
    training = read_split(len(labels))["training"]
    out_of_bag = read_out_of_bag_predictions(params.ensemble, training, classes)
    positive = positive_class(classes, params.evaluate.positive)
    _, weights = weight_members(labels, out_of_bag, params.weigh.scheme, positive)
    voted, vote = vote_out_of_bag(out_of_bag, weights, len(labels))
    if params.weigh.calibrate:  # or a bias of all members toward a class hides its wrong labels
        vote = calibrate(vote, *fit_calibration(labels[voted], vote))
    row_of = {path: row for row, path in enumerate(collection.paths)}
    paths = [image["path"] for image in metadata["images"]]
    return Votes([row_of[paths[row]] for row in voted], classes, labels[voted], vote)


def _check_images(metadata: Metadata, collection: Collection) -> None:
    """Check that a store holds these images, but for those that `ingest` rejected."""
    audited = {
        file.path: (file.class_name, image.sha256)
        for file, image in zip(collection.files, collection.measurements, strict=True)
    }
    stored = {image["path"]: (image["class"], image["sha256"]) for image in metadata["images"]}
    rejected = {file["path"] for file in metadata["rejected"]}
    is_stored = all(audited.get(path) == image for path, image in stored.items())
    if not is_stored or audited.keys() - stored.keys() - rejected:
        raise UserError("the last run is of other images")


def _check_recorded() -> None:
    """Check that the members that DVC recorded last were trained on the images of the store."""
    try:
        stages = yaml.safe_load(LOCK_FILES[-1].read_text("utf-8"))["stages"]
        hashes = {entry["path"]: entry["md5"] for entry in stages["weigh"]["deps"]}
        recorded = hashes[str(METADATA)]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        raise UserError("no complete run is recorded in dvc.lock") from None
    if hashlib.md5(METADATA.read_bytes()).hexdigest() != recorded:
        raise UserError("the members were trained on other images")
