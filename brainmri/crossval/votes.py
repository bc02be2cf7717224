"""The voters' predictions for the test images of a fold, and what is decided of these."""

import math
from dataclasses import dataclass, replace

import numpy as np

from brainmri.common.tables import parse_csv
from brainmri.evaluation.classes import positive_class
from brainmri.evaluation.results import EnsembleMetrics, PatientCounts, Summary
from brainmri.evaluation.voting import ENSEMBLE

# Columns of predictions.csv: the class predicted, and the beginning of those of p-values
IMAGE = "predicted", "p-value of "
PATIENT = "predicted of the patient", "patient's p-value of "


@dataclass(frozen=True)
class Decisions:
    """What is decided of test images, or of the patient of each.

    Attributes
    ----------
    labels : ndarray of int, shape (n,)
        Class by the decision rule; −1 of patients with several classes.
    p_values : ndarray of float, shape (n, classes)
        See `evaluation.prediction_sets.p_values`; NaN of patients with several classes.
    rules : tuple of str
        Names of the rules that were applied.
    calibration_groups : float
        Of training images, of the class with the fewest, from which p-values were computed;
        infinite where none were.
    """

    labels: np.ndarray
    p_values: np.ndarray
    rules: tuple[str, ...]
    calibration_groups: float

    def of_rows(self, rows: list[int]) -> "Decisions":
        """Return the decisions of these rows."""
        return replace(self, labels=self.labels[rows], p_values=self.p_values[rows])


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
    positive : int, optional
        The positive class.
    decisions : Decisions, optional
        None for voters that decide nothing.
    patients : ndarray of int, shape (n,), or None
        Patient of each image, if patients are known.
    patient_decisions : Decisions, optional
        Those of each image's patient, if patients are known.
    """

    groups: np.ndarray
    labels: np.ndarray
    classes: list[str]
    probabilities: dict[str, np.ndarray]
    positive: int | None = None
    decisions: Decisions | None = None
    patients: np.ndarray | None = None
    patient_decisions: Decisions | None = None


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
    table = dict(zip(columns, zip(*lines, strict=True), strict=True))
    keys = [dict(zip(header[:first], line, strict=False)) for line in lines_of[ENSEMBLE]]
    patients = patient_decisions = None
    if "patient" in header:
        patients = np.array([key["patient"] for key in keys], int)
        patient_decisions = _parse_decisions(table, classes, metrics["by_patient"], PATIENT)
    return Votes(
        groups=np.array([key["group"] for key in keys], int),
        labels=np.array([classes.index(key["class"]) for key in keys]),
        classes=classes,
        probabilities=probabilities,
        positive=positive_class(classes, positive),
        decisions=_parse_decisions(table, classes, metrics, IMAGE),
        patients=patients,
        patient_decisions=patient_decisions,
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
        positive=folds[0].positive,
        decisions=_pool_decisions([votes.decisions for votes in folds]),
        patients=None if folds[0].patients is None else _pool_patients(folds),
        patient_decisions=_pool_decisions([votes.patient_decisions for votes in folds]),
    )


def _parse_decisions(
    table: dict[str, tuple[str, ...]],
    classes: list[str],
    metrics: Summary | PatientCounts,
    columns: tuple[str, str],
) -> Decisions:
    predicted, p_value = columns
    rules, fewest = (), math.inf
    if "decision_rule" in metrics:
        rules = (metrics["decision_rule"]["name"],)
        fewest = min(metrics["calibration_groups"].values())
    label_of = {name: label for label, name in enumerate(classes)} | {"": -1}
    values = [[float(cell or "nan") for cell in table[p_value + name]] for name in classes]
    return Decisions(
        labels=np.array([label_of[name] for name in table[predicted]]),
        p_values=np.array(values).T,
        rules=rules,
        calibration_groups=fewest,
    )


def _pool_decisions(parts: list[Decisions | None]) -> Decisions | None:
    if parts[0] is None:
        return None
    return Decisions(
        labels=np.concatenate([part.labels for part in parts]),
        p_values=np.concatenate([part.p_values for part in parts]),
        rules=tuple(sorted({name for part in parts for name in part.rules})),
        calibration_groups=min(part.calibration_groups for part in parts),
    )


def _pool_patients(folds: list[Votes]) -> np.ndarray:
    """Join the patients of folds; one whom several seeds test counts for each of them."""
    size = 1 + max(votes.patients.max() for votes in folds)
    return np.concatenate([votes.patients + fold * size for fold, votes in enumerate(folds)])
