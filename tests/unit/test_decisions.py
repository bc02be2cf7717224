"""Decision rules, prediction sets and their metrics, by hand or computed again."""

import re
from argparse import ArgumentTypeError
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score, recall_score

from brainmri.common.errors import UserError
from brainmri.common.params import Decide
from brainmri.evaluation.classes import positive_class
from brainmri.evaluation.decision_metrics import (
    at_prevalence,
    describe_decisions,
    effective_number,
    risk_coverage,
    rule_metrics,
    set_metrics,
    set_rates,
    wilson_interval,
)
from brainmri.evaluation.decision_rule import ARGMAX, choose_rule, cost_rule, decide
from brainmri.evaluation.decisions import decide_votes, fit_decision
from brainmri.evaluation.patients import patients_out_of_bag
from brainmri.evaluation.prediction_sets import (
    calibration_groups,
    error_rate,
    fewest_groups,
    list_sets,
    missing_sets,
    p_values,
    prediction_sets,
)
from brainmri.evaluation.summary import decide_patients, summarize_patients

CLASSES = ["glioma", "none", "pituitary"]


@pytest.mark.parametrize(
    ("classes", "setting", "positive"),
    [
        (["no", "yes"], "auto", 1),
        (["glioma", "no_tumor"], "auto", 0),  # not the second one of the alphabet
        (["Healthy", "Tumor"], "auto", 1),
        (["a", "b"], "auto", None),
        (["no", "none"], "auto", None),
        (["glioma", "meningioma", "notumor"], "auto", None),
        (["no", "yes"], "no", 0),
        (["glioma", "meningioma", "notumor"], "meningioma", 1),
        (["no", "yes"], None, None),
        (["auto", "yes"], "auto", 0),
    ],
)
def test_positive_class(classes, setting, positive):
    assert positive_class(classes, setting) == positive


def test_positive_class_must_be_a_class():
    with pytest.raises(UserError, match=r"evaluate\.positive is 'Yes'; expected a class \(no, yes"):
        positive_class(["no", "yes"], "Yes")


def test_rules_by_hand():
    probabilities = np.array([[0.5, 0.3, 0.2], [0.1, 0.45, 0.45], [0.3, 0.1, 0.6]])
    assert decide(probabilities, ARGMAX, None).tolist() == [0, 1, 2]
    of_pituitary = {"name": "youden", "threshold": 0.45, "costs": None}
    assert decide(probabilities, of_pituitary, 2).tolist() == [0, 2, 2]
    of_glioma = {"name": "youden", "threshold": 0.3, "costs": None}
    assert decide(probabilities, of_glioma, 0).tolist() == [0, 1, 0]
    above_all = {"name": "youden", "threshold": 0.7, "costs": None}
    assert decide(probabilities, above_all, 2).tolist() == [0, 1, 0]  # the best of the others
    missing = cost_rule({"pituitary": {"glioma": 9, "none": 9}}, CLASSES)
    assert missing["costs"] == [[0, 1, 1], [1, 0, 1], [9, 9, 0]]
    assert decide(probabilities, missing, None).tolist() == [2, 2, 2]
    assert decide(probabilities, cost_rule({}, CLASSES), None).tolist() == [0, 1, 2]


def test_costs_of_unknown_classes():
    with pytest.raises(UserError, match="has the class 'yes'; expected those of the images"):
        cost_rule({"none": {"yes": 2}}, CLASSES)


def chosen_threshold(name, labels, positive, min_rate):
    probabilities = np.stack([1 - positive, positive], axis=1)
    groups = np.arange(len(labels))
    rule, reason = choose_rule(name, labels, probabilities, groups, 1, min_rate)
    assert reason is None
    return rule["threshold"]


def test_threshold_rules():
    labels = np.tile([0, 0, 0, 0, 0, 1, 1, 1, 1], 5)
    positive = np.tile([0.1, 0.15, 0.2, 0.3, 0.7, 0.05, 0.6, 0.8, 0.9], 5)
    assert chosen_threshold("youden", labels, positive, 1.0) == 0.6
    assert chosen_threshold("sensitivity", labels, positive, 0.5) == 0.8
    assert chosen_threshold("sensitivity", labels, positive, 1.0) == 0.05
    assert chosen_threshold("specificity", labels, positive, 0.8) == 0.6
    assert chosen_threshold("specificity", labels, positive, 1.0) == 0.8


def test_specificity_above_all_positives():
    """Where the most probable images are negative, no image is positive."""
    labels = np.repeat([0, 1], 20)
    positive = np.where(labels == 0, 0.9, 0.8)
    assert 0.9 < chosen_threshold("specificity", labels, positive, 1.0) < 0.9001


def test_thresholds_need_groups():
    """Near duplicates count as one."""
    labels, positive = np.repeat([0, 1], 30), np.linspace(0, 1, 60)
    probabilities = np.stack([1 - positive, positive], axis=1)
    for groups, count in ((np.arange(60) // 2, 15), (np.append(np.arange(30), [40] * 30), 1)):
        rule, reason = choose_rule("youden", labels, probabilities, groups, 1, 0.95)
        assert rule == ARGMAX
        assert reason.endswith(f"found {count}; the most probable class is predicted")


def test_rates_of_the_positive_class():
    """With seven groups of the positive class, of which one has two images."""
    labels = np.array([1, 1, 1, 1, 1, 1, 1, 1, 0, 0])
    decided = np.array([1, 1, 1, 1, 1, 1, 0, 0, 0, 1])
    groups = np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 8])
    metrics = rule_metrics(labels, decided, groups, 1, ["no", "yes"], None, None)
    intervals = metrics["rates"].pop("interval")
    assert metrics["rates"] == {
        "positive": "yes",
        "sensitivity": 6 / 8,
        "specificity": 1 / 2,
        "ppv": 6 / 7,
        "npv": 1 / 3,
    }
    # Of 7 groups, one has two images: 8² / (2² + 6), and 7² / (2² + 5)
    assert intervals["sensitivity"] == wilson_interval(6 / 8, 6.4)
    assert intervals["ppv"] == wilson_interval(6 / 7, 49 / 9)
    never = rule_metrics(labels, np.zeros(10, int), groups, 1, ["no", "yes"], None, 0.1)
    assert never["rates"]["ppv"] is never["rates"]["interval"]["ppv"] is None
    assert never["at_prevalence"]["ppv"] is None
    assert never["at_prevalence"]["npv"] == pytest.approx(0.9)
    assert "rates" not in rule_metrics(labels, decided, groups, None, ["no", "yes"], None, None)


@pytest.mark.parametrize(("hits", "number"), [(0, 7), (7, 7), (3, 12), (88, 90)])
def test_wilson_interval_is_scipys(hits, number):
    expected = stats.binomtest(hits, number).proportion_ci(method="wilson")
    assert wilson_interval(hits / number, number) == pytest.approx([expected.low, expected.high])
    assert wilson_interval(np.nan, 0) is None


def test_effective_number_of_groups():
    """A group with most of the images is hardly more than an observation of its own."""
    assert effective_number(np.repeat(np.arange(20), 10)) == pytest.approx(20)
    few = effective_number(np.repeat(np.arange(31), [1] * 30 + [100]))
    assert 1 < few < 2
    assert effective_number(np.array([], int)) == 0


def test_predictive_values_at_a_prevalence():
    """Of 1,000 with 10 positives, at 0.9 and 0.8: 9 of 207 are right, and 792 of 793."""
    rates = {"sensitivity": 0.9, "specificity": 0.8}
    metrics = at_prevalence(rates, {"sensitivity": 50, "specificity": 40}, 0.01)
    intervals = metrics.pop("interval")
    assert metrics == pytest.approx({"prevalence": 0.01, "ppv": 9 / 207, "npv": 792 / 793})
    of_sensitivity = stats.binomtest(45, 50).proportion_ci(0.975, "wilson")
    of_specificity = stats.binomtest(32, 40).proportion_ci(0.975, "wilson")
    for bound in (0, 1):
        positive, negative = 0.01 * of_sensitivity[bound], 0.99 * of_specificity[bound]
        ppv = positive / (positive + 0.99 - negative)
        npv = negative / (negative + 0.01 - positive)
        assert intervals["ppv"][bound] == pytest.approx(ppv)
        assert intervals["npv"][bound] == pytest.approx(npv)


def test_no_predictive_values_without_negatives():
    rates, numbers = {"sensitivity": 0.9, "specificity": np.nan}, {"sensitivity": 5}
    metrics = at_prevalence(rates, {**numbers, "specificity": 0}, 0.1)
    unknown = {"ppv": None, "npv": None}
    assert metrics == {"prevalence": 0.1, **unknown, "interval": unknown}


def made_votes(images, members=4, seed=0):
    """Labels, groups, weights, and the out-of-bag predictions of members."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(images), 1 + np.arange(images) % 3)
    labels = rng.integers(0, 3, images)[groups]
    out_of_bag = []
    for _ in range(members):
        rows = np.flatnonzero((rng.random(images) < 0.5)[groups])
        logits = rng.normal(size=(len(rows), 3)) + 1.5 * np.eye(3)[labels[rows]]
        out_of_bag.append((rows, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)))
    return labels, groups, rng.dirichlet(np.full(members, 5.0)), out_of_bag


@pytest.mark.parametrize("chunk", [4, 1024])
def test_p_values_by_definition(monkeypatch, chunk):
    """Image by image, class by class and group by group, as the method is written."""
    monkeypatch.setattr("brainmri.evaluation.prediction_sets.CHUNK", chunk)
    labels, groups, weights, out_of_bag = made_votes(40)
    new = np.random.default_rng(1).dirichlet((1, 1, 1), (4, 9))
    calibration = calibration_groups(labels, groups, out_of_bag, weights, CLASSES)
    values = p_values(new, weights, calibration)
    probability_of = [dict(zip(rows, votes, strict=True)) for rows, votes in out_of_bag]
    for image in range(9):
        for label in range(3):
            counts = []
            for group in np.unique(groups):
                rows = np.flatnonzero((groups == group) & (labels == label))
                voters = [m for m in range(4) if len(rows) and rows[0] in probability_of[m]]
                if not voters:
                    continue
                of_image = np.average(new[voters, image, label], weights=weights[voters])
                of_rows = [
                    np.average(
                        [probability_of[m][row][label] for m in voters], weights=weights[voters]
                    )
                    for row in rows
                ]
                counts.append(np.mean(np.array(of_rows) <= of_image + 1e-12))
            expected = (1 + sum(counts)) / (len(counts) + 1)
            assert values[image, label] == pytest.approx(expected)


def test_p_values_of_ties_and_of_classes_without_groups():
    """A group on which the vote gives a class the same probability counts as one more."""
    group = {"out_of_bag": [0], "probabilities": [0.5]}
    members = np.array([[[0.5, 0.5], [0.75, 0.25]]])
    values = p_values(members, np.ones(1), {"no": [], "yes": [group]})
    assert values.tolist() == [[1, 1], [1, 0.5]]
    at_the_rate = prediction_sets(np.array([[0.1, 0.5], [0.5, 0.1]]), np.array([1, 1]), 0.1)
    assert at_the_rate.tolist() == [[False, True], [True, True]]


@pytest.mark.parametrize("seed", range(5))
def test_equal_votes_are_ties(seed):
    """Votes of several members, which are summed in another order."""
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(7))
    labels, groups = np.repeat([0, 1], 10), np.arange(20)
    voted = np.eye(2)[labels] * 0.3 + 0.35
    drawn = [np.sort(rng.choice(20, 12, replace=False)) for _ in weights]
    out_of_bag = [(rows, voted[rows]) for rows in drawn]
    calibration = calibration_groups(labels, groups, out_of_bag, weights, ["no", "yes"])
    values = p_values(np.stack([voted] * 7), weights, calibration)
    assert set(values[np.arange(20), labels]) == {1}


def test_members_without_weight_do_not_vote():
    labels, groups, _, out_of_bag = made_votes(30)
    weights = np.array([0.0, 0.6, 0.0, 0.4])
    listed = calibration_groups(labels, groups, out_of_bag, weights, CLASSES)
    voters = {
        member
        for of_class in listed.values()
        for group in of_class
        for member in group["out_of_bag"]
    }
    assert voters == {1, 3}


def coverage_of(error, seeds=150):
    """The coverage of each class over many draws of 85 training and 40 test images."""
    covered: list[list[bool]] = [[], []]
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        labels = np.append(rng.permutation(np.repeat([0, 1], [25, 60])), rng.integers(0, 2, 40))
        skill = rng.normal(1, 0.3, (5, 1))
        logits = rng.normal(size=125) + 0.5 * rng.normal(size=(5, 125)) + skill * (2 * labels - 1)
        positive = 1 / (1 + np.exp(-logits))
        members = np.stack([1 - positive, positive], axis=2)
        is_out_of_bag = rng.random((5, 85)) < 0.37
        out_of_bag = [
            (np.flatnonzero(rows), votes[:85][rows])
            for rows, votes in zip(is_out_of_bag, members, strict=True)
        ]
        weights = np.full(5, 0.2)
        groups = calibration_groups(labels[:85], np.arange(85), out_of_bag, weights, ["no", "yes"])
        values = p_values(members[:, 85:], weights, groups)
        for label in range(2):
            covered[label] += (values[labels[85:] == label, label] > error).tolist()
    return [np.mean(of_class) for of_class in covered]


@pytest.mark.parametrize("error", [0.1, 0.3])
def test_each_class_is_covered(error):
    """At the stated rate, in the rare class too."""
    for coverage in coverage_of(error):
        assert 1 - error - 0.02 < coverage < 1 - error + 0.06


def test_set_has_the_predicted_class():
    values = np.array([[0.02, 0.05], [0.3, 0.05], [0.3, 0.4]])
    assert prediction_sets(values, np.array([1, 1, 0]), 0.1).tolist() == [
        [False, True],
        [True, True],
        [True, True],
    ]


@pytest.mark.parametrize(
    ("error", "groups"), [(0.1, 9), (0.05, 19), (0.3, 3), (0.5, 1), (0.01, 99)]
)
def test_sets_need_groups(error, groups):
    """With one group fewer, no class could be excluded."""
    assert fewest_groups(error) == groups
    assert 1 / (groups + 1) <= error < 1 / groups
    enough = [{"out_of_bag": [0], "probabilities": [0.9]}] * groups
    assert missing_sets({"no": enough, "yes": enough}, error) is None
    reason = missing_sets({"no": enough[1:], "yes": enough}, error)
    assert reason.startswith(f"no prediction sets with an error rate of {error}: expected {groups}")
    assert f"; 'no' has {groups - 1}; add images, or members" in reason
    assert list_sets(
        np.ones((2, 2)), np.zeros(2, int), {"no": enough[1:], "yes": enough}, error
    ) == [None, None]
    assert list_sets(np.ones((1, 2)), np.zeros(1, int), {"no": enough, "yes": enough}, error) == [
        (0, 1)
    ]


def test_documented_function_computes_the_same_sets():
    """That of docs/deploy.md, which needs only about.json."""
    text = (Path(__file__).parents[2] / "docs/deploy.md").read_text("utf-8")
    [source] = re.findall(r"```python\n(# sets\.py.*?)```", text, re.DOTALL)
    names: dict = {}
    exec(source, names)
    labels, groups, weights, out_of_bag = made_votes(40)
    calibration = calibration_groups(labels, groups, out_of_bag, weights, CLASSES)
    decision = {"positive": None, "rule": ARGMAX, "error": 0.2, "images": calibration}
    about = {"weights": dict(enumerate(weights)), "decision": decision}
    new = np.random.default_rng(1).dirichlet((1, 1, 1), (4, 20))
    decided = decide_votes(np.tensordot(weights, new, 1), new, weights, decision)
    sets = list_sets(decided.p_values, decided.labels, calibration, 0.2)
    assert len(set(sets)) > 3
    for image, expected in enumerate(sets):
        listed = names["prediction_set"](about, new[:, image], decided.labels[image])
        assert listed == [CLASSES[label] for label in expected]


def test_sets_by_patient():
    """A patient is usual if the mean of the slices is; slices of two classes don't calibrate."""
    labels, patients = np.array([0, 0, 1, 1, 1, 0]), np.array([0, 0, 1, 2, 2, 2])
    rows = np.array([0, 1, 2, 3, 4, 5])
    positive = np.array([0.1, 0.3, 0.8, 0.6, 0.7, 0.1])
    predictions = {"member-00": (rows, np.stack([1 - positive, positive], axis=1))}
    of_patients = patients_out_of_bag(labels, patients, patients, predictions)
    groups = calibration_groups(
        of_patients[0], of_patients[1], list(of_patients[2].values()), np.ones(1), ["no", "yes"]
    )
    assert groups == {
        "no": [{"out_of_bag": [0], "probabilities": [pytest.approx(0.8)]}],
        "yes": [{"out_of_bag": [0], "probabilities": [pytest.approx(0.8)]}],
    }
    decision = {"positive": None, "rule": ARGMAX, "patient_rule": ARGMAX, "prevalence": None}
    decision |= {"error": 0.1}
    decision |= {"images": groups, "patients": None}
    members = np.array([[[0.9, 0.1]]])
    without = decide_votes(members[0], members, np.ones(1), decision, by_patient=True)
    assert without.p_values.tolist() == [[1, 1]]
    decided = decide_votes(
        members[0], members, np.ones(1), {**decision, "patients": groups}, by_patient=True
    )
    assert decided.p_values.tolist() == [[1, 0.5]]


def slices_of_patients(rng: np.random.Generator, count: int):
    """Labels, patients and votes: six of ten slices of a positive patient show a tumor."""
    labels = np.repeat([0, 1], count)
    shape = (2 * count, 20)
    has_tumor = (labels[:, None] == 1) & (rng.random(shape) < 0.6)
    positive = np.where(has_tumor, rng.beta(8, 2, shape), rng.beta(1.2, 6, shape))
    votes = np.stack([1 - positive, positive], axis=-1).reshape(-1, 2)
    return np.repeat(labels, 20), np.repeat(np.arange(2 * count), 20), votes


def test_patients_have_a_threshold_of_their_own():
    """That of slices, whose votes are spread more, would call every patient positive."""
    rng = np.random.default_rng(0)
    labels, patients, votes = slices_of_patients(rng, 300)
    settings = Decide(
        rule="sensitivity",
        min_sensitivity=0.95,
        min_specificity=0.9,
        error=0.1,
        costs={},
        prevalence=None,
    )
    calibration = {"temperature": 1.0, "biases": [0.0, 0.0]}
    decision, reason = fit_decision(
        labels,
        patients,
        patients,
        {"member-00": (np.arange(len(labels)), votes)},
        np.ones(1),
        calibration,
        ["no", "yes"],
        1,
        settings,
    )
    assert reason is None
    new_labels, new_patients, new_votes = slices_of_patients(rng, 300)
    voted, decided = decide_patients(
        new_labels, new_votes, new_patients, new_patients, new_votes[None], np.ones(1), decision
    )
    of_slices = decide(voted.probabilities, decision["rule"], 1)
    assert np.mean(of_slices[voted.labels == 0] == 0) < 0.5
    assert np.mean(decided.labels[voted.labels == 0] == 0) > 0.9
    assert np.mean(decided.labels[voted.labels == 1] == 1) > 0.9
    metrics = summarize_patients(voted, decided, decision, 10, 100, 0)
    rule = metrics["decision_rule"]
    assert rule["threshold"] == decision["patient_rule"]["threshold"]
    assert rule["rates"]["sensitivity"] == recall_score(voted.labels, decided.labels)
    sizes = (decided.p_values > 0.1) | np.eye(2, dtype=bool)[decided.labels]
    assert metrics["prediction_sets"]["mean_size"] == sizes.sum(axis=1).mean()
    assert metrics["f1"] == f1_score(voted.labels, voted.probabilities.argmax(axis=1))


def test_metrics_of_sets_by_hand():
    labels = np.array([0, 0, 1, 1, 1])
    sets = np.array([[1, 0], [1, 1], [0, 1], [1, 0], [1, 1]], bool)
    assert set_rates(labels, sets) == {
        "coverage": 4 / 5,
        "mean_size": 7 / 5,
        "decided": 3 / 5,
        "decided_accuracy": 2 / 3,
    }
    metrics = set_metrics(
        labels,
        sets.argmax(axis=1),
        np.where(sets, 0.5, 0.01),
        np.arange(5),
        ["no", "yes"],
        0.1,
        100,
        0,
    )
    assert metrics["coverage"] == 4 / 5
    assert metrics["interval"]["coverage"] == wilson_interval(4 / 5, 5)
    assert metrics["interval"]["decided_accuracy"] == wilson_interval(2 / 3, 3)
    assert metrics["by_class"]["yes"]["coverage"] == 2 / 3
    assert metrics["by_class"]["yes"]["interval"]["mean_size"] is None  # fewer than five groups
    all_unsure = set_metrics(
        labels, labels, np.ones((5, 2)), np.arange(5), ["no", "yes"], 0.1, 100, 0
    )
    assert all_unsure["decided_accuracy"] is all_unsure["interval"]["decided_accuracy"] is None


def test_description_of_decisions():
    interval = {"sensitivity": [0.8, 0.95], "specificity": [0.7, 0.9]}
    interval |= {"ppv": [0.6, 0.8], "npv": [0.5, 0.7]}
    rates = {"positive": "yes", "sensitivity": 0.9, "specificity": 0.8, "ppv": 0.7, "npv": 0.6}
    by_class = {
        name: {"coverage": coverage, "interval": {"coverage": [0.5, 1.0]}}
        for name, coverage in (("no", 0.9), ("yes", 0.95))
    }
    metrics = {"decision_rule": {"rates": {**rates, "interval": interval}}}
    assert list(describe_decisions(metrics)) == [
        "class 'yes': sensitivity 0.900 (95 % interval 0.800 to 0.950),"
        " specificity 0.800 (95 % interval 0.700 to 0.900),"
        " positive predictive value 0.700 (95 % interval 0.600 to 0.800),"
        " negative predictive value 0.600 (95 % interval 0.500 to 0.700)"
    ]
    sets = {"error": 0.1, "by_class": by_class, "decided": 0.75, "decided_accuracy": 0.96}
    coverage = (
        "prediction sets for an error rate of 0.1: coverage of"
        " 'no' 0.900 (95 % interval 0.500 to 1.000), 'yes' 0.950 (95 % interval 0.500 to 1.000)"
    )
    metrics = {"decision_rule": {}, "prediction_sets": sets}
    line = f"{coverage}; 75% of the sets have one class, accuracy 0.960"
    assert list(describe_decisions(metrics)) == [line]
    sets |= {"decided": 0.0, "decided_accuracy": None}
    line = f"{coverage}; no set has one class, so nothing is decided"
    assert list(describe_decisions(metrics)) == [line]


def test_risk_coverage_by_hand():
    """Two images of equal confidence are decided together."""
    positive = np.array([0.4, 0.2, 0.8, 0.9])
    labels = np.array([0, 1, 1, 1])
    fractions, accuracies = risk_coverage(labels, np.stack([1 - positive, positive], axis=1))
    assert fractions.tolist() == [1 / 4, 3 / 4, 1]
    assert accuracies.tolist() == pytest.approx([1, 2 / 3, 3 / 4])


@pytest.mark.parametrize("text", ["0", "0.6", "nan", "x", ""])
def test_rates_of_errors_have_a_range(text):
    with pytest.raises(ArgumentTypeError, match=r"expected a number from 0\.001 to 0\.5"):
        error_rate(text)
    assert [error_rate(text) for text in ("0.001", "0.05", "0.5")] == [0.001, 0.05, 0.5]
