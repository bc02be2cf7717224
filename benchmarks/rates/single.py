"""Predictions a second, an image at a time: the exported file against five members called in turn, both warm, as JSON.

python -m benchmarks.rates.single     (where the pipeline has run with five members or more)
"""

import stages.shared.start_tensorflow  # noqa: F401, isort: skip

import json

import numpy as np

from benchmarks.run import timed
from stages.shared.models import load_ensemble, load_model, predictor
from stages.shared.rad import RadReader
from stages.shared.scratch import MODELS

REPEATS = 40


def main() -> None:
    members = [load_model(MODELS / f"member-{index:02d}" / "model.keras") for index in range(5)]
    exported = predictor(load_ensemble("models/ensemble.keras")[0])
    with RadReader() as rad:
        image = rad.images([0])
    grey = image.astype(np.float32)
    here, against = [], []
    for _ in range(REPEATS + 5):
        here.append(timed(lambda: exported(image)))
        against.append(timed(lambda: [np.asarray(member(grey, training=False)) for member in members]))
    print(json.dumps({"here": 1 / np.median(here[5:]), "against": 1 / np.median(against[5:])}))


if __name__ == "__main__":
    main()
