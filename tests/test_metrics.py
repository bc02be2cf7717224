"""Metrics and votes against values worked out by hand or by scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as sk

from stages.shared import metrics
from stages.shared.voting import calibrate, fit_calibration, out_of_bag_vote, score, vote, weights

LABELS = np.array([0, 0, 0, 1, 1])
POSITIVE = np.array([0.1, 0.4, 0.6, 0.8, 0.3])
TWO = np.stack([1 - POSITIVE, POSITIVE], axis=1)


def test_two_classes():
    told = metrics.all_metrics(LABELS, TWO, bins=10)
    assert told["accuracy"] == pytest.approx(3 / 5)
    assert told["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert told["roc_auc"] == pytest.approx(4 / 6)  # 4 of the 6 pairs are in order
    assert told["f1"] == pytest.approx(1 / 2)
    assert told["log_loss"] == pytest.approx(-np.mean(np.log([0.9, 0.6, 0.4, 0.8, 0.3])))
    assert told["brier_score"] == pytest.approx(np.mean((POSITIVE - LABELS) ** 2))
    assert told["average_precision"] == pytest.approx(sk.average_precision_score(LABELS, POSITIVE))


def test_more_classes_are_averaged_one_against_the_rest():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 4
    probabilities = rng.dirichlet(np.ones(4), 60) + np.eye(4)[labels] * 0.3
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    told = metrics.all_metrics(labels, probabilities, bins=10)
    assert told["roc_auc"] == pytest.approx(sk.roc_auc_score(labels, probabilities, multi_class="ovr"))
    assert told["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, probabilities.argmax(axis=1)))
    assert told["f1"] == pytest.approx(sk.f1_score(labels, probabilities.argmax(axis=1), average="macro"))
    assert told["log_loss"] == pytest.approx(sk.log_loss(labels, probabilities))
    assert told["average_precision"] == pytest.approx(sk.average_precision_score(np.eye(4)[labels], probabilities))


def test_calibration_error_is_zero_for_honest_and_large_for_boastful_predictions():
    right = np.array([True] * 8 + [False] * 2)
    labels = np.where(right, 1, 0)
    for confidence, error in ((0.8, 0.0), (0.99, 0.19)):
        probabilities = np.tile([1 - confidence, confidence], (10, 1))
        assert metrics.calibration_error(labels, probabilities, 10) == pytest.approx(error)


def test_intervals_hold_the_figure_and_are_wider_for_groups():
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    positive = np.clip(0.5 + 0.3 * (labels - 0.5) + rng.normal(0, 0.2, 200), 0.01, 0.99)
    probabilities = np.stack([1 - positive, positive], axis=1)

    def figures(sample):
        return metrics.headlines(labels[sample], probabilities[sample])

    alone = metrics.intervals(figures, labels, np.arange(200), 500, 0)
    for name, value in metrics.headlines(labels, probabilities).items():
        assert alone[name][0] < value < alone[name][1]
    repeated = np.repeat(np.arange(50), 4)
    labels, probabilities = labels[repeated], probabilities[repeated]
    twins = metrics.intervals(figures, labels, repeated, 500, 0)
    assert np.ptp(twins["accuracy"]) > 1.5 * np.ptp(alone["accuracy"])


@pytest.mark.parametrize("scheme", ["uniform", "accuracy", "balanced_accuracy", "auc", "softmax", "log_loss"])
def test_weights_sum_to_one_and_prefer_the_better_member(scheme):
    better = np.eye(2)[LABELS] * 0.8 + 0.1
    scores = np.array([score(scheme, LABELS, TWO), score(scheme, LABELS, better)])
    shares = weights(scheme, scores)
    assert shares.sum() == pytest.approx(1)
    assert (shares[1] > shares[0]) == (scheme != "uniform")


def test_schemes_are_what_they_are_called():
    precision, recall = 1 / 2, 1 / 2
    assert score("accuracy", LABELS, TWO) == pytest.approx(3 / 5)
    assert score("auc", LABELS, TWO) == pytest.approx(4 / 6)
    assert score("softmax", LABELS, TWO) == pytest.approx((3 / 5 + 4 / 6 + precision + recall) / 4)
    assert score("log_loss", LABELS, TWO) == pytest.approx(np.exp(-metrics.log_loss(LABELS, TWO)))
    assert weights("accuracy", np.array([0.5, 1.0])).tolist() == pytest.approx([1 / 3, 2 / 3])
    assert weights("softmax", np.array([0.0, 1.0])).tolist() == pytest.approx([1 / (1 + np.e), np.e / (1 + np.e)])
    assert weights("accuracy", np.zeros(4)).tolist() == [0.25] * 4


def test_vote_is_the_weighted_mean():
    one, other = np.array([[0.9, 0.1]]), np.array([[0.2, 0.8]])
    np.testing.assert_allclose(vote(np.stack([one, other]), np.array([0.75, 0.25])), [[0.725, 0.275]])


def test_calibration_undoes_boasting_and_a_leaning_to_one_class():
    rng = np.random.default_rng(0)
    true = rng.dirichlet((2, 2, 2), 4000)
    labels = np.array([rng.choice(3, p=one) for one in true])
    boastful = calibrate(true, 0.5, np.zeros(3))
    temperature, biases = fit_calibration(labels, boastful)
    assert temperature == pytest.approx(2, rel=0.15)
    np.testing.assert_allclose(biases, 0, atol=0.15)

    leaning = np.array([0.0, -1.0, 0.5])
    temperature, biases = fit_calibration(labels, calibrate(true, 1.0, leaning))
    np.testing.assert_allclose(biases, -leaning, atol=0.2)
    corrected = calibrate(calibrate(true, 1.0, leaning), temperature, biases)
    np.testing.assert_allclose(corrected, true, atol=0.08)
    np.testing.assert_allclose(calibrate(true, 1.0, np.zeros(3)), true, atol=1e-6)


def test_calibration_from_few_right_predictions_stays_modest():
    temperature, biases = fit_calibration(np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.1, 0.9]]))
    assert 0.4 < temperature < 1
    assert np.abs(biases).max() < 0.5


def test_only_members_that_have_not_learned_from_an_image_vote_on_it_out_of_bag():
    one, other = np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([[0.2, 0.8]])
    voted = out_of_bag_vote([one, other], [np.array([0, 2]), np.array([2])], np.array([0.75, 0.25]), 4)
    np.testing.assert_allclose(voted[[0, 2]], [[0.9, 0.1], [0.5, 0.5]])
    assert np.isnan(voted[[1, 3]]).all()


def test_thresholds_are_chosen_by_their_rule():
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1])
    positive = np.array([0.1, 0.15, 0.2, 0.3, 0.7, 0.05, 0.6, 0.8, 0.9])
    assert metrics.choose_threshold("half", labels, positive, 1.0) == 0.5
    assert metrics.choose_threshold("youden", labels, positive, 1.0) == 0.6
    assert metrics.choose_threshold("sensitivity", labels, positive, 0.5) == 0.8
    assert metrics.choose_threshold("sensitivity", labels, positive, 1.0) == 0.05
    assert metrics.sensitivity_specificity(labels, positive, 0.6) == (0.75, 0.8)
