"""The split into test and training images: a fold, or a given test set without what overlaps."""

from typing import Literal, NamedTuple

import numpy as np

from brainmri.common.errors import UserError
from brainmri.sampling.folds import stratified_group_folds

MAX_EXAMPLES = 2


class Parts(NamedTuple):
    """Which images are test and which are training images; the others are excluded.

    Attributes
    ----------
    test, training : ndarray of bool, shape (n,)
    """

    test: np.ndarray
    training: np.ndarray

    @property
    def excluded(self) -> np.ndarray:
        """Which images are neither: bool, shape (n,)."""
        return ~self.test & ~self.training


def split_fold(
    labels: np.ndarray,
    groups: np.ndarray,
    classes: list[str],
    is_given: np.ndarray,
    folds: int,
    fold: int,
    seed: int,
) -> Parts:
    """Take a fold of the images that are not of a given test set, which is excluded.

    Parameters
    ----------
    labels, groups, classes, folds, seed : see `stratified_group_folds`
    is_given : ndarray of bool, shape (n,)
        Whether an image is of the given test set.
    fold : int

    Raises
    ------
    UserError
        If there are too few groups of a class.
    """
    rest = np.flatnonzero(~is_given)
    fold_of = np.full(len(labels), -1)
    fold_of[rest] = stratified_group_folds(labels[rest], groups[rest], classes, folds, seed)
    is_test = fold_of == fold
    parts = Parts(is_test, ~is_test & ~is_given)
    if missing := _missing_classes(parts.test, labels, classes):
        raise UserError(
            f"fold {fold} has no image of class {missing[0]!r}; change split.fold, split.folds or"
            " seed"
        )
    _check_training(parts, labels, classes)
    return parts


def split_given(
    labels: np.ndarray,
    groups: np.ndarray,
    classes: list[str],
    is_given: np.ndarray,
    paths: list[str],
    overlap: Literal["drop", "error", "keep"],
) -> Parts:
    """Take a given test set; training images of its groups are dropped, an error, or kept.

    Parameters
    ----------
    labels, groups : ndarray of int, shape (n,)
    classes : list of str
    is_given : ndarray of bool, shape (n,)
        Whether an image is of the given test set, which need not have every class.
    paths : list of str, length n
        For messages.
    overlap : {"drop", "error", "keep"}

    Raises
    ------
    UserError
        If there are no test images, if a class has no others, if the overlap is an error, or if no
        training image of a class is left.
    """
    if not is_given.any():
        raise UserError(
            "no image of the given test set can be used; expected one or more: add some to"
            " data.test or to the table, or set split.fold to a number to test on a fold"
        )
    if missing := _missing_classes(~is_given, labels, classes):
        raise UserError(
            f"all images of class {missing[0]!r} are of the given test set; expected training"
            " images of every class: add some to data.source, or change the table's column split"
        )
    overlapping = ~is_given & np.isin(groups, groups[is_given])
    parts = Parts(is_given, ~is_given & ~(overlapping & (overlap == "drop")))
    if overlapping.any():
        _report_overlap(overlapping, groups, is_given, paths, overlap)
    _check_training(parts, labels, classes)
    return parts


def _report_overlap(
    overlapping: np.ndarray,
    groups: np.ndarray,
    is_given: np.ndarray,
    paths: list[str],
    overlap: str,
) -> None:
    examples = []
    for row in np.flatnonzero(overlapping)[:MAX_EXAMPLES]:
        twin = np.flatnonzero(is_given & (groups == groups[row]))[0]
        examples.append(f"{paths[row]!r} with {paths[twin]!r}")
    problem = (
        f"{overlapping.sum()} of {np.sum(~is_given)} training images are near duplicates of given"
        f" test images, or of the same patient, such as {', '.join(examples)}"
    )
    if overlap == "error":
        raise UserError(
            f"{problem}; expected none with split.overlap: error; remove them, or set it to drop"
        )
    action = "excluded" if overlap == "drop" else "kept, so that the metrics are too good"
    print(f"warning: {problem}; {action} (split.overlap: {overlap})")


def _check_training(parts: Parts, labels: np.ndarray, classes: list[str]) -> None:
    if missing := _missing_classes(parts.training, labels, classes):
        raise UserError(
            f"no training image of class {missing[0]!r} is left; expected some of every class:"
            " change split.overlap, split.folds or seed, or add images"
        )


def _missing_classes(part: np.ndarray, labels: np.ndarray, classes: list[str]) -> list[str]:
    return [name for label, name in enumerate(classes) if label not in labels[part]]


def unbalanced_warnings(
    parts: Parts, labels: np.ndarray, classes: list[str], folds: int
) -> list[str]:
    """Describe each class of which a fold has half the expected images or fewer, or twice or more.

    Parameters
    ----------
    parts : Parts
    labels : ndarray of int, shape (n,)
    classes : list of str
    folds : int

    Returns
    -------
    list of str
    """
    lines = []
    for label, name in enumerate(classes):
        test, rest = (np.sum(labels[part] == label) for part in (parts.test, parts.training))
        if not 1 / 2 < folds * test / (test + rest) < 2:
            lines.append(
                f"warning: {test} of {test + rest} images of class {name!r} are test images; about"
                f" {(test + rest) / folds:.0f} were expected: large groups can't be divided"
            )
    return lines


def describe(
    parts: Parts, labels: np.ndarray, groups: np.ndarray, classes: list[str], kind: str
) -> list[str]:
    """Describe a split: its numbers, and the fraction of each class on both sides.

    Parameters
    ----------
    parts : Parts
    labels, groups : ndarray of int, shape (n,)
    classes : list of str
    kind : str
        See `files.kind_of_groups`.
    """
    of_kind = f" of {kind}" if kind else ""
    excluded = f", {parts.excluded.sum()} excluded" if parts.excluded.any() else ""
    lines = [
        f"{len(labels)} images, {groups.max() + 1} groups{of_kind}; {parts.training.sum()}"
        f" training images, {parts.test.sum()} test images{excluded}"
    ]
    for label, name in enumerate(classes):
        training, test = (np.mean(labels[part] == label) for part in (parts.training, parts.test))
        lines.append(
            f"  {name}: {training:.1%} of the training images, {test:.1%} of the test images"
        )
    return lines
