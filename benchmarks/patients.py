"""Measure what a split overstates that tears patients apart.

    python -m benchmarks.patients [--patients N] [-S KEY=VALUE …]

Makes 40 patients, or another number, with 10 slices each. All slices of a patient show one healthy
anatomy, turned, shifted and scaled; half of the patients are called "yes" by lot, so nothing can be
learned that holds for another patient: an honest accuracy is about 0.5. Runs the pipeline without
and with `data.patient`.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from scipy.ndimage import affine_transform

from benchmarks.commands import compose, dvc
from brainmri.evaluation.metrics import format_metric
from brainmri.images.phantoms import draw, to_png
from tests.support.checkout import checkout

SLICES = 10
SIDE = 192  # pixels
PATTERN = r"'(P\d+)_'"
SETTINGS = {
    "preset": "scratch",
    "data.source": "data/raw",
    "members": 3,
    "train.epochs": 60,
    "ingest.image_size": 64,
    "ingest.crop": False,
    "train.mixup": 0,
    "train.augment.erase": 0,
}


def draw_slices(patient: int) -> list[np.ndarray]:
    """Draw the slices of a patient: uint8, shape (SIDE, SIDE)."""
    image = draw("no", np.random.default_rng(patient)).image
    center = np.array(image.shape) / 2
    slices = []
    for number in range(SLICES):
        rng = np.random.default_rng([patient, number])
        angle, scale = rng.normal(0, 0.2), rng.uniform(0.9, 1.25)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
        offset = center - turn @ (np.array([SIDE, SIDE]) / 2 + rng.normal(0, 8, 2))
        moved = affine_transform(image.astype(float), turn, offset, (SIDE, SIDE), order=1)
        noisy = moved * rng.uniform(0.8, 1.1) + rng.normal(0, 4, moved.shape)
        slices.append(np.clip(noisy, 0, 255).astype(np.uint8))
    return slices


def write_images(folder: Path, patients: int) -> None:
    """Write the images into class folders, named by patient and slice."""
    is_yes = np.random.default_rng(0).permutation(patients) < patients // 2
    for patient in range(patients):
        class_folder = folder / ("yes" if is_yes[patient] else "no")
        class_folder.mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(draw_slices(patient)):
            (class_folder / f"P{patient:02d}_{number}.png").write_bytes(to_png(image))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-S", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--patients", type=int, default=40, metavar="N")
    options = parser.parse_args()
    settings = SETTINGS | dict(setting.split("=", 1) for setting in options.settings)
    with tempfile.TemporaryDirectory() as folder:
        project = checkout(Path(folder) / "project")
        write_images(project / "data/raw", options.patients)
        for name, pattern in (("without", "null"), ("with", PATTERN)):
            compose(project, settings | {"data.patient": pattern})
            dvc(project, "repro", "evaluate")
            metrics = json.loads((project / "metrics/ensemble.json").read_text())
            split = json.loads((project / "data/split.json").read_text())
            accuracy = format_metric(metrics["accuracy"], metrics["interval"]["accuracy"])
            print(
                f"{name} data.patient: {max(split['groups']) + 1} groups, accuracy {accuracy} on"
                f" {metrics['test_images']} test images"
            )
            if "by_patient" in metrics:
                by_patient = metrics["by_patient"]
                print(f"  by patient: {by_patient['accuracy']:.3f} of {by_patient['patients']}")


if __name__ == "__main__":
    main()
