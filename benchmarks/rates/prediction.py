"""Images per second of five members in one model against five calls of `model.predict`, both warm, as JSON.

python -m benchmarks.rates.prediction     (where the pipeline has run with five members or more)
"""

import json
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks.run import timed
from stages.shared.models import join, load_model, predictor
from stages.shared.rad import RadReader
from stages.shared.scratch import MODELS

REPEATS = 5


def main() -> None:
    names = [f"member-{index:02d}" for index in range(5)]
    members = {name: load_model(MODELS / name / "model.keras") for name in names}
    with RadReader() as rad:
        images = rad.images(range(len(rad)))
    grey = images.astype(np.float32)
    joined = predictor(join(members, dict.fromkeys(names, 0.2)))
    here, against = [], []
    for _ in range(REPEATS + 1):
        here.append(timed(lambda: joined(images)))
        against.append(timed(lambda: [model.predict(grey, verbose=0) for model in members.values()]))
    print(json.dumps({"here": len(images) / np.median(here[1:]), "against": len(images) / np.median(against[1:])}))


if __name__ == "__main__":
    main()
