"""Measure the images per second of the exported model by ONNX Runtime, and by Keras, on one core.

    python -m benchmarks.rates.onnx_runtime [compiled]    (where the pipeline has run)

An image at a time: `model.predict` of the Keras file, or the file as one compiled function, as
`python -m brainmri.predict` calls it. Both are warmed up, and take turns. The last line printed is
JSON.
"""

import json
import os
import sys

from brainmri.networks.runtime import start_tensorflow

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before any runtime counts the cores
start_tensorflow()

from functools import partial

import numpy as np

from benchmarks.commands import wall_time
from brainmri.common.paths import ENSEMBLE
from brainmri.models.ensemble import batch_predictor, load_ensemble
from brainmri.models.onnx_graph import load_onnx, to_onnx
from brainmri.store.reader import RadReader

WARM_UP = 5
REPEATS = 40


def main() -> None:
    model, _ = load_ensemble(ENSEMBLE)
    by_keras = partial(model.predict, verbose=0)
    if sys.argv[1:] == ["compiled"]:
        by_keras = batch_predictor(model)
    predictors = {"here": load_onnx(to_onnx(model, {})), "against": by_keras}
    with RadReader() as rad:
        image = rad.images([0])
    times = {name: [] for name in predictors}
    for _ in range(WARM_UP + REPEATS):
        for name, predict in predictors.items():
            times[name].append(wall_time(partial(predict, image)))
    print(json.dumps({name: 1 / np.median(each[WARM_UP:]) for name, each in times.items()}))


if __name__ == "__main__":
    main()
