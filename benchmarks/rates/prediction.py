"""Measure the images per second of five members in one model, and of five `model.predict` calls.

    python -m benchmarks.rates.prediction     (where the pipeline has run with five members or more)

Both are warmed up. The last line printed is JSON.
"""

import json

from brainmri.networks.runtime import start_tensorflow

start_tensorflow()

import numpy as np

from benchmarks.commands import wall_time
from brainmri.common.paths import MEMBERS
from brainmri.models.ensemble import batch_predictor, build_ensemble_model
from brainmri.networks.saving import load_model
from brainmri.store.reader import RadReader

WARM_UP = 1
REPEATS = 5


def main() -> None:
    names = [f"member-{index:02d}" for index in range(5)]
    members = {name: load_model(MEMBERS / name / "model.keras") for name in names}
    with RadReader() as rad:
        images = rad.images(range(len(rad)))
    gray = images.astype(np.float32)
    predict = batch_predictor(build_ensemble_model(members, dict.fromkeys(names, 0.2)))

    def predict_sequentially() -> list[np.ndarray]:
        return [model.predict(gray, verbose=0) for model in members.values()]

    ensemble_times = []
    sequential_times = []
    for _ in range(WARM_UP + REPEATS):
        ensemble_times.append(wall_time(lambda: predict(images)))
        sequential_times.append(wall_time(predict_sequentially))
    rates = {
        "here": len(images) / np.median(ensemble_times[WARM_UP:]),
        "against": len(images) / np.median(sequential_times[WARM_UP:]),
    }
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
