"""Cross-validation: which experiments count as its folds, and what is computed of their votes."""

import csv
import io
import os
import subprocess
from itertools import count

import numpy as np
import pytest
import yaml
from scipy.special import softmax, xlogy
from sklearn import metrics as sk

from crossval import __main__ as crossval
from stages.shared.errors import UserError

PARAMS = {
    "seed": 0,
    "members": 1,
    "data": {"source": "data/raw"},
    "split": {"folds": 3, "fold": 0, "near_duplicate_bits": 20},
    "train": {"epochs": 4},
    "fan_out": {"jobs": "auto"},
    "ensemble": {"member-00": {"seed": 0}},
}
CLASSES = ["glioma", "none", "pituitary"]


class Experiments:
    """A Git repository in which experiments can be left as DVC leaves them."""

    def __init__(self, folder):
        self.folder, self.clock = folder, count(1_700_000_000)
        self.git("init", "-q")
        (folder / "stages").mkdir()
        (folder / "stages/train.py").write_text("print()\n")
        (folder / "dvc.yaml").write_text("stages: {}\n")
        (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS))
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "Sources")

    def git(self, *words):
        when = f"{next(self.clock)} +0000"
        who = {f"GIT_{role}_{key}": "a@example.org" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
        environment = {**os.environ, **who, "GIT_COMMITTER_DATE": when, "GIT_AUTHOR_DATE": when}
        subprocess.run(["git", *words], cwd=self.folder, env=environment, check=True, capture_output=True)

    def add(self, mark, seed=0, fold=0, code="print()\n", images="a.dir", ref="refs/exps/ab/cdef", **changes):
        """Leave one whose single test image has the group `mark`."""
        split = {**PARAMS["split"], "fold": fold, **changes.pop("split", {})}
        params = {**PARAMS, "seed": seed, **changes, "split": split}
        files = {
            "params.yaml": yaml.safe_dump(params),
            "stages/train.py": code,
            "dvc.lock": yaml.safe_dump(
                {"stages": {"ingest": {"deps": [{"path": "stages/train.py", "md5": code}, {"path": "data/raw", "md5": images}]}}}
            ),
            "plots/data/votes.csv": votes_table({"ensemble": [[0.2, 0.5, 0.3]]}, [mark], ["none"]),
        }
        for path, content in files.items():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_text(content)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "Experiment")
        self.git("update-ref", f"{ref}/exp-{mark}", "HEAD")
        self.git("reset", "-q", "--hard", "HEAD~1")

    def counted(self, **changes):
        """The marks of those that count, by seed and fold."""
        return {key: int(votes.groups[0]) for key, votes in crossval.finished({**PARAMS, **changes}).items()}


@pytest.fixture
def experiments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Experiments(tmp_path)


def votes_table(voters, groups, labels):
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["voter", "row", "group", "class", *(f"probability of {name}" for name in CLASSES)])
    for voter, votes in voters.items():
        table.writerows([voter, 90 - row, groups[row], labels[row], *vote] for row, vote in enumerate(votes))
    return text.getvalue()


def test_experiments_count_by_their_own_seed_and_fold(experiments):
    assert experiments.counted() == {}
    experiments.add(1, seed=0, fold=0)
    experiments.add(2, seed=0, fold=2)
    experiments.add(3, seed=7, fold=2, ensemble={"member-00": {"seed": 7000}}, fan_out={"jobs": 3})
    assert experiments.counted() == {(0, 0): 1, (0, 2): 2, (7, 2): 3}
    assert experiments.counted(seed=7) == experiments.counted(fan_out={"jobs": 1}) == experiments.counted()


def test_the_newest_experiment_of_a_fold_counts(experiments):
    for mark in (9, 3, 5):
        experiments.add(mark)
    assert experiments.counted() == {(0, 0): 5}


def test_folds_of_other_code_do_not_count(experiments):
    experiments.add(1, fold=0)
    experiments.add(2, fold=1, code="print(1)\n")
    assert experiments.counted() == {(0, 0): 1}
    (experiments.folder / "stages/train.py").write_text("print(1)\n")
    assert experiments.counted() == {(0, 1): 2}
    (experiments.folder / "dvc.yaml").write_text("stages: {more: {}}\n")
    assert experiments.counted() == {}


def test_folds_of_other_parameters_do_not_count(experiments):
    experiments.add(1, fold=0)
    experiments.add(2, fold=1, train={"epochs": 5})
    experiments.add(3, fold=2, members=2)
    experiments.add(4, fold=1, split={"folds": 4})
    assert experiments.counted() == {(0, 0): 1}
    assert experiments.counted(train={"epochs": 5}) == {(0, 1): 2}


def test_folds_of_other_images_than_the_newest_do_not_count(experiments):
    experiments.add(1, fold=0)
    experiments.add(2, fold=1)
    experiments.add(3, fold=1, images="b.dir")
    assert experiments.counted() == {(0, 1): 3}
    experiments.add(4, fold=0, images="b.dir")
    assert experiments.counted() == {(0, 0): 4, (0, 1): 3}


def test_what_dvc_keeps_for_itself_does_not_count(experiments):
    experiments.add(1, ref="refs/exps/celery/stash")
    experiments.add(2, ref="refs/exps/exec")
    assert experiments.counted() == {}


def test_votes_are_read_by_voter():
    voters = {"ensemble": [[0.2, 0.5, 0.3], [0.7, 0.1, 0.2]], "member-00": [[0.1, 0.6, 0.3], [0.8, 0.2, 0.0]]}
    votes = crossval.read_votes(votes_table(voters, [4, 2], ["pituitary", "glioma"]))
    assert votes.classes == CLASSES
    assert votes.groups.tolist() == [4, 2]
    assert votes.labels.tolist() == [2, 0]
    assert {voter: probabilities.tolist() for voter, probabilities in votes.probabilities.items()} == voters


def test_numbers_of_an_option():
    assert crossval.numbers("2,0,11", "--folds") == [2, 0, 11]
    assert crossval.numbers(None, "--folds") == []
    with pytest.raises(UserError, match="--folds is '1;2'"):
        crossval.numbers("1;2", "--folds")


VOTERS = ["ensemble", "uniform vote", "best member", "member-00", "member-01"]


@pytest.fixture(scope="module")
def folds():
    """Votes of two seeds and two folds: unequal classes and groups of one to three images."""
    rng, votes = np.random.default_rng(2), {}
    groups = np.repeat(np.arange(36), 1 + np.arange(36) % 3)
    labels = np.repeat(np.array([0, 1, 1, 2, 2, 2] * 6), 1 + np.arange(36) % 3)
    for seed in (4, 9):
        fold_of = rng.permutation(36)[groups] % 2
        for fold in (0, 1):
            rows = np.flatnonzero(fold_of == fold)
            skill = dict(zip(VOTERS, (2.0, 1.4, 1.1, 0.7, 0.3), strict=True))
            noise = rng.normal(size=(len(VOTERS), len(rows), 3))
            voters = {
                voter: softmax(noise[place] + skill[voter] * np.eye(3)[labels[rows]], axis=1)
                for place, voter in enumerate(VOTERS)
            }
            votes[seed, fold] = crossval.Votes(groups[rows], labels[rows], CLASSES, voters)
    return votes


@pytest.fixture(scope="module")
def summary(folds):
    return crossval.summarize(folds, resamples=150, bins=5)


def recomputed(labels, probabilities):
    predicted, one_hot = probabilities.argmax(axis=1), np.eye(3)[labels]
    sure, right = probabilities.max(axis=1), predicted == labels
    places = np.minimum(np.floor(sure * 5), 4)
    error = sum(abs(sure[places == b].mean() - right[places == b].mean()) * np.mean(places == b) for b in np.unique(places))
    shown = [label for label in range(3) if label in labels]
    return {
        "accuracy": np.mean(right),
        "balanced_accuracy": np.mean([right[labels == label].mean() for label in shown]),
        "roc_auc": np.mean([sk.roc_auc_score(labels == label, probabilities[:, label]) for label in shown]),
        "average_precision": np.mean([sk.average_precision_score(labels == label, probabilities[:, label]) for label in shown]),
        "f1": sk.f1_score(labels, predicted, labels=shown, average="macro"),
        "log_loss": -xlogy(one_hot, probabilities).sum(axis=1).mean(),
        "brier_score": ((probabilities - one_hot) ** 2).sum(axis=1).mean(),
        "expected_calibration_error": error,
    }


def pool(votes, voter="ensemble"):
    return np.concatenate([one.labels for one in votes]), np.concatenate([one.probabilities[voter] for one in votes])


def test_voters_are_measured_on_all_test_images_together(folds, summary):
    parts = list(folds.values())
    expected = {voter: recomputed(*pool(parts, voter)) for voter in VOTERS}
    for voter in VOTERS:
        assert summary[voter.replace(" ", "_")] == pytest.approx(expected[voter]), voter
    members = [expected["member-00"], expected["member-01"]]
    assert summary["mean_member"] == pytest.approx({name: np.mean([m[name] for m in members]) for name in members[0]})
    labels, probabilities = pool(parts)
    confusion = sk.confusion_matrix(labels, probabilities.argmax(axis=1))
    assert not np.array_equal(confusion, confusion.T)
    assert [[summary["confusion"][a][b] for b in CLASSES] for a in CLASSES] == confusion.tolist()
    assert summary["independent_groups"] == {"glioma": 6, "none": 12, "pituitary": 18}
    assert (summary["images"], summary["folds_run"]) == (144, 4)


def test_folds_and_seeds_have_their_own_metrics_and_spread(folds, summary):
    of_fold = [recomputed(*pool([votes])) for votes in folds.values()]
    assert summary["folds"]["accuracy"] == pytest.approx(
        [np.mean([f["accuracy"] for f in of_fold]), np.std([f["accuracy"] for f in of_fold], ddof=1)]
    )
    of_seed = {str(seed): recomputed(*pool([folds[seed, 0], folds[seed, 1]])) for seed in (4, 9)}
    assert summary["seeds"].keys() == of_seed.keys()
    for seed, expected in of_seed.items():
        assert summary["seeds"][seed] == pytest.approx(expected)
    for name, (mean, deviation) in summary["spread_of_seeds"].items():
        values = [expected[name] for expected in of_seed.values()]
        assert (mean, deviation) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))
    assert crossval.spread([{"accuracy": 0.25}]) == {"accuracy": [0.25, 0.0]}


def test_intervals_and_differences_are_of_draws_of_whole_groups(folds, summary):
    parts = list(folds.values())
    labels, ensemble = pool(parts)
    groups, rng, draws, differences = np.concatenate([one.groups for one in parts]), np.random.default_rng(0), [], []
    for _ in range(150):
        rows = np.concatenate([np.flatnonzero(groups == group) for group in rng.integers(0, 36, 36)])
        draws.append([*recomputed(labels[rows], ensemble[rows]).values()])
        right = {voter: np.mean(pool(parts, voter)[1][rows].argmax(axis=1) == labels[rows]) for voter in VOTERS}
        differences.append([right["ensemble"] - right[voter] for voter in VOTERS[1:]])
    for names, values, key in (([*summary["ensemble"]], draws, "interval"), (VOTERS[1:], differences, "accuracy_above")):
        low, high = np.percentile(values, [2.5, 97.5], axis=0)
        assert [*summary[key]] == names
        for place, name in enumerate(names):
            assert summary[key][name] == pytest.approx([low[place], high[place]]), name
    assert summary["accuracy_above"]["member-01"][0] > 0


def test_the_plot_shows_the_voters_the_folds_and_the_confusion_matrix(folds, summary, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = []
    monkeypatch.setattr(crossval.pictures, "crossval", lambda *values: shown.append(values) or b"PNG")
    crossval.draw(summary, list(folds.values()))
    assert (tmp_path / "plots/crossval.png").read_bytes() == b"PNG"
    [(accuracies, interval, of_folds, counts, classes)] = shown
    assert accuracies == {
        name: summary[name.replace(" ", "_")]["accuracy"] for name in ("ensemble", "uniform vote", "best member", "mean member")
    }
    assert interval == summary["interval"]["accuracy"]
    assert of_folds == pytest.approx([recomputed(*pool([votes]))["accuracy"] for votes in folds.values()])
    assert counts.tolist() == [list(row.values()) for row in summary["confusion"].values()]
    assert classes == CLASSES
