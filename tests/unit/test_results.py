"""Weights and metrics that stages read again are refused if their values can't be."""

import json
from pathlib import Path

import pytest

from brainmri.common.errors import UserError
from brainmri.evaluation.results import (
    read_ensemble_metrics,
    read_out_of_bag,
    read_voting_weights,
)

MEMBERS, CLASSES = ["member-00", "member-01"], ["a", "b", "c"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current folder, with the folders of results."""
    monkeypatch.chdir(tmp_path)
    Path("models").mkdir()
    Path("metrics/members").mkdir(parents=True)


def voting_weights() -> dict:
    """Return valid content of models/weights.json."""
    calibration = {"temperature": 0.8, "biases": [0.0, 0.5, -0.5]}
    voters = ["ensemble", "uniform vote", *MEMBERS]
    return {
        "scheme": "auc",
        "calibrations": {name: dict(calibration) for name in voters},
        "out_of_bag_log_loss": {"fitted": 0.3, "cross_fitted": 0.4},
        "members": {name: {"score": 0.5, "weight": 0.5} for name in MEMBERS},
        "decision": {
            "positive": "b",
            "rule": {"name": "youden", "threshold": 0.3, "costs": None},
            "patient_rule": None,
            "prevalence": None,
            "error": 0.1,
            "images": {name: [{"out_of_bag": [1], "probabilities": [0.7]}] for name in CLASSES},
            "patients": None,
        },
    }


def test_weights_of_zero_and_no_log_loss():
    content = voting_weights()
    content.pop("out_of_bag_log_loss")
    for name, weight in zip(MEMBERS, [0.0, 1.0], strict=True):  # only members with weights vote
        content["members"][name]["weight"] = weight
    Path("models/weights.json").write_text(json.dumps(content))
    assert read_voting_weights(MEMBERS, CLASSES) == content


@pytest.mark.parametrize(
    "change",
    [
        lambda vote: vote["members"].pop("member-01"),
        lambda vote: vote["members"].update({"member-02": {"score": 0.5, "weight": 0.0}}),
        lambda vote: vote.update(members=dict(reversed(vote["members"].items()))),
        lambda vote: vote["calibrations"].pop("ensemble"),
        lambda vote: vote["calibrations"].pop("uniform vote"),
        lambda vote: vote["calibrations"].pop("member-01"),
        lambda vote: vote["calibrations"].update(other=vote["calibrations"]["ensemble"]),
        lambda vote: vote["calibrations"]["member-00"].update(biases=[0.0, 0.5]),
        lambda vote: vote["calibrations"]["ensemble"].update(temperature=0.0),
        lambda vote: vote["calibrations"]["ensemble"].update(temperature=float("inf")),
        lambda vote: vote["calibrations"]["ensemble"].update(biases=[0.0, float("nan"), 0.0]),
        lambda vote: vote["members"]["member-00"].update(weight=-0.1),
        lambda vote: vote["members"]["member-00"].update(weight=1.1),
        lambda vote: vote["out_of_bag_log_loss"].pop("cross_fitted"),
        lambda vote: vote["out_of_bag_log_loss"].update(fitted=float("nan")),
        lambda vote: vote.pop("decision"),
        lambda vote: vote["decision"].update(positive="d"),
        lambda vote: vote["decision"].update(positive=None),
        lambda vote: vote["decision"].update(error=0.0),
        lambda vote: vote["decision"].update(prevalence=1.5),
        lambda vote: vote["decision"]["rule"].update(name="other"),
        lambda vote: vote["decision"]["rule"].update(threshold=float("nan")),
        lambda vote: vote["decision"]["rule"].update(costs=[[0, 1], [1, 0]]),
        lambda vote: vote["decision"]["images"].pop("c"),
        lambda vote: vote["decision"].update(patients={"a": [], "b": []}),
        lambda vote: vote["decision"]["images"]["a"][0].update(out_of_bag=[2]),
        lambda vote: vote["decision"]["images"]["a"][0].update(out_of_bag=[]),
        lambda vote: vote["decision"]["images"]["a"][0].update(probabilities=[1.1]),
        lambda vote: vote["members"]["member-01"].update(weight=0.0),
    ],
)
def test_invalid_voting_weights_are_refused(change):
    content = voting_weights()
    Path("models/weights.json").write_text(json.dumps(content))
    assert read_voting_weights(MEMBERS, CLASSES) == content
    change(content)
    Path("models/weights.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"models/weights\.json"):
        read_voting_weights(MEMBERS, CLASSES)


def test_out_of_bag_metrics_are_those_of_the_member():
    for number, name in enumerate(MEMBERS):
        out_of_bag = {"accuracy": number / 2, "log_loss": 9.5, "images": number}
        content = {"out_of_bag": out_of_bag, "epochs": 2}
        Path(f"metrics/members/{name}.json").write_text(json.dumps(content))
    expected = {"accuracy": 0.5, "log_loss": 9.5, "images": 1}
    assert read_out_of_bag("member-01") == expected


@pytest.mark.parametrize(("key", "value"), [("accuracy", 1.5), ("log_loss", None), ("images", -1)])
def test_invalid_out_of_bag_metrics_are_refused(key, value):
    content = {"out_of_bag": {"accuracy": 0.5, "log_loss": 9.5, "images": 1, key: value}}
    Path("metrics/members/member-00.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=key):
        read_out_of_bag("member-00")


@pytest.mark.parametrize(
    "change",
    [
        {"accuracy": 1.1},
        {"accuracy": None},
        {"log_loss": None},
        {"expected_calibration_error": -0.1},
        {"interval": {"accuracy": [0.1, 0.5, 0.9], "balanced_accuracy": None, "roc_auc": None}},
        {"interval": {"accuracy": [0.1], "balanced_accuracy": None, "roc_auc": None}},
        {"independent_groups": {"a": 3}},
        {
            "best_member": {
                "accuracy": 0.5,
                "balanced_accuracy": 0.5,
                "roc_auc": None,
                "log_loss": 0.5,
            }
        },
        {"decision_rule": {"name": "argmax", "threshold": None, "accuracy": 1.5}},
    ],
    ids=str,
)
def test_invalid_ensemble_metrics_are_refused(change):
    headlines = {"accuracy": 0.5, "balanced_accuracy": None, "roc_auc": None, "log_loss": 0.5}
    content = {
        **headlines,
        "average_precision": None,
        "f1": None,
        "brier_score": 0.2,
        "expected_calibration_error": 0.2,
        "recall": {"a": 1.0, "b": None},
        "interval": {"accuracy": [0.1, 0.9], "balanced_accuracy": None, "roc_auc": None},
        "independent_groups": {"a": 3, "b": 0},
        "decision_rule": {"name": "argmax", "threshold": None, "accuracy": 0.5},
        "calibration_groups": {"a": 9, "b": 8},
        "test_images": 3,
        "best_member": {"name": "member-00", **headlines},
        "mean_member": headlines,
        "uniform_vote": headlines,
    }
    path = Path("metrics/ensemble.json")
    path.write_text(json.dumps(content))
    assert read_ensemble_metrics() == content
    path.write_text(json.dumps({**content, **change}))
    with pytest.raises(UserError, match=next(iter(change))):
        read_ensemble_metrics()
