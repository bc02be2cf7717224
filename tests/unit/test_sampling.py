"""Groups of near duplicates, folds and samples: nothing leaks, and every class is in each part."""

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from brainmri.common.errors import UserError
from brainmri.sampling.bootstrap import bootstrap_sample, draw_sample, folds_of_committee
from brainmri.sampling.folds import stratified_group_folds
from brainmri.sampling.groups import (
    decode_hashes,
    join_groups,
    joined_patients_warnings,
    large_group_warnings,
    near_duplicate_groups,
)
from tests.support.groups import connected_groups, without_mirror_images

CLASSES = ["no", "yes"]


def hashes(*distances):
    """Make hashes of 256 bits whose first bits are set: distances from the empty hash."""
    return np.array([np.packbits(np.arange(256) < distance) for distance in distances])


def group(*distances, bits):
    """Group images by hashes of the head alone."""
    return near_duplicate_groups(without_mirror_images(hashes(*distances)), bits).tolist()


def test_near_duplicates_form_chains():
    groups = group(0, 15, 30, 100, 110, 200, bits=20)
    assert groups == [0, 0, 0, 1, 1, 2]


def test_near_duplicates_at_the_limit():
    assert group(0, 20, 41, bits=20) == [0, 0, 1]
    assert group(0, 0, 1, bits=0) == [0, 0, 1]
    assert group(0, 0, 1, bits=None) == [0, 1, 2]


def test_near_duplicates_by_any_hash():
    heads, wholes = hashes(0, 60, 120, 200), hashes(0, 100, 105, 190)
    groups = near_duplicate_groups(without_mirror_images(heads, wholes), bits=10)
    assert groups.tolist() == [0, 1, 1, 2]


def test_decoded_hashes():
    array = decode_hashes([("00ff", "0102"), ("0a0b", "0c0d")])
    assert array.tolist() == [[[0, 255], [1, 2]], [[10, 11], [12, 13]]]


def test_joined_groups():
    """Images 0, 2 and 4 are of one patient; 1 and 2 are near duplicates, and so are 5 and 6."""
    groups = join_groups(np.array([0, 1, 1, 2, 3, 4, 4, 5]), np.array([7, -1, 7, -1, 7, 3, -1, -1]))
    assert groups.tolist() == [0, 0, 0, 1, 0, 2, 2, 3]


def test_joined_groups_without_other_groups():
    groups, unknown = np.array([5, 5, 2, 0, 2]), np.full(5, -1)
    assert join_groups(groups, unknown).tolist() == [0, 0, 1, 2, 1]
    assert join_groups(groups[:0], unknown[:0]).tolist() == []


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(-1, 20)), max_size=30))
def test_joined_groups_are_connected_components(images):
    groups, others = np.array(images, int).reshape(-1, 2).T
    has_common = groups[:, None] == groups
    has_common |= (others[:, None] == others) & (others != -1)
    assert join_groups(groups, others).tolist() == connected_groups(has_common)


def test_large_group_warnings():
    """A group of more than a tenth of a class is reported, with two of its paths."""
    images = [{"class": "no" if row < 20 else "yes", "path": f"{row}.png"} for row in range(50)]
    groups = np.arange(50)
    groups[[3, 5, 8]] = 3  # 3 of 20
    groups[[21, 22, 23]] = 21  # 3 of 30, a tenth
    assert large_group_warnings(groups, images, ["no", "yes"]) == [
        "warning: 3 of 20 images of class 'no' are one group of near duplicates, such as '3.png'"
        " and '5.png'; if they are not, lower split.near_duplicate_bits"
    ]


def test_joined_patients_warnings():
    patients = np.repeat(np.arange(30), 2)
    groups = patients.copy()
    assert joined_patients_warnings(groups, patients) == []
    groups[:6] = 0  # a tenth of the patients
    assert joined_patients_warnings(groups, patients) == []
    groups[6:8] = 0
    patients[-1] = -1
    [warning] = joined_patients_warnings(groups, patients)
    assert warning.startswith("warning: 4 of 30 patients are one group, since near duplicates")
    assert joined_patients_warnings(groups, np.full(60, -1)) == []


def test_folds_of_a_committee():
    labels, groups = np.repeat([0, 1], [12, 3]), np.arange(15)
    assert folds_of_committee(labels, groups, 0.8) == 3
    assert folds_of_committee(labels, np.arange(15) // 2, 0.8) == 2
    assert folds_of_committee(labels[:12], groups[:12], 0.8) == 5


def test_large_group_warnings_of_small_classes():
    images = [{"class": "no" if row < 10 else "yes", "path": f"{row}.png"} for row in range(40)]
    groups = np.arange(40)
    groups[[4, 6]] = 4
    assert large_group_warnings(groups, images, ["no", "yes"]) == [
        "warning: 2 of 10 images of class 'no' are one group of near duplicates, such as '4.png'"
        " and '6.png'; if they are not, lower split.near_duplicate_bits"
    ]
    assert large_group_warnings(np.arange(40), images[:5] + images[10:], ["no", "yes"]) == []


@st.composite
def image_sets(draw):
    """Draw labels and groups of images: six groups or more of each of two or three classes."""
    labels, groups = [], []
    for label in range(draw(st.integers(2, 3))):
        for size in draw(st.lists(st.integers(1, 4), min_size=6, max_size=30)):
            group = len(set(groups))
            labels += [label] * size
            groups += [group] * size
    return np.array(labels), np.array(groups)


@settings(deadline=None, max_examples=40)
@given(image_sets(), st.integers(2, 5), st.integers(0, 100))
def test_folds_keep_groups_together(images, folds, seed):
    labels, groups = images
    fold_of = stratified_group_folds(labels, groups, list("abc")[: labels.max() + 1], folds, seed)
    assert set(fold_of) == set(range(folds))
    for group in np.unique(groups):
        assert len(set(fold_of[groups == group])) == 1


def test_folds_are_stratified():
    labels = np.repeat([0, 1], [98, 155])
    fold_of = stratified_group_folds(labels, np.arange(253), CLASSES, 5, 0)
    for fold in range(5):
        assert abs(labels[fold_of == fold].mean() - labels[fold_of != fold].mean()) < 0.02


def test_too_few_groups_for_folds():
    with pytest.raises(UserError, match=r"'no' has 1 independent group.*split\.folds: 5"):
        stratified_group_folds(np.repeat([0, 1], [1, 20]), np.arange(21), CLASSES, 5, 0)


def test_class_folders_that_are_patients():
    with pytest.raises(UserError, match="if the class folders are patients, give a table of cla"):
        stratified_group_folds(np.repeat([0, 1], 6), np.repeat([0, 1], 6), CLASSES, 5, 0)


def test_as_many_groups_as_folds():
    fold_of = stratified_group_folds(np.repeat([0, 1], [5, 20]), np.arange(25), CLASSES, 5, 0)
    assert sorted(fold_of[:5]) == [0, 1, 2, 3, 4]


def test_committee_of_fewer_groups_than_folds():
    labels = np.repeat([0, 1], [4, 20])
    groups = np.arange(24)
    samples = [draw_sample("committee", labels, groups, CLASSES, 0.8, 0, i) for i in range(4)]
    held_out = [sorted(out_of_bag) for _, out_of_bag in samples]
    assert sorted(np.concatenate(held_out)) == list(range(24))
    assert [np.sum(labels[rows] == 0) for rows in held_out] == [1, 1, 1, 1]


def test_committee_of_a_class_with_a_single_group():
    message = r"'no' has 1 independent group.*folds of recipes' fraction: 2"
    with pytest.raises(UserError, match=message):
        draw_sample("committee", np.repeat([0, 1], [1, 20]), np.arange(21), CLASSES, 0.8, 0, 0)


@settings(deadline=None, max_examples=40)
@given(image_sets(), st.floats(0.3, 1.2), st.integers(0, 10_000))
def test_bootstrap_samples_do_not_leak(images, fraction, seed):
    labels, groups = images
    classes = list("abc")[: labels.max() + 1]
    in_bag, out_of_bag = bootstrap_sample(labels, groups, classes, fraction, seed)
    assert not set(groups[in_bag]) & set(groups[out_of_bag])
    assert set(labels[in_bag]) == set(labels[out_of_bag]) == set(labels)
    for label in set(labels):
        assert np.sum(labels[in_bag] == label) == max(1, round(fraction * np.sum(labels == label)))
    again = bootstrap_sample(labels, groups, classes, fraction, seed)
    np.testing.assert_array_equal(in_bag, again[0])


def test_bootstrap_samples_repeat_images():
    """About exp(−1) of the images are out-of-bag."""
    labels = np.repeat([0, 1], [500, 500])
    in_bag, out_of_bag = bootstrap_sample(labels, np.arange(1000), CLASSES, 1.0, 0)
    assert len(in_bag) == 1000
    assert abs(len(out_of_bag) / 1000 - np.exp(-1)) < 0.04


@pytest.mark.parametrize("fraction", [0.8, 0.9, 1.0])
def test_samples_are_stratified(fraction):
    labels = np.repeat([0, 1], [80, 120])
    in_bag, _ = draw_sample("bootstrap", labels, np.arange(200), CLASSES, fraction, 0, 1)
    assert list(np.bincount(labels[in_bag])) == [round(80 * fraction), round(120 * fraction)]


def test_samples_have_every_class():
    labels = np.repeat([0, 1], [4, 60])
    in_bag, _ = bootstrap_sample(labels, np.arange(64), CLASSES, 0.1, 0)
    assert np.bincount(labels[in_bag]).tolist() == [1, 6]


@pytest.mark.parametrize(("fraction", "folds"), [(0.1, 2), (0.5, 2), (0.66, 3), (0.8, 5)])
def test_committee_folds(fraction, folds):
    """There are as many as leave the fraction in-bag."""
    labels, groups = np.arange(120) % 2, np.arange(120) // 2 * 2 + np.arange(120) % 2
    in_bag, out_of_bag = draw_sample("committee", labels, groups, CLASSES, fraction, 0, 1)
    assert len(out_of_bag) == 120 // folds
    np.testing.assert_array_equal(np.sort([*in_bag, *out_of_bag]), np.arange(120))


def test_schemes_keep_groups_together():
    """A group of ten images of each class: if one of them is drawn, none is out-of-bag."""
    labels = np.repeat([0, 1], 40)
    groups = np.where(np.arange(80) % 40 < 10, labels, np.arange(80))
    for scheme, fraction in (("bootstrap", 0.2), ("subsample", 0.2), ("committee", 0.5)):
        for index in range(6):
            in_bag, out_of_bag = draw_sample(scheme, labels, groups, CLASSES, fraction, 0, index)
            for group in (0, 1):
                rows = set(np.flatnonzero(groups == group))
                assert bool(rows & {*in_bag}) != (rows <= {*out_of_bag})


def test_class_without_out_of_bag_images():
    with pytest.raises(UserError) as raised:
        bootstrap_sample(np.repeat([0, 1], [20, 1]), np.arange(21), CLASSES, 1.0, 0)
    assert str(raised.value) == (
        "class 'yes' has no out-of-bag image in any of 100 draws (near duplicates of in-bag images,"
        " and other images of their patients, do not count); add images of it, or lower recipes'"
        " fraction"
    )


@pytest.mark.parametrize(("scheme", "fraction"), [("bootstrap", 1.0), ("subsample", 0.6)])
def test_whole_groups_are_drawn(scheme, fraction):
    """Of 16 patients with 10 slices each, a draw of images would leave hardly any patient out."""
    patients = np.repeat(np.arange(32), 10)
    labels = patients % 2
    in_bag, out_of_bag = draw_sample(
        scheme, labels, patients, CLASSES, fraction, 0, 1, whole_groups=True
    )
    rows, draws = np.unique(in_bag, return_counts=True)
    for patient in np.unique(patients[rows]):
        is_own = patients[rows] == patient
        assert is_own.sum() == 10
        assert len(set(draws[is_own])) == 1
    assert sorted({*patients[rows], *patients[out_of_bag]}) == list(range(32))
    assert not {*patients[rows]} & {*patients[out_of_bag]}
    for label in (0, 1):
        assert np.sum(labels[in_bag] == label) == 10 * round(16 * fraction)
        assert np.any(labels[out_of_bag] == label)
    assert (draws.max() > 1) == (scheme == "bootstrap")


def test_a_group_of_two_classes_is_drawn_class_by_class():
    labels, groups = np.array([0, 1, 0, 1, 0, 1, 0, 1]), np.array([0, 0, 1, 1, 2, 3, 4, 5])
    for seed in range(20):
        in_bag, out_of_bag = bootstrap_sample(labels, groups, CLASSES, 0.5, seed, False, True)
        assert not {*groups[in_bag]} & {*groups[out_of_bag]}
        assert {*labels[out_of_bag]} == {0, 1}


@settings(deadline=None, max_examples=30)
@given(image_sets(), st.sampled_from(["bootstrap", "subsample", "committee"]), st.integers(0, 9))
def test_schemes_do_not_leak(images, scheme, index):
    labels, groups = images
    names = [str(label) for label in np.unique(labels)]
    fraction = 1.0 if scheme == "bootstrap" else 0.7
    try:
        in_bag, out_of_bag = draw_sample(scheme, labels, groups, names, fraction, 0, index)
    except UserError:  # groups too few and large for out-of-bag images, an error tested above
        reject()
    assert not set(groups[in_bag]) & set(groups[out_of_bag])
    assert set(labels[in_bag]) == set(labels)
    assert set(labels[out_of_bag]) == set(labels) or scheme == "committee"
    assert (len(np.unique(in_bag)) == len(in_bag)) or scheme == "bootstrap"
    again = draw_sample(scheme, labels, groups, names, fraction, 0, index)
    np.testing.assert_array_equal(in_bag, again[0])


def test_committee_refuses_to_hold_out_a_whole_class():
    """Patients with images of several classes may put all images of a rare one in one fold."""
    labels = np.array([1, 0, 0, 0, 0, 1, 2, 2, 0, 0, 0, 0])
    groups = np.array([0, 1, 1, 1, 2, 3, 3, 4, 4, 4, 4, 4])
    with pytest.raises(UserError, match="all images of class 'c' are held out by one member"):
        draw_sample("committee", labels, groups, ["a", "b", "c"], 0.8, 0, 0)
    _, out_of_bag = draw_sample("committee", labels, groups, ["a", "b", "c"], 0.8, 0, 1)
    assert 2 not in labels[out_of_bag]


def test_committee_holds_out_every_image():
    """Each image once in five members; the next five have other folds."""
    labels, groups = np.arange(60) % 2, np.arange(60)
    held_out = [
        draw_sample("committee", labels, groups, CLASSES, 0.8, 0, index)[1] for index in range(10)
    ]
    for folds in (held_out[:5], held_out[5:]):
        np.testing.assert_array_equal(np.sort(np.concatenate(folds)), np.arange(60))
    assert set(held_out[0]) != set(held_out[5])
