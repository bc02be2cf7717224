"""Train the default on images with given test images, without and with near duplicates of these.

    python -m benchmarks.given_test TRAINING TEST                 (all)
    python -m benchmarks.given_test TRAINING TEST drop keep

Both are folders of class folders; they may not be in the repository. In the run `drop`, training
images that are near duplicates of test images are dropped; in `keep` they are kept; `all_epochs` is
`drop` with the epochs that few images need, which `train.epochs: auto` lowers for many.

Writes  docs/results/given-test.json: by the name of the run, the numbers of training and of test
        images, the CPU time in minutes, and metrics of the test images; other runs stay in it
"""

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks.commands import compose, dvc
from benchmarks.watching import CpuTime
from brainmri.common.files import write_json
from brainmri.common.paths import ENSEMBLE_METRICS, SPLIT
from brainmri.training.budget import FINE_TUNING_EPOCHS, SCRATCH_EPOCHS
from tests.support.checkout import ROOT, checkout

RESULT = ROOT / "docs/results/given-test.json"
RUNS = {
    "drop": {"split.overlap": "drop"},
    "keep": {"split.overlap": "keep"},
    "all_epochs": {
        "split.overlap": "drop",
        "+recipes.fine-tuned.epochs": FINE_TUNING_EPOCHS,
        "+recipes.scratch.epochs": SCRATCH_EPOCHS,
    },
}
METRICS = ("accuracy", "balanced_accuracy", "roc_auc", "log_loss", "expected_calibration_error")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("training", type=Path, help="folder of training images")
    parser.add_argument("test", type=Path, help="folder of test images")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(RUNS))
    options = parser.parse_args()
    unknown = set(options.names) - {*RUNS}
    if unknown:
        parser.error(f"{', '.join(unknown)}: expected some of {', '.join(RUNS)}")
    sources = {"data.source": options.training.resolve(), "data.test": options.test.resolve()}
    results = json.loads(RESULT.read_bytes()) if RESULT.exists() else {}
    for name in options.names or RUNS:
        results[name] = train_and_test({**sources, **RUNS[name]})
        print(f"{name}: {json.dumps(results[name])}", flush=True)
        write_json(RESULT, results)


def train_and_test(params: dict[str, object]) -> dict:
    """Run the pipeline up to its metrics in a checkout, with these parameters, and return them."""
    with tempfile.TemporaryDirectory() as folder:
        project = checkout(Path(folder) / "project")
        compose(project, params)
        with CpuTime() as cpu_time:
            dvc(project, "repro", "evaluate")
        metrics = json.loads((project / ENSEMBLE_METRICS).read_bytes())
        split = json.loads((project / SPLIT).read_bytes())
    return {
        "training_images": len(split["training"]),
        "test_images": len(split["test"]),
        "cpu_minutes": cpu_time.seconds / 60,
        **{name: metrics[name] for name in METRICS},
        "recall": metrics["recall"],
        "interval": metrics["interval"],
    }


if __name__ == "__main__":
    main()
