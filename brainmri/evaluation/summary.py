"""What is reported of an ensemble on its test images."""

from dataclasses import dataclass

import numpy as np

from brainmri.evaluation.calibration import calibrate
from brainmri.evaluation.intervals import bootstrap_intervals, group_counts, reportable
from brainmri.evaluation.log_loss import log_loss
from brainmri.evaluation.metrics import (
    all_metrics,
    headline_metrics,
    mean_or_none,
    none_if_nan,
    recalls,
)
from brainmri.evaluation.patients import vote_by_patient
from brainmri.evaluation.results import (
    EnsembleMetrics,
    PatientCounts,
    PatientMetrics,
    VotingWeights,
)
from brainmri.evaluation.thresholds import sensitivity_specificity
from brainmri.evaluation.voting import ENSEMBLE, UNIFORM, soft_vote


@dataclass(frozen=True)
class Evaluation:
    """Test images, and the class probabilities that each voter gives them.

    Attributes
    ----------
    classes : list of str
    rows : list of int, length n
        Of the store.
    labels, groups : ndarray of int, shape (n,)
        True class and group of near duplicates of each image.
    votes : dict of str to ndarray of float, shape (n, classes)
        Calibrated probabilities by voter: `ENSEMBLE`, `UNIFORM`, then the members.
    best : str
        The best member by out-of-bag log loss.
    patients : ndarray of int, shape (n,), or None
        Patient of each image, if patients are known.
    """

    classes: list[str]
    rows: list[int]
    labels: np.ndarray
    groups: np.ndarray
    votes: dict[str, np.ndarray]
    best: str
    patients: np.ndarray | None = None

    @property
    def ensemble(self) -> np.ndarray:
        """Return the ensemble's votes."""
        return self.votes[ENSEMBLE]

    @property
    def predicted(self) -> np.ndarray:
        """Return the classes that the ensemble predicts: int, shape (n,)."""
        return self.ensemble.argmax(axis=1)

    @property
    def members(self) -> list[str]:
        """Return the members' names."""
        return [voter for voter in self.votes if voter not in (ENSEMBLE, UNIFORM)]

    def summarize(
        self, threshold: float | None, bins: int, resamples: int, seed: int
    ) -> EnsembleMetrics:
        """Compute what metrics/ensemble.json holds; see `summarize`."""
        summary = summarize(
            self.labels,
            self.ensemble,
            self.groups,
            self.classes,
            threshold,
            bins,
            resamples,
            seed,
        )
        by_member = {name: self.voter_metrics(name) for name in self.members}
        best = by_member[self.best]
        means = {key: mean_or_none([values[key] for values in by_member.values()]) for key in best}
        by_patient = {}
        if self.patients is not None:
            by_patient = {"by_patient": self.summarize_patients(bins, resamples, seed)}
        return {
            **summary,
            **by_patient,
            "test_images": len(self.rows),
            "best_member": {"name": self.best, **best},
            "mean_member": means,
            "uniform_vote": self.voter_metrics(UNIFORM),
        }

    def summarize_patients(
        self, bins: int, resamples: int, seed: int
    ) -> PatientMetrics | PatientCounts:
        """Compute what is reported of the votes on patients; see `summarize_patients`."""
        return summarize_patients(
            self.labels,
            self.ensemble,
            self.groups,
            self.patients,
            self.classes,
            bins,
            resamples,
            seed,
        )

    def voter_metrics(self, voter: str) -> dict[str, float | None]:
        """Compute the metrics by which voters are compared."""
        probabilities = self.votes[voter]
        values = {
            **headline_metrics(self.labels, probabilities),
            "log_loss": log_loss(self.labels, probabilities),
        }
        return reportable(values, group_counts(self.labels, self.groups, len(self.classes)))


def calibrated_votes(
    predictions: dict[str, np.ndarray], vote: VotingWeights
) -> dict[str, np.ndarray]:
    """Compute the calibrated probabilities of every voter; see `Evaluation.votes`.

    Parameters
    ----------
    predictions : dict of str to ndarray of float, shape (n, classes)
        Of the members.
    vote : VotingWeights
    """
    stacked = np.stack(list(predictions.values()))
    weights = np.array([vote["members"][name]["weight"] for name in predictions])
    votes = {
        ENSEMBLE: soft_vote(stacked, weights),
        UNIFORM: soft_vote(stacked, np.full(len(weights), 1 / len(weights))),
        **predictions,
    }
    return {
        voter: calibrate(votes[voter], **calibration)
        for voter, calibration in vote["calibrations"].items()
    }


def summarize(
    labels: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    classes: list[str],
    threshold: float | None,
    bins: int,
    resamples: int,
    seed: int,
) -> dict:
    """Compute what is reported of a vote on test images.

    Parameters
    ----------
    labels, probabilities, bins : see `all_metrics`
    groups, resamples, seed : see `bootstrap_intervals`
    classes : list of str
    threshold : float, optional
        On the probability of the second of two classes.

    Returns
    -------
    dict
        `all_metrics`, as far as they are `reportable`; `recall`, by class; `interval`, of each
        headline; `independent_groups`, by class; with a threshold, `at_threshold`: itself,
        sensitivity and specificity.
    """
    counts = group_counts(labels, groups, len(classes))
    by_class = recalls(labels, probabilities.argmax(axis=1), len(classes))

    def compute(sample: np.ndarray) -> dict[str, float]:
        return headline_metrics(labels[sample], probabilities[sample])

    summary = {
        **reportable(all_metrics(labels, probabilities, bins), counts),
        "recall": dict(zip(classes, map(none_if_nan, by_class), strict=True)),
        "interval": bootstrap_intervals(compute, groups, counts, resamples, seed),
        "independent_groups": dict(zip(classes, counts, strict=True)),
    }
    if threshold is not None:
        sensitivity, specificity = sensitivity_specificity(labels, probabilities[:, 1], threshold)
        summary["at_threshold"] = {
            "threshold": threshold,
            "sensitivity": none_if_nan(sensitivity),
            "specificity": none_if_nan(specificity),
        }
    return summary


def summarize_patients(
    labels: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    patients: np.ndarray,
    classes: list[str],
    bins: int,
    resamples: int,
    seed: int,
) -> PatientMetrics | PatientCounts:
    """Compute what is reported of the votes on patients; see `patients.vote_by_patient`.

    Parameters
    ----------
    labels, probabilities, groups, classes, bins, resamples, seed : see `summarize`
    patients : ndarray of int, shape (n,)
        Any numbers.

    Returns
    -------
    dict
        `summarize`, without a threshold, if a patient has images of a single class; `patients`,
        the number of such patients; `mixed_patients`, the number of the others.
    """
    votes = vote_by_patient(labels, probabilities, groups, patients)
    counts: PatientCounts = {"patients": len(votes.labels), "mixed_patients": votes.mixed}
    if not counts["patients"]:
        return counts
    summary = summarize(
        votes.labels, votes.probabilities, votes.groups, classes, None, bins, resamples, seed
    )
    return {**summary, **counts}
