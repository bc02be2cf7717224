"""What is reported of an ensemble on its test images."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from brainmri.evaluation.calibration import calibrate
from brainmri.evaluation.decision_metrics import describe_decisions, rule_metrics, set_metrics
from brainmri.evaluation.decisions import Decided, decide_votes, positive_of, rule_of
from brainmri.evaluation.intervals import (
    bootstrap_intervals,
    drop_constant,
    explain_missing,
    group_counts,
    reportable,
)
from brainmri.evaluation.log_loss import log_loss
from brainmri.evaluation.metrics import (
    all_metrics,
    describe_headlines,
    headline_metrics,
    mean_or_none,
    none_if_nan,
    recalls,
)
from brainmri.evaluation.patients import (
    PatientVotes,
    describe_patients,
    mean_by_patient,
    vote_by_patient,
)
from brainmri.evaluation.prediction_sets import missing_sets
from brainmri.evaluation.results import (
    Decision,
    EnsembleMetrics,
    PatientCounts,
    PatientMetrics,
    VotingWeights,
)
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
    predictions : ndarray of float, shape (members, n, classes)
        What the members predict, not calibrated.
    voting : VotingWeights
    patients : ndarray of int, shape (n,), or None
        Patient of each image, if patients are known.
    """

    classes: list[str]
    rows: list[int]
    labels: np.ndarray
    groups: np.ndarray
    votes: dict[str, np.ndarray]
    best: str
    predictions: np.ndarray
    voting: VotingWeights
    patients: np.ndarray | None = None

    @property
    def ensemble(self) -> np.ndarray:
        """Return the ensemble's votes."""
        return self.votes[ENSEMBLE]

    @property
    def decision(self) -> Decision:
        """Return how votes are decided."""
        return self.voting["decision"]

    @property
    def weights(self) -> np.ndarray:
        """Return the members' voting weights: float, shape (members,)."""
        return np.array([member["weight"] for member in self.voting["members"].values()])

    @functools.cached_property
    def decided(self) -> Decided:
        """Return what is decided of the images."""
        return decide_votes(self.ensemble, self.predictions, self.weights, self.decision)

    @functools.cached_property
    def decided_patients(self) -> tuple[PatientVotes, Decided]:
        """Return the votes on patients, which are known, and what is decided of these."""
        return decide_patients(
            self.labels,
            self.ensemble,
            self.groups,
            self.patients,
            self.predictions,
            self.weights,
            self.decision,
        )

    @property
    def members(self) -> list[str]:
        """Return the members' names."""
        return list(self.voting["members"])

    def summarize(self, bins: int, resamples: int, seed: int) -> EnsembleMetrics:
        """Compute what metrics/ensemble.json holds; see `summarize_votes`."""
        summary = summarize_votes(
            self.labels,
            self.ensemble,
            self.groups,
            self.decided,
            None if self.patients is None else self.decided_patients,
            self.decision,
            bins,
            resamples,
            seed,
        )
        by_member = {name: self.voter_metrics(name) for name in self.members}
        best = by_member[self.best]
        means = {key: mean_or_none([values[key] for values in by_member.values()]) for key in best}
        return {
            **summary,
            "test_images": len(self.rows),
            "best_member": {"name": self.best, **best},
            "mean_member": means,
            "uniform_vote": self.voter_metrics(UNIFORM),
        }

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


def summarize_votes(
    labels: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    decided: Decided,
    of_patients: tuple[PatientVotes, Decided] | None,
    decision: Decision,
    bins: int,
    resamples: int,
    seed: int,
) -> dict:
    """Compute what is reported of the votes on test images, and on their patients.

    Parameters
    ----------
    labels, probabilities, groups, bins, resamples, seed : see `summarize`
    decided : Decided
    of_patients : see `decide_patients`
        None if patients are unknown.
    decision : Decision

    Returns
    -------
    dict
        `summarize` and `summarize_decisions`; with patients also `by_patient`, see
        `summarize_patients`.
    """
    classes, positive = list(decision["images"]), positive_of(decision)
    summary = {
        **summarize(labels, probabilities, groups, classes, positive, bins, resamples, seed),
        **summarize_decisions(labels, decided, groups, decision, resamples, seed),
    }
    if of_patients is not None:
        summary["by_patient"] = summarize_patients(*of_patients, decision, bins, resamples, seed)
    return summary


def summarize(
    labels: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    classes: list[str],
    positive: int | None,
    bins: int,
    resamples: int,
    seed: int,
) -> dict:
    """Compute what is reported of a vote on test images.

    Parameters
    ----------
    labels, probabilities, bins, positive : see `all_metrics`
    groups, resamples, seed : see `bootstrap_intervals`
    classes : list of str

    Returns
    -------
    dict
        `all_metrics`, as far as they are `reportable`; `recall`, by class; `interval`, of each
        headline, None where it has no width; `independent_groups`, by class.
    """
    counts = group_counts(labels, groups, len(classes))
    by_class = recalls(labels, probabilities.argmax(axis=1), len(classes))

    def compute(sample: np.ndarray) -> dict[str, float]:
        return headline_metrics(labels[sample], probabilities[sample])

    intervals = bootstrap_intervals(compute, groups, counts, resamples, seed)
    return {
        **reportable(all_metrics(labels, probabilities, bins, positive), counts),
        "recall": dict(zip(classes, map(none_if_nan, by_class), strict=True)),
        "interval": drop_constant(intervals),
        "independent_groups": dict(zip(classes, counts, strict=True)),
    }


def summarize_decisions(
    labels: np.ndarray,
    decided: Decided,
    groups: np.ndarray,
    decision: Decision,
    resamples: int,
    seed: int,
    by_patient: bool = False,
) -> dict:
    """Compute what is reported of the decisions on test images, or on patients.

    Parameters
    ----------
    labels, groups : ndarray of int, shape (n,)
    decided : Decided
    decision : Decision
    resamples, seed : see `bootstrap_intervals`
    by_patient : bool

    Returns
    -------
    dict
        `decision_rule`: see `rule_metrics`; `calibration_groups`: groups of training images that
        calibrate prediction sets, by class; `prediction_sets`: see `set_metrics`, if these groups
        are enough.
    """
    applied, classes = rule_of(decision, by_patient), list(decision["images"])
    metrics = rule_metrics(
        labels,
        decided.labels,
        groups,
        positive_of(decision),
        classes,
        applied["costs"],
        decision["prevalence"],
    )
    rule = {"name": applied["name"], "threshold": applied["threshold"], **metrics}
    calibration = decision["patients"] if by_patient else decision["images"]
    if calibration is None:
        return {"decision_rule": rule}
    counts = {name: len(listed) for name, listed in calibration.items()}
    if missing_sets(calibration, decision["error"]):
        return {"decision_rule": rule, "calibration_groups": counts}
    sets = set_metrics(
        labels,
        *decided,
        groups,
        classes,
        decision["error"],
        resamples,
        seed,
    )
    return {"decision_rule": rule, "calibration_groups": counts, "prediction_sets": sets}


def decide_patients(
    labels: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    patients: np.ndarray,
    members: np.ndarray,
    weights: np.ndarray,
    decision: Decision,
) -> tuple[PatientVotes, Decided]:
    """Decide the votes on patients whose images are all of one class.

    Parameters
    ----------
    labels, probabilities, groups, patients : see `patients.vote_by_patient`
    members, weights, decision : see `decide_votes`
    """
    votes = vote_by_patient(labels, probabilities, groups, patients)
    numbers, number_of = np.unique(patients, return_inverse=True)
    voted = np.searchsorted(numbers, votes.numbers)
    means = np.stack([mean_by_patient(predicted, number_of)[voted] for predicted in members])
    return votes, decide_votes(votes.probabilities, means, weights, decision, by_patient=True)


def summarize_patients(
    votes: PatientVotes,
    decided: Decided,
    decision: Decision,
    bins: int,
    resamples: int,
    seed: int,
) -> PatientMetrics | PatientCounts:
    """Compute what is reported of the votes on patients.

    Parameters
    ----------
    votes, decided : see `decide_patients`
    decision : Decision
    bins, resamples, seed : see `summarize`

    Returns
    -------
    dict
        `summarize` and `summarize_decisions`, if a patient has images of a single class;
        `patients`, the number of such patients; `mixed_patients`, the number of the others.
    """
    counts: PatientCounts = {"patients": len(votes.labels), "mixed_patients": votes.mixed}
    if not counts["patients"]:
        return counts
    classes, positive = list(decision["images"]), positive_of(decision)
    voted = votes.labels, votes.probabilities, votes.groups
    return {
        **summarize(*voted, classes, positive, bins, resamples, seed),
        **summarize_decisions(
            votes.labels, decided, votes.groups, decision, resamples, seed, by_patient=True
        ),
        **counts,
    }


def describe_summary(metrics: EnsembleMetrics) -> Iterator[str]:
    """Describe what metrics/ensemble.json holds in a few lines."""
    yield from describe_headlines(metrics)
    yield from describe_decisions(metrics)
    if "by_patient" in metrics:
        yield from describe_patients(metrics["by_patient"])
    if reason := explain_missing(metrics):
        yield f"{reason}; `make crossval` tests on all images"
