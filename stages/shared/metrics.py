"""What predictions are worth. Pure functions on labels and class probabilities, for two classes or more.

With two classes the second one, in sorted order, is the positive one ("yes" after "no"). With more, ROC AUC and average
precision are those of each class against the rest, averaged without weights, and F1 is averaged likewise.
"""

from collections.abc import Callable

import numpy as np


def all_metrics(labels: np.ndarray, probabilities: np.ndarray, bins: int) -> dict[str, float]:
    """Every figure that the pipeline tells of a set of predictions.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
        True classes; each class is there at least once.
    probabilities : ndarray of float, shape (n, classes)
        Each row sums to 1.
    bins : int
        Bins of the expected calibration error.

    Returns
    -------
    dict of str to float
        `log_loss` is in nats; `brier_score` is the mean squared error summed over classes, 0 to 2 (for two classes halved,
        0 to 1, as is usual); the others are between 0 and 1.
    """
    one_hot = np.eye(probabilities.shape[1])[labels]
    squared = ((probabilities - one_hot) ** 2).sum(axis=1).mean()
    predicted = probabilities.argmax(axis=1)
    return {
        **headlines(labels, probabilities),
        "average_precision": average_precision(labels, probabilities),
        "f1": f1(labels, predicted, probabilities.shape[1]),
        "log_loss": log_loss(labels, probabilities),
        "brier_score": float(squared / 2 if probabilities.shape[1] == 2 else squared),
        "expected_calibration_error": calibration_error(labels, probabilities, bins),
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
    """What is told of a set of images that nobody learned from.

    Parameters
    ----------
    labels, probabilities, bins : see `all_metrics`
    groups, resamples, seed : see `intervals`
    classes : list of str
        The classes' names.
    threshold : float, optional
        On the probability of the second of two classes.

    Returns
    -------
    dict
        `all_metrics`; `recall`, by class; `interval`, of each headline; with a threshold, `at_threshold`: itself, sensitivity and
        specificity.
    """
    by_class = recalls(labels, probabilities.argmax(axis=1), len(classes)).tolist()
    told = {
        **all_metrics(labels, probabilities, bins),
        "recall": dict(zip(classes, by_class, strict=True)),
        "interval": intervals(lambda sample: headlines(labels[sample], probabilities[sample]), labels, groups, resamples, seed),
    }
    if threshold is not None:
        found, cleared = sensitivity_specificity(labels, probabilities[:, 1], threshold)
        told["at_threshold"] = {"threshold": threshold, "sensitivity": found, "specificity": cleared}
    return told


def headlines(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Accuracy, balanced accuracy and ROC AUC; see `all_metrics`."""
    predicted = probabilities.argmax(axis=1)
    return {
        "accuracy": float(np.mean(predicted == labels)),
        "balanced_accuracy": float(np.mean(recalls(labels, predicted, probabilities.shape[1]))),
        "roc_auc": roc_auc(labels, probabilities),
    }


def recalls(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Share of each class's images that were recognised, shape (classes,); the class must occur."""
    return np.array([np.mean(predicted[labels == label] == label) for label in range(classes)])


def roc_auc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Area under the ROC curve; for more than two classes one against the rest, unweighted mean.

    By the rank sum, which takes a tenth of the time that scikit-learn's curve takes; intervals need it thousands of times.

    References
    ----------
    J. Hanley, B. McNeil, "The meaning and use of the area under a receiver operating characteristic (ROC) curve",
    Radiology 143, 1982.
    """
    areas = []
    for label in positives(probabilities.shape[1]):
        _, place, counts = np.unique(probabilities[:, label], return_inverse=True, return_counts=True)
        ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
        positive = labels == label
        of_them = np.sum(positive)
        areas.append((ranks[positive].sum() - of_them * (of_them + 1) / 2) / (of_them * (len(labels) - of_them)))
    return float(np.mean(areas))


def f1(labels: np.ndarray, predicted: np.ndarray, classes: int) -> float:
    """Harmonic mean of precision and recall, of the positive class; for more than two classes the unweighted mean."""
    hits = [np.sum((labels == label) & (predicted == label)) for label in positives(classes)]
    told = [np.sum(labels == label) + np.sum(predicted == label) for label in positives(classes)]
    return float(np.mean([2 * hit / max(count, 1) for hit, count in zip(hits, told, strict=True)]))


def positives(classes: int) -> list[int]:
    """The classes that figures are told of: the positive one of two, or all."""
    return [1] if classes == 2 else list(range(classes))


def average_precision(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Area under the precision-recall curve, as a sum of steps; for more than two classes one against the rest, mean."""
    from sklearn.metrics import average_precision_score  # takes a second to import

    shown = positives(probabilities.shape[1])
    return float(np.mean([average_precision_score(labels == label, probabilities[:, label]) for label in shown]))


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean of −ln p(true class), in nats; probabilities below 1e-7 count as 1e-7."""
    return float(-np.mean(np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-7))))


def calibration_bins(labels: np.ndarray, probabilities: np.ndarray, bins: int) -> list[tuple[float, float, int]]:
    """How sure the predictions are and how often they are right, in bins of equal width.

    Returns
    -------
    list of (mean confidence, accuracy, number of images)
        Confidence is the probability of the predicted class. Empty bins are left out.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    of_bin = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        (float(confidence[of_bin == b].mean()), float(right[of_bin == b].mean()), int(np.sum(of_bin == b)))
        for b in np.unique(of_bin)
    ]


def calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int) -> float:
    """Expected calibration error: mean distance of confidence and accuracy over `calibration_bins`, weighted by images.

    References
    ----------
    C. Guo, G. Pleiss, Y. Sun, K. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
    """
    return sum(abs(sure - right) * count for sure, right, count in calibration_bins(labels, probabilities, bins)) / len(labels)


def intervals(
    figures: Callable[[np.ndarray], dict[str, float]], labels: np.ndarray, groups: np.ndarray, resamples: int, seed: int
) -> dict[str, list[float]]:
    """95 % percentile bootstrap intervals.

    Whole groups are drawn, since near duplicates tell nothing new of each other. Draws that lack a class are not counted.

    Parameters
    ----------
    figures : callable
        Given positions of images, which may repeat, the figures of that sample.
    labels : ndarray of int, shape (n,)
        True classes.
    groups : ndarray of int, shape (n,)
        Group of near duplicates of each image.
    resamples : int
        Number of draws.
    seed : int
        Of the draws.

    Returns
    -------
    dict of str to [low, high]

    References
    ----------
    B. Efron, R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    rng = np.random.default_rng(seed)
    classes = len(np.unique(labels))
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    drawn = []
    for _ in range(resamples):
        sample = np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])
        if len(np.unique(labels[sample])) == classes:
            drawn.append(figures(sample))
    low, high = np.percentile([list(one.values()) for one in drawn], [2.5, 97.5], axis=0)
    return {name: [float(low[i]), float(high[i])] for i, name in enumerate(drawn[0])}


def precision_and_recall(labels: np.ndarray, probabilities: np.ndarray) -> tuple[float, float]:
    """Precision and recall of the positive class; for more than two classes their unweighted means."""
    predicted, shown = probabilities.argmax(axis=1), positives(probabilities.shape[1])
    hits = np.array([np.sum((labels == label) & (predicted == label)) for label in shown])
    precision = hits / np.maximum([np.sum(predicted == label) for label in shown], 1)
    recall = hits / np.maximum([np.sum(labels == label) for label in shown], 1)
    return float(precision.mean()), float(recall.mean())


def choose_threshold(rule: str, labels: np.ndarray, positive: np.ndarray, min_sensitivity: float) -> float:
    """A threshold on the probability of the second of two classes.

    Parameters
    ----------
    rule : {"half", "youden", "sensitivity"}
        0.5; the threshold with the largest sum of sensitivity and specificity (Youden's J); or the highest one whose
        sensitivity is not below `min_sensitivity`.
    labels : ndarray of int, shape (n,)
        0 or 1, both there.
    positive : ndarray of float, shape (n,)
        Probabilities of class 1.
    min_sensitivity : float
        Above 0, at most 1.

    References
    ----------
    W. Youden, "Index for rating diagnostic tests", Cancer 3, 1950.
    """
    if rule == "half":
        return 0.5
    thresholds = np.unique(positive)[::-1]
    told = np.array([sensitivity_specificity(labels, positive, threshold) for threshold in thresholds])
    if rule == "youden":
        return float(thresholds[told.sum(axis=1).argmax()])
    return float(thresholds[np.flatnonzero(told[:, 0] >= min_sensitivity)[0]])


def sensitivity_specificity(labels: np.ndarray, positive: np.ndarray, threshold: float) -> tuple[float, float]:
    """Shares of class 1 told as 1, and of class 0 told as 0, if a probability of the threshold or more counts as 1."""
    told = positive >= threshold
    return float(np.mean(told[labels == 1])), float(np.mean(~told[labels == 0]))
