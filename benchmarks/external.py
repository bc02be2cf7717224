"""Train on one collection, and test the exported ensembles on another: a finding, or none.

    python -m benchmarks.external SOURCE COLLECTION

SOURCE has the class folders `no` and `yes`. In COLLECTION, whose class folders may be in others,
images in `no`, `notumor`, `normal` and the like have no finding, and all others have one. Neither
may be in the repository. The default is trained, on all folds of SOURCE but the first as always,
and so are the presets of its two kinds of members.

Writes  docs/results/external.json: for each, what `python -m brainmri.predict --labels` reports,
        without names of files, and in `recall_by_folder` the fraction that is right by the name of
        the class folder
"""

import argparse
import csv
import io
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from benchmarks.commands import compose, dvc
from brainmri.common.files import write_json
from brainmri.evaluation.classes import is_normal
from brainmri.evaluation.metrics import mean
from tests.support.checkout import ROOT, checkout

RESULT = ROOT / "docs/results/external.json"
NORMAL, FINDING = "no", "yes"
PRESETS = {"default": {}, "fine-tuned": {"preset": "fine-tuned"}, "scratch": {"preset": "scratch"}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder of training images")
    parser.add_argument("collection", type=Path, help="folder of other images")
    options = parser.parse_args()
    results = {}
    for name, preset in PRESETS.items():
        params = {"data.source": options.source.resolve(), **preset}
        results[name] = train_and_test(params, options.collection.resolve())
        print(f"{name}: {json.dumps(results[name])}", flush=True)
        write_json(RESULT, results)


def train_and_test(params: dict[str, object], collection: Path) -> dict:
    """Run the pipeline in a checkout, with these parameters; return metrics of other images."""
    classes = {
        path.relative_to(collection).as_posix(): NORMAL if is_normal(path.parent.name) else FINDING
        for path in sorted(collection.rglob("*"))
        if path.is_file() and path.parent != collection
    }
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "labels.csv"
        with table.open("w", newline="") as file:
            csv.writer(file).writerows([("path", "class"), *classes.items()])
        project = checkout(Path(folder) / "project")
        compose(project, params)
        dvc(project, "repro", "export")
        command = [sys.executable, "-m", "brainmri.predict", "--csv", "--table", table, collection]
        predicted = subprocess.run(command, cwd=project, check=True, capture_output=True, text=True)
    is_right = defaultdict(list)
    for row in csv.DictReader(io.StringIO(predicted.stdout)):
        below = Path(row["file"]).relative_to(collection)
        is_right[below.parent.name].append(row["class"] == classes[below.as_posix()])
    report = predicted.stderr[predicted.stderr.index("{\n") :]
    metrics, _ = json.JSONDecoder().raw_decode(report)
    del metrics["near_duplicates"]
    return {**metrics, "recall_by_folder": {name: mean(hits) for name, hits in is_right.items()}}


if __name__ == "__main__":
    main()
