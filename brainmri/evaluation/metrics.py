"""Metrics of class probabilities against labels. Pure functions, for two classes or more.

With a positive class, average precision, F1, precision and recall are of it; else they are those of
each class against the rest, macro-averaged. So is the ROC AUC of more than two classes; of two, it
is that of either.
"""

from collections.abc import Iterator

import numpy as np

from brainmri.evaluation.log_loss import log_loss

HEADLINES = ("accuracy", "balanced_accuracy", "roc_auc")
METRIC_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "f1": "F1",
    "log_loss": "log loss, nats",
    "brier_score": "Brier score",
    "expected_calibration_error": "expected calibration error",
}


def all_metrics(
    labels: np.ndarray, probabilities: np.ndarray, bins: int, positive: int | None
) -> dict[str, float]:
    """Compute every metric of a set of predictions; see also `intervals.reportable`.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
        True classes.
    probabilities : ndarray of float, shape (n, classes)
        Each row sums to 1.
    bins : int
        Bins of the expected calibration error.
    positive : int, optional
        The positive class.

    Returns
    -------
    dict of str to float
        `log_loss` is in nats; `brier_score` is the mean squared error summed over classes, 0 to 2
        (for two classes halved, 0 to 1, as is usual); the others are between 0 and 1. Macro
        averages are over the classes that occur.
    """
    one_hot = np.eye(probabilities.shape[1])[labels]
    squared = ((probabilities - one_hot) ** 2).sum(axis=1).mean()
    predicted = probabilities.argmax(axis=1)
    return {
        **headline_metrics(labels, probabilities),
        "average_precision": average_precision(labels, probabilities, positive),
        "f1": f1(labels, predicted, probabilities.shape[1], positive),
        "log_loss": log_loss(labels, probabilities),
        "brier_score": float(squared / 2 if probabilities.shape[1] == 2 else squared),
        "expected_calibration_error": calibration_error(labels, probabilities, bins),
    }


def headline_metrics(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Compute `HEADLINES`; see `all_metrics`."""
    predicted = probabilities.argmax(axis=1)
    by_class = recalls(labels, predicted, probabilities.shape[1])
    return {
        "accuracy": float(np.mean(predicted == labels)),
        "balanced_accuracy": float(np.nanmean(by_class)),
        "roc_auc": roc_auc(labels, probabilities),
    }


def recalls(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Compute the recall of each class: float, shape (classes,); NaN for a class without images."""
    return np.array([mean(predicted[labels == label] == label) for label in range(classes)])


def roc_auc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Compute the area under the ROC curve; NaN without pairs to rank.

    It is macro-averaged for more than two classes. The rank sum takes a tenth of the time of
    scikit-learn's curve; intervals need it thousands of times.

    References
    ----------
    J. Hanley, B. McNeil, "The meaning and use of the area under a receiver operating characteristic
    (ROC) curve", Radiology 143, 1982.
    """
    areas = []
    classes = probabilities.shape[1]
    for label in rankable_classes(labels, reported_classes(classes, 1 if classes == 2 else None)):
        _, place, counts = np.unique(
            probabilities[:, label], return_inverse=True, return_counts=True
        )
        ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
        is_positive = labels == label
        positives = np.sum(is_positive)
        negatives = len(labels) - positives
        rank_sum = ranks[is_positive].sum() - positives * (positives + 1) / 2
        areas.append(rank_sum / (positives * negatives))
    return mean(areas)


def average_precision(labels: np.ndarray, probabilities: np.ndarray, positive: int | None) -> float:
    """Compute the area under the precision-recall curve as a sum of steps; see `all_metrics`."""
    from sklearn.metrics import average_precision_score  # takes a second to import

    classes = rankable_classes(labels, reported_classes(probabilities.shape[1], positive))
    areas = [average_precision_score(labels == label, probabilities[:, label]) for label in classes]
    return mean(np.minimum(areas, 1))  # the sum of the steps of a perfect ranking may exceed 1


def f1(labels: np.ndarray, predicted: np.ndarray, classes: int, positive: int | None) -> float:
    """Compute the harmonic mean of precision and recall; see `all_metrics`."""
    scores = []
    for label in rankable_classes(labels, reported_classes(classes, positive)):
        true_positives = np.sum((labels == label) & (predicted == label))
        scores.append(2 * true_positives / (np.sum(labels == label) + np.sum(predicted == label)))
    return mean(scores)


def precision_and_recall(
    labels: np.ndarray, probabilities: np.ndarray, positive: int | None
) -> tuple[float, float]:
    """Compute precision and recall; 0 for a class that is absent. See `all_metrics`."""
    predicted = probabilities.argmax(axis=1)
    precisions, recalls_by_class = [], []
    for label in reported_classes(probabilities.shape[1], positive):
        true_positives = np.sum((labels == label) & (predicted == label))
        precisions.append(true_positives / max(np.sum(predicted == label), 1))
        recalls_by_class.append(true_positives / max(np.sum(labels == label), 1))
    return float(np.mean(precisions)), float(np.mean(recalls_by_class))


def calibration_bins(
    labels: np.ndarray, probabilities: np.ndarray, bins: int
) -> list[tuple[float, float, int]]:
    """Compare confidence and accuracy in bins of equal width.

    Returns
    -------
    list of (mean confidence, accuracy, number of images)
        Confidence is the probability of the predicted class. Empty bins are omitted.
    """
    confidence = probabilities.max(axis=1)
    is_correct = probabilities.argmax(axis=1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    compared = []
    for index in np.unique(bin_of):
        in_bin = bin_of == index
        accuracy = float(is_correct[in_bin].mean())
        compared.append((float(confidence[in_bin].mean()), accuracy, int(np.sum(in_bin))))
    return compared


def calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int) -> float:
    """Compute the expected calibration error.

    It is the distance of confidence and accuracy, averaged over the images of `calibration_bins`.

    References
    ----------
    C. Guo, G. Pleiss, Y. Sun, K. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
    """
    compared = calibration_bins(labels, probabilities, bins)
    distances = (abs(confidence - accuracy) * count for confidence, accuracy, count in compared)
    return sum(distances) / len(labels)


def reported_classes(classes: int, positive: int | None) -> list[int]:
    """Return the classes with metrics of their own: the positive one, or all."""
    return list(range(classes)) if positive is None else [positive]


def rankable_classes(labels: np.ndarray, classes: list[int]) -> list[int]:
    """Return those classes that have both positive and negative images."""
    return [label for label in classes if 0 < np.sum(labels == label) < len(labels)]


def format_metric(value: float | None, interval: list[float] | None = None) -> str:
    """Format a metric, with its interval if there is one; "none" for None."""
    if value is None:
        return "none"
    if interval is None:
        return f"{value:.3f}"
    return f"{value:.3f} (95 % interval {interval[0]:.3f} to {interval[1]:.3f})"


def describe_headlines(metrics: dict) -> Iterator[str]:
    """Describe the headlines of an ensemble and of its mean member, in a line each."""
    for name in HEADLINES:
        value = format_metric(metrics[name], metrics["interval"][name])
        mean_member = format_metric(metrics["mean_member"][name])
        yield f"{METRIC_NAMES[name]}: {value}; mean member {mean_member}"


def mean(values: np.ndarray | list[float]) -> float:
    """Compute the mean; NaN, without NumPy's warning, of no values."""
    return float(np.mean(values)) if len(values) else np.nan


def mean_or_none(values: list[float | None]) -> float | None:
    """Compute the mean; None if a value is None."""
    return None if None in values else float(np.mean(values))


def none_if_nan(value: float) -> float | None:
    """Return the value as JSON can hold it."""
    return None if np.isnan(value) else float(value)
