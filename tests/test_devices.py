"""Precision, replicas, and pixels in memory or from the disk: decided by what is there, without changing what is learned."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT

from stages.shared.devices import Devices, choose_precision, choose_replicas, set_up
from stages.shared.errors import UserError


@pytest.mark.parametrize(
    ("wanted", "gpus", "precision"),
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
def test_precision_is_mixed_only_where_every_gpu_has_units_for_it(wanted, gpus, precision):
    assert choose_precision(wanted, gpus) == precision


def test_replicas_take_gpus_or_parts_of_the_cpu():
    assert choose_replicas(1, 4) == []
    assert choose_replicas(2, 4) == ["GPU:0", "GPU:1"]
    assert choose_replicas(2, 0) == ["CPU:0", "CPU:1"]
    with pytest.raises(UserError, match=r"train\.replicas is 4"):
        choose_replicas(4, 2)


@pytest.fixture
def calls(monkeypatch):
    """What `set_up` asks TensorFlow for, which takes such requests only at its start; the GPUs in `calls["gpus"]` are there."""
    calls = {"gpus": [], "growing": []}
    requests = {
        "tensorflow.config.threading.set_intra_op_parallelism_threads": lambda number: calls.update(intra=number),
        "tensorflow.config.threading.set_inter_op_parallelism_threads": lambda number: calls.update(inter=number),
        "tensorflow.config.experimental.enable_op_determinism": lambda: calls.update(deterministic=True),
        "tensorflow.config.list_physical_devices": lambda kind: calls["gpus"] if kind == "GPU" else ["the CPU"],
        "tensorflow.config.optimizer.set_experimental_options": calls.update,
        "tensorflow.config.experimental.set_memory_growth": lambda gpu, grows: calls["growing"].append((gpu, grows)),
        "tensorflow.config.experimental.get_device_details": lambda gpu: {"compute_capability": gpu},
        "tensorflow.config.set_logical_device_configuration": lambda device, parts: calls.update(parts=(device, len(parts))),
        "tensorflow.distribute.MirroredStrategy": lambda names: calls.update(names=names) or "strategy",
    }
    for name, replacement in requests.items():
        monkeypatch.setattr(name, replacement)
    policy = keras.config.dtype_policy()
    yield calls
    keras.config.set_dtype_policy(policy)


def test_set_up_fixes_threads_seed_and_order_of_computation(calls):
    assert set_up(3, 7, "float32", 1) == Devices("float32", None)
    first = keras.random.normal((4,))
    assert (calls["intra"], calls["inter"], calls["deterministic"]) == (3, 3, True)
    assert calls["disable_meta_optimizer"]
    assert calls["growing"] == []
    assert "parts" not in calls
    keras.utils.set_random_seed(7)
    np.testing.assert_array_equal(keras.random.normal((4,)), first)
    set_up(3, 8, "float32", 1)
    assert not np.array_equal(keras.random.normal((4,)), first)


def test_set_up_takes_gpus_with_their_precision(calls):
    calls["gpus"] = [(8, 0), (7, 5)]
    assert set_up(1, 0, "auto", 2) == Devices("mixed_float16", "strategy")
    assert keras.config.dtype_policy().name == "mixed_float16"
    assert calls["names"] == ["GPU:0", "GPU:1"]
    assert calls["growing"] == [((8, 0), True), ((7, 5), True)]
    assert "disable_meta_optimizer" not in calls
    assert "parts" not in calls
    calls["gpus"] = [(6, 0)]
    assert set_up(1, 0, "auto", 1) == Devices("float32", None)
    assert keras.config.dtype_policy().name == "float32"


def test_set_up_parts_the_cpu_among_replicas(calls):
    assert set_up(1, 0, "mixed_bfloat16", 3) == Devices("mixed_bfloat16", "strategy")
    assert calls["parts"] == ("the CPU", 3)
    assert calls["names"] == ["CPU:0", "CPU:1", "CPU:2"]


def test_networks_are_built_in_the_scope_of_the_strategy():
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    with Devices("float32", strategy).scope():
        assert tf.distribute.get_strategy() is strategy
    with Devices("float32", None).scope():
        assert tf.distribute.get_strategy() is not strategy


TRAINING = """
import json, sys
from pathlib import Path
import numpy as np
from stages.shared.devices import set_up
from stages.shared.networks import build, training_normalization
from stages.shared.metrics import log_loss
from stages.shared.params import Params, check
from stages.shared.rad import RadReader, shard_name
from stages.shared.shards import pack, write_rad
from stages.shared.training import COLUMNS, fit, predict
import yaml

wanted, folder = json.loads(sys.argv[1]), sys.argv[2]
content = yaml.safe_load(open("params.yaml"))
content["train"].update({"epochs": 3, "threads": 2, **wanted})
params = check(content, Params)
member = params.ensemble["member-00"].model_copy(update={"dropout": 0.0})
rng = np.random.default_rng(0)
labels = np.arange(48) % 2
images = np.clip(rng.normal(90 + 60 * labels[:, None, None, None], 40, (48, 32, 32, 1)), 0, 255).astype(np.uint8)
folder, content = Path(folder), pack(images, "none")
name = shard_name(content)
(folder / f"{name}.h5").write_bytes(content)
path = folder / "rad/rad.h5"
write_rad(path, folder, [name], [len(images)], labels.tolist(), 32, 2)
devices = set_up(2, 0, params.train.precision, params.train.replicas)
with RadReader(path) as rad:
    with devices.scope():
        model = build("residual", 32, 2, 0.0, 1e-4, 0.0, training_normalization(params.train.replicas))
        history = fit(model, rad, list(range(32)), list(range(32, 48)), 2, params.train, member)
    plain = build("residual", 32, 2, 0.0, 1e-4, 0.0)
    plain.set_weights(model.get_weights())
    probabilities = predict(plain, rad, list(range(32, 48)))
    of_in_bag = predict(plain, rad, list(range(32)))
print("RESULT" + json.dumps({
    "loss": [epoch[1] for epoch in history],
    "curves": [history[-1][1 + list(COLUMNS).index(f"{which}_log_loss")] for which in ("in_bag", "out_of_bag")],
    "log_losses": [log_loss(labels[:32], of_in_bag), log_loss(labels[32:], probabilities)],
    "rates": [epoch[-1] for epoch in history],
    "probabilities": probabilities.tolist(),
    "precision": devices.precision,
    "dtype": str(model.get_layer("probabilities").compute_dtype),
}))
"""


def train(tmp_path, **wanted) -> dict:
    """What a training in a process of its own ends with."""
    command = [sys.executable, "-c", TRAINING, json.dumps(wanted), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.partition("RESULT")[2])


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return train(tmp_path_factory.mktemp("one"), batch_size=16)


def test_learning_curves_are_plain_log_losses(one):
    """Without penalties, label smoothing and mixup, which the default parameters train with."""
    np.testing.assert_allclose(one["curves"], one["log_losses"], rtol=1e-3)
    assert abs(one["loss"][-1] - one["curves"][0]) > 0.01


def test_two_replicas_train_as_one_with_the_doubled_batch(tmp_path):
    """Without clipping, which Keras does for each replica before the gradients are summed."""
    one = train(tmp_path, batch_size=16, clip_norm=None)
    two = train(tmp_path, batch_size=8, clip_norm=None, replicas=2)
    np.testing.assert_allclose(two["loss"], one["loss"], rtol=1e-4)
    np.testing.assert_allclose(two["probabilities"], one["probabilities"], atol=5e-3)


def test_pixels_from_the_disk_train_the_same_bits_as_pixels_in_memory(one, tmp_path):
    assert train(tmp_path, batch_size=16, cache="none") == one


def test_mixed_precision_trains_and_is_on_record(one, tmp_path):
    mixed = train(tmp_path, batch_size=16, precision="mixed_bfloat16")
    assert mixed["precision"] == "mixed_bfloat16"
    assert mixed["dtype"] == "float32"  # of the probabilities
    assert np.isfinite(mixed["loss"]).all()
    assert mixed["loss"] != one["loss"]
    np.testing.assert_allclose(mixed["loss"][0], one["loss"][0], rtol=0.1)


def test_training_stops_early_and_lowers_its_learning_rate_only_if_told_to(tmp_path):
    told = train(tmp_path, epochs=30, schedule="constant", early_stopping=3, reduce_lr=1)
    assert len(told["loss"]) < 30
    assert told["rates"][-1] <= told["rates"][0] / 2
    plain = train(tmp_path, epochs=6, schedule="constant", early_stopping=None, reduce_lr=None, clip_norm=None)
    assert len(plain["loss"]) == 6
    assert len(set(plain["rates"])) == 1
