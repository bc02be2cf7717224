"""Votes on patients: the mean of their slices, of patients with one true class."""

import numpy as np
import pytest

from brainmri.evaluation.patients import describe_patients, mean_by_patient, vote_by_patient

PATIENTS = np.array([7, 3, 7, 9, 3, 7, 1])
LABELS = np.array([1, 0, 1, 0, 1, 1, 0])  # patient 3 has both classes
GROUPS = np.array([4, 8, 4, 6, 8, 4, 6])
POSITIVE = np.array([0.9, 0.5, 0.2, 0.4, 0.6, 0.7, 0.1])
PROBABILITIES = np.stack([1 - POSITIVE, POSITIVE], axis=1)


def test_means_by_patient():
    numbers = np.array([2, 1, 2, 3, 1, 2, 0])
    means = mean_by_patient(PROBABILITIES, numbers)
    assert means[:, 1] == pytest.approx([0.1, 0.55, 0.6, 0.4])
    assert means.sum(axis=1) == pytest.approx(np.ones(4))


def test_patients_are_in_order_of_first_appearance():
    votes = vote_by_patient(LABELS, PROBABILITIES, GROUPS, PATIENTS)  # of patients 7, 9 and 1
    assert votes.labels.tolist() == [1, 0, 0]
    assert votes.probabilities[:, 1] == pytest.approx([0.6, 0.4, 0.1])
    assert votes.groups.tolist() == [4, 6, 6]
    assert votes.numbers.tolist() == [7, 9, 1]
    assert votes.mixed == 1


def test_order_of_slices_does_not_matter():
    order = np.random.default_rng(0).permutation(7)
    votes = vote_by_patient(LABELS[order], PROBABILITIES[order], GROUPS[order], PATIENTS[order])
    expected = vote_by_patient(LABELS, PROBABILITIES, GROUPS, PATIENTS)
    assert sorted(votes.probabilities[:, 1]) == pytest.approx(sorted(expected.probabilities[:, 1]))
    assert votes.mixed == 1


def test_patients_of_several_classes_only():
    votes = vote_by_patient(LABELS, PROBABILITIES, GROUPS, np.zeros(7, int))
    assert votes.labels.shape == (0,)
    assert votes.probabilities.shape == (0, 2)
    assert votes.mixed == 1


@pytest.mark.parametrize(
    ("mixed", "accuracy", "line"),
    [
        (0, 0.75, "8 test patients: accuracy 0.750 (95 % interval 0.500 to 0.900)"),
        (
            2,
            0.75,
            "8 test patients with images of one class, 2 with several: accuracy 0.750 (95 %"
            " interval 0.500 to 0.900)",
        ),
        (3, None, "8 test patients with images of one class, 3 with several"),
    ],
)
def test_description(mixed, accuracy, line):
    metrics = {"patients": 8, "mixed_patients": mixed}
    if accuracy:
        metrics |= {"accuracy": accuracy, "interval": {"accuracy": [0.5, 0.9]}}
        metrics |= {"decision_rule": {}, "independent_groups": {"no": 5, "yes": 5}}
    assert list(describe_patients(metrics)) == [line]
    if accuracy:
        metrics["independent_groups"]["no"] = 4
        assert "by patient, no ROC AUC, average precision or" in [*describe_patients(metrics)][1]
