"""The voters' predictions for the test images of a fold, and what is decided of these."""

from dataclasses import dataclass

import numpy as np

from brainmri.common.tables import parse_csv
from brainmri.evaluation.classes import positive_class
from brainmri.evaluation.results import EnsembleMetrics
from brainmri.evaluation.voting import ENSEMBLE


@dataclass(frozen=True)
class Votes:
    """Test images, and the class probabilities that each voter gives them.

    Attributes
    ----------
    groups : ndarray of int, shape (n,)
        Group of near duplicates of each image.
    labels : ndarray of int, shape (n,)
    classes : list of str
    probabilities : dict of str to ndarray of float, shape (n, classes)
        By voter.
    patients : ndarray of int, shape (n,), or None
        Patient of each image, if patients are known.
    positive : int, optional
        The positive class.
    decided : ndarray of int, shape (n,), or None
        The class by the decision rule; None for voters without one.
    decided_patients : ndarray of int, shape (n,), or None
        That of each image's patient, if patients are known; −1 of those with several classes.
    rules, patient_rules : tuple of str
        Names of the rules that were applied to the images, and to the patients.
    calibration_groups : int
        Of training images, of the class with the fewest, from which p-values were computed.
    p_values : ndarray of float, shape (n, classes), or None
        See `evaluation.prediction_sets.p_values`.
    """

    groups: np.ndarray
    labels: np.ndarray
    classes: list[str]
    probabilities: dict[str, np.ndarray]
    patients: np.ndarray | None = None
    positive: int | None = None
    decided: np.ndarray | None = None
    decided_patients: np.ndarray | None = None
    rules: tuple[str, ...] = ()
    patient_rules: tuple[str, ...] = ()
    calibration_groups: int = 0
    p_values: np.ndarray | None = None


def parse_votes(
    votes: str, predictions: str, metrics: EnsembleMetrics, positive: str | None
) -> Votes:
    """Parse the content of votes.csv and predictions.csv; see `evaluation.plots.write_tables`.

    Parameters
    ----------
    votes, predictions : str
    metrics : EnsembleMetrics
    positive : str, optional
        `evaluate.positive`.
    """
    header, *lines = parse_csv(votes)
    first = header.index("class") + 1  # of the probabilities
    classes = [column.removeprefix("probability of ") for column in header[first:]]
    lines_of: dict[str, list[list[str]]] = {}
    for line in lines:
        lines_of.setdefault(line[0], []).append(line)
    probabilities = {
        voter: np.array([line[first:] for line in voter_lines], float)
        for voter, voter_lines in lines_of.items()
    }
    columns, *lines = parse_csv(predictions)
    decisions = [dict(zip(columns, line, strict=True)) for line in lines]
    keys = [dict(zip(header[:first], line, strict=False)) for line in lines_of[ENSEMBLE]]
    patients = decided_patients = None
    if "patient" in header:
        patients = np.array([key["patient"] for key in keys], int)
        number_of = {name: label for label, name in enumerate(classes)} | {"": -1}
        decided_patients = np.array(
            [number_of[line["predicted of the patient"]] for line in decisions]
        )
    patient_rule = metrics.get("by_patient", {}).get("decision_rule")
    return Votes(
        groups=np.array([key["group"] for key in keys], int),
        labels=np.array([classes.index(key["class"]) for key in keys]),
        classes=classes,
        probabilities=probabilities,
        patients=patients,
        positive=positive_class(classes, positive),
        decided=np.array([classes.index(line["predicted"]) for line in decisions]),
        decided_patients=decided_patients,
        rules=(metrics["decision_rule"]["name"],),
        patient_rules=(patient_rule["name"],) if patient_rule else (),
        calibration_groups=min(metrics["calibration_groups"].values()),
        p_values=np.array([line[-len(classes) :] for line in lines], float),
    )


def pool_votes(folds: list[Votes]) -> Votes:
    """Join the test images of several folds; only voters that all folds have are kept."""
    voters = [
        voter
        for voter in folds[0].probabilities
        if all(voter in votes.probabilities for votes in folds)
    ]
    return Votes(
        groups=np.concatenate([votes.groups for votes in folds]),
        labels=np.concatenate([votes.labels for votes in folds]),
        classes=folds[0].classes,
        probabilities={
            voter: np.concatenate([votes.probabilities[voter] for votes in folds])
            for voter in voters
        },
        patients=None if folds[0].patients is None else _pool_patients(folds),
        positive=folds[0].positive,
        decided=_concatenate([votes.decided for votes in folds]),
        decided_patients=_concatenate([votes.decided_patients for votes in folds]),
        rules=_pool_names([votes.rules for votes in folds]),
        patient_rules=_pool_names([votes.patient_rules for votes in folds]),
        calibration_groups=min(votes.calibration_groups for votes in folds),
        p_values=_concatenate([votes.p_values for votes in folds]),
    )


def _concatenate(parts: list[np.ndarray | None]) -> np.ndarray | None:
    return None if parts[0] is None else np.concatenate(parts)


def _pool_names(parts: list[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(sorted({name for part in parts for name in part}))


def _pool_patients(folds: list[Votes]) -> np.ndarray:
    """Join the patients of folds; one whom several seeds test counts for each of them."""
    size = 1 + max(votes.patients.max() for votes in folds)
    return np.concatenate([votes.patients + fold * size for fold, votes in enumerate(folds)])
