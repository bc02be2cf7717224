"""Write an evaluation's figures and tables.

PNG files in plots/evaluation/ are for people, CSV files in plots/data/ for DVC.
"""

from collections.abc import Iterable

import numpy as np
from sklearn import metrics as sk

from brainmri.common.files import write_bytes
from brainmri.common.paths import EVALUATION_PLOTS, MEMBERS, PLOT_DATA
from brainmri.common.tables import format_csv
from brainmri.evaluation.decision_metrics import risk_coverage as compute_risk_coverage
from brainmri.evaluation.decisions import positive_of
from brainmri.evaluation.figures import (
    accuracies,
    confusion,
    curves,
    grids,
    reliability,
    risk_coverage,
)
from brainmri.evaluation.figures.layout import short_names
from brainmri.evaluation.intervals import MIN_GROUPS, group_counts
from brainmri.evaluation.metrics import calibration_bins, rankable_classes, reported_classes
from brainmri.evaluation.prediction_sets import list_sets
from brainmri.evaluation.results import EnsembleMetrics, SetMetrics
from brainmri.evaluation.summary import Evaluation
from brainmri.evaluation.voting import ENSEMBLE, UNIFORM
from brainmri.store.reader import RadReader

BEST = "best member"  # a voter in votes.csv
HISTORY_COLUMNS = (
    "epoch",
    "in_bag_log_loss",
    "in_bag_accuracy",
    "out_of_bag_log_loss",
    "out_of_bag_accuracy",
)
MAX_PATH = 28  # characters of a caption


def write_tables(evaluation: Evaluation, names: list[str]) -> None:
    """Write the ensemble's predictions, and every voter's for comparisons over several folds.

    Parameters
    ----------
    evaluation : Evaluation
    names : list of str
        What the images of all rows of the store are called.
    """
    classes = evaluation.classes
    columns = [f"probability of {name}" for name in classes]
    decided = evaluation.decided
    described = {
        "image": [names[row] for row in evaluation.rows],
        "class": [classes[label] for label in evaluation.labels],
        "predicted": [classes[label] for label in decided.labels],
    }
    p_values = [f"p-value of {name}" for name in classes]
    described |= dict(zip(columns, evaluation.ensemble.T, strict=True))
    described |= dict(zip(p_values, decided.p_values.T, strict=True))
    if evaluation.patients is not None:
        votes, of_patients = evaluation.decided_patients
        row_of = {number: row for row, number in enumerate(votes.numbers)}
        # Of a patient with several classes, nothing is decided
        rows = [row_of.get(patient) for patient in evaluation.patients]
        described["predicted of the patient"] = [
            "" if row is None else classes[of_patients.labels[row]] for row in rows
        ]
        for name, values in zip(p_values, of_patients.p_values.T, strict=True):
            described[f"patient's {name}"] = ["" if row is None else values[row] for row in rows]
    predictions = [list(cells) for cells in zip(*described.values(), strict=True)]
    write_table("predictions.csv", list(described), predictions)
    voters = evaluation.votes | {BEST: evaluation.votes[evaluation.best]}
    keys = {"row": evaluation.rows, "group": evaluation.groups}
    if evaluation.patients is not None:
        keys["patient"] = evaluation.patients
    truth = [classes[label] for label in evaluation.labels]
    votes = [
        [voter, *numbers, class_name, *values]
        for voter, probabilities in voters.items()
        for *numbers, class_name, values in zip(*keys.values(), truth, probabilities, strict=True)
    ]
    write_table("votes.csv", ["voter", *keys, "class", *columns], votes)


def write_figures(
    evaluation: Evaluation,
    summary: EnsembleMetrics,
    names: list[str],
    bins: int,
    gallery_size: int,
) -> None:
    """Write every figure of an evaluation, and the table of what it shows.

    Parameters
    ----------
    evaluation : Evaluation
    summary : EnsembleMetrics
        The evaluation's.
    names : list of str
        What the images of all rows of the store are called.
    bins : int
        Of the reliability diagram.
    gallery_size : int
        Images in the gallery.
    """
    labels, probabilities = evaluation.labels, evaluation.ensemble
    write_confusion_matrix(labels, evaluation.decided.labels, evaluation.classes)
    write_learning_curves(evaluation.members)
    write_class_curves(
        labels,
        probabilities,
        evaluation.groups,
        evaluation.classes,
        positive_of(evaluation.decision),
    )
    write_risk_coverage(labels, probabilities, summary.get("prediction_sets"))
    write_reliability(
        calibration_bins(labels, probabilities, bins), summary["expected_calibration_error"]
    )
    accuracy_of = {
        ENSEMBLE: summary["accuracy"],
        UNIFORM: summary["uniform_vote"]["accuracy"],
        **{name: evaluation.voter_metrics(name)["accuracy"] for name in evaluation.members},
    }
    write_accuracies(accuracy_of, summary["interval"]["accuracy"])
    write_gallery(evaluation, names, gallery_size)


def write_confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: list[str]) -> None:
    """Write confusion.png and confusion.csv."""
    counts = sk.confusion_matrix(labels, predicted, labels=range(len(classes)))
    figure = confusion.draw_confusion_matrix(counts, classes)
    write_bytes(EVALUATION_PLOTS / "confusion.png", figure)
    pairs = [[classes[true], classes[label]] for true, label in zip(labels, predicted, strict=True)]
    write_table("confusion.csv", ["class", "predicted"], pairs)


def write_learning_curves(members: list[str]) -> None:
    """Write learning_curves.png and learning_curves.csv, from the members' histories."""
    histories = {}
    for name in members:
        path = MEMBERS / name / "history.csv"
        histories[name] = np.genfromtxt(path, delimiter=",", names=True, ndmin=1)
    figure = curves.draw_learning_curves(histories)
    write_bytes(EVALUATION_PLOTS / "learning_curves.png", figure)
    points = [
        [name, *(epoch[column] for column in HISTORY_COLUMNS)]
        for name, history in histories.items()
        for epoch in history
    ]
    write_table("learning_curves.csv", ["curve", *HISTORY_COLUMNS], points)


def write_class_curves(
    labels: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    classes: list[str],
    positive: int | None,
) -> None:
    """Write ROC and precision-recall curves of each reported class; areas only of enough groups.

    There are none of a class that no test image has, or all have.
    """
    roc, precision_recall, areas = {}, {}, {}
    for label in rankable_classes(labels, reported_classes(len(classes), positive)):
        is_positive, probability = labels == label, probabilities[:, label]
        false_rate, true_rate, _ = sk.roc_curve(is_positive, probability)
        precision, recall, _ = sk.precision_recall_curve(is_positive, probability)
        name = classes[label]
        roc[name] = np.stack([false_rate, true_rate], axis=1)
        precision_recall[name] = np.stack([recall, precision], axis=1)[::-1]
        areas[name] = None, None
        if min(group_counts(is_positive, groups, 2)) >= MIN_GROUPS:
            roc_auc = sk.roc_auc_score(is_positive, probability)
            areas[name] = roc_auc, sk.average_precision_score(is_positive, probability)
    figure = curves.draw_class_curves(roc, precision_recall, areas)
    write_bytes(EVALUATION_PLOTS / "roc_precision_recall.png", figure)
    write_points("roc.csv", ["false_positive_rate", "true_positive_rate"], roc)
    write_points("precision_recall.csv", ["recall", "precision"], precision_recall)


def write_reliability(bins: list[tuple[float, float, int]], error: float) -> None:
    """Write reliability.png and reliability.csv."""
    figure = reliability.draw_reliability(bins, error)
    write_bytes(EVALUATION_PLOTS / "reliability.png", figure)
    write_table("reliability.csv", ["confidence", "accuracy", "images"], bins)


def write_risk_coverage(
    labels: np.ndarray, probabilities: np.ndarray, sets: SetMetrics | None
) -> None:
    """Write risk_coverage.png and risk_coverage.csv."""
    fractions, accuracy_of = compute_risk_coverage(labels, probabilities)
    figure = risk_coverage.draw_risk_coverage(fractions, accuracy_of, sets)
    write_bytes(EVALUATION_PLOTS / "risk_coverage.png", figure)
    points = zip(fractions.tolist(), accuracy_of.tolist(), strict=True)
    write_table("risk_coverage.csv", ["decided", "accuracy"], points)


def write_accuracies(accuracy_of: dict[str, float], interval: list[float] | None) -> None:
    """Write members.png and members.csv."""
    figure = accuracies.draw_accuracies(accuracy_of, interval)
    write_bytes(EVALUATION_PLOTS / "members.png", figure)
    write_table("members.csv", ["voter", "accuracy"], accuracy_of.items())


def write_gallery(evaluation: Evaluation, names: list[str], size: int) -> None:
    """Write gallery.png: the test images whose true class has the lowest probabilities."""
    labels, rows = evaluation.labels, evaluation.rows
    of_true_class = evaluation.ensemble[np.arange(len(labels)), labels]
    hardest = np.argsort(of_true_class, kind="stable")[:size]
    with RadReader() as rad:
        pixels = rad.images([rows[position] for position in hardest])[..., 0]
    classes = short_names(evaluation.classes)
    decision, decided = evaluation.decision, evaluation.decided.labels
    sets = list_sets(
        evaluation.decided.p_values,
        decided,
        decision["images"],
        decision["error"],
    )
    is_unsure = [listed is not None and len(listed) > 1 for listed in sets]
    captions = []
    for position in hardest:
        name = shorten_path(names[rows[position]])
        predicted = decided[position]
        probability = evaluation.ensemble[position, predicted]
        described = f"true {classes[labels[position]]}, predicted {classes[predicted]}"
        unsure = ", unsure" if is_unsure[position] else ""
        captions.append(f"{name}\n{described} (p = {probability:.2f}){unsure}")
    is_wrong = (decided != labels)[hardest].tolist()
    figure = grids.draw_gallery(pixels, captions, is_wrong)
    write_bytes(EVALUATION_PLOTS / "gallery.png", figure)


def write_points(name: str, columns: list[str], points_of: dict[str, np.ndarray]) -> None:
    """Write the points of curves, by curve ndarrays of shape (points, 2), as a table."""
    rows = [[curve, *point] for curve, points in points_of.items() for point in points]
    write_table(name, ["curve", *columns], rows)


def write_table(name: str, header: Iterable[str], rows: Iterable[Iterable]) -> None:
    """Write a CSV file in plots/data/; floats with six significant digits."""
    formatted = (
        [f"{value:.6g}" if isinstance(value, float) else value for value in row] for row in rows
    )
    write_bytes(PLOT_DATA / name, format_csv([header, *formatted]))


def shorten_path(path: str) -> str:
    """Return the end of a long path."""
    return path if len(path) <= MAX_PATH else "…" + path[1 - MAX_PATH :]
