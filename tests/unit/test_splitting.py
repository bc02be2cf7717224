"""Splits: patients and near duplicates stay on one side, and a given test set is kept."""

import re

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from brainmri.common.errors import UserError
from brainmri.sampling.groups import join_groups
from brainmri.sampling.splitting import (
    Parts,
    describe,
    split_fold,
    split_given,
    unbalanced_warnings,
)

CLASSES = ["no", "yes"]
LABELS = np.array([0, 0, 0, 1, 1, 1, 0, 1])
GROUPS = np.array([0, 1, 1, 2, 3, 3, 4, 5])
PATHS = [f"{CLASSES[label]}/{row}.png" for row, label in enumerate(LABELS)]
IS_GIVEN = np.isin(np.arange(8), [2, 4])


@st.composite
def image_sets(draw):
    """Draw labels, groups of near duplicates, patients (−1: unknown), and given test images."""
    size = draw(st.integers(24, 60))

    def column(low: int, high: int) -> np.ndarray:
        return np.array(draw(st.lists(st.integers(low, high), min_size=size, max_size=size)))

    labels = column(0, 1)
    _, groups = np.unique(column(0, 2 * size), return_inverse=True)
    patients = column(-1, 2 * size)
    is_given = column(0, 5) == 0
    return labels, groups, patients, is_given


def chained(groups: np.ndarray, patients: np.ndarray) -> list[set[int]]:
    """Return the sets of rows that chains of common groups or patients connect."""
    sets: list[set[int]] = []
    for row in range(len(groups)):
        linked = {
            other
            for other in range(len(groups))
            if groups[other] == groups[row] or (patients[other] == patients[row] >= 0)
        }
        touching = [rows for rows in sets if rows & linked]
        sets = [rows for rows in sets if not rows & linked]
        sets.append(linked.union(*touching))
    return sets


@settings(max_examples=60)
@given(image_sets())
def test_chains_of_near_duplicates_and_patients_are_joined(images):
    _, groups, patients, _ = images
    joined = join_groups(groups, patients)
    expected = chained(groups, patients)
    assert [set(np.flatnonzero(joined == group)) for group in range(joined.max() + 1)] == sorted(
        expected, key=min
    )


def test_groups_without_patients_keep_their_numbers():
    groups = np.array([0, 1, 0, 2])
    assert join_groups(groups, np.full(4, -1)).tolist() == [0, 1, 0, 2]
    assert join_groups(groups, np.array([-1, 5, -1, 5])).tolist() == [0, 1, 0, 1]


@settings(max_examples=40)
@given(image_sets(), st.integers(2, 4), st.integers(0, 100))
def test_folds_of_the_rest(images, folds, seed):
    """Each holds every other image once; no chain is in two, and given images are in none."""
    labels, groups, patients, is_given = images
    joined = join_groups(groups, patients)
    try:
        splits = [
            split_fold(labels, joined, CLASSES, is_given, folds, fold, seed)
            for fold in range(folds)
        ]
    except UserError:  # too few groups of a class, an error tested below
        reject()
    assert np.array_equal(np.sum([parts.test for parts in splits], axis=0), ~is_given)
    for parts in splits:
        assert np.array_equal(parts.excluded, is_given)
        assert np.array_equal(parts.training, ~parts.test & ~is_given)
        for rows in chained(groups, patients):
            rest = np.array(sorted(rows))[~is_given[sorted(rows)]]
            assert len(set(parts.test[rest])) <= 1
        for part in (parts.test, parts.training):
            assert set(labels[part]) == {0, 1}


@settings(max_examples=60)
@given(image_sets(), st.sampled_from(["drop", "error", "keep"]))
def test_given_test_set(images, overlap):
    """It is the test set, whatever its classes; what overlaps with it is not trained on."""
    labels, groups, patients, is_given = images
    joined = join_groups(groups, patients)
    chains = chained(groups, patients)
    overlapping = np.zeros(len(labels), bool)
    for rows in chains:
        chain = np.array(sorted(rows))
        overlapping[chain] = is_given[chain].any()
    overlapping &= ~is_given
    excluded = overlapping if overlap == "drop" else np.zeros(len(labels), bool)
    paths = [f"{row}.png" for row in range(len(labels))]
    is_error = (overlap == "error" and overlapping.any()) or not is_given.any()
    if is_error or set(labels[~is_given & ~excluded]) != {0, 1}:
        with pytest.raises(UserError):
            split_given(labels, joined, CLASSES, is_given, paths, overlap)
        return
    parts = split_given(labels, joined, CLASSES, is_given, paths, overlap)
    assert np.array_equal(parts.test, is_given)
    assert np.array_equal(parts.excluded, excluded)
    assert np.array_equal(parts.training, ~is_given & ~excluded)


OVERLAP = (
    "2 of 6 training images are near duplicates of given test images, or of the same patient, such"
    " as 'no/1.png' with 'no/2.png', 'yes/5.png' with 'yes/4.png'; "
)


@pytest.mark.parametrize(
    ("overlap", "training", "outcome"),
    [
        ("drop", [0, 3, 6, 7], "excluded (split.overlap: drop)"),
        ("keep", [0, 1, 3, 5, 6, 7], "kept, so that the metrics are too good"),
    ],
)
def test_overlap_is_reported(capsys, overlap, training, outcome):
    parts = split_given(LABELS, GROUPS, CLASSES, IS_GIVEN, PATHS, overlap)
    assert np.flatnonzero(parts.training).tolist() == training
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith(f"warning: {OVERLAP}{outcome}")


def test_overlap_is_an_error_on_demand():
    message = f"^{re.escape(OVERLAP)}expected none with split.overlap: error; remove them"
    with pytest.raises(UserError, match=message):
        split_given(LABELS, GROUPS, CLASSES, IS_GIVEN, PATHS, "error")


@pytest.mark.parametrize("overlap", ["drop", "error", "keep"])
def test_independent_test_set(capsys, overlap):
    parts = split_given(LABELS, np.arange(8), CLASSES, IS_GIVEN, PATHS, overlap)
    assert np.array_equal(parts.training, ~IS_GIVEN)
    assert not parts.excluded.any()
    assert capsys.readouterr().out == ""


def test_many_overlaps_have_two_examples(capsys):
    split_given(
        np.arange(40) % 2, np.zeros(40, int), CLASSES, np.arange(40) < 2, [*"ab"] * 20, "keep"
    )
    assert capsys.readouterr().out.count(" with ") == 2


def test_given_test_set_without_images():
    """It is no reason to test on other images instead."""
    with pytest.raises(UserError, match=r"^no image of the given test set can be used; expected"):
        split_given(LABELS, GROUPS, CLASSES, np.zeros(8, bool), PATHS, "drop")


def test_given_test_set_without_a_class():
    is_given = np.isin(np.arange(8), [0, 6])
    parts = split_given(LABELS, GROUPS, CLASSES, is_given, PATHS, "drop")
    assert np.array_equal(parts.test, is_given)


def test_class_without_other_images_than_test_images():
    is_given = np.isin(np.arange(8), [3, 4, 5, 7])
    with pytest.raises(UserError, match="all images of class 'yes' are of the given test set"):
        split_given(LABELS, GROUPS, CLASSES, is_given, PATHS, "drop")


def test_class_without_training_images_that_do_not_overlap():
    groups = np.array([0, 1, 1, 0, 0, 0, 1, 0])
    with pytest.raises(UserError) as raised:
        split_given(LABELS, groups, CLASSES, np.arange(8) == 3, PATHS, "drop")
    assert str(raised.value) == (
        "no training image of class 'yes' is left; expected some of every class: change"
        " split.overlap, split.folds or seed, or add images"
    )


def test_too_few_patients_for_folds():
    patients = np.array([0, 1, 2, 3, 3, 3, 4, 3])
    groups = join_groups(np.arange(8), patients)
    message = (
        r"'yes' has 1 independent group\(s\) of images \(near duplicates, and images of a patient"
    )
    with pytest.raises(UserError, match=message):
        split_fold(LABELS, groups, CLASSES, np.zeros(8, bool), 2, 0, 0)


def test_description_counts_excluded_images():
    parts = Parts(test=IS_GIVEN, training=np.isin(np.arange(8), [0, 3, 6, 7]))
    assert describe(parts, LABELS, GROUPS, CLASSES, "near duplicates and patients") == [
        "8 images, 6 groups of near duplicates and patients; 4 training images, 2 test images,"
        " 2 excluded",
        "  no: 50.0% of the training images, 50.0% of the test images",
        "  yes: 50.0% of the training images, 50.0% of the test images",
    ]


@pytest.mark.parametrize("large", [1, 4, 20, 36])
def test_folds_of_large_groups_are_named(large):
    """Of 40 images of a class, 8 are expected in a fold."""
    labels = np.repeat([0, 1], [40, 100])
    groups = np.maximum(np.arange(140) - large + 1, 0)
    is_named = []
    for fold in range(5):
        parts = split_fold(labels, groups, CLASSES, np.zeros(140, bool), 5, fold, 0)
        count = np.sum(labels[parts.test] == 0)
        lines = unbalanced_warnings(parts, labels, CLASSES, 5)
        line = (
            f"warning: {count} of 40 images of class 'no' are test images; about 8 were expected:"
            " large groups can't be divided"
        )
        is_named.append(line in lines)
        assert is_named[-1] == (count <= 4 or count >= 16)
    assert any(is_named) == (large >= 20)
