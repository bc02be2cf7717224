"""The original's way, kept correct: k Keras models in one TensorFlow process, by a
ThreadPoolExecutor or one after the other.

python -m benchmarks.contestants.one_process JOBS MEMBERS EPOCHS BATCH_SIZE IMAGES PROJECT
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from benchmarks.contestants.images import load, print_probabilities
from brainmri.networks.builders import build_network


def main() -> None:
    jobs, members, epochs, batch_size = map(int, sys.argv[1:5])
    images, labels, test_images, _ = load(Path(sys.argv[5]), 128, Path(sys.argv[6]))
    images, test_images = (
        part[..., np.newaxis].astype(np.float32) for part in (images, test_images)
    )

    def train(index: int) -> np.ndarray:
        rng = np.random.default_rng(index)
        in_bag = rng.integers(0, len(labels), len(labels))
        out_of_bag = np.setdiff1d(np.arange(len(labels)), in_bag)
        model = build_network("residual", 128, 2, 0.0, 1e-4, 0.3)
        steps = epochs * -(-len(in_bag) // batch_size)
        model.compile(
            keras.optimizers.Adam(
                keras.optimizers.schedules.CosineDecay(0.002, steps), global_clipnorm=1.0
            ),
            "sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )
        held_out = images[out_of_bag], labels[out_of_bag]
        model.fit(
            images[in_bag], labels[in_bag], batch_size, epochs, verbose=0, validation_data=held_out
        )
        return model.predict(test_images, verbose=0)

    if jobs == 1:
        votes = [train(index) for index in range(members)]
    else:
        with ThreadPoolExecutor(jobs) as pool:
            votes = list(pool.map(train, range(members)))
    print_probabilities(np.mean(votes, axis=0))


if __name__ == "__main__":
    main()
