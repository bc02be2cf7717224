"""Cross-validate the default, the presets, and what could be used instead, on the same folds.

    python -m benchmarks.accuracy --source FOLDER                 (all: hours)
    python -m benchmarks.accuracy --source FOLDER default frozen hog-svm

`seeds` is the default with seeds 1, 2 and 3, and prediction sets with three error rates, in
seeds-0.1.json, seeds-0.05.json and seeds-0.04.json.

FOLDER has a folder of images for each class; it may not be in the repository. Folds of the pipeline
are DVC experiments, so those that are complete are not run again. Nor are members that two of these
have in common, as the default and `fine-tuned` have: for CPU times, run each in a clone of its own.
`make docs` writes the tables and the figure of what is in docs/results.

Writes  docs/results/NAME.json: what metrics/crossval.json holds (of others than the pipeline, the
        metrics and their intervals), `members`, and `cpu_minutes`, of a fold, null if not all folds
        ran now; docs/results/default.png
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.commands import compose, dvc, python
from benchmarks.watching import CpuTime
from brainmri.common.files import write_json
from brainmri.common.paths import CROSSVAL_METRICS, METADATA, PLOTS, SPLIT
from brainmri.crossval.experiments import completed_folds, compose_params
from brainmri.crossval.summary import metric_intervals, voter_metrics
from brainmri.crossval.votes import Votes, pool_votes
from brainmri.evaluation.intervals import group_counts
from brainmri.evaluation.voting import ENSEMBLE
from docs.make_results import ERRORS
from tests.support.checkout import ROOT, checkout

RESULTS = ROOT / "docs/results"
PRESETS = ("scratch", "frozen", "fine-tuned", "original", "notebook-1", "notebook-2")
SEEDS = "seeds"
BASELINES = {  # modules of `benchmarks.contestants`, and their arguments
    "torchensemble": ("torchensemble", "2", "5", "48", "16"),
    "hog-svm": ("hog_svm",),
}
MEMBERS = {"torchensemble": 5, "hog-svm": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ["default", SEEDS, *PRESETS, *BASELINES]
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    parser.add_argument("--source", required=True, type=Path, help="folder of class folders")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    source = options.source.resolve()
    unknown = set(options.names) - {*names}
    if unknown:
        parser.error(f"{', '.join(unknown)}: expected some of {', '.join(names)}")
    RESULTS.mkdir(exist_ok=True)
    for name in options.names or names:
        if name in BASELINES:
            summary = cross_validate_baseline(name, source, options.seed)
        elif name == SEEDS:
            for error in map(str, ERRORS):
                summary = cross_validate(name, source, [1, 2, 3], "--error", error)
                write_json(RESULTS / f"{name}-{error}.json", summary)
            continue
        else:
            summary = cross_validate(name, source, [options.seed])
        write_json(RESULTS / f"{name}.json", summary)
        print(f"{name}: accuracy {summary[ENSEMBLE]['accuracy']:.3f}", flush=True)


def cross_validate(name: str, source: Path, seeds: list[int], *arguments: str) -> dict:
    """Cross-validate the pipeline with a preset, or with its defaults, here."""
    overrides = [f"data.source={source}", *([f"preset={name}"] if name in PRESETS else [])]
    params = compose_params(overrides)
    folds = range(params["split"]["folds"])
    runs = [(seed, fold) for seed in seeds for fold in folds]
    is_new = completed_folds(params).keys().isdisjoint(runs)
    settings = [word for override in overrides for word in ("-S", override)]
    with CpuTime() as cpu_time:
        listed = ",".join(map(str, seeds))
        python(ROOT, "-m", "brainmri.crossval", "--seeds", listed, *arguments, *settings)
    summary = json.loads(CROSSVAL_METRICS.read_bytes())
    CROSSVAL_METRICS.unlink()
    figure = PLOTS / "crossval.png"
    if name == "default":
        shutil.copyfile(figure, RESULTS / "default.png")
    figure.unlink()
    return {
        "members": params["members"],
        "cpu_minutes": cpu_time.seconds / 60 / len(runs) if is_new else None,
        **summary,
    }


def cross_validate_baseline(name: str, source: Path, seed: int) -> dict:
    """Cross-validate a contestant, on the pipeline's folds, in a checkout."""
    module, *arguments = BASELINES[name]
    params = compose_params([])
    votes = []
    seconds = 0.0
    with tempfile.TemporaryDirectory() as folder:
        project = checkout(Path(folder) / "project")
        for fold in range(params["split"]["folds"]):
            compose(project, {"data.source": source, "seed": seed, "split.fold": fold})
            dvc(project, "repro", "split")
            command = ["-m", f"benchmarks.contestants.{module}", *arguments, str(source)]
            with CpuTime() as cpu_time:
                output = python(ROOT, *command, str(project))
            seconds += cpu_time.seconds
            votes.append(make_votes(project, json.loads(output.splitlines()[-1])))
    pooled = pool_votes(votes)
    counts = group_counts(pooled.labels, pooled.groups, len(pooled.classes))
    bins, resamples = params["evaluate"]["bins"], params["evaluate"]["resamples"]
    return {
        "members": MEMBERS[name],
        "cpu_minutes": seconds / 60 / len(votes),
        ENSEMBLE: voter_metrics(pooled, ENSEMBLE, bins),
        "interval": metric_intervals(pooled, counts, resamples, bins),
    }


def make_votes(project: Path, probabilities: list[list[float]]) -> Votes:
    """Add the labels and groups of a project's test images to their probabilities."""
    metadata = json.loads((project / METADATA).read_bytes())
    split = json.loads((project / SPLIT).read_bytes())
    classes = metadata["classes"]
    return Votes(
        groups=np.array([split["groups"][row] for row in split["test"]]),
        labels=np.array([classes.index(metadata["images"][row]["class"]) for row in split["test"]]),
        classes=classes,
        probabilities={ENSEMBLE: np.array(probabilities)},
    )


if __name__ == "__main__":
    main()
