"""Measure the GFLOP/s of a member's training, and of a matrix product, both on one core.

    python -m benchmarks.rates.training       (where the pipeline has run)

Counted are multiplications and additions of convolutions and dense layers: those of the forward
pass, and twice as many of the backward pass (once for the first layer, whose input needs no
gradient). All else in a step (batch normalization, pooling, the optimizer, the input pipeline)
takes time and counts nothing. The last line printed is JSON.
"""

import json
import os

from brainmri.networks.runtime import start_tensorflow

# Before TensorFlow is imported, which counts the cores
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
start_tensorflow()

import keras
import numpy as np
import tensorflow as tf

from benchmarks.commands import wall_time
from brainmri.common.params import Params, load_params
from brainmri.networks.builders import build_network
from brainmri.networks.training_layers import copy_to_train
from brainmri.sampling.files import read_sample, read_split
from brainmri.store.reader import RadReader
from brainmri.training.devices import configure_devices
from brainmri.training.fitting import fit
from brainmri.training.history import evaluation_sample

MEMBER = "member-00"
CLASSES = 2
SIDE = 1024  # of the matrices
REPEATS = 20  # of the matrix product
SHORT, LONG = 3, 13  # epochs


def main() -> None:
    params = load_params()
    member = params.ensemble[MEMBER]
    configure_devices(threads=1, seed=member.seed, precision="float32", replicas=1)
    with RadReader() as rad:
        in_bag, out_of_bag = read_sample(MEMBER, read_split(len(rad))["training"])
        network = build_network(
            params.network.name, rad.shape[1], CLASSES, member.l1, member.l2, member.dropout
        )
        model = copy_to_train(network, replicas=1)
        product_before = matrix_product_rate()
        epoch_time = measure_epoch(model, rad, in_bag, out_of_bag, params)
        product_after = matrix_product_rate()
    operations = epoch_flops(model, in_bag, out_of_bag, params.train.batch_size)
    rates = {
        "here": operations / epoch_time / 1e9,
        "against": max(product_before, product_after),
    }
    print(json.dumps(rates))


def measure_epoch(
    model: keras.Model, rad: RadReader, in_bag: list[int], out_of_bag: list[int], params: Params
) -> float:
    """Measure the seconds of an epoch, without compilation: a long training less a short one."""

    def train(epochs: int) -> None:
        train_params = params.train.model_copy(update={"epochs": epochs})
        fit(model, rad, in_bag, out_of_bag, CLASSES, train_params, params.ensemble[MEMBER])

    long_time = wall_time(lambda: train(LONG))
    short_time = wall_time(lambda: train(SHORT))
    return (long_time - short_time) / (LONG - SHORT)


def matrix_product_rate() -> float:
    """Measure the GFLOP/s of the product of two square float32 matrices."""
    matrix = tf.random.normal((SIDE, SIDE))
    times = [wall_time(lambda: tf.linalg.matmul(matrix, matrix).numpy()) for _ in range(REPEATS)]
    return 2 * SIDE**3 / np.median(times) / 1e9


def epoch_flops(
    model: keras.Model, in_bag: list[int], out_of_bag: list[int], batch_size: int
) -> int:
    """Count the operations of an epoch: training, and the evaluation that follows.

    The last batch is filled up.
    """
    by_layer = forward_flops(model)
    forward = sum(by_layer)
    trained = -(-len(in_bag) // batch_size) * batch_size
    evaluated = len(out_of_bag) + len(evaluation_sample(in_bag))
    return trained * (3 * forward - by_layer[0]) + evaluated * forward


def forward_flops(model: keras.Model) -> list[int]:
    """Count the operations of an image's forward pass in each convolution and dense layer."""
    by_layer = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            positions = int(np.prod(layer.output.shape[1:-1]))
            by_layer.append(2 * int(np.prod(layer.kernel.shape)) * positions)
    return by_layer


if __name__ == "__main__":
    main()
