"""Cross-validation: trains and tests on every fold, each as an experiment of DVC's, and tells of all test images together.

    make crossval                                   (or: python -m crossval --seeds 1,2,3 -S members=9)

Folds run one after the other, each as `dvc exp run --temp -S split.fold=0 evaluate` runs it: in a folder of its own. An
experiment that is there already, of the same code, parameters and images, is not run again. Every image is a test image once for
each seed, for an ensemble that has not seen it nor a near duplicate of it.

Reads   params.yaml; plots/data/votes.csv of each fold's experiment
Writes  metrics/crossval.json, plots/crossval.png
"""

import argparse
import csv
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from dvc.utils.serialize import load_yaml, parse_yaml
from sklearn.metrics import confusion_matrix

from stages.shared import metrics, pictures
from stages.shared.errors import UserError
from stages.shared.files import write_bytes, write_json
from stages.shared.params import load_params
from stages.shared.voting import ENSEMBLE

CODE = ("stages", "dvc.yaml")


@dataclass(frozen=True)
class Votes:
    """What voters gave the test images of a fold.

    Attributes
    ----------
    groups : ndarray of int, shape (n,)
        Group of near duplicates of each image.
    labels : ndarray of int, shape (n,)
    classes : list of str
    probabilities : dict of str to ndarray of float, shape (n, classes)
        By voter.
    """

    groups: np.ndarray
    labels: np.ndarray
    classes: list[str]
    probabilities: dict[str, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m crossval", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default=None, help="seeds to repeat it with, such as 1,2,3; else that of params.yaml")
    parser.add_argument("--folds", default=None, help="folds to run, such as 0,1; else all")
    parser.add_argument("-S", "--set-param", action="append", default=[], metavar="NAME=VALUE", help="as of dvc exp run")
    options = parser.parse_args()
    load_params()  # or one clear line
    params = composed(options.set_param)
    seeds = numbers(options.seeds, "--seeds") or [params["seed"]]
    folds = numbers(options.folds, "--folds") or list(range(params["split"]["folds"]))

    wanted = [(seed, fold) for seed in seeds for fold in folds]
    done = finished(params)
    if missing := [one for one in wanted if one not in done]:
        for seed, fold in missing:  # one by one: DVC's queue may stop without a word (treeverse/dvc issue 10428)
            overrides = [f"seed={seed}", f"split.fold={fold}", *options.set_param]
            settings = [part for override in overrides for part in ("-S", override)]
            if subprocess.run(["dvc", "exp", "run", "--temp", "evaluate", *settings], check=False).returncode != 0:
                break
        done = finished(params)
    if failed := [f"seed {seed}, fold {fold}" for seed, fold in wanted if (seed, fold) not in done]:
        raise UserError(
            f"no result of {'; '.join(failed)}; put right what is told above, then run this again: folds that are done are kept"
        )

    summary = summarize({one: done[one] for one in wanted}, params["evaluate"]["resamples"], params["evaluate"]["bins"])
    write_json("metrics/crossval.json", summary)
    draw(summary, [done[one] for one in wanted])
    for name, value in summary[ENSEMBLE].items():
        shown = metrics.formatted(value, summary["interval"][name])
        of_folds = "none: too few images of a class in a fold"
        if summary["folds"][name]:
            of_folds = "{:.3f} ± {:.3f}".format(*summary["folds"][name])
        print(f"{name.replace('_', ' ')}: {shown}, folds {of_folds}")
    if reason := metrics.missing_metrics(summary["independent_groups"]):
        print(reason)


def numbers(text: str | None, option: str) -> list[int]:
    """The numbers of a list such as "1,2,3"."""
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError:
        raise UserError(f"{option} is {text!r}; expected whole numbers with commas, such as 0,1,2") from None


def finished(params: dict) -> dict[tuple[int, int], Votes]:
    """The votes of experiments of this code and these parameters, by seed and fold; of several, the newest's.

    Only those of the newest one's images count.
    """
    code, params = code_here(), comparable(params)
    found, images = {}, None
    listed = command("git", "for-each-ref", "--sort=creatordate", "--format=%(objectname) %(refname)", "refs/exps")
    for commit in [line.split()[0] for line in listed.splitlines() if "/celery/" not in line and "/exec/" not in line]:
        theirs = show(commit, "params.yaml")
        if comparable(theirs) == params and code_of(commit) == code:
            text = command("git", "show", f"{commit}:plots/data/votes.csv")
            source = show(commit, "dvc.lock")["stages"]["ingest"]["deps"]
            images = [dep.get("md5") for dep in source if dep["path"] == theirs["data"]["source"]]
            found[theirs["seed"], theirs["split"]["fold"]] = images, read_votes(text)
    return {key: votes for key, (theirs, votes) in found.items() if theirs == images}


def show(commit: str, path: str) -> dict:
    """A YAML file as it is in a commit."""
    return parse_yaml(command("git", "show", f"{commit}:{path}"), path)


def composed(overrides: list[str]) -> dict:
    """params.yaml as `dvc exp run -S` would make it of the overrides, which may name a preset."""
    from dvc.utils.hydra import compose_and_dump
    from hydra.errors import HydraException

    conf = str(Path("conf").resolve())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        try:
            compose_and_dump(path, conf, None, "compose", conf, overrides)
        except HydraException as error:
            raise UserError(f"--set-param: {str(error).splitlines()[0]}") from None
        return load_yaml(path)


def comparable(params: dict) -> dict:
    """The parameters that folds and seeds of one cross-validation share."""
    kept = {key: value for key, value in params.items() if key not in ("seed", "ensemble", "fan_out")}
    return {**kept, "split": {**kept["split"], "fold": None}}


def code_here() -> dict[str, str]:
    """Git's hashes of the pipeline's files as they are now, by path."""
    paths = command("git", "ls-files", "--", *CODE).split()
    return dict(zip(paths, command("git", "hash-object", *paths).split(), strict=True))


def code_of(commit: str) -> dict[str, str]:
    """Git's hashes of the pipeline's files in a commit, by path."""
    entries = [line.split() for line in command("git", "ls-tree", "-r", commit, "--", *CODE).splitlines()]
    return {path: blob for _, _, blob, path in entries}


def read_votes(text: str) -> Votes:
    header, *lines = csv.reader(text.splitlines())
    classes = [column.removeprefix("probability of ") for column in header[4:]]
    of_voter: dict[str, list[list[str]]] = {}
    for line in lines:
        of_voter.setdefault(line[0], []).append(line)
    first = of_voter[ENSEMBLE]
    probabilities = {voter: np.array([line[4:] for line in table], float) for voter, table in of_voter.items()}
    groups = np.array([line[2] for line in first], int)
    return Votes(groups, np.array([classes.index(line[3]) for line in first]), classes, probabilities)


def summarize(votes: dict[tuple[int, int], Votes], resamples: int, bins: int) -> dict:
    """The figures of all test images together, of folds and of seeds."""
    parts = list(votes.values())
    classes, labels, groups = (
        parts[0].classes,
        *(np.concatenate([getattr(one, key) for one in parts]) for key in ("labels", "groups")),
    )
    counts = metrics.group_counts(labels, groups, len(classes))
    voters = [voter for voter in parts[0].probabilities if all(voter in one.probabilities for one in parts)]
    pooled = {voter: np.concatenate([one.probabilities[voter] for one in parts]) for voter in voters}
    figures = {voter: metrics.reportable(metrics.all_metrics(labels, pooled[voter], bins), counts) for voter in voters}
    members = [voter for voter in voters if voter.startswith("member-")]
    seeds = sorted({seed for seed, _ in votes})
    of_fold = [pooled_metrics([one], bins) for one in parts]
    of_seed = [pooled_metrics([one for (of, _), one in votes.items() if of == seed], bins) for seed in seeds]

    def differences(sample: np.ndarray) -> dict[str, float]:
        right = {voter: np.mean(pooled[voter][sample].argmax(axis=1) == labels[sample]) for voter in voters}
        return {voter: float(right[ENSEMBLE] - right[voter]) for voter in voters if voter != ENSEMBLE}

    return {
        ENSEMBLE: figures[ENSEMBLE],
        "interval": metrics.intervals(
            lambda sample: metrics.all_metrics(labels[sample], pooled[ENSEMBLE][sample], bins), groups, counts, resamples, 0
        ),
        "folds": spread(of_fold),
        "seeds": {str(seed): one for seed, one in zip(seeds, of_seed, strict=True)},
        "spread_of_seeds": spread(of_seed),
        "mean_member": {name: metrics.mean_or_none([figures[voter][name] for voter in members]) for name in figures[ENSEMBLE]},
        **{voter.replace(" ", "_"): figures[voter] for voter in voters if voter != ENSEMBLE},
        "accuracy_above": metrics.intervals(differences, groups, counts, resamples, 0),
        "independent_groups": dict(zip(classes, counts, strict=True)),
        "confusion": {
            name: dict(zip(classes, counts, strict=True))
            for name, counts in zip(
                classes,
                confusion_matrix(labels, pooled[ENSEMBLE].argmax(axis=1), labels=range(len(classes))).tolist(),
                strict=True,
            )
        },
        "images": len(labels),
        "folds_run": len(parts),
    }


def draw(summary: dict, votes: list[Votes]) -> None:
    """The picture: voters, folds and the confusion matrix."""
    told = {"ensemble": ENSEMBLE, "uniform vote": "uniform_vote", "best member": "best_member", "mean member": "mean_member"}
    of_folds = [float(np.mean(one.probabilities[ENSEMBLE].argmax(axis=1) == one.labels)) for one in votes]
    counts = np.array([list(row.values()) for row in summary["confusion"].values()])
    accuracies = {label: summary[key]["accuracy"] for label, key in told.items()}
    picture = pictures.crossval(accuracies, summary["interval"]["accuracy"], of_folds, counts, list(summary["confusion"]))
    write_bytes("plots/crossval.png", picture)


def pooled_metrics(parts: list[Votes], bins: int) -> dict[str, float | None]:
    """Compute the ensemble's metrics on the test images of these folds together."""
    labels, groups = (np.concatenate([getattr(part, key) for part in parts]) for key in ("labels", "groups"))
    probabilities = np.concatenate([part.probabilities[ENSEMBLE] for part in parts])
    counts = metrics.group_counts(labels, groups, probabilities.shape[1])
    return metrics.reportable(metrics.all_metrics(labels, probabilities, bins), counts)


def spread(of_parts: list[dict[str, float | None]]) -> dict[str, list[float] | None]:
    """Compute mean and standard deviation of each metric over folds or seeds; None where one of them lacks it."""
    values = {name: [part[name] for part in of_parts] for name in of_parts[0]}
    return {
        name: None if None in of_metric else [float(np.mean(of_metric)), float(np.std(of_metric, ddof=len(of_parts) > 1))]
        for name, of_metric in values.items()
    }


def command(*words: str) -> str:
    """Run a command and return what it printed."""
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise UserError(f"`{' '.join(words[:4])}` failed: {reason[-1].removeprefix('error: ') if reason else done.returncode}")
    return done.stdout


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
