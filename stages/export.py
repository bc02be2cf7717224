"""Joins members, weights and calibration in one model, which needs nothing of this project to run.

    dvc repro export

Reads   models/members, models/weights.json, data/rad, data/split.json, metrics/ensemble.json; params: ingest, export
Writes  models/ensemble.keras   for `keras.models.load_model`; what a user must know lies in it as about.json
        models/saved_model/     the same for TensorFlow Serving, about.json in assets.extra/
        metrics/export.json     how often novelty warns of test images
"""

import stages.shared.start_tensorflow  # noqa: F401, isort: skip

import hashlib

import numpy as np

from stages.shared.batches import PREDICTED_AT_ONCE
from stages.shared.devices import set_up
from stages.shared.explanations import heat_scale
from stages.shared.files import write_json
from stages.shared.metrics import positives
from stages.shared.models import KNOWN_BY, join, load_model, predictor, save_model, save_serving
from stages.shared.novelty import fit_novelty, novelty_model, thumbnailer
from stages.shared.params import load_params
from stages.shared.rad import RadReader, read_metadata, read_split
from stages.shared.results import EXPORTED, read_figures, read_vote
from stages.shared.running import run_stage
from stages.shared.scratch import MODELS
from stages.shared.voting import ENSEMBLE

PREPROCESSING = (
    "Upright, transparent parts on black, grey by ITU-R 601-2. Levels of 8 bits or fewer are kept. Of more bits, the window from"
    " the 0.1 percentile in the head's box to the 99.9 percentile of what stands out from the background there,"
    " becomes 0 to 255. Cut to the head if `crop`; scaled with its aspect ratio kept (bicubic) and padded with"
    " black to `size`×`size`; uint8, shape (n, size, size, 1)."
)
NOT_FOR = "Not for clinical use: it was not tested for any, and knows nothing but the images it was trained on."


def main() -> None:
    params = load_params()
    metadata = read_metadata()
    split = read_split(len(metadata["images"]))
    vote = read_vote([*params.ensemble], metadata["classes"])
    weights = {name: member["weight"] for name, member in vote["members"].items()}
    set_up(1, params.seed, "float32", 1)

    members = {name: load_model(MODELS / name / "model.keras") for name in weights}
    with RadReader() as rad:
        thumbnail = thumbnailer(rad.shape[1:])
        thumbnails = np.concatenate(
            [thumbnail.predict_on_batch(images.astype(np.float32)) for images in batches(rad, split["training"])]
        )
        novelty = novelty_model(rad.shape[1:], *fit_novelty(thumbnails.astype(np.float64), params.export.false_alarms))
        model = join(members, weights, **vote["calibrations"][ENSEMBLE], novelty=novelty)
        predict = predictor(model)
        findings = [row for row in split["training"] if rad.labels[row] in positives(len(metadata["classes"]))]
        scale = heat_scale(members, weights, rad, findings)
        warned = np.concatenate([predict(images)["novelty"] > 1 for images in batches(rad, split["test"])])
    false_alarms = {"images": len(warned), "share": float(np.mean(warned))}
    write_json(EXPORTED, {"novelty_warnings_of_test_images": false_alarms})

    hashes = sorted(metadata["images"][row]["sha256"] for row in split["training"])
    about = {
        "classes": metadata["classes"],
        "size": params.ingest.image_size,
        "crop": params.ingest.crop,
        "preprocessing": PREPROCESSING,
        "weights": weights,
        "weighed_by": vote["scheme"],
        "calibration": vote["calibrations"][ENSEMBLE],
        "threshold": vote.get("threshold"),
        "heat_scale": scale,
        "novelty": {"warn_above": 1.0, "of_test_images": false_alarms},
        "training_images": {
            "count": len(hashes),
            "sha256": hashlib.sha256("\n".join(hashes).encode()).hexdigest(),
            "sha256_prefixes": [one[:KNOWN_BY] for one in hashes],
        },
        "metrics": read_figures(),
        "not_for": NOT_FOR,
    }
    save_model(model, "models/ensemble.keras", about)
    save_serving(model, "models/saved_model", about)
    print(f"one model of {len(members)} members; it warns of {np.sum(warned)} of {len(warned)} test images as unlike the others")


def batches(rad: RadReader, rows: list[int]):
    """The images at these rows, some at a time."""
    return (rad.images(rows[start : start + PREDICTED_AT_ONCE]) for start in range(0, len(rows), PREDICTED_AT_ONCE))


if __name__ == "__main__":
    run_stage(main)
