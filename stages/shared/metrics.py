"""What predictions are worth. Pure functions on labels and class probabilities, for two classes or more.

With two classes the second one, in sorted order, is the positive one ("yes" after "no"). With more, ROC AUC and average
precision are those of each class against the rest, averaged without weights, and F1 is averaged likewise.
"""

from collections.abc import Callable, Mapping

import numpy as np

MIN_GROUPS = 5
"""Fewest independent groups of each class behind an interval, a ROC AUC or an average precision.

Of k groups of a class, a bootstrap draw has none with probability exp(−k): 37 % for one, 5 % for three, below 1 % from five on.
With fewer, the draws repeat a handful of values and many lack the class, so an interval covers far less than 95 %; and a ROC AUC
whose interval can't be given says nothing: of one positive it is that image's rank, any value from 0 to 1 by chance.
"""
NEED_GROUPS = ("roc_auc", "average_precision")  # None where a class has fewer than MIN_GROUPS
NEED_IMAGES = ("balanced_accuracy", "f1")  # None where a class has no image
HEADLINES = ("accuracy", "balanced_accuracy", "roc_auc")


def all_metrics(labels: np.ndarray, probabilities: np.ndarray, bins: int) -> dict[str, float]:
    """Compute every metric of a set of predictions; `reportable` drops those that say nothing.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
        True classes.
    probabilities : ndarray of float, shape (n, classes)
        Each row sums to 1.
    bins : int
        Bins of the expected calibration error.

    Returns
    -------
    dict of str to float
        `log_loss` is in nats; `brier_score` is the mean squared error summed over classes, 0 to 2 (for two classes halved,
        0 to 1, as is usual); the others are between 0 and 1. Means over classes are of the classes that occur.
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


def group_counts(labels: np.ndarray, groups: np.ndarray, classes: int) -> list[int]:
    """Count the independent groups (near duplicates count as one) of each class."""
    return [len(np.unique(groups[labels == label])) for label in range(classes)]


def reportable(values: Mapping[str, float], counts: list[int]) -> dict[str, float | None]:
    """Replace by None what says nothing of these test images; `missing_metrics` explains it.

    Parameters
    ----------
    values : mapping of str to float
        See `all_metrics`.
    counts : list of int
        See `group_counts`.
    """
    dropped = (*NEED_GROUPS * (min(counts) < MIN_GROUPS), *NEED_IMAGES * (min(counts) == 0))
    return {name: None if name in dropped else value for name, value in values.items()}


def missing_metrics(counts: Mapping[str, int]) -> str | None:
    """Explain in one line which metrics are None, and why; None if there are all.

    Parameters
    ----------
    counts : mapping of str to int
        Independent groups of test images, by class.
    """
    few = {name: count for name, count in counts.items() if count < MIN_GROUPS}
    if not few:
        return None
    dropped = "ROC AUC, average precision or 95 % intervals"
    if 0 in few.values():
        dropped = f"balanced accuracy, F1, {dropped}"
    shown = ", ".join(f"{name!r} has {count}" for name, count in list(few.items())[:3])
    more = f" and {len(few) - 3} more classes have too few" if len(few) > 3 else ""
    return f"no {dropped}: expected {MIN_GROUPS} or more independent groups of test images of each class; {shown}{more}"


def mean_or_none(values: list[float | None]) -> float | None:
    """Compute the mean, which is None where a value is."""
    return None if None in values else float(np.mean(values))


def formatted(value: float | None, interval: list[float] | None = None) -> str:
    """Format a metric, with its interval if it has one; "none" where it says nothing."""
    if value is None:
        return "none"
    return f"{value:.3f} (95 % interval {interval[0]:.3f} to {interval[1]:.3f})" if interval else f"{value:.3f}"


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
    """Compute what is reported of test images.

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
        `all_metrics`, as far as `reportable`; `recall`, by class; `interval`, of each headline; `independent_groups`, by class;
        with a threshold, `at_threshold`: itself, sensitivity and specificity.
    """
    counts = group_counts(labels, groups, len(classes))
    by_class = recalls(labels, probabilities.argmax(axis=1), len(classes))
    summary = {
        **reportable(all_metrics(labels, probabilities, bins), counts),
        "recall": {name: _none_if_nan(value) for name, value in zip(classes, by_class, strict=True)},
        "interval": intervals(lambda sample: headlines(labels[sample], probabilities[sample]), groups, counts, resamples, seed),
        "independent_groups": dict(zip(classes, counts, strict=True)),
    }
    if threshold is not None:
        sensitivity, specificity = sensitivity_specificity(labels, probabilities[:, 1], threshold)
        summary["at_threshold"] = {
            "threshold": threshold,
            "sensitivity": _none_if_nan(sensitivity),
            "specificity": _none_if_nan(specificity),
        }
    return summary


def headlines(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Compute `HEADLINES`; see `all_metrics`."""
    predicted = probabilities.argmax(axis=1)
    return {
        "accuracy": float(np.mean(predicted == labels)),
        "balanced_accuracy": float(np.nanmean(recalls(labels, predicted, probabilities.shape[1]))),
        "roc_auc": roc_auc(labels, probabilities),
    }


def recalls(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Compute the fraction of each class's images that are predicted as that class, shape (classes,); NaN if it has none."""
    return np.array([_mean(predicted[labels == label] == label) for label in range(classes)])


def roc_auc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Area under the ROC curve; for more than two classes one against the rest, unweighted mean; NaN without pairs to rank.

    By the rank sum, which takes a tenth of the time that scikit-learn's curve takes; intervals need it thousands of times.

    References
    ----------
    J. Hanley, B. McNeil, "The meaning and use of the area under a receiver operating characteristic (ROC) curve",
    Radiology 143, 1982.
    """
    areas = []
    for label in occurring(labels, probabilities.shape[1]):
        _, place, counts = np.unique(probabilities[:, label], return_inverse=True, return_counts=True)
        ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
        positive = labels == label
        of_them = np.sum(positive)
        areas.append((ranks[positive].sum() - of_them * (of_them + 1) / 2) / (of_them * (len(labels) - of_them)))
    return _mean(areas)


def f1(labels: np.ndarray, predicted: np.ndarray, classes: int) -> float:
    """Harmonic mean of precision and recall, of the positive class; for more than two classes the unweighted mean."""
    shown = occurring(labels, classes)
    hits = [np.sum((labels == label) & (predicted == label)) for label in shown]
    told = [np.sum(labels == label) + np.sum(predicted == label) for label in shown]
    return _mean([2 * hit / count for hit, count in zip(hits, told, strict=True)])


def positives(classes: int) -> list[int]:
    """The classes that figures are told of: the positive one of two, or all."""
    return [1] if classes == 2 else list(range(classes))


def occurring(labels: np.ndarray, classes: int) -> list[int]:
    """List those `positives` that some images are of and others are not."""
    return [label for label in positives(classes) if 0 < np.sum(labels == label) < len(labels)]


def average_precision(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Area under the precision-recall curve, as a sum of steps; for more than two classes one against the rest, mean."""
    from sklearn.metrics import average_precision_score  # takes a second to import

    shown = occurring(labels, probabilities.shape[1])
    return _mean([average_precision_score(labels == label, probabilities[:, label]) for label in shown])


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
    figures: Callable[[np.ndarray], dict[str, float]], groups: np.ndarray, counts: list[int], resamples: int, seed: int
) -> dict[str, list[float] | None]:
    """95 % percentile bootstrap intervals; None where a class has fewer than `MIN_GROUPS` groups.

    Whole groups are drawn, since near duplicates tell nothing new of each other. A draw counts for each metric that it has:
    means over classes are of the classes in it, and a draw of a single class has no ROC AUC.

    Parameters
    ----------
    figures : callable
        Given positions of images, which may repeat, the metrics of that sample; NaN for those that it does not have.
    groups : ndarray of int, shape (n,)
        Group of near duplicates of each image.
    counts : list of int
        See `group_counts`.
    resamples : int
        Number of draws.
    seed : int
        Of the draws.

    Returns
    -------
    dict of str to [low, high], or to None

    References
    ----------
    B. Efron, R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    names = list(figures(np.arange(len(groups))))
    if min(counts) < MIN_GROUPS:
        return dict.fromkeys(names)
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    drawn = []
    for _ in range(resamples):
        sample = np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])
        drawn.append(list(figures(sample).values()))
    low, high = np.nanpercentile(drawn, [2.5, 97.5], axis=0)
    return {name: [float(low[i]), float(high[i])] for i, name in enumerate(names)}


def precision_and_recall(labels: np.ndarray, probabilities: np.ndarray) -> tuple[float, float]:
    """Precision and recall of the positive class; for more than two classes their unweighted means."""
    predicted, shown = probabilities.argmax(axis=1), positives(probabilities.shape[1])
    hits = np.array([np.sum((labels == label) & (predicted == label)) for label in shown])
    precision = hits / np.maximum([np.sum(predicted == label) for label in shown], 1)
    recall = hits / np.maximum([np.sum(labels == label) for label in shown], 1)
    return float(precision.mean()), float(recall.mean())


def choose_threshold(rule: str, labels: np.ndarray, positive: np.ndarray, min_sensitivity: float) -> float:
    """A threshold on the probability of the second of two classes; 0.5 where images of one class alone are there.

    Parameters
    ----------
    rule : {"half", "youden", "sensitivity"}
        0.5; the threshold with the largest sum of sensitivity and specificity (Youden's J); or the highest one whose
        sensitivity is not below `min_sensitivity`.
    labels : ndarray of int, shape (n,)
        0 or 1.
    positive : ndarray of float, shape (n,)
        Probabilities of class 1.
    min_sensitivity : float
        Above 0, at most 1.

    References
    ----------
    W. Youden, "Index for rating diagnostic tests", Cancer 3, 1950.
    """
    if rule == "half" or len(np.unique(labels)) < 2:
        return 0.5
    thresholds = np.unique(positive)[::-1]
    told = np.array([sensitivity_specificity(labels, positive, threshold) for threshold in thresholds])
    if rule == "youden":
        return float(thresholds[told.sum(axis=1).argmax()])
    return float(thresholds[np.flatnonzero(told[:, 0] >= min_sensitivity)[0]])


def sensitivity_specificity(labels: np.ndarray, positive: np.ndarray, threshold: float) -> tuple[float, float]:
    """Compute the fractions of class 1 predicted as 1, and of class 0 as 0, where the threshold or more counts as 1.

    NaN for a class without an image.
    """
    predicted = positive >= threshold
    return _mean(predicted[labels == 1]), _mean(~predicted[labels == 0])


def _mean(values: np.ndarray | list[float]) -> float:
    """Compute the mean; NaN, without NumPy's warning, if there is no value."""
    return float(np.mean(values)) if len(values) else np.nan


def _none_if_nan(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
