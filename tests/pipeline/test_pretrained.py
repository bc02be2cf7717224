"""Pretrained weights: loaded as they are, frozen or not; those of other networks are refused."""

import keras
import numpy as np
import pytest

from brainmri.common.errors import UserError
from brainmri.models import pretrained
from brainmri.models.applications import APPLICATIONS, application_base
from brainmri.models.networks import build_network
from brainmri.models.pretrained import load_pretrained
from brainmri.models.saving import load_model, save_model

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 1), np.uint8)


def test_imagenet_weights_are_of_the_base(monkeypatch):
    """Of its network and size."""
    model = build_network("vgg16", 32, 2, 0.0, 0.0, 0.0)
    downloaded = application_base("vgg16", 32, None)
    calls = []

    def download(*arguments):
        calls.append(arguments)
        return downloaded

    monkeypatch.setattr(pretrained, "application_base", download)
    load_pretrained(model, "vgg16", "imagenet", freeze=True)
    assert calls == [("vgg16", 32, "imagenet")]
    base = model.get_layer("base")
    assert not base.trainable
    for weights, expected in zip(base.get_weights(), downloaded.get_weights(), strict=True):
        np.testing.assert_array_equal(weights, expected)


def write_weights(name: str, size: int, path: str) -> keras.Model:
    """Write the weights file of a base, and return the base."""
    keras.utils.set_random_seed(5)
    base = application_base(name, size, None)
    base.save_weights(path)
    return base


def compute(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Compute a model's outputs without a graph: making that of a large network takes seconds."""
    return np.asarray(model(images, training=False))


@pytest.mark.parametrize("name", APPLICATIONS)
def test_weights_of_a_file(tmp_path, name):
    """The network gives gray images to its base as the weights expect them."""
    base = write_weights(name, 64, tmp_path / "base.weights.h5")
    model = build_network(name, 64, 3, 0.0, 1e-4, 0.3)
    load_pretrained(model, name, str(tmp_path / "base.weights.h5"), freeze=True)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 1)).astype(np.float32)
    module, _ = APPLICATIONS[name]
    features = compute(base, module.preprocess_input(np.repeat(images, 3, axis=3)))
    expected = features.reshape(2, -1) if name == "notebook-3" else features.mean(axis=(1, 2))
    pooled = keras.Model(model.inputs, model.layers[-2].input)
    np.testing.assert_allclose(compute(pooled, images), expected, rtol=1e-3, atol=1e-4)
    save_model(model, tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(compute(loaded, images), compute(model, images), atol=1e-5)


@pytest.mark.parametrize("freeze", [True, False])
def test_frozen_base_keeps_its_weights(tmp_path, freeze):
    write_weights("mobilenet-v2", 32, tmp_path / "base.weights.h5")
    model = build_network("mobilenet-v2", 32, 2, 0.0, 0.0, 0.0)
    load_pretrained(model, "mobilenet-v2", str(tmp_path / "base.weights.h5"), freeze)
    base, head = model.get_layer("base"), model.layers[-1]
    of_base, of_head = base.get_weights(), head.get_weights()
    model.compile("adam", "categorical_crossentropy", run_eagerly=True)
    model.fit(IMAGES.astype(np.float32), np.eye(2)[[0, 1, 0, 1]], verbose=0)
    pairs = zip(of_base, base.get_weights(), strict=True)
    assert all(np.array_equal(before, after) for before, after in pairs) == freeze
    assert not np.array_equal(of_head[0], head.get_weights()[0])


def test_missing_weights_are_reported_in_one_line(tmp_path, monkeypatch):
    """And those of another network, of a network with its top, and of no network."""
    write_weights("mobilenet-v2", 32, tmp_path / "mobilenet.weights.h5")
    (tmp_path / "text.h5").write_text("no weights")
    with_top = keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3), classes=3)
    with_top.save_weights(tmp_path / "top.weights.h5")
    vgg16 = build_network("vgg16", 32, 2, 0.0, 0.0, 0.0)
    for name in ("mobilenet.weights.h5", "text.h5", "missing.h5"):
        with pytest.raises(UserError, match=name):
            load_pretrained(vgg16, "vgg16", str(tmp_path / name), freeze=True)
    mobilenet = build_network("mobilenet-v2", 32, 2, 0.0, 0.0, 0.0)
    expected = r"top.weights.h5 holds no weights of mobilenet-v2 without its top"
    with pytest.raises(UserError, match=expected):
        path = str(tmp_path / "top.weights.h5")
        load_pretrained(mobilenet, "mobilenet-v2", path, freeze=True)
    with pytest.raises(UserError, match=r"ingest\.image_size 16"):
        build_network("vgg16", 16, 2, 0.0, 0.0, 0.0)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    with pytest.raises(UserError, match="imagenet can't be downloaded") as raised:
        load_pretrained(vgg16, "vgg16", "imagenet", freeze=True)
    assert "\n" not in str(raised.value)
