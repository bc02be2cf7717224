"""Precision, replicas and cache: chosen by the devices, and without an effect on the results."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from brainmri.common.errors import UserError
from brainmri.common.resources import usable_cores
from brainmri.training.devices import (
    Devices,
    choose_precision,
    configure_devices,
    replica_devices,
)
from tests.support.checkout import ROOT


@pytest.mark.parametrize(
    ("requested", "gpus", "precision"),
    [
        ("auto", [], "float32"),
        ("auto", [(6, 1)], "float32"),
        ("auto", [(7, 0)], "mixed_float16"),
        ("auto", [(9, 0), (6, 0)], "float32"),
        ("auto", [None], "float32"),
        ("float32", [(9, 0)], "float32"),
        ("mixed_bfloat16", [], "mixed_bfloat16"),
    ],
)
def test_mixed_precision_needs_tensor_cores(requested, gpus, precision):
    """Of every GPU."""
    assert choose_precision(requested, gpus) == precision


def test_devices_of_replicas():
    """GPUs, or parts of the CPU."""
    assert replica_devices(1, 4) == []
    assert replica_devices(2, 4) == ["GPU:0", "GPU:1"]
    assert replica_devices(2, 0) == ["CPU:0", "CPU:1"]
    with pytest.raises(UserError, match=r"train\.replicas is 4"):
        replica_devices(4, 2)


@pytest.fixture
def tensorflow(monkeypatch):
    """Stand-in for TensorFlow's settings of devices, which it takes only at its start.

    They are recorded; the GPUs are those in `tensorflow["gpus"]`.
    """
    settings = {"gpus": [], "growing": []}

    def list_physical_devices(kind):
        return settings["gpus"] if kind == "GPU" else ["the CPU"]

    def mirrored_strategy(names):
        settings["names"] = names
        return "strategy"

    replacements = {
        "config.threading.set_intra_op_parallelism_threads": (
            lambda number: settings.update(intra=number)
        ),
        "config.threading.set_inter_op_parallelism_threads": (
            lambda number: settings.update(inter=number)
        ),
        "config.experimental.enable_op_determinism": lambda: settings.update(deterministic=True),
        "config.list_physical_devices": list_physical_devices,
        "config.optimizer.set_experimental_options": settings.update,
        "config.experimental.set_memory_growth": (
            lambda gpu, grows: settings["growing"].append((gpu, grows))
        ),
        "config.experimental.get_device_details": lambda gpu: {"compute_capability": gpu},
        "config.set_logical_device_configuration": (
            lambda device, parts: settings.update(parts=(device, len(parts)))
        ),
        "distribute.MirroredStrategy": mirrored_strategy,
    }
    for name, replacement in replacements.items():
        monkeypatch.setattr(f"tensorflow.{name}", replacement)
    policy = keras.config.dtype_policy()
    yield settings
    keras.config.set_dtype_policy(policy)


def test_threads_seed_and_determinism(tensorflow):
    assert configure_devices(3, 7, "float32", 1) == Devices("float32", None)
    first = keras.random.normal((4,))
    assert (tensorflow["intra"], tensorflow["inter"]) == (3, usable_cores())
    assert tensorflow["deterministic"]
    assert tensorflow["disable_meta_optimizer"]
    assert tensorflow["growing"] == []
    assert "parts" not in tensorflow
    keras.utils.set_random_seed(7)
    np.testing.assert_array_equal(keras.random.normal((4,)), first)
    configure_devices(3, 8, "float32", 1, optimize=True)
    assert not tensorflow["disable_meta_optimizer"]
    assert not np.array_equal(keras.random.normal((4,)), first)


def test_gpus_are_used_in_their_precision(tensorflow):
    tensorflow["gpus"] = [(8, 0), (7, 5)]
    assert configure_devices(1, 0, "auto", 2) == Devices("mixed_float16", "strategy")
    assert keras.config.dtype_policy().name == "mixed_float16"
    assert tensorflow["names"] == ["GPU:0", "GPU:1"]
    assert tensorflow["growing"] == [((8, 0), True), ((7, 5), True)]
    assert "disable_meta_optimizer" not in tensorflow
    assert "parts" not in tensorflow
    tensorflow["gpus"] = [(6, 0)]
    assert configure_devices(1, 0, "auto", 1) == Devices("float32", None)
    assert keras.config.dtype_policy().name == "float32"


def test_cpu_is_split_among_replicas(tensorflow):
    assert configure_devices(1, 0, "mixed_bfloat16", 3) == Devices("mixed_bfloat16", "strategy")
    assert tensorflow["parts"] == ("the CPU", 3)
    assert tensorflow["names"] == ["CPU:0", "CPU:1", "CPU:2"]


TOGETHER = """
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
import tensorflow as tf
from brainmri.training import devices

devices.usable_cores = lambda: 2
devices.configure_devices(1, 0, "float32", 1)
barrier = Barrier(2, timeout=60)
wait = tf.function(lambda: tf.numpy_function(barrier.wait, [], tf.int64))
wait.get_concrete_function()
with ThreadPoolExecutor(2) as pool:
    print("RESULT", *sorted(pool.map(lambda _: int(wait()), range(2))))
"""


def test_graphs_compute_at_the_same_time():
    """Each waits for the other."""
    command = [sys.executable, "-c", TOGETHER]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "RESULT 0 1" in process.stdout, process.stderr


def test_scope_is_of_the_strategy():
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    with Devices("float32", strategy).scope():
        assert tf.distribute.get_strategy() is strategy
    with Devices("float32", None).scope():
        assert tf.distribute.get_strategy() is not strategy


TRAINING = """
import json, sys
from functools import partial
from pathlib import Path
import numpy as np
from brainmri.common.params import Params, derive_ensemble, validate
from brainmri.evaluation.log_loss import log_loss
from brainmri.networks.builders import build_network
from brainmri.networks.training_layers import copy_to_train
from brainmri.store.reader import RadReader
from brainmri.training import devices as training_devices
from brainmri.training.devices import configure_devices
from brainmri.training.fitting import fit
from brainmri.training.prediction import predict, read_images
from tests.support.project import scratch_params
from tests.support.workspace import write_store

options, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
sizes = options.pop("sizes")  # of the in-bag and the out-of-bag images
dropout = options.pop("dropout", 0.0)
if "cores" in options:
    cores = options.pop("cores")
    training_devices.usable_cores = lambda: cores
content = scratch_params()
content["train"].update({"epochs": 3, "threads": 2, **options})
content["ensemble"] = derive_ensemble(validate(content, Params))
params = validate(content, Params)
train, member = params.train, params.ensemble["member-00"]
rng = np.random.default_rng(0)
in_bag, out_of_bag = (list(range(*ends)) for ends in ((0, sizes[0]), (sizes[0], sum(sizes))))
labels = np.arange(sum(sizes)) % 2
levels = rng.normal(90 + 60 * labels[:, None, None, None], 40, (len(labels), 32, 32, 1))
images = np.clip(levels, 0, 255)
write_store(folder, images.astype(np.uint8), labels.tolist(), 2)
devices = configure_devices(2, 0, train.precision, train.replicas)
with RadReader(folder / "data/rad/image_data.h5") as rad:
    plain = build_network("residual", 32, 2, 0.0, 1e-4, dropout)
    with devices.scope():
        model = copy_to_train(plain, train.replicas)
        model.set_weights(plain.get_weights())
        history = fit(model, rad, in_bag, out_of_bag, 2, train, member)
    plain.set_weights(model.get_weights())
    read = partial(read_images, rad)
    probabilities, of_in_bag = predict(plain, read, out_of_bag), predict(plain, read, in_bag)
print("RESULT" + json.dumps({
    "loss": [metrics["loss"] for metrics in history],
    "curves": [history[-1][f"{part}_log_loss"] for part in ("in_bag", "out_of_bag")],
    "log_losses": [
        log_loss(labels[in_bag], of_in_bag), log_loss(labels[out_of_bag], probabilities)
    ],
    "rates": [metrics["learning_rate"] for metrics in history],
    "probabilities": probabilities.tolist(),
    "precision": devices.precision,
    "dtype": str(model.get_layer("probabilities").compute_dtype),
}))
"""


def train(folder, sizes=(32, 16), **options) -> dict:
    """Train in a process of its own, and return its result."""
    content = json.dumps({"sizes": sizes, **options})
    command = [sys.executable, "-c", TRAINING, content, str(folder)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.partition("RESULT")[2])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train(tmp_path_factory.mktemp("trained"), batch_size=16)


def test_learning_curves_are_plain_log_losses(trained):
    """Without penalties, label smoothing and mixup, which the default parameters train with."""
    np.testing.assert_allclose(trained["curves"], trained["log_losses"], rtol=1e-3)
    assert abs(trained["loss"][-1] - trained["curves"][0]) > 0.01


def test_two_replicas_train_as_one(tmp_path):
    """With twice its batch size.

    Without clipping, which Keras does for each replica before the gradients are summed.
    """
    single = train(tmp_path, batch_size=16, clip_norm=None)
    double = train(tmp_path, batch_size=8, clip_norm=None, replicas=2)
    np.testing.assert_allclose(double["loss"], single["loss"], rtol=1e-4)
    np.testing.assert_allclose(double["probabilities"], single["probabilities"], atol=5e-3)


@pytest.mark.parametrize(("replicas", "sizes"), [(2, (33, 41)), (3, (32, 65))])
def test_replicas_evaluate_any_number_of_images(tmp_path, replicas, sizes):
    """Each image once, although replicas get equally many."""
    result = train(tmp_path, sizes, batch_size=8, epochs=1, replicas=replicas)
    np.testing.assert_allclose(result["curves"], result["log_losses"], rtol=1e-3)


def test_cache_trains_the_same_bits(trained, tmp_path):
    """As pixels that are read batch by batch."""
    assert train(tmp_path, batch_size=16, cache="none") == trained


@pytest.mark.parametrize("replicas", [1, 2])
def test_number_of_cores_trains_the_same_bits(tmp_path, replicas):
    single, eight = (
        train(tmp_path, cores=cores, dropout=0.3, replicas=replicas) for cores in (1, 8)
    )
    assert eight == single


def test_mixed_precision_is_recorded(trained, tmp_path):
    mixed = train(tmp_path, batch_size=16, precision="mixed_bfloat16")
    assert mixed["precision"] == "mixed_bfloat16"
    assert mixed["dtype"] == "float32"  # of the probabilities
    assert np.isfinite(mixed["loss"]).all()
    assert mixed["loss"] != trained["loss"]
    np.testing.assert_allclose(mixed["loss"][0], trained["loss"][0], rtol=0.1)


def test_plateau_options(tmp_path):
    """Training stops early and lowers its learning rate only with them."""
    with_options = train(tmp_path, epochs=30, schedule="constant", early_stopping=3, reduce_lr=1)
    assert len(with_options["loss"]) < 30
    assert with_options["rates"][-1] <= with_options["rates"][0] / 2
    off = {"early_stopping": None, "reduce_lr": None, "clip_norm": None}
    plain = train(tmp_path, epochs=6, schedule="constant", **off)
    assert len(plain["loss"]) == 6
    assert len(set(plain["rates"])) == 1
