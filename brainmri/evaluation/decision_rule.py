"""The rule by which the vote's probabilities become a class."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import FiniteFloat
from typing_extensions import TypedDict

from brainmri.common.errors import UserError
from brainmri.evaluation.intervals import group_counts

MIN_GROUPS = 20
"""Fewest groups of each side behind a threshold: with fewer, a sensitivity has steps above 0.05."""

RuleName = Literal["argmax", "youden", "sensitivity", "specificity", "costs"]


class DecisionRule(TypedDict):
    """A rule for the classes that a vote decides; see `decide`.

    `threshold` is on the probability of the positive class; `costs` are those of each true class,
    by predicted class. Both are None for rules without them.
    """

    name: RuleName
    threshold: FiniteFloat | None
    costs: list[list[FiniteFloat]] | None


ARGMAX: DecisionRule = {"name": "argmax", "threshold": None, "costs": None}


def decide(probabilities: np.ndarray, rule: DecisionRule, positive: int | None) -> np.ndarray:
    """Decide the classes of images by a rule.

    With costs, it is the class with the lowest expected cost; with a threshold, the positive class
    at the threshold or above, below it the most probable one of the others; else the most probable
    class.

    Parameters
    ----------
    probabilities : ndarray of float, shape (n, classes)
        Calibrated.
    rule : DecisionRule
    positive : int, optional
        Required with a threshold.

    Returns
    -------
    ndarray of int, shape (n,)

    References
    ----------
    C. Elkan, "The foundations of cost-sensitive learning", IJCAI 2001.
    """
    if rule["costs"] is not None:
        return (probabilities @ np.array(rule["costs"])).argmin(axis=1)
    if rule["threshold"] is None:
        return probabilities.argmax(axis=1)
    others = probabilities.copy()
    others[:, positive] = -1
    return np.where(
        probabilities[:, positive] >= rule["threshold"], positive, others.argmax(axis=1)
    )


def choose_rule(
    name: RuleName,
    labels: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    positive: int,
    min_rate: float,
) -> tuple[DecisionRule, str | None]:
    """Choose the threshold of a rule on out-of-bag votes.

    Parameters
    ----------
    name : {"youden", "sensitivity", "specificity"}
        The threshold with the largest sum of sensitivity and specificity (Youden's J);
        the highest whose sensitivity is not below `min_rate`; of those whose specificity is not,
        the highest with the best sensitivity.
    labels, groups : ndarray of int, shape (n,)
    probabilities : ndarray of float, shape (n, classes)
        Calibrated.
    positive : int
        The positive class.
    min_rate : float
        Above 0, at most 1.

    Returns
    -------
    rule : DecisionRule
    reason : str, optional
        Why the rule is `ARGMAX` instead: there are fewer than `MIN_GROUPS`.

    References
    ----------
    W. Youden, "Index for rating diagnostic tests", Cancer 3, 1950.
    """
    is_positive = labels == positive
    fewest = min(group_counts(is_positive.astype(int), groups, 2))
    if fewest < MIN_GROUPS:
        return ARGMAX, (
            f"decide.rule: {name} needs {MIN_GROUPS} or more independent groups of training images"
            f" with and without the positive class, found {fewest}; the most probable class is"
            " predicted"
        )
    scores = probabilities[:, positive]
    thresholds, threshold_index = np.unique(scores, return_inverse=True)
    true_positives = np.bincount(threshold_index, is_positive)[::-1].cumsum()
    false_positives = np.bincount(threshold_index, ~is_positive)[::-1].cumsum()
    thresholds = thresholds[::-1]
    if name == "specificity":  # also the threshold that no image reaches
        thresholds = np.append(thresholds, np.nextafter(scores.max(), 2))
        true_positives = np.append(true_positives, 0)
        false_positives = np.append(false_positives, 0)
    negatives = np.sum(~is_positive)
    sensitivity = true_positives / np.sum(is_positive)
    specificity = (negatives - false_positives) / negatives
    if name == "youden":
        chosen = (sensitivity + specificity).argmax()
    elif name == "sensitivity":
        chosen = np.flatnonzero(sensitivity >= min_rate)[0]
    else:
        is_specific = specificity >= min_rate
        chosen = np.flatnonzero(is_specific)[sensitivity[is_specific].argmax()]
    return {"name": name, "threshold": float(thresholds[chosen]), "costs": None}, None


def cost_rule(costs: Mapping[str, Mapping[str, float]], classes: list[str]) -> DecisionRule:
    """Return the rule of `decide.costs`; wrong predictions that it does not list cost 1.

    Raises
    ------
    UserError
        If it names no class.
    """
    matrix = 1.0 - np.eye(len(classes))
    for true, by_predicted in costs.items():
        for predicted, cost in by_predicted.items():
            for name in (true, predicted):
                if name not in classes:
                    raise UserError(
                        f"decide.costs has the class {name!r}; expected those of the images:"
                        f" {', '.join(classes)}"
                    )
            matrix[classes.index(true), classes.index(predicted)] = cost
    return {"name": "costs", "threshold": None, "costs": matrix.tolist()}
