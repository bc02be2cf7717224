"""A folder with what the stages before `export` write, of known metrics, but without models."""

import hashlib
import json
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from brainmri.common.params import EditableParams, derive_ensemble, validate
from brainmri.images.cropping import crop_and_pad, head_box
from brainmri.images.phantoms import draw_phantom, to_png
from tests.support.project import scratch_params
from tests.support.store import make_store

SIDE = 16
CLASSES = ["no", "yes"]
WEIGHTS = {"member-00": 0.5, "member-01": 0.3, "member-02": 0.2}
CALIBRATION = {"temperature": 0.6, "biases": [0.0, 0.4]}
IMAGES = 24
FIRST_TUMOR = 12  # rows from here on have tumors
TEST = [2, 5, 8, 9, 13, 16, 17, 20, 23]
TRAINING = [row for row in range(IMAGES) if row not in TEST]
DECISION = {
    "positive": "yes",
    "rule": {"name": "youden", "threshold": 0.29, "costs": None},
    "patient_rule": None,
    "prevalence": None,
    "error": 0.1,
    "images": {
        name: [{"out_of_bag": [0, 2], "probabilities": [0.6, 0.8]}] * 10 for name in CLASSES
    },
    "patients": None,
}
METRICS = {
    "accuracy": 0.811,
    "balanced_accuracy": 0.812,
    "roc_auc": 0.813,
    "average_precision": 0.814,
    "f1": 0.815,
    "log_loss": 0.416,
    "brier_score": 0.117,
    "expected_calibration_error": 0.018,
    "recall": {"no": 0.621, "yes": 0.622},
    "interval": {
        "accuracy": [0.701, 0.901],
        "balanced_accuracy": [0.702, 0.902],
        "roc_auc": [0.703, 0.903],
    },
    "independent_groups": {"no": 31, "yes": 32},
    "decision_rule": {
        "name": "youden",
        "threshold": 0.451,
        "accuracy": 0.816,
        "rates": {
            "positive": "yes",
            "sensitivity": 0.652,
            "specificity": 0.553,
            "ppv": 0.654,
            "npv": 0.555,
            "interval": {
                "sensitivity": [0.601, 0.691],
                "specificity": [0.501, 0.591],
                "ppv": [0.602, 0.692],
                "npv": None,
            },
        },
        "at_prevalence": {
            "prevalence": 0.05,
            "ppv": 0.071,
            "npv": 0.972,
            "interval": {"ppv": [0.061, 0.081], "npv": [0.962, 0.982]},
        },
    },
    "prediction_sets": {
        "error": 0.1,
        "coverage": 0.921,
        "mean_size": 1.122,
        "decided": 0.878,
        "decided_accuracy": 0.934,
        "interval": {
            "coverage": [0.821, 0.971],
            "mean_size": [1.022, 1.222],
            "decided": [0.778, 0.928],
            "decided_accuracy": [0.834, 0.984],
        },
        "by_class": {
            "no": {
                "coverage": 0.911,
                "mean_size": 1.112,
                "decided": 0.868,
                "decided_accuracy": None,
                "interval": {
                    "coverage": [0.811, 0.961],
                    "mean_size": [1.012, 1.212],
                    "decided": [0.768, 0.918],
                    "decided_accuracy": None,
                },
            },
            "yes": {
                "coverage": 0.931,
                "mean_size": 1.132,
                "decided": 0.888,
                "decided_accuracy": 0.944,
                "interval": {
                    "coverage": [0.831, 0.981],
                    "mean_size": [1.032, 1.232],
                    "decided": [0.788, 0.938],
                    "decided_accuracy": [0.844, 0.994],
                },
            },
        },
    },
    "calibration_groups": {"no": 10, "yes": 10},
    "test_images": 9,
    "best_member": {
        "name": "member-02",
        "accuracy": 0.521,
        "balanced_accuracy": 0.522,
        "roc_auc": 0.523,
        "log_loss": 0.524,
    },
    "mean_member": {
        "accuracy": 0.531,
        "balanced_accuracy": 0.532,
        "roc_auc": 0.533,
        "log_loss": 0.534,
    },
    "uniform_vote": {
        "accuracy": 0.541,
        "balanced_accuracy": 0.542,
        "roc_auc": 0.543,
        "log_loss": 0.544,
    },
}


class EvaluatedRun:
    """A run on 24 synthetic slices of 16 pixels.

    Attributes
    ----------
    pixels : ndarray of uint8, shape (24, 16, 16, 1)
    labels : ndarray of int, shape (24,)
    hashes : list of str
        SHA-256 of each image file.
    """

    def __init__(self, path: Path):
        self.path = path
        kinds = [("no" if row < FIRST_TUMOR else "yes", row % FIRST_TUMOR) for row in range(IMAGES)]
        slices = [draw_phantom(kind, number, 0).image for kind, number in kinds]
        images = [Image.fromarray(pixels) for pixels in slices]
        squares = [crop_and_pad(image, head_box(image), SIDE) for image in images]
        self.pixels = np.stack(squares)[..., np.newaxis]
        self.labels = np.array([CLASSES.index(kind) for kind, _ in kinds])
        self.hashes = [hashlib.sha256(to_png(pixels)).hexdigest() for pixels in slices]
        self._write_params()
        self._write_data([f"{kind}/{kind}-{number:03d}.png" for kind, number in kinds])
        self._write_results()

    def _write_params(self) -> None:
        params = scratch_params()
        params |= {"members": 3, "explain": {"images": 6}}
        params["export"]["false_alarms"] = 0.25
        params["export"]["formats"] = ["keras", "saved_model", "onnx", "litert"]
        params["ingest"]["image_size"] = SIDE
        params.pop("ensemble")
        further_input = params.pop("further_input")
        params["ensemble"] = derive_ensemble(validate(params, EditableParams))
        params["further_input"] = further_input
        (self.path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))

    def _write_data(self, paths: list[str]) -> None:
        shared = {
            "width": 9,
            "height": 9,
            "mode": "L",
            "levels": [0.0, 255.0],
        }
        images = [
            {
                "path": path,
                "class": CLASSES[label],
                "sha256": sha256,
                "perceptual_hashes": 4 * [sha256[::-1]],
                **shared,
            }
            for path, label, sha256 in zip(paths, self.labels, self.hashes, strict=True)
        ]
        rejected = [{"path": "no/bad.png", "reason": "empty file"}]
        metadata = {"classes": CLASSES, "images": images, "rejected": rejected}
        self.write("data/rad/metadata.json", metadata)
        groups = [row if row != 4 else 3 for row in range(IMAGES)]
        split = {"test": TEST, "training": TRAINING, "excluded": [], "groups": groups}
        self.write("data/split.json", split)
        store = self.path / "data/rad/image_data.h5"
        make_store(store, self.pixels, self.labels.tolist(), len(CLASSES))

    def _write_results(self) -> None:
        for index, name in enumerate(WEIGHTS):
            out_of_bag = {
                "accuracy": 0.911 + index / 1000,
                "log_loss": 0.231 + index / 1000,
                "images": 41 + index,
            }
            self.write(f"metrics/members/{name}.json", {"out_of_bag": out_of_bag})
        identity = {"temperature": 1.0, "biases": [0.0, 0.0]}
        calibrations = {
            "ensemble": CALIBRATION,
            "uniform vote": identity,
            **dict.fromkeys(WEIGHTS, identity),
        }
        vote = {
            "scheme": "log_loss",
            "calibrations": calibrations,
            "decision": DECISION,
            "members": {name: {"score": 0.7, "weight": weight} for name, weight in WEIGHTS.items()},
        }
        self.write("models/weights.json", vote)
        self.write("metrics/ensemble.json", METRICS)

    def write(self, name: str, content: dict) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_text(json.dumps(content))

    def read(self, name: str) -> dict:
        return json.loads((self.path / name).read_text())
