"""Bootstrap intervals of metrics, and which metrics mean something for so few images."""

from collections.abc import Callable, Mapping

import numpy as np

from brainmri.evaluation.metrics import METRIC_NAMES

MIN_GROUPS = 5
"""Fewest independent groups of each class behind an interval, a ROC AUC or an average precision.

Of k groups of a class, a bootstrap draw has none with probability exp(−k): 37 % for one, 5 % for
three, below 1 % from five on. With fewer, the draws repeat a handful of values and many lack the
class, so an interval covers far less than 95 %; with a few more, it still covers less. A ROC AUC
without an interval means nothing: with one positive it is that image's rank, any value from 0 to 1
by chance.
"""
NEED_GROUPS = ("roc_auc", "average_precision")  # None where a class has fewer than MIN_GROUPS
NEED_IMAGES = ("balanced_accuracy", "f1")  # None where a class has no image
MAX_SHOWN = 3  # classes in a message
ROUNDING = 1e-9  # of a metric


def group_counts(labels: np.ndarray, groups: np.ndarray, classes: int) -> list[int]:
    """Count the independent groups (near duplicates count as one) of each class."""
    return [len(np.unique(groups[labels == label])) for label in range(classes)]


def reportable(values: Mapping[str, float], counts: list[int]) -> dict[str, float | None]:
    """Replace metrics that mean nothing for these images by None; `missing_metrics` explains it.

    Parameters
    ----------
    values : mapping of str to float
        See `metrics.all_metrics`.
    counts : list of int
        See `group_counts`.
    """
    dropped: tuple[str, ...] = ()
    if min(counts) < MIN_GROUPS:
        dropped += NEED_GROUPS
    if min(counts) == 0:
        dropped += NEED_IMAGES
    return {name: None if name in dropped else value for name, value in values.items()}


def missing_metrics(counts: Mapping[str, int]) -> str | None:
    """Explain in one line which metrics are None, and why; None if none is.

    Parameters
    ----------
    counts : mapping of str to int
        Independent groups of test images, by class.
    """
    small = {name: count for name, count in counts.items() if count < MIN_GROUPS}
    if not small:
        return None
    dropped = "ROC AUC, average precision or bootstrap intervals"
    if 0 in small.values():
        dropped = f"balanced accuracy, F1, {dropped}"
    return (
        f"no {dropped}: expected {MIN_GROUPS} or more independent groups of test images of each"
        f" class; {describe_small(small)}"
    )


def explain_missing(metrics: Mapping) -> str | None:
    """Explain in one line what is None in a vote's metrics, and why; None if nothing is.

    Parameters
    ----------
    metrics : mapping
        With `interval` and `independent_groups`, as of `summary.summarize`.
    """
    if reason := missing_metrics(metrics["independent_groups"]):
        return reason
    missing = [name for name, limits in metrics["interval"].items() if limits is None]
    if not missing:
        return None
    names = [METRIC_NAMES[name].partition(",")[0] for name in missing]  # without the unit
    return (
        f"no bootstrap interval of {', '.join(names)}: the value is the same in all draws of these"
        " test images, which says nothing about other images"
    )


def describe_small(small: Mapping[str, int]) -> str:
    """Name the first classes that have too few groups, with their numbers, and count the others."""
    shown = list(small.items())[:MAX_SHOWN]
    named = ", ".join(f"{name!r} has {count}" for name, count in shown)
    if len(small) > MAX_SHOWN:
        named += f" and {len(small) - MAX_SHOWN} more classes have too few"
    return named


def drop_constant(
    intervals: Mapping[str, list[float] | None],
) -> dict[str, list[float] | None]:
    """Replace intervals without width by None.

    Test images without an error have none in any draw either, though others may be wrong: of ten
    images of independent groups that all are right, Wilson's interval of the accuracy begins at
    0.72.
    """
    return {
        name: None if limits is None or limits[1] - limits[0] < ROUNDING else limits
        for name, limits in intervals.items()
    }


def bootstrap_intervals(
    compute: Callable[[np.ndarray], dict[str, float]],
    groups: np.ndarray,
    counts: list[int],
    resamples: int,
    seed: int,
) -> dict[str, list[float] | None]:
    """Compute 95 % percentile bootstrap intervals; None where a class has too few groups.

    `MIN_GROUPS` are enough. Whole groups are drawn, since near duplicates add no information. A
    draw counts for each metric that it has: macro averages are over the classes in it, and a draw
    of a single class has no ROC AUC.

    Parameters
    ----------
    compute : callable
        From positions of images, which may repeat, to the metrics of that sample; NaN for those
        that it does not have.
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
    names = list(compute(np.arange(len(groups))))
    if min(counts) < MIN_GROUPS:
        return dict.fromkeys(names)
    rng = np.random.default_rng(seed)
    positions_of = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    draws = []
    for _ in range(resamples):
        drawn = rng.integers(0, len(positions_of), len(positions_of))
        sample = np.concatenate([positions_of[index] for index in drawn])
        draws.append(list(compute(sample).values()))
    intervals: dict[str, list[float] | None] = {}
    for name, values in zip(names, np.transpose(draws), strict=True):
        has_value = ~np.isnan(values)
        limits = np.percentile(values[has_value], [2.5, 97.5]) if has_value.any() else None
        intervals[name] = None if limits is None else limits.tolist()
    return intervals
