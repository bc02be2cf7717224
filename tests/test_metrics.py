"""Metrics and votes against values worked out by hand or by scikit-learn."""

import json

import numpy as np
import pytest
from sklearn import metrics as sk

from crossval import __main__ as crossval
from stages.shared import metrics
from stages.shared.files import ONE_LINE
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


def test_calibration_error_by_hand():
    """Two bins: three images at 0.6, 0.7 and 0.65 of which two are right, and two at 0.9 and 0.8 of which one is."""
    sure, right = np.array([0.6, 0.9, 0.7, 0.8, 0.65]), np.array([True, False, False, True, True])
    labels = np.where(right, 1, 0)
    probabilities = np.stack([1 - sure, sure], axis=1)
    assert metrics.calibration_bins(labels, probabilities, 4) == [
        (pytest.approx(0.65), pytest.approx(2 / 3), 3),
        (pytest.approx(0.85), pytest.approx(1 / 2), 2),
    ]
    assert metrics.calibration_error(labels, probabilities, 4) == pytest.approx((3 * (2 / 3 - 0.65) + 2 * 0.35) / 5)
    certain = np.array([[1.0, 0.0], [0.9, 0.1]])  # in the last bin with others
    assert metrics.calibration_bins(np.array([0, 0]), certain, 4) == [(pytest.approx(0.95), 1.0, 2)]


def test_summary_by_hand():
    """Six images of "no", five of which are right, and nine of "yes", six of which are."""
    labels = np.repeat([0, 1], [6, 9])
    positive = np.array([0.1, 0.2, 0.3, 0.1, 0.4, 0.8, 0.9, 0.9, 0.7, 0.6, 0.8, 0.7, 0.3, 0.2, 0.4])
    groups = np.array([0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 9, 9, 9, 10, 11])
    summary = metrics.summarize(labels, np.stack([1 - positive, positive], 1), groups, ["no", "yes"], 0.65, 10, 100, 0)
    assert summary["accuracy"] == pytest.approx(11 / 15)
    assert summary["recall"] == {"no": pytest.approx(5 / 6), "yes": pytest.approx(6 / 9)}
    assert summary["balanced_accuracy"] == pytest.approx((5 / 6 + 6 / 9) / 2)
    assert summary["f1"] == pytest.approx(2 * 6 / (7 + 9))
    assert summary["roc_auc"] == pytest.approx((2 * 6 + 3 * 5 + 5.5 + 3.5 + 2.5 + 4.5) / 54)  # pairs in order, ties a half
    assert summary["independent_groups"] == {"no": 5, "yes": 7}
    assert summary["at_threshold"] == {
        "threshold": 0.65,
        "sensitivity": pytest.approx(5 / 9),
        "specificity": pytest.approx(5 / 6),
    }


def test_intervals_are_of_95_percent():
    """Ten images, eight right: the 2.5th percentile of a binomial's tenths is 0.5, the 10th 0.6; the 97.5th is 1."""
    right = np.array([0, 1, 1, 1, 1, 0, 1, 1, 1, 1])
    drawn = metrics.intervals(lambda rows: {"accuracy": np.mean(right[rows])}, np.arange(10), [5, 5], 4000, 0)
    assert drawn == {"accuracy": [0.5, 1.0]}


def test_intervals_hold_the_figure_and_are_wider_for_groups():
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    positive = np.clip(0.5 + 0.3 * (labels - 0.5) + rng.normal(0, 0.2, 200), 0.01, 0.99)
    probabilities = np.stack([1 - positive, positive], axis=1)

    def figures(sample):
        return metrics.headlines(labels[sample], probabilities[sample])

    alone = metrics.intervals(figures, np.arange(200), [100, 100], 500, 0)
    for name, value in metrics.headlines(labels, probabilities).items():
        assert alone[name][0] < value < alone[name][1]
    repeated = np.repeat(np.arange(50), 4)
    labels, probabilities = labels[repeated], probabilities[repeated]
    twins = metrics.intervals(figures, repeated, [25, 25], 500, 0)
    assert np.ptp(twins["accuracy"]) > 1.5 * np.ptp(alone["accuracy"])


def test_one_positive_gives_no_auc_no_interval_and_a_reason():
    """Its AUC is its rank: 0.000 here, with "95 % interval 0.000 to 0.000", though four of the six images are right."""
    labels, groups = np.array([0, 0, 0, 0, 0, 1]), np.arange(6)
    positive = np.array([0.4, 0.3, 0.2, 0.1, 0.6, 0.05])
    summary = metrics.summarize(labels, np.stack([1 - positive, positive], axis=1), groups, ["no", "yes"], 0.5, 10, 100, 0)
    assert summary["accuracy"] == pytest.approx(4 / 6)
    assert summary["balanced_accuracy"] == pytest.approx(4 / 10)
    assert summary["roc_auc"] is None
    assert summary["average_precision"] is None
    assert summary["interval"] == {"accuracy": None, "balanced_accuracy": None, "roc_auc": None}
    assert summary["independent_groups"] == {"no": 5, "yes": 1}
    reason = metrics.missing_metrics(summary["independent_groups"])
    assert reason.startswith("no ROC AUC, average precision or 95 % intervals: expected 5 or more independent groups")
    assert reason.endswith("'yes' has 1")
    assert json.loads(ONE_LINE.encode(summary)) == summary  # no NaN


def test_near_duplicates_count_as_one_group():
    labels, positive = np.repeat([0, 1], 10), np.linspace(0, 1, 20)
    probabilities = np.stack([1 - positive, positive], axis=1)
    for per_group, expected in ((2, True), (3, False)):
        groups = np.arange(20) // per_group + 100 * labels  # five groups of each class, or four
        summary = metrics.summarize(labels, probabilities, groups, ["no", "yes"], None, 10, 100, 0)
        assert all((value is not None) == expected for value in summary["interval"].values())
        assert (summary["roc_auc"] == 1) == expected
        assert (metrics.missing_metrics(summary["independent_groups"]) is None) == expected


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("classes", [2, 3])
def test_an_absent_class_leaves_null_where_it_counts(classes):
    names, labels = ["no", "other", "yes"][:classes], np.zeros(8, int)
    probabilities = np.random.default_rng(0).dirichlet(np.ones(classes), 8)
    summary = metrics.summarize(labels, probabilities, np.arange(8), names, 0.5 if classes == 2 else None, 10, 100, 0)
    missing = {name for name, value in summary.items() if value is None}
    assert missing == {"balanced_accuracy", "f1", "roc_auc", "average_precision"}
    assert list(summary["recall"].values()) == [summary["accuracy"], *[None] * (classes - 1)]
    if classes == 2:
        assert summary["at_threshold"]["sensitivity"] is None
        assert summary["at_threshold"]["specificity"] is not None
    assert metrics.missing_metrics(summary["independent_groups"]).startswith("no balanced accuracy, F1, ROC AUC,")
    ONE_LINE.encode(summary)


def test_a_line_names_three_of_many_small_classes():
    reason = metrics.missing_metrics({f"c{number}": number % 7 for number in range(70)})
    assert reason.endswith("'c0' has 0, 'c1' has 1, 'c2' has 2 and 47 more classes have too few")
    assert "\n" not in metrics.missing_metrics({"a\nb": 1, "no": 9})
    assert metrics.missing_metrics({"a": 1, "b": 2, "c": 3, "no": 9}).endswith("; 'a' has 1, 'b' has 2, 'c' has 3")
    assert metrics.missing_metrics(dict.fromkeys("abcd", 1)).endswith("'c' has 1 and 1 more classes have too few")


@pytest.mark.filterwarnings("error")
def test_intervals_of_a_hundred_classes_that_few_draws_hold_together():
    labels = np.repeat(np.arange(100), 5)
    logits = np.random.default_rng(0).normal(size=(500, 100)) + 3 * np.eye(100)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    summary = metrics.summarize(labels, probabilities, np.arange(500), list(map(str, range(100))), None, 10, 100, 0)
    for name, (low, high) in summary["interval"].items():
        assert low < summary[name] < high
        assert high - low < 0.15


def test_spread_over_folds_is_null_where_a_fold_lacks_the_metric():
    spread = crossval.spread([{"accuracy": 0.5, "roc_auc": None}, {"accuracy": 0.7, "roc_auc": 0.9}])
    assert spread == {"accuracy": [pytest.approx(0.6), pytest.approx(np.std([0.5, 0.7], ddof=1))], "roc_auc": None}
    assert metrics.mean_or_none([0.5, None]) is None
    assert metrics.mean_or_none([0.5, 0.7]) == pytest.approx(0.6)


def test_cross_validation_of_folds_with_few_images_of_a_class():
    """Folds alone say too little of a class of two images each; all folds together have ten."""
    rng, votes = np.random.default_rng(0), {}
    for fold in range(5):
        labels = np.array([0] * 6 + [1] * 2)
        probabilities = rng.dirichlet((1, 1), 8) * 0.5 + np.eye(2)[labels] * 0.5
        voters = dict.fromkeys(("ensemble", "uniform vote", "best member", "member-00"), probabilities)
        votes[0, fold] = crossval.Votes(np.arange(8) + 8 * fold, labels, ["no", "yes"], voters)
    summary = crossval.summarize(votes, 100, 10)
    assert summary["folds"]["roc_auc"] is None
    assert summary["folds"]["accuracy"][0] == pytest.approx(summary["ensemble"]["accuracy"])
    low, high = summary["interval"]["roc_auc"]
    assert 0 <= low <= summary["ensemble"]["roc_auc"] <= high <= 1
    few = crossval.summarize({(0, 0): votes[0, 0]}, 100, 10)
    assert few["ensemble"]["roc_auc"] is few["interval"]["accuracy"] is few["accuracy_above"]["member-00"] is None
    ONE_LINE.encode(few)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scheme", ["uniform", "accuracy", "balanced_accuracy", "auc", "softmax", "log_loss"])
@pytest.mark.parametrize("classes", [2, 3])
def test_scores_of_out_of_bag_images_of_one_class_are_numbers(scheme, classes):
    probabilities = np.random.default_rng(0).dirichlet(np.ones(classes), 6)
    assert 0 <= score(scheme, np.zeros(6, int), probabilities) <= 1
    assert score("auc", np.zeros(6, int), probabilities) == 0.5
    assert metrics.choose_threshold("sensitivity", np.zeros(6, int), probabilities[:, 1], 0.95) == 0.5


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
    assert weights("accuracy", np.array([0.1, 0.3])).tolist() == pytest.approx([1 / 4, 3 / 4])
    assert weights("softmax", np.array([0.0, 1.0])).tolist() == pytest.approx([1 / (1 + np.e), np.e / (1 + np.e)])
    assert weights("accuracy", np.zeros(4)).tolist() == [0.25] * 4


def test_precision_and_recall_of_a_class_of_one_image():
    labels, predicted = np.array([0, 0, 0, 1]), np.array([0, 0, 0, 1])
    assert metrics.precision_and_recall(labels, np.eye(2)[predicted]) == (1, 1)
    assert metrics.precision_and_recall(labels, np.eye(2)[[0, 0, 1, 1]]) == (0.5, 1)
    assert metrics.precision_and_recall(labels, np.eye(2)[[0, 0, 0, 0]]) == (0, 0)


def test_vote_is_the_weighted_mean():
    first, second = np.array([[0.9, 0.1], [0.5, 0.5]]), np.array([[0.2, 0.8], [0.1, 0.9]])
    for shares in ([0.75, 0.25], [3, 1]):
        np.testing.assert_allclose(vote(np.stack([first, second]), np.array(shares)), [[0.725, 0.275], [0.4, 0.6]])


def test_metrics_are_formatted():
    assert metrics.formatted(0.12345) == "0.123"
    assert metrics.formatted(0.5, [0.25, 0.75]) == "0.500 (95 % interval 0.250 to 0.750)"
    assert metrics.formatted(None) == metrics.formatted(None, None) == "none"


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


def test_calibration_of_extreme_temperatures_is_finite():
    probabilities = np.array([[1, 0, 0], [1 / 3, 1 / 3, 1 / 3]])
    np.testing.assert_allclose(calibrate(probabilities, 0.001, np.zeros(3)), probabilities)
    np.testing.assert_allclose(calibrate(probabilities, 1e9, np.zeros(3)), 1 / 3, atol=1e-6)


def test_calibration_from_few_right_predictions_stays_modest():
    temperature, biases = fit_calibration(np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.1, 0.9]]))
    assert 0.4 < temperature < 1
    assert np.abs(biases).max() < 0.5


@pytest.mark.filterwarnings("error")
def test_only_members_that_have_not_learned_from_an_image_vote_on_it_out_of_bag():
    one, other = np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([[0.2, 0.8]])
    voted = out_of_bag_vote([one, other], [np.array([0, 2]), np.array([2])], np.array([0.75, 0.25]), 4)
    np.testing.assert_allclose(voted[[0, 2]], [[0.9, 0.1], [0.5, 0.5]])
    assert np.isnan(voted[[1, 3]]).all()
    alone = out_of_bag_vote([one], [np.array([0, 2])], np.array([0.5]), 3)
    np.testing.assert_allclose(alone[[0, 2]], one)


def test_thresholds_are_chosen_by_their_rule():
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1])
    positive = np.array([0.1, 0.15, 0.2, 0.3, 0.7, 0.05, 0.6, 0.8, 0.9])
    assert metrics.choose_threshold("half", labels, positive, 1.0) == 0.5
    assert metrics.choose_threshold("youden", labels, positive, 1.0) == 0.6
    assert metrics.choose_threshold("sensitivity", labels, positive, 0.5) == 0.8
    assert metrics.choose_threshold("sensitivity", labels, positive, 1.0) == 0.05
    assert metrics.sensitivity_specificity(labels, positive, 0.6) == (0.75, 0.8)
