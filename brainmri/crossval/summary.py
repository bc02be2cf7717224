"""What is reported of a cross-validation."""

import numpy as np
from sklearn.metrics import confusion_matrix

from brainmri.crossval.votes import Votes, pool_votes
from brainmri.evaluation.decision_metrics import rule_metrics, set_metrics
from brainmri.evaluation.decision_rule import cost_rule
from brainmri.evaluation.intervals import (
    bootstrap_intervals,
    drop_constant,
    group_counts,
    reportable,
)
from brainmri.evaluation.metrics import all_metrics, mean_or_none
from brainmri.evaluation.patients import vote_by_patient
from brainmri.evaluation.prediction_sets import fewest_groups
from brainmri.evaluation.voting import ENSEMBLE

Metrics = dict[str, float | None]
Intervals = dict[str, list[float] | None]

INTERVAL_SEED = 0


def summarize(votes: dict[tuple[int, int], Votes], resamples: int, bins: int, decide: dict) -> dict:
    """Compute what metrics/crossval.json holds.

    Parameters
    ----------
    votes : dict of (seed, fold) to Votes
    resamples : int
        Draws of each bootstrap interval.
    bins : int
        Of the expected calibration error.
    decide : dict
        As in params.yaml; `error` is the error rate of prediction sets.

    Returns
    -------
    dict
        Metrics on all test images together, by voter, and those of the `mean_member`; `interval`:
        see `metric_intervals`; `decision_rule` and `prediction_sets`: see
        `summarize_decisions`; `accuracy_above`: see `difference_intervals`; where patients
        are known, `by_patient`: see `summarize_patients`. The ensemble's metrics by seed (`seeds`),
        and their `spread` over `folds` and over seeds (`spread_of_seeds`). Counts:
        `independent_groups`, by class; `confusion`: see `confusion_by_class`; `images`;
        `folds_run`.
    """
    pooled = pool_votes(list(votes.values()))
    counts = group_counts(pooled.labels, pooled.groups, len(pooled.classes))
    metrics_of = {voter: voter_metrics(pooled, voter, bins) for voter in pooled.probabilities}
    members = [values for voter, values in metrics_of.items() if voter.startswith("member-")]
    others = {voter: values for voter, values in metrics_of.items() if voter != ENSEMBLE}
    fold_metrics = [voter_metrics(fold, ENSEMBLE, bins) for fold in votes.values()]
    seed_metrics = metrics_by_seed(votes, bins)
    predicted = pooled.probabilities[ENSEMBLE].argmax(axis=1)
    if pooled.decisions is not None:
        predicted = pooled.decisions.labels
    by_patient = {}
    if pooled.patients is not None:
        by_patient = {"by_patient": summarize_patients(pooled, resamples, bins, decide)}
    return {
        ENSEMBLE: metrics_of[ENSEMBLE],
        **summarize_decisions(pooled, resamples, decide),
        **by_patient,
        "interval": metric_intervals(pooled, counts, resamples, bins),
        "folds": spread(fold_metrics),
        "seeds": {str(seed): values for seed, values in seed_metrics.items()},
        "spread_of_seeds": spread(list(seed_metrics.values())),
        "mean_member": {
            name: mean_or_none([values[name] for values in members])
            for name in metrics_of[ENSEMBLE]
        },
        **{voter.replace(" ", "_"): values for voter, values in others.items()},
        "accuracy_above": difference_intervals(pooled, counts, resamples),
        "independent_groups": dict(zip(pooled.classes, counts, strict=True)),
        "confusion": confusion_by_class(pooled.labels, predicted, pooled.classes),
        "images": len(pooled.labels),
        "folds_run": len(votes),
    }


def summarize_decisions(votes: Votes, resamples: int, decide: dict) -> dict:
    """Compute the metrics of what is decided, of voters that decide.

    Returns
    -------
    dict
        `decision_rule`: see `rule_metrics`; `prediction_sets`, if each fold has enough groups of
        each class: see `set_metrics`.
    """
    decisions = votes.decisions
    if decisions is None:
        return {}
    rule = summarize_rule(votes, decide)
    if decisions.calibration_groups < fewest_groups(decide["error"]):
        return {"decision_rule": rule}
    sets = set_metrics(
        votes.labels,
        decisions.labels,
        decisions.p_values,
        votes.groups,
        votes.classes,
        decide["error"],
        resamples,
        INTERVAL_SEED,
    )
    return {"decision_rule": rule, "prediction_sets": sets}


def summarize_rule(votes: Votes, decide: dict) -> dict:
    """Compute the metrics of the decided classes; `name` has the rules that folds applied.

    A fold with too few groups for a threshold applies argmax.
    """
    costs = None
    if decide["rule"] == "costs":
        costs = cost_rule(decide["costs"], votes.classes)["costs"]
    metrics = rule_metrics(
        votes.labels,
        votes.decisions.labels,
        votes.groups,
        votes.positive,
        votes.classes,
        costs,
        decide["prevalence"],
    )
    return {"name": ", ".join(votes.decisions.rules), **metrics}


def summarize_patients(votes: Votes, resamples: int, bins: int, decide: dict) -> dict:
    """Compute the ensemble's metrics by patient; see `evaluation.patients.vote_by_patient`."""
    voted = vote_by_patient(
        votes.labels, votes.probabilities[ENSEMBLE], votes.groups, votes.patients
    )
    counts = {"patients": len(voted.labels), "mixed_patients": voted.mixed}
    if not counts["patients"]:
        return counts
    row_of = {number: row for row, number in enumerate(votes.patients)}
    patients = Votes(
        groups=voted.groups,
        labels=voted.labels,
        classes=votes.classes,
        probabilities={ENSEMBLE: voted.probabilities},
        positive=votes.positive,
        decisions=votes.patient_decisions.of_rows([row_of[number] for number in voted.numbers]),
    )
    groups = group_counts(voted.labels, voted.groups, len(votes.classes))
    return {
        **voter_metrics(patients, ENSEMBLE, bins),
        "interval": metric_intervals(patients, groups, resamples, bins),
        **summarize_decisions(patients, resamples, decide),
        "independent_groups": dict(zip(votes.classes, groups, strict=True)),
        **counts,
    }


def voter_metrics(votes: Votes, voter: str, bins: int) -> Metrics:
    """Compute a voter's metrics, as far as they are reportable."""
    counts = group_counts(votes.labels, votes.groups, len(votes.classes))
    values = all_metrics(votes.labels, votes.probabilities[voter], bins, votes.positive)
    return reportable(values, counts)


def metric_intervals(votes: Votes, counts: list[int], resamples: int, bins: int) -> Intervals:
    """Compute the interval of each of the ensemble's metrics; None where it has no width."""
    labels, probabilities = votes.labels, votes.probabilities[ENSEMBLE]

    def compute(sample: np.ndarray) -> dict[str, float]:
        return all_metrics(labels[sample], probabilities[sample], bins, votes.positive)

    intervals = bootstrap_intervals(compute, votes.groups, counts, resamples, INTERVAL_SEED)
    return drop_constant(intervals)


def difference_intervals(votes: Votes, counts: list[int], resamples: int) -> Intervals:
    """Compute the interval of the ensemble's accuracy minus each other voter's."""
    is_correct = {
        voter: probabilities.argmax(axis=1) == votes.labels
        for voter, probabilities in votes.probabilities.items()
    }

    def compute(sample: np.ndarray) -> dict[str, float]:
        accuracies = {voter: np.mean(correct[sample]) for voter, correct in is_correct.items()}
        ensemble = accuracies.pop(ENSEMBLE)
        return {voter: float(ensemble - accuracy) for voter, accuracy in accuracies.items()}

    return bootstrap_intervals(compute, votes.groups, counts, resamples, INTERVAL_SEED)


def metrics_by_seed(votes: dict[tuple[int, int], Votes], bins: int) -> dict[int, Metrics]:
    """Compute the ensemble's metrics on all test images of each seed."""
    metrics_of = {}
    for seed in sorted({seed for seed, _ in votes}):
        folds = [fold for (fold_seed, _), fold in votes.items() if fold_seed == seed]
        metrics_of[seed] = voter_metrics(pool_votes(folds), ENSEMBLE, bins)
    return metrics_of


def spread(parts: list[Metrics]) -> dict[str, list[float] | None]:
    """Compute mean and standard deviation of each metric; None where a part lacks it.

    Parameters
    ----------
    parts : list of dict of str to float or None
        Metrics of each fold or seed. The deviation of a single one is 0.
    """
    spreads = {}
    for name in parts[0]:
        values = [metrics[name] for metrics in parts]
        if None in values:
            spreads[name] = None
        else:
            deviation = np.std(values, ddof=len(parts) > 1)
            spreads[name] = [float(np.mean(values)), float(deviation)]
    return spreads


def confusion_by_class(
    labels: np.ndarray, predicted: np.ndarray, classes: list[str]
) -> dict[str, dict[str, int]]:
    """Count images by true class, then by predicted class."""
    rows = confusion_matrix(labels, predicted, labels=range(len(classes))).tolist()
    return {
        name: dict(zip(classes, row, strict=True)) for name, row in zip(classes, rows, strict=True)
    }
