"""Measure the images per second of the exported model, and of its five members, an image at a time.

    python -m benchmarks.rates.single         (where the pipeline has run with five members or more)

The members are called one after the other. Both are warmed up. The last line printed is JSON.
"""

import json

from brainmri.networks.runtime import start_tensorflow

start_tensorflow()

import numpy as np

from benchmarks.commands import wall_time
from brainmri.common.paths import ENSEMBLE, MEMBERS
from brainmri.models.ensemble import batch_predictor, load_ensemble
from brainmri.networks.saving import load_model
from brainmri.store.reader import RadReader

WARM_UP = 5
REPEATS = 40


def main() -> None:
    members = [load_model(MEMBERS / f"member-{index:02d}" / "model.keras") for index in range(5)]
    model, _ = load_ensemble(ENSEMBLE)
    predict = batch_predictor(model)
    with RadReader() as rad:
        image = rad.images([0])
    gray = image.astype(np.float32)

    def call_members() -> list[np.ndarray]:
        return [np.asarray(member(gray, training=False)) for member in members]

    exported_times = []
    member_times = []
    for _ in range(WARM_UP + REPEATS):
        exported_times.append(wall_time(lambda: predict(image)))
        member_times.append(wall_time(call_members))
    rates = {
        "here": 1 / np.median(exported_times[WARM_UP:]),
        "against": 1 / np.median(member_times[WARM_UP:]),
    }
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
