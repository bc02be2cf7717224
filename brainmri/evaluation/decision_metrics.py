"""Metrics of decisions: of the classes that a rule decides, and of prediction sets."""

import math
from collections.abc import Iterator

import numpy as np

from brainmri.evaluation.intervals import bootstrap_intervals, drop_constant
from brainmri.evaluation.metrics import format_metric, mean, none_if_nan
from brainmri.evaluation.prediction_sets import prediction_sets
from brainmri.evaluation.results import (
    AtPrevalence,
    SetMetrics,
    SetRatesOfClass,
)

RATE_NAMES = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "positive predictive value",
    "npv": "negative predictive value",
}
Z_95, Z_97_5 = 1.959964, 2.241403  # quantiles of the normal distribution, two-sided


def rule_metrics(
    labels: np.ndarray,
    decided: np.ndarray,
    groups: np.ndarray,
    positive: int | None,
    classes: list[str],
    costs: list[list[float]] | None,
    prevalence: float | None,
) -> dict:
    """Compute the metrics of the classes that a rule decides.

    Parameters
    ----------
    labels, decided, groups : ndarray of int, shape (n,)
        True class, decided class, and group of each image.
    positive : int, optional
        The positive class.
    classes : list of str
    costs : list of list of float, optional
        Of each true class, by decided class.
    prevalence : float, optional
        Fraction of positives among those to whom the ensemble is to be applied.

    Returns
    -------
    dict
        `RuleMetrics`, without the rule itself. Rates, with their intervals, only with a
        positive class; see `binary_rates`.
    """
    metrics = {"accuracy": float(np.mean(decided == labels))}
    if costs is not None:
        metrics["mean_cost"] = float(np.mean(np.array(costs)[labels, decided]))
    if positive is None:
        return metrics
    is_positive, is_decided = labels == positive, decided == positive
    rates, numbers = binary_rates(is_positive, is_decided, groups)
    metrics["rates"] = {
        "positive": classes[positive],
        **{name: none_if_nan(rate) for name, rate in rates.items()},
        "interval": {name: wilson_interval(rate, numbers[name]) for name, rate in rates.items()},
    }
    if prevalence is not None:
        metrics["at_prevalence"] = at_prevalence(rates, numbers, prevalence)
    return metrics


def binary_rates(
    is_positive: np.ndarray, is_decided: np.ndarray, groups: np.ndarray
) -> tuple[dict[str, float], dict[str, float]]:
    """Compute sensitivity, specificity, and positive and negative predictive values.

    Parameters
    ----------
    is_positive, is_decided : ndarray of bool, shape (n,)
        Whether an image is positive, and whether it is decided to be.
    groups : ndarray of int, shape (n,)

    Returns
    -------
    rates : dict of str to float
        NaN without images to count.
    numbers : dict of str to float
        Of independent observations behind each; see `effective_number`.
    """
    parts = {
        "sensitivity": (is_positive, is_decided),
        "specificity": (~is_positive, ~is_decided),
        "ppv": (is_decided, is_positive),
        "npv": (~is_decided, ~is_positive),
    }
    rates = {name: mean(hits[counted]) for name, (counted, hits) in parts.items()}
    numbers = {name: effective_number(groups[counted]) for name, (counted, _) in parts.items()}
    return rates, numbers


def effective_number(groups: np.ndarray) -> float:
    """Count the independent observations behind a mean over images of groups.

    It is the number of groups if all have as many images, and less if a few have most: the variance
    of a mean of groups that are weighted by their images is that of so many groups of equal weight.

    Parameters
    ----------
    groups : ndarray of int, shape (n,)
        Of each image.

    References
    ----------
    L. Kish, "Survey Sampling", 1965 (effective sample size).
    """
    _, images = np.unique(groups, return_counts=True)
    return float(images.sum() ** 2 / (images**2).sum()) if len(images) else 0.0


def wilson_interval(rate: float, number: float, z: float = Z_95) -> list[float] | None:
    """Compute the interval of a rate; None without observations.

    It holds for small numbers and for rates of 0 and 1, where a bootstrap interval has no width.

    Parameters
    ----------
    rate : float
        Between 0 and 1.
    number : float
        Of independent observations.
    z : float
        Quantile of the normal distribution; the default is of 95 %.

    References
    ----------
    E. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of
    the American Statistical Association 22, 1927.
    """
    if not number:
        return None
    scale = 1 + z**2 / number
    center = (rate + z**2 / (2 * number)) / scale
    half = z / scale * math.sqrt(rate * (1 - rate) / number + z**2 / (4 * number**2))
    return [max(0.0, round(center - half, 12)), min(1.0, round(center + half, 12))]


def at_prevalence(
    rates: dict[str, float], numbers: dict[str, float], prevalence: float
) -> AtPrevalence:
    """Compute predictive values at another prevalence than that of the images.

    Their intervals are of 95 % at least: they hold where those of 97.5 % of sensitivity and of
    specificity do.
    """
    sensitivity, specificity = rates["sensitivity"], rates["specificity"]
    values = predictive_values(sensitivity, specificity, prevalence)
    limits = [
        wilson_interval(rates[name], numbers[name], Z_97_5)
        for name in ("sensitivity", "specificity")
    ]
    intervals: dict[str, list[float] | None] = dict.fromkeys(values)
    if None not in limits:
        lowest, highest = (
            predictive_values(*bounds, prevalence) for bounds in zip(*limits, strict=True)
        )
        intervals = {name: [lowest[name], highest[name]] for name in values}
    return {
        "prevalence": prevalence,
        **{name: none_if_nan(value) for name, value in values.items()},
        "interval": intervals,
    }


def predictive_values(
    sensitivity: float, specificity: float, prevalence: float
) -> dict[str, float]:
    """Compute positive and negative predictive value by Bayes' rule; NaN of nobody decided so."""
    true_positive, false_positive = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    true_negative, false_negative = specificity * (1 - prevalence), (1 - sensitivity) * prevalence
    decided, not_decided = true_positive + false_positive, true_negative + false_negative
    return {
        "ppv": true_positive / decided if decided else np.nan,
        "npv": true_negative / not_decided if not_decided else np.nan,
    }


def set_metrics(
    labels: np.ndarray,
    predicted: np.ndarray,
    p_values: np.ndarray,
    groups: np.ndarray,
    classes: list[str],
    error: float,
    resamples: int,
    seed: int,
) -> SetMetrics:
    """Compute the metrics of prediction sets.

    Parameters
    ----------
    labels, predicted, groups : ndarray of int, shape (n,)
    p_values : ndarray of float, shape (n, classes)
        See `prediction_sets.p_values`.
    classes : list of str
    error : float
        Error rate that the sets are made for.
    resamples, seed : see `bootstrap_intervals`

    Returns
    -------
    SetMetrics
        `set_rates` of all images and of those of each class, with intervals: Wilson's of the
        fractions, by groups; bootstrap intervals of the mean size.
    """
    sets = prediction_sets(p_values, predicted, error)

    def summarize_part(part: np.ndarray) -> SetRatesOfClass:
        rates = set_rates(labels[part], sets[part])
        intervals = {
            name: wilson_interval(rates[name], number)
            for name, number in _numbers_behind(groups[part], sets[part]).items()
        }
        sizes = sets[part].sum(axis=1)
        size_interval = bootstrap_intervals(
            lambda sample: {"mean_size": mean(sizes[sample])},
            groups[part],
            [len(np.unique(groups[part]))],
            resamples,
            seed,
        )
        reportable = {name: none_if_nan(rate) for name, rate in rates.items()}
        return {**reportable, "interval": {**intervals, **drop_constant(size_interval)}}

    return {
        "error": error,
        **summarize_part(np.arange(len(labels))),
        "by_class": {
            name: summarize_part(np.flatnonzero(labels == label))
            for label, name in enumerate(classes)
        },
    }


def _numbers_behind(groups: np.ndarray, sets: np.ndarray) -> dict[str, float]:
    """Count the independent observations behind each rate of `set_rates`."""
    number = effective_number(groups)
    decided = effective_number(groups[sets.sum(axis=1) == 1])
    return {"coverage": number, "decided": number, "decided_accuracy": decided}


def set_rates(labels: np.ndarray, sets: np.ndarray) -> dict[str, float]:
    """Compute the metrics of prediction sets, without intervals; NaN of no images.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
    sets : ndarray of bool, shape (n, classes)

    Returns
    -------
    dict of str to float
        `coverage`, the fraction of sets that have the true class; `mean_size`, in classes;
        `decided`, the fraction of sets of a single class; `decided_accuracy`, the fraction of these
        that are the true class.
    """
    sizes = sets.sum(axis=1)
    is_covered = sets[np.arange(len(labels)), labels]
    return {
        "coverage": mean(is_covered),
        "mean_size": mean(sizes),
        "decided": mean(sizes == 1),
        "decided_accuracy": mean(is_covered[sizes == 1]),
    }


def risk_coverage(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the accuracy on the most confident images, as their number grows.

    Confidence is the probability of the most probable class. Images of equal confidence are added
    together.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
    probabilities : ndarray of float, shape (n, classes)

    Returns
    -------
    fractions : ndarray of float, shape (steps,)
        Of the images that are decided; the last is 1.
    accuracies : ndarray of float, shape (steps,)
        On these.

    References
    ----------
    R. El-Yaniv, Y. Wiener, "On the foundations of noise-free selective classification", JMLR 11,
    2010.
    """
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    is_correct = (probabilities.argmax(axis=1) == labels)[order]
    counts = np.arange(1, len(labels) + 1)
    is_last = np.append(np.diff(confidence[order]) != 0, True)
    return (counts / len(labels))[is_last], (np.cumsum(is_correct) / counts)[is_last]


def describe_decisions(metrics: dict) -> Iterator[str]:
    """Describe the metrics of a decision rule and of prediction sets, in a line each."""
    rule = metrics["decision_rule"]
    if rates := rule.get("rates"):
        named = [
            f"{described} {format_metric(rates[name], rates['interval'][name])}"
            for name, described in RATE_NAMES.items()
        ]
        yield f"class {rates['positive']!r}: {', '.join(named)}"
    if sets := metrics.get("prediction_sets"):
        coverage = [
            f"{name!r} {format_metric(values['coverage'], values['interval']['coverage'])}"
            for name, values in sets["by_class"].items()
        ]
        decided = "no set has one class, so nothing is decided"
        if sets["decided"]:
            accuracy = format_metric(sets["decided_accuracy"])
            decided = f"{sets['decided']:.0%} of the sets have one class, accuracy {accuracy}"
        yield (
            f"prediction sets for an error rate of {sets['error']:g}: coverage of"
            f" {', '.join(coverage)}; {decided}"
        )
