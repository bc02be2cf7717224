"""Predictions of a stand-in for an ensemble, whose outputs are known."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from brainmri.images.decoding import DecodedImage
from brainmri.predict.prediction import Prediction

WEIGHTS = {"member-00": 0.5, "member-01": 0.3, "member-02": 0.2}
# A vote of the first two members gives the true class 0.05, 0.15, …, 0.95.
CALIBRATION_GROUPS = {
    name: [{"out_of_bag": [0, 1], "probabilities": [0.05 + 0.1 * rank]} for rank in range(10)]
    for name in ("no", "yes")
}
ABOUT = {
    "classes": ["no", "yes"],
    "size": 16,
    "crop": False,
    "weights": WEIGHTS,
    "decision": {
        "positive": "yes",
        "rule": {"name": "youden", "threshold": 0.4, "costs": None},
        "patient_rule": None,
        "prevalence": None,
        "error": 0.1,
        "images": CALIBRATION_GROUPS,
        "patients": None,
    },
    "heat_scale": 2.5,
    "training_images": {"near_duplicate_bits": 20, "perceptual_hashes": []},
}


def image_of(level: int, **changes) -> DecodedImage:
    image = DecodedImage(
        pixels=np.full((16, 16), level, np.uint8),
        sha256=f"{level:064x}",
        perceptual_hashes=tuple(4 * ["0" * 64]),
        width=16,
        height=16,
        mode="L",
        levels=(0, 255),
    )
    return replace(image, **changes)


def outputs_of(levels: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs of the stand-in for images of these mean levels.

    The calibrated probabilities are not the members' mean.
    """
    first = np.stack([levels / 256, np.sqrt(levels / 256), 1 - levels / 300], axis=1)
    calibrated = 1 / (1 + np.exp(-(levels - 99.5) / 20))
    return {
        "members": np.stack([1 - first, first], axis=2).astype(np.float32),
        "probabilities": np.stack([1 - calibrated, calibrated], axis=1).astype(np.float32),
        "novelty": (levels / 100).astype(np.float32),
    }


def prediction_of(
    path: str, positive: float, level: int = 0, novelty: float = 0.5, **image
) -> Prediction:
    return Prediction(
        path=Path(path),
        image=image_of(level, **image),
        probabilities=np.array([1 - positive, positive]),
        entropy=0.6,
        mutual_information=0.2,
        novelty=novelty,
        label=int(positive >= 0.4),
        prediction_set=(int(positive > 0.5),) if abs(positive - 0.5) > 0.2 else (0, 1),
        members=np.array([[1 - positive, positive]] * 3),
    )


def load_stand_in(monkeypatch, about: dict) -> None:
    """Let `load_ensemble` return the stand-in for a model, with this description."""
    monkeypatch.setattr(
        "brainmri.models.ensemble.load_ensemble", lambda path: ("the stand-in", about)
    )
