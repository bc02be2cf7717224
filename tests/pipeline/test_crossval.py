"""Cross-validation: each fold runs once, and the summary is of all folds' test images."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.support.project import SMALL, Project

PARAMS = {"members": 1, "train.epochs": 1, "split.folds": 2, "data.source": "data/raw"}
OVERRIDES = [part for key, value in PARAMS.items() for part in ("-S", f"{key}={value}")]
CROSSVAL = ("python", "-m", "brainmri.crossval")


def test_crossval_tests_every_image_once(done):
    """Folds that are complete are not run again."""
    shutil.copytree(done.path / "data/phantom", done.path / "data/raw")
    done.run("dvc", "add", "data/raw")
    command = (*CROSSVAL, *OVERRIDES)
    assert "it is not in Git; run `git add data/raw.dvc`" in done.run(*command, ok=False)
    done.run("git", "add", "data/raw.dvc", "data/.gitignore")
    done.run("git", "commit", "-q", "-m", "Own images")
    former = experiments(done)
    failed = done.run(*command, "-S", "recipes.base.learning_rate=1e30", ok=False)
    last = failed.stderr.splitlines()[-1]
    assert last.startswith("error: no result of seed 0, fold 0; seed 0, fold 1; fix what")
    assert failed.count("training failed: member-00") == 1  # the second fold does not start
    done.run(*command, "--folds", "1")
    assert "Queued" not in done.run("dvc", "queue", "status")
    assert json.loads(done.read("metrics/crossval.json"))["folds_run"] == 1
    output = done.run(*command)
    assert output.count("Running stage 'evaluate'") == 1  # of the fold that was missing
    summary = json.loads(done.read("metrics/crossval.json"))
    assert summary["images"] == SMALL["phantom.classes.no"] + SMALL["phantom.classes.yes"]
    assert sum(sum(row.values()) for row in summary["confusion"].values()) == summary["images"]
    for name, interval in summary["interval"].items():
        value = summary["ensemble"][name]
        low, high = interval or (value, value)
        assert low <= value <= high or name == "expected_calibration_error"
        assert interval or value == pytest.approx(round(2 * value) / 2)  # as all draws
    for other in ("uniform_vote", "best_member", "mean_member", "member-00"):
        assert 0 <= summary[other]["accuracy"] <= 1
    with Image.open(done.path / "plots/crossval.png") as figure:
        assert min(figure.size) > 300
    again = done.run(*command)
    assert "Running stage" not in again
    assert json.loads(done.read("metrics/crossval.json")) == summary
    is_correct = pooled_predictions(done, experiments(done) - former, summary["images"])
    assert summary["ensemble"]["accuracy"] == np.mean(is_correct)

    assert count_folds(done) == 2
    next((done.path / "data/raw/yes").iterdir()).unlink()
    assert "has changed since data/raw.dvc was written" in done.run(*command, ok=False)
    done.run("dvc", "add", "data/raw")
    assert count_folds(done) == 0


def count_folds(project: Project) -> int:
    """Return how many folds would not be run again."""
    code = "from brainmri.crossval.experiments import completed_folds, compose_params\n"
    settings = [value for value in OVERRIDES if value != "-S"]
    code += f"print(len(completed_folds(compose_params({settings}))))"
    return int(project.run("python", "-c", code).stdout.split()[-1])


def experiments(project: Project) -> set[str]:
    """List the commits of experiments."""
    output = project.run("git", "for-each-ref", "--format=%(objectname)", "refs/exps")
    return set(output.stdout.split())


def pooled_predictions(project: Project, commits: set[str], images: int) -> list[bool]:
    """Return which images the experiments predict correctly, until so many images are tested."""
    path = "plots/data/predictions.csv"
    is_correct: list[bool] = []
    for commit in commits:
        listing = project.run("git", "ls-tree", "--name-only", commit, path).stdout
        if listing and len(is_correct) < images:
            table = project.run("git", "show", f"{commit}:{path}").stdout
            rows = csv.DictReader(table.splitlines())
            is_correct += [row["class"] == row["predicted"] for row in rows]
    return is_correct


def test_invalid_options(fresh):
    for option, message in (
        (("--seeds", "one"), "--seeds is 'one'"),
        (("-S", "members=0"), "members is 0"),
        (("-S", "split.fold=1"), "-S split.fold=1: the folds to test on are chosen by --folds"),
        (("--seeds", "1", "-S", "seed=2"), "-S seed=2: the seeds are those of --seeds"),
    ):
        output = fresh.run(*CROSSVAL, *option, ok=False)
        assert message in output
        assert "Traceback" not in output
