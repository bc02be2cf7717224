"""Cross-validation: each fold once, resumable, and figures of all folds' test images together."""

import csv
import json
import shutil

import numpy as np
from conftest import SMALL, Project
from PIL import Image

OWN = {"members": 2, "split.folds": 2, "data.source": "data/raw"}
OVERRIDES = [part for key, value in OWN.items() for part in ("-S", f"{key}={value}")]


def test_every_image_is_tested_once_and_folds_that_are_done_are_not_run_again(done):
    shutil.copytree(done.path / "data/phantom", done.path / "data/raw")
    done.run("dvc", "add", "data/raw")
    command = ("python", "-m", "crossval", *OVERRIDES)
    assert "it is not in Git; run `git add data/raw.dvc`" in done.run(*command, ok=False)
    done.run("git", "add", "data/raw.dvc", "data/.gitignore")
    done.run("git", "commit", "-q", "-m", "Own images")
    former = experiments(done)
    failed = done.run(*command, "-S", "recipes.base.learning_rate=1e30", ok=False)
    assert failed.stderr.splitlines()[-1].startswith("error: no result of seed 0, fold 0; seed 0, fold 1; put right what is told")
    assert failed.count("training failed: member-00") == 1  # the second fold is not begun
    done.run(*command, "--folds", "1")
    assert "Queued" not in done.run("dvc", "queue", "status")
    assert json.loads(done.read("metrics/crossval.json"))["folds_run"] == 1
    output = done.run(*command)
    assert output.count("Running stage 'evaluate'") == 1  # of the fold that was missing
    summary = json.loads(done.read("metrics/crossval.json"))
    assert summary["images"] == SMALL["phantom.classes.no"] + SMALL["phantom.classes.yes"]
    assert sum(sum(row.values()) for row in summary["confusion"].values()) == summary["images"]
    for name, (low, high) in summary["interval"].items():
        assert low <= summary["ensemble"][name] <= high or name == "expected_calibration_error"
    for other in ("uniform_vote", "best_member", "mean_member", "member-00", "member-01"):
        assert 0 <= summary[other]["accuracy"] <= 1
    with Image.open(done.path / "plots/crossval.png") as picture:
        assert min(picture.size) > 300
    again = done.run(*command)
    assert "Running stage" not in again
    assert json.loads(done.read("metrics/crossval.json")) == summary

    # Pooled by hand from what DVC shows of the experiments.
    right = []
    for commit in experiments(done) - former:
        shown = done.run("git", "ls-tree", "--name-only", commit, "plots/data/predictions.csv").stdout
        if shown and len(right) < summary["images"]:
            rows = csv.DictReader(done.run("git", "show", f"{commit}:plots/data/predictions.csv").stdout.splitlines())
            right += [row["class"] == row["predicted"] for row in rows]
    assert summary["ensemble"]["accuracy"] == np.mean(right)


def experiments(project: Project) -> set[str]:
    return set(project.run("git", "for-each-ref", "--format=%(objectname)", "refs/exps").stdout.split())


def test_mistaken_options_get_one_line(fresh):
    for option, told in ((("--seeds", "one"), "--seeds is 'one'"), (("-S", "members=0"), "members is 0")):
        output = fresh.run("python", "-m", "crossval", *option, ok=False)
        assert told in output
        assert "Traceback" not in output
