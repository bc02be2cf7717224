"""Train the default on images with given test images, without and with near duplicates of these.

    python -m benchmarks.given_test TRAINING TEST

Both are folders of class folders; they may not be in the repository. Training images that are near
duplicates of test images are dropped, then kept.

Writes  docs/results/given-test.json: by `split.overlap`, the numbers of training and of test
        images, the CPU time in minutes, and metrics of the test images
"""

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks.commands import compose, dvc
from benchmarks.watching import CpuTime
from brainmri.common.files import write_json
from brainmri.common.paths import ENSEMBLE_METRICS, SPLIT
from tests.support.checkout import ROOT, checkout

RESULT = ROOT / "docs/results/given-test.json"
METRICS = ("accuracy", "balanced_accuracy", "roc_auc", "log_loss", "expected_calibration_error")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("training", type=Path, help="folder of training images")
    parser.add_argument("test", type=Path, help="folder of test images")
    options = parser.parse_args()
    sources = {"data.source": options.training.resolve(), "data.test": options.test.resolve()}
    results = {}
    for overlap in ("drop", "keep"):
        results[overlap] = train_and_test({**sources, "split.overlap": overlap})
        print(f"{overlap}: {json.dumps(results[overlap])}", flush=True)
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
