"""Cross-validation: which experiments count as its folds, and what is computed of their votes."""

import csv
import io
import json
import os
import subprocess
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.special import softmax, xlogy
from sklearn import metrics as sk

from brainmri.common.errors import UserError
from brainmri.crossval import report
from brainmri.crossval.__main__ import parse_numbers
from brainmri.crossval.experiments import completed_folds
from brainmri.crossval.summary import spread, summarize
from brainmri.crossval.votes import Decisions, Votes, parse_votes, pool_votes

PARAMS = {
    "seed": 0,
    "members": 1,
    "data": {"source": "data/raw"},
    "further_input": "data/table.csv",
    "split": {"folds": 3, "fold": 0, "near_duplicate_bits": 20},
    "train": {"epochs": 4},
    "evaluate": {"positive": None},
    "fan_out": {"jobs": "auto"},
    "ensemble": {"member-00": {"seed": 0}},
}
CLASSES = ["glioma", "none", "pituitary"]
METRICS = {"decision_rule": {"name": "youden"}, "calibration_groups": {"none": 9, "glioma": 7}}
DECIDE = {"rule": "argmax", "costs": {}, "error": 0.1, "prevalence": None}
CODE = {"brainmri/metrics.py": "print(0)\n", "stages/train.py": "print()\n"}


class Experiments:
    """A Git repository with experiments as DVC commits them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.clock = count(1_700_000_000)
        self.inputs = {"data/raw": "a.dir", "data/table.csv": "table"}
        self.git("init", "-q")
        files = {**CODE, "dvc.yaml": "stages: {}\n", "params.yaml": yaml.safe_dump(PARAMS)}
        self.commit("Sources", files)

    def git(self, *words: str) -> None:
        """Run Git as some author, a second later than before."""
        date = f"{next(self.clock)} +0000"
        environment = {**os.environ, "GIT_COMMITTER_DATE": date, "GIT_AUTHOR_DATE": date}
        for role in ("AUTHOR", "COMMITTER"):
            environment |= {f"GIT_{role}_NAME": "Tester", f"GIT_{role}_EMAIL": "a@example.org"}
        command = ["git", *words]
        subprocess.run(command, cwd=self.folder, env=environment, check=True, capture_output=True)

    def commit(self, message: str, files: dict[str, str]) -> None:
        for path, content in files.items():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_text(content)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)

    def add(
        self,
        mark: int,
        seed: int = 0,
        fold: int = 0,
        code: dict[str, str] = CODE,
        images: str = "a.dir",
        table: str = "table",
        ref: str = "refs/exps/ab/cdef",
        evaluated: int | None = None,
        is_complete: bool = True,
        **changes,
    ) -> None:
        """Add an experiment whose single test image has the group `mark`.

        `evaluated` is the fold whose split `evaluate` read; one that is not complete was trained
        with other parameters.
        """
        split = {**PARAMS["split"], "fold": fold, **changes.pop("split", {})}
        params = {**PARAMS, "seed": seed, **changes, "split": split}
        dependencies = [
            {"path": "stages/train.py", "md5": code["stages/train.py"]},
            {"path": "data/raw", "md5": images},
            {"path": "data/table.csv", "md5": table},
        ]
        base = params if is_complete else {**params, "train": {"epochs": 90}}
        used = {name: base[name] for name in ("seed", "split", "train")}
        former = {"ensemble.member-07": {"seed": 7}}
        stages = {
            "ingest": {"deps": dependencies},
            "split": {"outs": [{"path": "data/split.json", "md5": f"{fold}"}]},
            "train@member-00": {"params": {"params.yaml": used}},
            "train@member-07": {"params": {"params.yaml": former}},  # as DVC leaves them
            "evaluate": {"deps": [{"path": "data/split.json", "md5": f"{evaluated or fold}"}]},
            "report": {"params": {"params.yaml": {"seed": 99}}},
        }
        files = {
            **code,
            "params.yaml": yaml.safe_dump(params),
            "dvc.lock": yaml.safe_dump({"stages": stages}),
            "plots/data/votes.csv": votes_table({"ensemble": [[0.2, 0.5, 0.3]]}, [mark], ["none"]),
            "plots/data/predictions.csv": predictions_table(["none"], [[0.1, 0.6, 0.2]]),
            "metrics/ensemble.json": json.dumps(METRICS),
        }
        self.commit("Experiment", files)
        self.git("update-ref", f"{ref}/exp-{mark}", "HEAD")
        self.git("reset", "-q", "--hard", "HEAD~1")

    def counted(self, **changes) -> dict[tuple[int, int], int]:
        """Return the marks of those that count, by seed and fold."""
        folds = completed_folds({**PARAMS, **changes})
        return {key: int(votes.groups[0]) for key, votes in folds.items()}


@pytest.fixture
def experiments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = Experiments(tmp_path)
    monkeypatch.setattr("brainmri.crossval.experiments.current_inputs", lambda _: made.inputs)
    return made


def votes_table(voters: dict[str, list], groups: list[int], labels: list[str]) -> str:
    """Format votes as votes.csv."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    columns = [f"probability of {name}" for name in CLASSES]
    table.writerow(["voter", "row", "group", "class", *columns])
    for voter, votes in voters.items():
        for position, vote in enumerate(votes):
            table.writerow([voter, 90 - position, groups[position], labels[position], *vote])
    return text.getvalue()


def predictions_table(predicted: list[str], p_values: list[list[float]]) -> str:
    """Format decisions as predictions.csv."""
    names = [f"{key} of {name}" for key in ("probability", "p-value") for name in CLASSES]
    lines = [",".join(["image", "class", "predicted", *names])]
    for name, values in zip(predicted, p_values, strict=True):
        lines.append(",".join(map(str, ["x", "none", name, 0.1, 0.1, 0.8, *values])))
    return "\n".join(lines) + "\n"


def test_experiments_count_by_seed_and_fold(experiments):
    assert experiments.counted() == {}
    experiments.add(1, seed=0, fold=0)
    experiments.add(2, seed=0, fold=2)
    experiments.add(3, seed=7, fold=2, ensemble={"member-00": {"seed": 7000}}, fan_out={"jobs": 3})
    expected = {(0, 0): 1, (0, 2): 2, (7, 2): 3}
    assert experiments.counted() == expected
    assert experiments.counted(seed=7) == expected
    assert experiments.counted(fan_out={"jobs": 1}) == expected


def test_newest_experiment_of_a_fold_counts(experiments):
    for mark in (9, 3, 5):
        experiments.add(mark)
    assert experiments.counted() == {(0, 0): 5}


@pytest.mark.parametrize("path", CODE)
def test_other_code_does_not_count(experiments, path):
    experiments.add(1, fold=0)
    experiments.add(2, fold=1, code={**CODE, path: "print(1)\n"})
    assert experiments.counted() == {(0, 0): 1}
    (experiments.folder / path).write_text("print(1)\n")
    assert experiments.counted() == {(0, 1): 2}
    (experiments.folder / "dvc.yaml").write_text("stages: {more: {}}\n")
    assert experiments.counted() == {}


def test_parameters_of_other_code_are_not_read(experiments):
    """They need not have today's sections."""
    experiments.add(1)
    others = {"stages/train.py": "print(1)\n", "params.yaml": "members: 1\n", "dvc.lock": "[\n"}
    experiments.commit("Experiment", others)
    experiments.git("update-ref", "refs/exps/ab/cdef/exp-2", "HEAD")
    experiments.git("reset", "-q", "--hard", "HEAD~1")
    assert experiments.counted() == {(0, 0): 1}


def test_code_of_commands_does_not_matter(experiments):
    """No stage runs the code of `predict` and the other commands."""
    experiments.add(1)
    path = "brainmri/predict/output.py"
    experiments.commit("A command", {path: "print(0)\n"})
    experiments.add(2, fold=1, code={**CODE, path: "print(1)\n"})
    assert experiments.counted() == {(0, 0): 1, (0, 1): 2}


def test_other_parameters_do_not_count(experiments):
    experiments.add(1, fold=0)
    experiments.add(2, fold=1, train={"epochs": 5})
    experiments.add(3, fold=2, members=2)
    experiments.add(4, fold=1, split={"folds": 4})
    assert experiments.counted() == {(0, 0): 1}
    assert experiments.counted(train={"epochs": 5}) == {(0, 1): 2}


def test_other_images_do_not_count(experiments):
    """Than those of today, even if no experiment is newer."""
    experiments.add(1, fold=0)
    experiments.add(2, fold=1)
    experiments.add(3, fold=1, images="b.dir")
    assert experiments.counted() == {(0, 0): 1, (0, 1): 2}
    experiments.inputs["data/raw"] = "b.dir"
    assert experiments.counted() == {(0, 1): 3}
    experiments.inputs["data/raw"] = "c.dir"
    assert experiments.counted() == {}


def test_other_tables_of_labels_do_not_count(experiments):
    experiments.add(1, fold=0)
    experiments.add(2, fold=1, table="corrected")
    assert experiments.counted() == {(0, 0): 1}


def test_experiments_of_some_stages_do_not_count(experiments):
    """They have the votes of the commit that they began with."""
    experiments.add(1, fold=0)
    experiments.add(2, fold=1, evaluated=5)
    experiments.add(3, fold=2, is_complete=False)
    assert experiments.counted() == {(0, 0): 1}


def test_internal_refs_do_not_count(experiments):
    experiments.add(1, ref="refs/exps/celery/stash")
    experiments.add(2, ref="refs/exps/exec")
    assert experiments.counted() == {}


def test_parsed_votes():
    voters = {
        "ensemble": [[0.2, 0.5, 0.3], [0.7, 0.1, 0.2]],
        "member-00": [[0.1, 0.6, 0.3], [0.8, 0.2, 0.0]],
    }
    p_values = [[0.1, 0.2, 0.9], [0.8, 0.05, 0.3]]
    votes = parse_votes(
        votes_table(voters, [4, 2], ["pituitary", "glioma"]),
        predictions_table(["pituitary", "none"], p_values),
        METRICS,
        "none",
    )
    assert votes.decisions.rules == ("youden",)
    assert votes.decisions.calibration_groups == 7
    assert votes.decisions.labels.tolist() == [2, 1]
    assert votes.decisions.p_values.tolist() == p_values
    assert votes.positive == 1
    assert votes.classes == CLASSES
    assert votes.groups.tolist() == [4, 2]
    assert votes.labels.tolist() == [2, 0]
    assert {voter: values.tolist() for voter, values in votes.probabilities.items()} == voters


def test_parsed_numbers():
    assert parse_numbers("2,0,11", "--folds") == [2, 0, 11]
    assert parse_numbers(None, "--folds") == []
    with pytest.raises(UserError, match="--folds is '1;2'"):
        parse_numbers("1;2", "--folds")


VOTERS = ["ensemble", "uniform vote", "best member", "member-00", "member-01"]
SKILLS = [2.0, 1.4, 1.1, 0.7, 0.3]
GROUPS = 36


@pytest.fixture(scope="module")
def folds():
    """Votes of two seeds and two folds: unequal classes and groups of one to three images."""
    rng, votes = np.random.default_rng(2), {}
    sizes = 1 + np.arange(GROUPS) % 3
    groups = np.repeat(np.arange(GROUPS), sizes)
    labels = np.repeat(np.array([0, 1, 1, 2, 2, 2] * 6), sizes)
    for seed in (4, 9):
        fold_of = rng.permutation(GROUPS)[groups] % 2
        for fold in (0, 1):
            rows = np.flatnonzero(fold_of == fold)
            noise = rng.normal(size=(len(VOTERS), len(rows), 3))
            one_hot = np.eye(3)[labels[rows]]
            probabilities = {
                voter: softmax(noise[place] + SKILLS[place] * one_hot, axis=1)
                for place, voter in enumerate(VOTERS)
            }
            of_ensemble = probabilities["ensemble"]
            votes[seed, fold] = Votes(
                groups[rows],
                labels[rows],
                CLASSES,
                probabilities,
                decisions=Decisions(of_ensemble.argmax(axis=1), of_ensemble, ("argmax",), 9),
            )
    return votes


@pytest.fixture(scope="module")
def summary(folds):
    return summarize(folds, resamples=150, bins=5, decide=DECIDE)


def decide(votes: Votes, **changes) -> Votes:
    """Return the votes with other decisions."""
    return replace(votes, decisions=replace(votes.decisions, **changes))


def recomputed(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Compute all metrics with scikit-learn or by hand."""
    predicted, one_hot = probabilities.argmax(axis=1), np.eye(3)[labels]
    confidence, is_correct = probabilities.max(axis=1), predicted == labels
    places = np.minimum(np.floor(confidence * 5), 4)
    error = 0.0
    for place in np.unique(places):
        in_bin = places == place
        distance = abs(confidence[in_bin].mean() - is_correct[in_bin].mean())
        error += distance * np.mean(in_bin)
    classes = [label for label in range(3) if label in labels]
    one_vs_rest = [(labels == label, probabilities[:, label]) for label in classes]
    return {
        "accuracy": np.mean(is_correct),
        "balanced_accuracy": np.mean([is_correct[labels == label].mean() for label in classes]),
        "roc_auc": np.mean([sk.roc_auc_score(*pair) for pair in one_vs_rest]),
        "average_precision": np.mean([sk.average_precision_score(*pair) for pair in one_vs_rest]),
        "f1": sk.f1_score(labels, predicted, labels=classes, average="macro"),
        "log_loss": -xlogy(one_hot, probabilities).sum(axis=1).mean(),
        "brier_score": ((probabilities - one_hot) ** 2).sum(axis=1).mean(),
        "expected_calibration_error": error,
    }


def pool(folds: list[Votes], voter: str = "ensemble") -> tuple[np.ndarray, np.ndarray]:
    """Join labels and a voter's probabilities of several folds."""
    labels = np.concatenate([votes.labels for votes in folds])
    return labels, np.concatenate([votes.probabilities[voter] for votes in folds])


def test_pooled_metrics_of_each_voter(folds, summary):
    parts = list(folds.values())
    expected = {voter: recomputed(*pool(parts, voter)) for voter in VOTERS}
    for voter in VOTERS:
        assert summary[voter.replace(" ", "_")] == pytest.approx(expected[voter]), voter
    members = [expected["member-00"], expected["member-01"]]
    means = {name: np.mean([values[name] for values in members]) for name in members[0]}
    assert summary["mean_member"] == pytest.approx(means)
    labels, probabilities = pool(parts)
    confusion = sk.confusion_matrix(labels, probabilities.argmax(axis=1))
    assert not np.array_equal(confusion, confusion.T)
    for row, name in enumerate(CLASSES):
        counts = dict(zip(CLASSES, confusion[row].tolist(), strict=True))
        assert summary["confusion"][name] == counts
    assert summary["independent_groups"] == {"glioma": 6, "none": 12, "pituitary": 18}
    assert summary["images"] == 144
    assert summary["folds_run"] == 4


def test_metrics_and_spread_of_folds_and_seeds(folds, summary):
    of_fold = [recomputed(*pool([votes]))["accuracy"] for votes in folds.values()]
    expected = [np.mean(of_fold), np.std(of_fold, ddof=1)]
    assert summary["folds"]["accuracy"] == pytest.approx(expected)
    of_seed = {str(seed): recomputed(*pool([folds[seed, 0], folds[seed, 1]])) for seed in (4, 9)}
    assert summary["seeds"].keys() == of_seed.keys()
    for seed, values in of_seed.items():
        assert summary["seeds"][seed] == pytest.approx(values)
    for name, (mean, deviation) in summary["spread_of_seeds"].items():
        values = [metrics[name] for metrics in of_seed.values()]
        assert mean == pytest.approx(np.mean(values))
        assert deviation == pytest.approx(np.std(values, ddof=1))
    assert spread([{"accuracy": 0.25}]) == {"accuracy": [0.25, 0.0]}


def test_intervals_draw_whole_groups(folds, summary):
    parts = list(folds.values())
    labels, ensemble = pool(parts)
    groups = np.concatenate([votes.groups for votes in parts])
    rng, draws, differences = np.random.default_rng(0), [], []
    for _ in range(150):
        drawn = rng.integers(0, GROUPS, GROUPS)
        rows = np.concatenate([np.flatnonzero(groups == group) for group in drawn])
        draws.append([*recomputed(labels[rows], ensemble[rows]).values()])
        accuracy = {}
        for voter in VOTERS:
            _, probabilities = pool(parts, voter)
            accuracy[voter] = np.mean(probabilities[rows].argmax(axis=1) == labels[rows])
        differences.append([accuracy["ensemble"] - accuracy[voter] for voter in VOTERS[1:]])
    for names, values, key in (
        ([*summary["ensemble"]], draws, "interval"),
        (VOTERS[1:], differences, "accuracy_above"),
    ):
        low, high = np.percentile(values, [2.5, 97.5], axis=0)
        assert [*summary[key]] == names
        for place, name in enumerate(names):
            assert summary[key][name] == pytest.approx([low[place], high[place]]), name
    assert summary["accuracy_above"]["member-01"][0] > 0


def test_decisions_are_those_of_the_rule(folds):
    """Also their costs, and predictive values at another prevalence."""
    decided = {
        key: replace(
            decide(votes, labels=np.full_like(votes.labels, 2), rules=("costs",)), positive=2
        )
        for key, votes in folds.items()
    }
    costs = {"none": {"pituitary": 6.0}}
    rule_of_costs = {"rule": "costs", "costs": costs, "error": 0.1, "prevalence": 0.01}
    summary = summarize(decided, 100, 5, rule_of_costs)
    labels, _ = pool(list(folds.values()))
    counts = np.bincount(labels)
    assert summary["confusion"]["none"] == {"glioma": 0, "none": 0, "pituitary": counts[1]}
    rule = summary["decision_rule"]
    assert rule["name"] == "costs"
    assert rule["accuracy"] == pytest.approx(counts[2] / len(labels))
    assert rule["mean_cost"] == pytest.approx((counts[0] + 6 * counts[1]) / len(labels))
    assert rule["at_prevalence"]["ppv"] == pytest.approx(0.01)
    unused = {**DECIDE, "costs": {"of another set": {"none": 2.0}}}
    assert "mean_cost" not in summarize(decided, 100, 5, unused)["decision_rule"]


def test_patients_are_decided_by_a_rule_of_their_own(folds):
    """And have sets of their own. Patients are the groups here; each is called "pituitary"."""
    decided = {}
    for key, votes in folds.items():
        values = np.where(np.eye(3)[votes.labels] == 1, 1.0, 0.05)
        of_patients = Decisions(np.full_like(votes.labels, 2), values, ("argmax",), 9)
        decided[key] = replace(
            decide(votes, rules=("youden",)),
            positive=2,
            patients=votes.groups,
            patient_decisions=of_patients,
        )
    by_patient = summarize(decided, 100, 5, DECIDE)["by_patient"]
    rule, sets = by_patient["decision_rule"], by_patient["prediction_sets"]
    assert rule["name"] == "argmax"
    assert rule["accuracy"] == pytest.approx(3 / 6)
    assert (rule["rates"]["sensitivity"], rule["rates"]["specificity"]) == (1, 0)
    assert (sets["coverage"], sets["decided"], sets["decided_accuracy"]) == (1, 0.5, 1)
    assert (
        "prediction_sets" not in summarize(decided, 100, 5, {**DECIDE, "error": 0.09})["by_patient"]
    )


def test_parsed_patients():
    """Of one with several classes nothing is decided; a fold may have no others."""
    header = "image,class,predicted,p-value of no,p-value of yes,predicted of the patient"
    header += ",patient's p-value of no,patient's p-value of yes\n"
    tables = (
        "voter,row,group,patient,class,probability of no,probability of yes\n"
        "ensemble,0,0,0,no,0.9,0.1\nensemble,1,1,1,yes,0.2,0.8\n",
        f"{header}x,no,no,0.9,0.1,no,0.7,0.2\ny,yes,yes,0.1,0.9,,,\n",
    )
    metrics = {"decision_rule": {"name": "youden"}, "calibration_groups": {"no": 30, "yes": 20}}
    by_patient = {"decision_rule": {"name": "argmax"}, "calibration_groups": {"no": 5, "yes": 9}}
    votes = parse_votes(*tables, {**metrics, "by_patient": by_patient}, None)
    mixed = f"{header}x,no,no,0.9,0.1,,,\ny,yes,yes,0.1,0.9,,,\n"
    others = parse_votes(tables[0], mixed, {**metrics, "by_patient": {"mixed_patients": 2}}, None)
    for patients in (votes.patient_decisions, pool_votes([votes, others]).patient_decisions):
        assert patients.labels.tolist()[:2] == [0, -1]
        assert patients.p_values[0].tolist() == [0.7, 0.2]
        assert np.isnan(patients.p_values[1:]).all()
        assert (patients.rules, patients.calibration_groups) == (("argmax",), 5)


def test_rules_that_folds_applied_are_named(folds):
    """A fold with too few groups for a threshold predicts the most probable class."""
    applied = {key: decide(votes, rules=("youden",)) for key, votes in folds.items()}
    assert summarize(applied, 100, 5, DECIDE)["decision_rule"]["name"] == "youden"
    applied |= dict(list(folds.items())[:1])
    assert summarize(applied, 100, 5, DECIDE)["decision_rule"]["name"] == "argmax, youden"


def test_sets_need_enough_groups_in_each_fold(folds, summary, capsys):
    """As in `evaluate`. Sets that exclude nothing are sets, too."""
    assert "prediction_sets" in summary
    last = [*folds][-1]
    few = {**folds, last: decide(folds[last], calibration_groups=8)}
    without_sets = summarize(few, 100, 5, DECIDE)
    assert "prediction_sets" not in without_sets
    report.print_summary(without_sets)
    printed = capsys.readouterr().out
    assert "no prediction sets: too few independent groups" in printed
    assert "\n\n" not in printed
    assert "prediction_sets" in summarize(few, 100, 5, {**DECIDE, "error": 0.12})
    unsure = {
        key: decide(votes, p_values=np.ones_like(votes.decisions.p_values))
        for key, votes in folds.items()
    }
    assert summarize(unsure, 100, 5, DECIDE)["prediction_sets"]["decided"] == 0


def test_figure_shows_the_summary(folds, summary, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawn = []
    monkeypatch.setattr(
        report.crossval, "draw_crossval", lambda *values: drawn.append(values) or b"PNG"
    )
    report.write_figure(summary, list(folds.values()))
    assert (tmp_path / "plots/crossval.png").read_bytes() == b"PNG"
    [(accuracies, interval, fold_accuracies, counts, classes)] = drawn
    names = ("ensemble", "uniform vote", "best member", "mean member")
    assert accuracies == {name: summary[name.replace(" ", "_")]["accuracy"] for name in names}
    assert interval == summary["interval"]["accuracy"]
    expected = [recomputed(*pool([votes]))["accuracy"] for votes in folds.values()]
    assert fold_accuracies == pytest.approx(expected)
    assert counts.tolist() == [list(row.values()) for row in summary["confusion"].values()]
    assert classes == CLASSES


def test_printed_summary(summary, capsys):
    report.print_summary(summary)
    lines = capsys.readouterr().out.splitlines()
    *metric_lines, rule, sets = lines
    assert rule == "decision rule: argmax"
    assert len(metric_lines) == len(summary["ensemble"])
    assert sets.startswith("prediction sets for an error rate of 0.1: coverage of 'glioma' ")
    low, high = summary["interval"]["accuracy"]
    mean, deviation = summary["folds"]["accuracy"]
    assert lines[0] == (
        f"accuracy: {summary['ensemble']['accuracy']:.3f} (95 % interval {low:.3f} to {high:.3f}),"
        f" folds {mean:.3f} ± {deviation:.3f}"
    )
    assert summary["folds"]["roc_auc"] is None
    assert lines[2].startswith("ROC AUC: ")
    assert lines[2].endswith(", folds none: too few independent groups in a fold")
    report.print_summary({**summary, "independent_groups": {"glioma": 2, "none": 9}})
    *_, reason = capsys.readouterr().out.splitlines()
    assert reason.endswith("; 'glioma' has 2")
