"""Lets the members vote on the test images, and measures and draws how good the vote is.

    dvc repro            (then: dvc metrics show, dvc plots show)

Reads   the members' test predictions, histories and metrics, models/weights.json, data/split.json, the RAD; params: seed,
        ensemble, evaluate
Writes  metrics/ensemble.json, and in plots/ each figure as a PNG for people and as a CSV in plots/data/ for DVC
"""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from sklearn import metrics as sk

from stages.shared import metrics, pictures
from stages.shared.files import write_bytes, write_json
from stages.shared.members import read_predictions
from stages.shared.params import load_params
from stages.shared.rad import RadReader, read_metadata, read_split
from stages.shared.results import FIGURES, read_out_of_bag, read_vote
from stages.shared.running import run_stage
from stages.shared.scratch import MODELS
from stages.shared.voting import ENSEMBLE, UNIFORM, calibrate, vote

PLOTS = Path("plots")
BEST = "best member"  # by its out-of-bag log loss


def main() -> None:
    params = load_params()
    names, bins = list(params.ensemble), params.evaluate.bins
    metadata = read_metadata()
    split = read_split(len(metadata["images"]))
    classes, rows = metadata["classes"], split["test"]
    labels = np.array([classes.index(metadata["images"][row]["class"]) for row in rows])
    groups = np.array(split["groups"])[rows]
    vote_of = read_vote(names, classes)
    weights = np.array([vote_of["members"][name]["weight"] for name in names])

    predictions = np.stack([read_predictions(MODELS / name / "test.csv", rows, classes) for name in names])
    votes = {ENSEMBLE: vote(predictions, weights), UNIFORM: vote(predictions, np.full(len(names), 1 / len(names)))}
    votes |= dict(zip(names, predictions, strict=True))
    votes = {voter: calibrate(votes[voter], **calibration) for voter, calibration in vote_of["calibrations"].items()}
    ensemble = votes[ENSEMBLE]
    predicted = ensemble.argmax(axis=1)

    out_of_bag_loss = {name: read_out_of_bag(name)["log_loss"] for name in names}
    best = min(names, key=out_of_bag_loss.get)
    counts = metrics.group_counts(labels, groups, len(classes))
    figures = {name: summary_metrics(labels, votes[name], counts) for name in names}
    summary = {
        **metrics.summarize(
            labels, ensemble, groups, classes, vote_of.get("threshold"), bins, params.evaluate.resamples, params.seed
        ),
        "test_images": len(rows),
        "best_member": {"name": best, **figures[best]},
        "mean_member": {key: metrics.mean_or_none([one[key] for one in figures.values()]) for key in figures[best]},
        "uniform_vote": summary_metrics(labels, votes[UNIFORM], counts),
    }
    write_json(FIGURES, summary)

    write_predictions_table(metadata, rows, labels, ensemble, classes)
    write_votes(votes | {BEST: votes[best]}, rows, groups, labels, classes)
    draw_confusion(labels, predicted, classes)
    draw_learning_curves(names)
    draw_curves(labels, ensemble, groups, classes)
    draw_reliability(metrics.calibration_bins(labels, ensemble, bins), summary["expected_calibration_error"])
    accuracies = {ENSEMBLE: summary["accuracy"], UNIFORM: summary["uniform_vote"]["accuracy"]}
    draw_members(accuracies | {name: figures[name]["accuracy"] for name in names}, summary["interval"]["accuracy"])
    draw_gallery(metadata, rows, labels, ensemble, classes, params.evaluate.gallery)
    for name in metrics.HEADLINES:
        value = metrics.formatted(summary[name], summary["interval"][name])
        print(f"{name.replace('_', ' ')}: {value}; mean member {metrics.formatted(summary['mean_member'][name])}")
    if reason := metrics.missing_metrics(summary["independent_groups"]):
        print(f"{reason}; `make crossval` tests on all images")


def summary_metrics(labels: np.ndarray, probabilities: np.ndarray, counts: list[int]) -> dict[str, float | None]:
    """Compute the metrics reported of each voter that is compared with the ensemble."""
    values = {**metrics.headlines(labels, probabilities), "log_loss": metrics.log_loss(labels, probabilities)}
    return metrics.reportable(values, counts)


def write_table(name: str, header: Iterable[str], rows: Iterable[Iterable]) -> None:
    """Write a CSV file in plots/data/."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    table.writerows([f"{value:.6g}" if isinstance(value, float) else value for value in row] for row in rows)
    write_bytes(PLOTS / "data" / name, text.getvalue().encode("utf-8", "backslashreplace"))


def write_predictions_table(
    metadata: dict, rows: list[int], labels: np.ndarray, ensemble: np.ndarray, classes: list[str]
) -> None:
    lines = [
        [metadata["images"][row]["path"], classes[label], classes[probabilities.argmax()], *probabilities.tolist()]
        for row, label, probabilities in zip(rows, labels, ensemble, strict=True)
    ]
    write_table("predictions.csv", ["path", "class", "predicted", *(f"probability of {name}" for name in classes)], lines)


def write_votes(
    voters: dict[str, np.ndarray], rows: list[int], groups: np.ndarray, labels: np.ndarray, classes: list[str]
) -> None:
    """What the ensemble, other votes and each member give each test image, for comparisons over several folds."""
    header = ["voter", "row", "group", "class", *(f"probability of {name}" for name in classes)]
    lines = [
        [voter, row, group, classes[label], *probabilities]
        for voter, of_voter in voters.items()
        for row, group, label, probabilities in zip(rows, groups.tolist(), labels, of_voter.tolist(), strict=True)
    ]
    write_table("votes.csv", header, lines)


def draw_confusion(labels: np.ndarray, predicted: np.ndarray, classes: list[str]) -> None:
    counts = sk.confusion_matrix(labels, predicted, labels=range(len(classes)))
    write_bytes(PLOTS / "confusion.png", pictures.confusion(counts, classes))
    write_table(
        "confusion.csv", ["class", "predicted"], [[classes[a], classes[b]] for a, b in zip(labels, predicted, strict=True)]
    )


def draw_learning_curves(names: list[str]) -> None:
    histories = {name: np.genfromtxt(MODELS / name / "history.csv", delimiter=",", names=True, ndmin=1) for name in names}
    write_bytes(PLOTS / "learning_curves.png", pictures.learning_curves(histories))
    columns = ["epoch", "in_bag_log_loss", "in_bag_accuracy", "out_of_bag_log_loss", "out_of_bag_accuracy"]
    lines = [[name, *(float(epoch[column]) for column in columns)] for name, history in histories.items() for epoch in history]
    write_table("learning_curves.csv", ["curve", *columns], lines)


def draw_curves(labels: np.ndarray, ensemble: np.ndarray, groups: np.ndarray, classes: list[str]) -> None:
    shown = metrics.positives(len(classes))
    roc, precision_recall, areas = {}, {}, {}
    for label in shown:
        positive, probability = labels == label, ensemble[:, label]
        false_rate, true_rate, _ = sk.roc_curve(positive, probability)
        precision, recall, _ = sk.precision_recall_curve(positive, probability)
        roc[classes[label]] = np.stack([false_rate, true_rate], axis=1)
        precision_recall[classes[label]] = np.stack([recall, precision], axis=1)[::-1]
        enough = min(metrics.group_counts(positive, groups, 2)) >= metrics.MIN_GROUPS
        areas[classes[label]] = (
            sk.roc_auc_score(positive, probability) if enough else None,
            sk.average_precision_score(positive, probability) if enough else None,
        )
    write_bytes(PLOTS / "roc_precision_recall.png", pictures.curves(roc, precision_recall, areas))
    for name, header, lines in (
        ("roc.csv", ["false_positive_rate", "true_positive_rate"], roc),
        ("precision_recall.csv", ["recall", "precision"], precision_recall),
    ):
        write_table(name, ["curve", *header], [[curve, *point] for curve, points in lines.items() for point in points.tolist()])


def draw_reliability(bins: list[tuple[float, float, int]], error: float) -> None:
    write_bytes(PLOTS / "reliability.png", pictures.reliability(bins, error))
    write_table("reliability.csv", ["confidence", "accuracy", "images"], bins)


def draw_members(accuracies: dict[str, float], interval: list[float] | None) -> None:
    write_bytes(PLOTS / "members.png", pictures.members(accuracies, interval))
    write_table("members.csv", ["voter", "accuracy"], accuracies.items())


def draw_gallery(
    metadata: dict, rows: list[int], labels: np.ndarray, ensemble: np.ndarray, classes: list[str], most: int
) -> None:
    of_truth = ensemble[np.arange(len(labels)), labels]
    worst = np.argsort(of_truth, kind="stable")[:most]
    with RadReader() as rad:
        images = rad.images([rows[i] for i in worst])[..., 0]
    names = pictures.short_names(classes)
    captions = [
        f"{path_end(metadata['images'][rows[i]]['path'])}\n{names[labels[i]]}: probability {of_truth[i]:.2f}" for i in worst
    ]
    write_bytes(PLOTS / "gallery.png", pictures.gallery(images, captions, [ensemble[i].argmax() != labels[i] for i in worst]))


def path_end(path: str, most: int = 28) -> str:
    """The end of a long path."""
    return path if len(path) <= most else "…" + path[1 - most :]


if __name__ == "__main__":
    run_stage(main)
