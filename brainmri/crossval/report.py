"""Draw and print a cross-validation's summary."""

import numpy as np

from brainmri.common.files import write_bytes
from brainmri.common.paths import PLOTS
from brainmri.crossval.votes import Votes
from brainmri.evaluation.decision_metrics import describe_decisions
from brainmri.evaluation.figures import crossval
from brainmri.evaluation.intervals import explain_missing
from brainmri.evaluation.metrics import METRIC_NAMES, format_metric
from brainmri.evaluation.patients import describe_patients
from brainmri.evaluation.voting import ENSEMBLE

DRAWN_VOTERS = {
    "ensemble": ENSEMBLE,
    "uniform vote": "uniform_vote",
    "best member": "best_member",
    "mean member": "mean_member",
}
NO_SETS = "no prediction sets: too few independent groups of training images in a fold"


def write_figure(summary: dict, folds: list[Votes]) -> None:
    """Write plots/crossval.png.

    Parameters
    ----------
    summary : dict
        See `summary.summarize`.
    folds : list of Votes
        Of each seed and fold.
    """
    accuracies = {label: summary[key]["accuracy"] for label, key in DRAWN_VOTERS.items()}
    fold_accuracies = []
    for votes in folds:
        predicted = votes.probabilities[ENSEMBLE].argmax(axis=1)
        fold_accuracies.append(float(np.mean(predicted == votes.labels)))
    confusion = summary["confusion"]
    counts = np.array([list(row.values()) for row in confusion.values()])
    interval = summary["interval"]["accuracy"]
    figure = crossval.draw_crossval(accuracies, interval, fold_accuracies, counts, list(confusion))
    write_bytes(PLOTS / "crossval.png", figure)


def print_summary(summary: dict) -> None:
    """Print each of the ensemble's metrics with its interval and its spread over folds."""
    for name, value in summary[ENSEMBLE].items():
        pooled = format_metric(value, summary["interval"][name])
        over_folds = "none: too few independent groups in a fold"
        if summary["folds"][name]:
            mean, deviation = summary["folds"][name]
            over_folds = f"{mean:.3f} ± {deviation:.3f}"
        print(f"{METRIC_NAMES[name]}: {pooled}, folds {over_folds}")
    if "decision_rule" in summary:
        print(f"decision rule: {summary['decision_rule']['name']}")
        for line in describe_decisions(summary):
            print(line)
        if "prediction_sets" not in summary:
            print(NO_SETS)
    if "by_patient" in summary:
        of_patients = summary["by_patient"]
        print(*describe_patients(of_patients), sep="\n")
        if "decision_rule" in of_patients and "prediction_sets" not in of_patients:
            print(f"by patient, {NO_SETS}")
    if reason := explain_missing(summary):
        print(reason)
