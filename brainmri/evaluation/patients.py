"""Votes on patients, from the votes on their slices."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from brainmri.evaluation.decision_metrics import describe_decisions
from brainmri.evaluation.intervals import explain_missing
from brainmri.evaluation.metrics import format_metric
from brainmri.evaluation.results import PatientCounts, PatientMetrics


class PatientVotes(NamedTuple):
    """Patients whose slices are all of one class, in order of first appearance.

    Attributes
    ----------
    labels : ndarray of int, shape (patients,)
    probabilities : ndarray of float, shape (patients, classes)
    groups : ndarray of int, shape (patients,)
        Patients with near duplicates of each other share one.
    numbers : ndarray of int, shape (patients,)
        What the slices call each patient.
    mixed : int
        Number of the other patients, who have no one true class.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    groups: np.ndarray
    numbers: np.ndarray
    mixed: int


def mean_by_patient(probabilities: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Compute the mean of the probabilities of each patient's slices.

    The mean, since it does not depend on how many slices a patient has: with the maximum, say, of
    two healthy patients the one with more slices would be more likely to get a false alarm.

    Parameters
    ----------
    probabilities : ndarray of float, shape (n, classes)
    patients : ndarray of int, shape (n,)
        Numbered from 0 without a gap.

    Returns
    -------
    ndarray of float, shape (patients, classes)
    """
    sums = [np.bincount(patients, of_class) for of_class in probabilities.T]
    return np.stack(sums, axis=1) / np.bincount(patients)[:, np.newaxis]


def vote_by_patient(
    labels: np.ndarray, probabilities: np.ndarray, groups: np.ndarray, patients: np.ndarray
) -> PatientVotes:
    """Combine the votes on slices; see `mean_by_patient`.

    Parameters
    ----------
    labels, groups, patients : ndarray of int, shape (n,)
        Of each slice; any numbers.
    probabilities : ndarray of float, shape (n, classes)
    """
    numbers, first, number_of = np.unique(patients, return_index=True, return_inverse=True)
    means = mean_by_patient(probabilities, number_of)
    is_mixed = np.zeros(len(first), bool)
    is_mixed[number_of[labels != labels[first][number_of]]] = True
    order = np.argsort(first)
    kept = order[~is_mixed[order]]
    return PatientVotes(
        labels=labels[first][kept],
        probabilities=means[kept],
        groups=groups[first][kept],
        numbers=numbers[kept],
        mixed=int(is_mixed.sum()),
    )


def patients_out_of_bag(
    labels: np.ndarray,
    groups: np.ndarray,
    patients: np.ndarray,
    out_of_bag: dict[str, tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Combine the members' out-of-bag predictions for the slices of each patient.

    A patient with slices of several classes has no prediction. All slices of a patient are
    out-of-bag for the same members.

    Parameters
    ----------
    labels, groups, patients : ndarray of int, shape (images,)
        Of all rows of the store; patients are numbered from 0 without a gap.
    out_of_bag : dict of str to (rows, probabilities)
        By member.

    Returns
    -------
    labels, groups : ndarray of int, shape (patients,)
    out_of_bag : dict of str to (patients, probabilities)
        By member.
    """
    _, first = np.unique(patients, return_index=True)
    is_mixed = np.zeros(len(first), bool)
    is_mixed[patients[labels != labels[first][patients]]] = True
    combined = {}
    for name, (rows, probabilities) in out_of_bag.items():
        numbers, number_of = np.unique(patients[rows], return_inverse=True)
        means = mean_by_patient(probabilities, number_of)
        is_kept = ~is_mixed[numbers]
        combined[name] = numbers[is_kept], means[is_kept]
    return labels[first], groups[first], combined


def describe_patients(metrics: PatientMetrics | PatientCounts) -> Iterator[str]:
    """Describe the metrics of the votes on patients in a few lines."""
    counts = f"{metrics['patients']} test patients"
    if metrics["mixed_patients"]:
        counts += f" with images of one class, {metrics['mixed_patients']} with several"
    if "accuracy" not in metrics:
        yield counts
        return
    accuracy = format_metric(metrics["accuracy"], metrics["interval"]["accuracy"])
    yield f"{counts}: accuracy {accuracy}"
    for line in describe_decisions(metrics):
        yield f"by patient, {line}"
    if reason := explain_missing(metrics):
        yield f"by patient, {reason}"
