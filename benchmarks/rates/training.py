"""Training rate of one thread against a matrix product, both on one core: GFLOP/s of a member's training, as JSON.

    python -m benchmarks.rates.training       (where the pipeline has run)

Counted are multiplications and additions of convolutions and dense layers: forwards, and twice as much backwards (once for
the first layer, whose input needs no gradient). All else that a step does (batch normalisation, pooling, the optimizer, the
input pipeline) takes time and counts nothing.
"""

import json
import os

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import time

import keras
import numpy as np
import tensorflow as tf

from stages.shared.devices import set_up
from stages.shared.networks import build, training_normalization
from stages.shared.params import load_params
from stages.shared.rad import RadReader, read_sample, read_split
from stages.shared.training import evaluation_sample, fit

SIDE, REPEATS, SHORT, LONG = 1024, 20, 3, 13


def main() -> None:
    params = load_params()
    member = params.ensemble["member-00"]
    set_up(1, member.seed, "float32", 1)
    with RadReader() as rad:
        in_bag, out_of_bag = read_sample("member-00", read_split(len(rad))["training"])
        model = build(params.network.name, rad.shape[1], 2, member.l1, member.l2, member.dropout, training_normalization(1))

        def seconds(epochs: int) -> float:
            start = time.perf_counter()
            train = params.train.model_copy(update={"epochs": epochs})
            fit(model, rad, in_bag, out_of_bag, 2, train, member)
            return time.perf_counter() - start

        rates = [matrix_product()]
        epoch = (seconds(LONG) - seconds(SHORT)) / (LONG - SHORT)
        rates.append(matrix_product())
    forward, first = flops(model)
    batch_size = params.train.batch_size
    trained = -(-len(in_bag) // batch_size) * batch_size
    evaluated = len(out_of_bag) + len(evaluation_sample(in_bag))
    done = trained * (3 * forward - first) + evaluated * forward
    print(json.dumps({"here": done / epoch / 1e9, "against": max(rates)}))


def matrix_product() -> float:
    """GFLOP/s of the product of two square float32 matrices."""
    matrix = tf.random.normal((SIDE, SIDE))
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        tf.linalg.matmul(matrix, matrix).numpy()
        times.append(time.perf_counter() - start)
    return 2 * SIDE**3 / np.median(times) / 1e9


def flops(model: keras.Model) -> tuple[int, int]:
    """Of an image's way forwards: all layers', and the first one's."""
    of_layer = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            of_layer.append(2 * int(np.prod(layer.kernel.shape)) * int(np.prod(layer.output.shape[1:-1])))
    return sum(of_layer), of_layer[0]


if __name__ == "__main__":
    main()
