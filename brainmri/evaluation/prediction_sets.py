"""Prediction sets: the classes that an image may have, with a stated error rate.

Each training image has a vote of members that never saw it. They calibrate sets for each class, at
no cost of images or of training.
"""

import math
from argparse import ArgumentTypeError
from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import Field
from typing_extensions import TypedDict

from brainmri.evaluation.intervals import describe_small

Probability = Annotated[float, Field(ge=0, le=1)]

CHUNK = 1024  # images compared with all calibration images at a time
ROUNDING = 1e-12  # by which equal votes may differ, since they are summed in another order


class CalibrationGroup(TypedDict):
    """Out-of-bag votes on the images of a group that are of one class.

    `out_of_bag` are the numbers of the members that were not trained on the group; `probabilities`
    are those that their votes give the true class, before calibration.
    """

    out_of_bag: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    probabilities: Annotated[list[Probability], Field(min_length=1)]


CalibrationGroups = dict[str, list[CalibrationGroup]]  # by class


def error_rate(text: str) -> float:
    """Return an error rate that was given as an argument of a command.

    Raises
    ------
    ArgumentTypeError
        If it is no number from 0.001 to 0.5, as `decide.error`.
    """
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0.001 <= rate <= 0.5:
        raise ArgumentTypeError(f"{text!r}; expected a number from 0.001 to 0.5")
    return rate


def fewest_groups(error: float) -> int:
    """Return how many groups of each class a set with this error rate needs.

    With fewer, a p-value is never as low as the rate, so that each set has all classes.
    """
    return math.ceil(round(1 / error, 6)) - 1


def missing_sets(groups: CalibrationGroups, error: float) -> str | None:
    """Explain in one line why there are no sets with this error rate; None if there are."""
    needed = fewest_groups(error)
    small = {name: len(listed) for name, listed in groups.items() if len(listed) < needed}
    if not small:
        return None
    fewest = dict(sorted(small.items(), key=lambda item: item[1]))
    return (
        f"no prediction sets with an error rate of {error:g}: expected {needed} or more"
        f" independent groups of training images of each class, with an out-of-bag vote each;"
        f" {describe_small(fewest)}; add images, or members if some images have no such vote"
    )


def calibration_groups(
    labels: np.ndarray,
    groups: np.ndarray,
    out_of_bag: list[tuple[np.ndarray, np.ndarray]],
    weights: np.ndarray,
    classes: list[str],
) -> CalibrationGroups:
    """Collect the out-of-bag votes on each group.

    Parameters
    ----------
    labels, groups : ndarray of int, shape (images,)
        Of all rows of the store. Images of a group are out-of-bag for the same members.
    out_of_bag : list of (rows, probabilities)
        By member: ndarray of int, shape (n,); ndarray of float, shape (n, classes).
    weights : ndarray of float, shape (members,)
        Of the vote. Members without weight don't vote.
    classes : list of str

    Returns
    -------
    CalibrationGroups
        Without images that are out-of-bag for no member with a weight.
    """
    members_of: dict[int, list[int]] = {}
    summed = np.zeros(len(labels))
    total = np.zeros(len(labels))
    for member, ((rows, probabilities), weight) in enumerate(zip(out_of_bag, weights, strict=True)):
        if weight == 0:
            continue
        summed[rows] += weight * probabilities[np.arange(len(rows)), labels[rows]]
        total[rows] += weight
        for row in rows:
            members_of.setdefault(int(row), []).append(member)
    collected: dict[tuple[int, int, tuple[int, ...]], list[float]] = {}
    for row in sorted(members_of):
        key = int(labels[row]), int(groups[row]), tuple(members_of[row])
        collected.setdefault(key, []).append(min(1.0, float(summed[row] / total[row])))
    listed: CalibrationGroups = {name: [] for name in classes}
    for (label, _, members), probabilities in sorted(collected.items()):
        listed[classes[label]].append(
            {"out_of_bag": list(members), "probabilities": sorted(probabilities)}
        )
    return listed


def p_values(
    members: np.ndarray, weights: np.ndarray, groups: Mapping[str, list[CalibrationGroup]]
) -> np.ndarray:
    """Compute how usual an image would be as one of each class.

    The p-value of a class is the fraction of its groups, the image itself included, on which the
    vote gives the class no higher a probability than on the image. Both are votes of the same
    members: those for which the group is out-of-bag. A group counts once, however many images it
    has.

    Parameters
    ----------
    members : ndarray of float, shape (members, n, classes)
        Class probabilities that the members predict for images.
    weights : ndarray of float, shape (members,)
        Of the vote.
    groups : mapping of str to list of CalibrationGroup
        By class.

    Returns
    -------
    ndarray of float, shape (n, classes)
        Above 0, at most 1; 1 for a class without groups.

    Notes
    -----
    The class of a new image, of a group that is exchangeable with the training groups of the class,
    is not in its set with a probability of at most 2·error, if the weights don't depend on the
    labels, and in practice of about error.

    References
    ----------
    B. Kim, C. Xu, R. Barber, "Predictive inference is free with the jackknife+-after-bootstrap",
    NeurIPS 2020; by class: V. Vovk, "Conditional validity of inductive conformal predictors", ACML
    2012; by group: Y. Lee, R. Barber, R. Willett, "Distribution-free inference with hierarchical
    data", 2023.
    """
    values = np.ones(members.shape[1:])
    for label, listed in enumerate(groups.values()):
        if not listed:
            continue
        voting = np.zeros((len(listed), len(weights)))
        for row, group in enumerate(listed):
            voting[row, group["out_of_bag"]] = weights[group["out_of_bag"]]
        voting /= voting.sum(axis=1, keepdims=True)
        sizes = [len(group["probabilities"]) for group in listed]
        row_of = np.repeat(np.arange(len(listed)), sizes)
        calibration = np.concatenate([group["probabilities"] for group in listed])
        fractions = np.repeat(1 / np.array(sizes), sizes)
        for start in range(0, members.shape[1], CHUNK):
            chunk = slice(start, start + CHUNK)
            votes = np.einsum("gm,mn->ng", voting, members[:, chunk, label])
            is_lower = calibration <= votes[:, row_of] + ROUNDING
            values[chunk, label] = (1 + is_lower @ fractions) / (len(listed) + 1)
    return values.round(9)  # so that rounding does not decide whether one is above the error rate


def prediction_sets(values: np.ndarray, predicted: np.ndarray, error: float) -> np.ndarray:
    """Return whether each class is in the set of an image.

    The predicted class always is, so that a set of one class is never another one.

    Parameters
    ----------
    values : ndarray of float, shape (n, classes)
        See `p_values`.
    predicted : ndarray of int, shape (n,)
    error : float
        Rate of errors, above 0 and below 1.

    Returns
    -------
    ndarray of bool, shape (n, classes)
    """
    sets = values > error
    sets[np.arange(len(sets)), predicted] = True
    return sets


def list_sets(
    values: np.ndarray, predicted: np.ndarray, groups: CalibrationGroups | None, error: float
) -> list[tuple[int, ...] | None]:
    """Return the set of each image; None if there are too few groups for sets.

    Parameters
    ----------
    values, predicted, error : see `prediction_sets`
    groups : CalibrationGroups, optional
        Those from which the p-values were computed, if there are any.
    """
    if groups is None or missing_sets(groups, error):
        return [None] * len(values)
    return [
        tuple(np.flatnonzero(row).tolist()) for row in prediction_sets(values, predicted, error)
    ]
