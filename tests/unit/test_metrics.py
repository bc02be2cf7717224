"""Metrics, votes and calibration against values by hand or by scikit-learn."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from sklearn import metrics as sk

from brainmri.common.files import COMPACT
from brainmri.crossval.summary import spread
from brainmri.crossval.summary import summarize as summarize_crossval
from brainmri.crossval.votes import Votes
from brainmri.evaluation import metrics
from brainmri.evaluation.calibration import calibrate, fit_calibration
from brainmri.evaluation.intervals import (
    bootstrap_intervals,
    drop_constant,
    explain_missing,
    missing_metrics,
)
from brainmri.evaluation.log_loss import log_loss
from brainmri.evaluation.summary import summarize
from brainmri.evaluation.voting import (
    FITTED_SCHEMES,
    member_score,
    out_of_bag_vote,
    soft_vote,
    voting_weights,
)
from brainmri.evaluation.weighting import NOISE, fit_voting_weights, sharpness_gain, weight_members
from tests.support.checkout import ROOT

LABELS = np.array([0, 0, 0, 1, 1])
POSITIVE = np.array([0.1, 0.4, 0.6, 0.8, 0.3])
TWO = np.stack([1 - POSITIVE, POSITIVE], axis=1)
SCHEMES = [
    *("uniform", "accuracy", "balanced_accuracy", "auc", "softmax", "log_loss"),
    *FITTED_SCHEMES,
]


def test_metrics_of_two_classes():
    values = metrics.all_metrics(LABELS, TWO, bins=10, positive=1)
    assert values["accuracy"] == pytest.approx(3 / 5)
    assert values["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert values["roc_auc"] == pytest.approx(4 / 6)  # 4 of the 6 pairs are in order
    assert values["f1"] == pytest.approx(1 / 2)
    assert values["log_loss"] == pytest.approx(-np.mean(np.log([0.9, 0.6, 0.4, 0.8, 0.3])))
    assert values["brier_score"] == pytest.approx(np.mean((POSITIVE - LABELS) ** 2))
    average_precision = sk.average_precision_score(LABELS, POSITIVE)
    assert values["average_precision"] == pytest.approx(average_precision)


def test_metrics_of_more_classes():
    """They are averaged, each class against the rest."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 4
    probabilities = rng.dirichlet(np.ones(4), 60) + np.eye(4)[labels] * 0.3
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    predicted = probabilities.argmax(axis=1)
    values = metrics.all_metrics(labels, probabilities, bins=10, positive=None)
    expected = {
        "roc_auc": sk.roc_auc_score(labels, probabilities, multi_class="ovr"),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "f1": sk.f1_score(labels, predicted, average="macro"),
        "log_loss": sk.log_loss(labels, probabilities),
        "average_precision": sk.average_precision_score(np.eye(4)[labels], probabilities),
    }
    for name, value in expected.items():
        assert values[name] == pytest.approx(value), name


def test_calibration_error():
    """It is 0 for calibrated predictions, and large for overconfident ones."""
    is_correct = np.array([True] * 8 + [False] * 2)
    labels = np.where(is_correct, 1, 0)
    for confidence, error in ((0.8, 0.0), (0.99, 0.19)):
        probabilities = np.tile([1 - confidence, confidence], (10, 1))
        assert metrics.calibration_error(labels, probabilities, 10) == pytest.approx(error)


def test_calibration_error_by_hand():
    """Two bins: 0.6, 0.7 and 0.65, of which two are correct; 0.9 and 0.8, of which one is."""
    confidence = np.array([0.6, 0.9, 0.7, 0.8, 0.65])
    is_correct = np.array([True, False, False, True, True])
    labels = np.where(is_correct, 1, 0)
    probabilities = np.stack([1 - confidence, confidence], axis=1)
    assert metrics.calibration_bins(labels, probabilities, 4) == [
        (pytest.approx(0.65), pytest.approx(2 / 3), 3),
        (pytest.approx(0.85), pytest.approx(1 / 2), 2),
    ]
    error = metrics.calibration_error(labels, probabilities, 4)
    assert error == pytest.approx((3 * (2 / 3 - 0.65) + 2 * 0.35) / 5)
    certain = np.array([[1.0, 0.0], [0.9, 0.1]])  # in the last bin with others
    assert metrics.calibration_bins(np.array([0, 0]), certain, 4) == [(pytest.approx(0.95), 1.0, 2)]


def test_summary_by_hand():
    """Six images of "no", five of them predicted correctly, and nine of "yes", six of them."""
    labels = np.repeat([0, 1], [6, 9])
    positive = np.array([0.1, 0.2, 0.3, 0.1, 0.4, 0.8, 0.9, 0.9, 0.7, 0.6, 0.8, 0.7, 0.3, 0.2, 0.4])
    probabilities = np.stack([1 - positive, positive], axis=1)
    groups = np.array([0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 9, 9, 9, 10, 11])
    summary = summarize(labels, probabilities, groups, ["no", "yes"], 1, 10, 100, 0)
    assert summary["accuracy"] == pytest.approx(11 / 15)
    assert summary["recall"] == {"no": pytest.approx(5 / 6), "yes": pytest.approx(6 / 9)}
    assert summary["balanced_accuracy"] == pytest.approx((5 / 6 + 6 / 9) / 2)
    assert summary["f1"] == pytest.approx(2 * 6 / (7 + 9))
    pairs_in_order = 2 * 6 + 3 * 5 + 5.5 + 3.5 + 2.5 + 4.5  # ties are half a pair
    assert summary["roc_auc"] == pytest.approx(pairs_in_order / 54)
    assert summary["independent_groups"] == {"no": 5, "yes": 7}
    other = summarize(labels, probabilities, groups, ["no", "yes"], 0, 10, 100, 0)
    assert other["f1"] == pytest.approx(2 * 5 / (6 + 8))
    assert other["roc_auc"] == summary["roc_auc"]
    neither = summarize(labels, probabilities, groups, ["no", "yes"], None, 10, 100, 0)
    assert neither["f1"] == pytest.approx((summary["f1"] + other["f1"]) / 2)


def test_intervals_are_of_95_percent():
    """Ten images, eight correct: of a binomial's tenths, the 2.5th percentile is 0.5, the 97.5th 1.

    The 10th would be 0.6.
    """
    is_correct = np.array([0, 1, 1, 1, 1, 0, 1, 1, 1, 1])
    intervals = bootstrap_intervals(
        lambda sample: {"accuracy": np.mean(is_correct[sample])}, np.arange(10), [5, 5], 4000, 0
    )
    assert intervals == {"accuracy": [0.5, 1.0]}


def test_intervals_are_wider_for_groups():
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    positive = np.clip(0.5 + 0.3 * (labels - 0.5) + rng.normal(0, 0.2, 200), 0.01, 0.99)
    probabilities = np.stack([1 - positive, positive], axis=1)

    def compute(sample):
        return metrics.headline_metrics(labels[sample], probabilities[sample])

    independent = bootstrap_intervals(compute, np.arange(200), [100, 100], 500, 0)
    for name, value in metrics.headline_metrics(labels, probabilities).items():
        assert independent[name][0] < value < independent[name][1]
    repeated = np.repeat(np.arange(50), 4)
    labels, probabilities = labels[repeated], probabilities[repeated]
    grouped = bootstrap_intervals(compute, repeated, [25, 25], 500, 0)
    assert np.ptp(grouped["accuracy"]) > 1.5 * np.ptp(independent["accuracy"])


def test_metrics_with_one_positive():
    """The AUC is its rank: 0.000 here, "95 % interval 0.000 to 0.000", with four of six correct."""
    labels, groups = np.array([0, 0, 0, 0, 0, 1]), np.arange(6)
    positive = np.array([0.4, 0.3, 0.2, 0.1, 0.6, 0.05])
    probabilities = np.stack([1 - positive, positive], axis=1)
    summary = summarize(labels, probabilities, groups, ["no", "yes"], 1, 10, 100, 0)
    assert summary["accuracy"] == pytest.approx(4 / 6)
    assert summary["balanced_accuracy"] == pytest.approx(4 / 10)
    assert summary["roc_auc"] is None
    assert summary["average_precision"] is None
    assert summary["interval"] == {"accuracy": None, "balanced_accuracy": None, "roc_auc": None}
    assert summary["independent_groups"] == {"no": 5, "yes": 1}
    reason = missing_metrics(summary["independent_groups"])
    assert reason.startswith(
        "no ROC AUC, average precision or bootstrap intervals: expected 5 or more independent"
    )
    assert reason.endswith("'yes' has 1")
    assert json.loads(COMPACT.encode(summary)) == summary  # no NaN


def test_near_duplicates_count_as_one_group():
    labels, positive = np.repeat([0, 1], 10), np.linspace(0, 1, 20)
    positive[[9, 10]] = positive[[10, 9]]
    probabilities = np.stack([1 - positive, positive], axis=1)
    for per_group, expected in ((2, True), (3, False)):
        groups = np.arange(20) // per_group + 100 * labels  # five groups of each class, or four
        summary = summarize(labels, probabilities, groups, ["no", "yes"], 1, 10, 100, 0)
        assert all((value is not None) == expected for value in summary["interval"].values())
        assert (summary["roc_auc"] == pytest.approx(0.99)) == expected
        assert (explain_missing(summary) is None) == expected


def test_no_error_gives_no_interval():
    """The draws have none either, so that the intervals would be "1.000 to 1.000"."""
    labels = np.repeat([0, 1], 6)
    probabilities = np.eye(2)[labels]
    summary = summarize(labels, probabilities, np.arange(12), ["no", "yes"], 1, 10, 100, 0)
    assert summary["accuracy"] == summary["roc_auc"] == 1
    assert summary["interval"] == {"accuracy": None, "balanced_accuracy": None, "roc_auc": None}
    reason = explain_missing(summary)
    assert reason.startswith("no bootstrap interval of accuracy, balanced accuracy, ROC AUC: the")


def test_rounding_gives_an_interval_no_width():
    intervals = {"a": [1 - 2**-52, 1.0], "b": [0.9, 1.0], "c": None}
    assert drop_constant(intervals) == {"a": None, "b": [0.9, 1.0], "c": None}


@pytest.mark.parametrize(("negatives", "positives"), [(20, 9), (20, 25), (9, 20)])
def test_metrics_of_a_perfect_ranking(negatives, positives):
    """The sum of scikit-learn's steps is 1.0000000000000002, which no later stage would read."""
    labels = np.repeat([0, 1], [negatives, positives])
    positive = np.linspace(0, 1, len(labels))
    probabilities = np.stack([1 - positive, positive], axis=1)
    for reported in (0, 1, None):
        values = metrics.all_metrics(labels, probabilities, 10, reported)
        assert values["average_precision"] == pytest.approx(1)
        assert values["average_precision"] <= 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("classes", [2, 3])
def test_metrics_without_a_class(classes):
    names, labels = ["no", "other", "yes"][:classes], np.zeros(8, int)
    probabilities = np.random.default_rng(0).dirichlet(np.ones(classes), 8)
    positive = 1 if classes == 2 else None
    summary = summarize(labels, probabilities, np.arange(8), names, positive, 10, 100, 0)
    missing = {name for name, value in summary.items() if value is None}
    assert missing == {"balanced_accuracy", "f1", "roc_auc", "average_precision"}
    assert list(summary["recall"].values()) == [summary["accuracy"], *[None] * (classes - 1)]
    reason = missing_metrics(summary["independent_groups"])
    assert reason.startswith("no balanced accuracy, F1, ROC AUC,")
    COMPACT.encode(summary)


def test_missing_metrics_of_many_classes():
    """The line names three of them."""
    reason = missing_metrics({f"c{number}": number % 7 for number in range(70)})
    assert reason.endswith("'c0' has 0, 'c1' has 1, 'c2' has 2 and 47 more classes have too few")
    assert "\n" not in missing_metrics({"a\nb": 1, "no": 9})
    reason = missing_metrics({"a": 1, "b": 2, "c": 3, "no": 9})
    assert reason.endswith("; 'a' has 1, 'b' has 2, 'c' has 3")
    reason = missing_metrics(dict.fromkeys("abcd", 1))
    assert reason.endswith("'c' has 1 and 1 more classes have too few")


@pytest.mark.filterwarnings("error")
def test_intervals_of_a_hundred_classes():
    """Few draws have all of them."""
    labels = np.repeat(np.arange(100), 5)
    logits = np.random.default_rng(0).normal(size=(500, 100)) + 3 * np.eye(100)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    names = list(map(str, range(100)))
    summary = summarize(labels, probabilities, np.arange(500), names, None, 10, 100, 0)
    for name, (low, high) in summary["interval"].items():
        assert low < summary[name] < high
        assert high - low < 0.15


def test_spread_over_folds():
    """It is None where a fold lacks the metric."""
    fold_metrics = [{"accuracy": 0.5, "roc_auc": None}, {"accuracy": 0.7, "roc_auc": 0.9}]
    assert spread(fold_metrics) == {
        "accuracy": [pytest.approx(0.6), pytest.approx(np.std([0.5, 0.7], ddof=1))],
        "roc_auc": None,
    }
    assert metrics.mean_or_none([0.5, None]) is None
    assert metrics.mean_or_none([0.5, 0.7]) == pytest.approx(0.6)


def test_crossval_with_few_images_of_a_class():
    """Each fold has two, too few for most metrics; all folds together have ten."""
    rng, votes = np.random.default_rng(0), {}
    for fold in range(5):
        labels = np.array([0] * 6 + [1] * 2)
        probabilities = rng.dirichlet((1, 1), 8) * 0.7 + np.eye(2)[labels] * 0.3
        voters = ("ensemble", "uniform vote", "best member", "member-00")
        probabilities_of = dict.fromkeys(voters, probabilities)
        votes[0, fold] = Votes(np.arange(8) + 8 * fold, labels, ["no", "yes"], probabilities_of)
    summary = summarize_crossval(votes, 100, 10, {})
    assert summary["folds"]["roc_auc"] is None
    assert summary["folds"]["accuracy"][0] == pytest.approx(summary["ensemble"]["accuracy"])
    low, high = summary["interval"]["roc_auc"]
    assert 0 <= low <= summary["ensemble"]["roc_auc"] <= high <= 1
    single = summarize_crossval({(0, 0): votes[0, 0]}, 100, 10, {})
    assert single["ensemble"]["roc_auc"] is None
    assert single["interval"]["accuracy"] is None
    assert single["accuracy_above"]["member-00"] is None
    COMPACT.encode(single)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("classes", [2, 3])
def test_scores_of_a_single_class(scheme, classes):
    probabilities = np.random.default_rng(0).dirichlet(np.ones(classes), 6)
    labels = np.zeros(6, int)
    assert 0 <= member_score(scheme, labels, probabilities, None) <= 1
    assert member_score("auc", labels, probabilities, None) == 0.5


@pytest.mark.parametrize("scheme", SCHEMES)
def test_better_members_have_higher_weights(scheme):
    rows, better = np.arange(5), np.eye(2)[LABELS] * 0.8 + 0.1
    out_of_bag = {"first": (rows, TWO), "second": (rows, better)}
    scores, weights = weight_members(LABELS, out_of_bag, scheme, 1)
    assert scores == [member_score(scheme, LABELS, votes, 1) for votes in (TWO, better)]
    assert weights.sum() == pytest.approx(1)
    assert (weights[1] > weights[0]) == (scheme != "uniform")


def test_member_scores():
    precision, recall = 1 / 2, 1 / 2
    assert member_score("accuracy", LABELS, TWO, 1) == pytest.approx(3 / 5)
    assert member_score("auc", LABELS, TWO, 1) == pytest.approx(4 / 6)
    softmax_score = member_score("softmax", LABELS, TWO, 1)
    assert softmax_score == pytest.approx((3 / 5 + 4 / 6 + precision + recall) / 4)
    geometric_mean = np.exp(-log_loss(LABELS, TWO))
    assert member_score("log_loss", LABELS, TWO, 1) == pytest.approx(geometric_mean)


@pytest.mark.parametrize(
    ("scheme", "scores", "weights"),
    [
        ("accuracy", [0.5, 1.0], [1 / 3, 2 / 3]),
        ("accuracy", [0.1, 0.3], [1 / 4, 3 / 4]),
        ("softmax", [0.0, 1.0], [1 / (1 + np.e), np.e / (1 + np.e)]),
    ],
)
def test_voting_weights(scheme, scores, weights):
    assert voting_weights(scheme, np.array(scores)).tolist() == pytest.approx(weights)


def test_voting_weights_of_zero_scores():
    assert voting_weights("accuracy", np.zeros(4)).tolist() == [0.25] * 4


def test_precision_and_recall_of_one_image():
    labels, predicted = np.array([0, 0, 0, 1]), np.array([0, 0, 0, 1])
    assert metrics.precision_and_recall(labels, np.eye(2)[predicted], 1) == (1, 1)
    assert metrics.precision_and_recall(labels, np.eye(2)[[0, 0, 1, 1]], 1) == (0.5, 1)
    assert metrics.precision_and_recall(labels, np.eye(2)[[0, 0, 0, 0]], 1) == (0, 0)


def test_vote_is_the_weighted_mean():
    first, second = np.array([[0.9, 0.1], [0.5, 0.5]]), np.array([[0.2, 0.8], [0.1, 0.9]])
    for weights in ([0.75, 0.25], [3, 1]):
        votes = soft_vote(np.stack([first, second]), np.array(weights))
        np.testing.assert_allclose(votes, [[0.725, 0.275], [0.4, 0.6]])


def test_formatted_metrics():
    assert metrics.format_metric(0.12345) == "0.123"
    assert metrics.format_metric(0.5, [0.25, 0.75]) == "0.500 (95 % interval 0.250 to 0.750)"
    assert metrics.format_metric(None) == "none"
    assert metrics.format_metric(None, None) == "none"


def test_calibration_of_overconfident_and_biased_votes():
    rng = np.random.default_rng(0)
    true = rng.dirichlet((2, 2, 2), 4000)
    labels = np.array([rng.choice(3, p=probabilities) for probabilities in true])
    overconfident = calibrate(true, 0.5, np.zeros(3))
    temperature, biases = fit_calibration(labels, overconfident)
    assert temperature == pytest.approx(2, rel=0.15)
    np.testing.assert_allclose(biases, 0, atol=0.15)

    bias = np.array([0.0, -1.0, 0.5])
    biased = calibrate(true, 1.0, bias)
    temperature, biases = fit_calibration(labels, biased)
    np.testing.assert_allclose(biases, -bias, atol=0.2)
    np.testing.assert_allclose(calibrate(biased, temperature, biases), true, atol=0.08)
    np.testing.assert_allclose(calibrate(true, 1.0, np.zeros(3)), true, atol=1e-6)


def test_extreme_temperatures():
    probabilities = np.array([[1, 0, 0], [1 / 3, 1 / 3, 1 / 3]])
    np.testing.assert_allclose(calibrate(probabilities, 0.001, np.zeros(3)), probabilities)
    np.testing.assert_allclose(calibrate(probabilities, 1e9, np.zeros(3)), 1 / 3, atol=1e-6)


def test_calibration_of_few_predictions():
    """All are correct, which must not make the vote certain."""
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.1, 0.9]])
    temperature, biases = fit_calibration(np.array([0, 1, 1]), probabilities)
    assert 0.4 < temperature < 1
    assert np.abs(biases).max() < 0.5


def test_calibration_is_the_same_in_any_order_of_the_classes():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 40)
    scores = rng.normal(size=(40, 3)) + 2 * np.eye(3)[labels] + [1.5, 0, 0]
    votes = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    calibrated = calibrate(votes, *fit_calibration(labels, votes))
    order = np.array([2, 0, 1])  # class i is now order[i]
    others = votes[:, np.argsort(order)]
    calibrated_others = calibrate(others, *fit_calibration(order[labels], others))
    np.testing.assert_allclose(calibrated_others[:, order], calibrated, atol=1e-8)


def noisy_members(images: int, members: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw labels, and probabilities by members whose log-odds have noise of their own.

    Half of `NOISE`, whatever that is, since a mean of probabilities is less certain than that of
    log-odds.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % 2
    signal = rng.normal(2.0 * labels - 1.0, 1.0)
    log_odds = 2 * signal + rng.normal(0, 2 * np.sqrt(NOISE / 2), (members, images))
    positive = 1 / (1 + np.exp(-log_odds))
    return labels, np.stack([1 - positive, positive], axis=2)


@pytest.mark.parametrize("voters", [1, 2, 5])
def test_the_vote_is_as_confident_as_it_is_right(voters):
    """Whether its calibration is fitted to votes of single members or of all of them."""
    labels, probabilities = noisy_members(10_000, 5, seed=0)
    rows = [np.flatnonzero((np.arange(len(labels)) - member) % 5 < voters) for member in range(5)]
    out_of_bag = {
        f"member-{member:02}": (rows[member], probabilities[member][rows[member]])
        for member in range(5)
    }
    vote = fit_voting_weights(labels, labels, out_of_bag, "uniform", True, None)
    labels, probabilities = noisy_members(100_000, 5, seed=1)
    voted = soft_vote(probabilities, np.full(5, 0.2))
    for voter, votes in (("ensemble", voted), ("member-00", probabilities[0])):
        calibrated = calibrate(votes, **vote["calibrations"][voter])
        accuracy = np.mean(calibrated.argmax(axis=1) == labels)
        assert calibrated.max(axis=1).mean() == pytest.approx(accuracy, abs=0.008)


def test_sharpness_gain_by_effective_numbers():
    """Of images one has a voter, one has two, and one has none."""
    out_of_bag = {"a": (np.array([0, 1]), None), "b": (np.array([1]), None)}
    gain = sharpness_gain(out_of_bag, np.array([0.75, 0.25]), 3)
    assert gain == pytest.approx((1 + NOISE / 1.3) / (1 + NOISE / 1.6))
    assert sharpness_gain(out_of_bag, np.array([1.0, 0.0]), 3) == 1


def test_no_vote_is_softened():
    """Where single members have the weight, and out-of-bag votes are of others."""
    out_of_bag = {"a": (np.arange(10), None)} | dict.fromkeys("bc", (np.arange(10, 100), None))
    assert sharpness_gain(out_of_bag, np.array([0.9, 0.05, 0.05]), 100) == 1


def test_rounding_errors_change_no_calibration():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 80)
    probabilities = rng.dirichlet((1, 1, 1), 80) / 2 + np.eye(3)[labels] / 2
    temperature, biases = fit_calibration(labels, probabilities)
    for _ in range(20):
        last_bits = rng.choice([-1, 0, 1], probabilities.shape) * 2.0**-52
        of_others = fit_calibration(labels, probabilities * (1 + last_bits))
        assert of_others[0] == temperature
        np.testing.assert_array_equal(of_others[1], biases)


CALIBRATED_VOTE = """
import numpy as np
from brainmri.evaluation.calibration import fit_calibration
from brainmri.evaluation.fitted_weights import fit_weights
from brainmri.evaluation.voting import soft_vote
rng = np.random.default_rng(0)
labels = rng.integers(0, 2, 80)
members = rng.dirichlet((1, 1), (5, 80)) / 2 + np.eye(2)[labels] / 2
of_true_class = members[:, np.arange(80), labels]
weights = [fit_weights(scheme, of_true_class) for scheme in ("stacking", "greedy")]
vote = soft_vote(members, weights[0])
print(vote.tobytes().hex(), *[values.tolist() for values in weights])
print(*[fit_calibration(labels, votes) for votes in (vote, *members)])
"""


def test_same_calibrated_vote_with_the_linear_algebra_of_another_processor():
    """OpenBLAS takes a processor's name from the environment, where there is one."""
    outputs = [
        subprocess.run(
            [sys.executable, "-c", CALIBRATED_VOTE],
            cwd=ROOT,
            env=os.environ | processor,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for processor in ({}, {"OPENBLAS_CORETYPE": "Nehalem"})
    ]
    assert outputs[0] == outputs[1] != ""


@pytest.mark.filterwarnings("error")
def test_out_of_bag_vote():
    """Only members that were not trained on an image vote on it."""
    first, second = np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([[0.2, 0.8]])
    rows = [np.array([0, 2]), np.array([2])]
    votes = out_of_bag_vote([first, second], rows, np.array([0.75, 0.25]), 4)
    np.testing.assert_allclose(votes[[0, 2]], [[0.9, 0.1], [0.5, 0.5]])
    assert np.isnan(votes[[1, 3]]).all()
    single = out_of_bag_vote([first], [np.array([0, 2])], np.array([0.5]), 3)
    np.testing.assert_allclose(single[[0, 2]], first)
