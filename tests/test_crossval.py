"""Cross-validation: each fold once, resumable, and figures of all folds' test images together."""

import csv
import json

import numpy as np
from conftest import SMALL
from PIL import Image

OVERRIDES = [part for key, value in {**SMALL, "members": 2, "split.folds": 3}.items() for part in ("-S", f"{key}={value}")]


def test_every_image_is_tested_once_and_folds_that_are_done_are_not_run_again(fresh):
    command = ("python", "-m", "crossval", *OVERRIDES)
    fresh.run(*command, "--folds", "0,2")
    assert json.loads(fresh.read("metrics/crossval.json"))["folds_run"] == 2
    output = fresh.run(*command)
    assert output.count("Running stage 'evaluate'") == 1  # of the fold that was missing
    summary = json.loads(fresh.read("metrics/crossval.json"))
    assert summary["images"] == SMALL["phantom.classes.no"] + SMALL["phantom.classes.yes"]
    assert sum(sum(row.values()) for row in summary["confusion"].values()) == summary["images"]
    for name, (low, high) in summary["interval"].items():
        assert low <= summary["ensemble"][name] <= high or name == "expected_calibration_error"
    for other in ("uniform_vote", "best_member", "mean_member", "member-00", "member-01"):
        assert 0 <= summary[other]["accuracy"] <= 1
    with Image.open(fresh.path / "plots/crossval.png") as picture:
        assert min(picture.size) > 300
    again = fresh.run(*command)
    assert "Running stage" not in again
    assert json.loads(fresh.read("metrics/crossval.json")) == summary

    # Pooled by hand from what DVC shows of the experiments.
    right = []
    for commit in fresh.run("git", "for-each-ref", "--format=%(objectname)", "refs/exps").split():
        shown = fresh.run("git", "ls-tree", "--name-only", commit, "plots/data/predictions.csv")
        if shown and len(right) < summary["images"]:
            rows = csv.DictReader(fresh.run("git", "show", f"{commit}:plots/data/predictions.csv").splitlines())
            right += [row["class"] == row["predicted"] for row in rows]
    assert summary["ensemble"]["accuracy"] == np.mean(right)


def test_mistaken_options_get_one_line(fresh):
    for option, told in ((("--seeds", "one"), "--seeds is 'one'"), (("-S", "members=0"), "members is 0")):
        output = fresh.run("python", "-m", "crossval", *option, ok=False)
        assert told in output
        assert "Traceback" not in output
