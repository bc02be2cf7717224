"""Pretrained weights: loaded as they are, frozen or not; those of other networks are refused."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras.src.applications import efficientnet

from brainmri.common.errors import UserError
from brainmri.common.params import Network
from brainmri.networks import pretrained
from brainmri.networks.applications import APPLICATIONS, application_base
from brainmri.networks.builders import build_network
from brainmri.networks.pretrained import copy_weights, load_pretrained, normalizations
from brainmri.networks.saving import load_model, save_model

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
    load_pretrained(model, network_of("vgg16", "imagenet"))
    assert calls == [("vgg16", 32, "imagenet")]
    base = model.get_layer("base")
    assert not base.trainable
    for weights, expected in zip(base.get_weights(), downloaded.get_weights(), strict=True):
        np.testing.assert_array_equal(weights, expected)


def network_of(name: str, weights: str | Path, freeze: bool | str = True) -> Network:
    return Network(name=name, weights=str(weights), freeze=freeze)


def write_weights(name: str, size: int, path: str) -> keras.Model:
    """Write the weights file of a base, and return the base."""
    keras.utils.set_random_seed(5)
    base = application_base(name, size, None)
    base.save_weights(path)
    return base


def compute(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Compute a model's outputs without a graph: making that of a large network takes seconds."""
    return np.asarray(model(images, training=False))


def as_published(path: Path, monkeypatch) -> keras.Model:
    """Build Keras's EfficientNet with weights of ImageNet, for which a file stands."""
    monkeypatch.setattr(efficientnet.file_utils, "get_file", lambda *_, **__: str(path))
    return application_base("efficientnet-b0", 64, "imagenet")


@pytest.mark.parametrize("is_downloaded", [True, False])
def test_efficientnet_normalizes_as_kerass(tmp_path, monkeypatch, is_downloaded):
    """Also a copy, which members predict with, and a network that starts from saved weights."""
    base = application_base("efficientnet-b0", 64, None)
    (layer,) = normalizations(base)
    layer.adapt_mean.assign([0.485, 0.456, 0.406])
    layer.adapt_variance.assign([0.229, 0.224, 0.225])
    base.save_weights(tmp_path / "base.weights.h5")
    published = as_published(tmp_path / "base.weights.h5", monkeypatch)
    model = build_network("efficientnet-b0", 64, 2, 0.0, 0.0, 0.0)
    weights = "imagenet" if is_downloaded else tmp_path / "base.weights.h5"
    load_pretrained(model, network_of("efficientnet-b0", weights))
    copy = build_network("efficientnet-b0", 64, 2, 0.0, 0.0, 0.0)
    copy_weights(model, copy)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.float32)
    stem = published.get_layer("stem_conv")
    expected = compute(keras.Model(published.inputs, stem.input), images)
    model.get_layer("base").save_weights(tmp_path / "trained.weights.h5")
    again = build_network("efficientnet-b0", 64, 2, 0.0, 0.0, 0.0)
    load_pretrained(again, network_of("efficientnet-b0", tmp_path / "trained.weights.h5"))
    for network in (each.get_layer("base") for each in (model, copy, again)):
        before_stem = keras.Model(network.inputs, network.get_layer("stem_conv").input)
        np.testing.assert_allclose(compute(before_stem, images), expected, atol=1e-5)


@pytest.mark.parametrize("name", APPLICATIONS)
def test_weights_of_a_file(tmp_path, name, monkeypatch):
    """The network gives gray images to its base as the weights expect them."""
    base = write_weights(name, 64, tmp_path / "base.weights.h5")
    if name == "efficientnet-b0":
        base = as_published(tmp_path / "base.weights.h5", monkeypatch)
    model = build_network(name, 64, 3, 0.0, 1e-4, 0.3)
    load_pretrained(model, network_of(name, tmp_path / "base.weights.h5"))
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 1)).astype(np.float32)
    module, _ = APPLICATIONS[name]
    features = compute(base, module.preprocess_input(np.repeat(images, 3, axis=3)))
    average, maximum = features.mean(axis=(1, 2)), features.max(axis=(1, 2))
    expected = np.concatenate([average, maximum], axis=1)
    if name == "notebook-3":
        expected = features.reshape(2, -1)
    pooled = keras.Model(model.inputs, model.layers[-2].input)
    np.testing.assert_allclose(compute(pooled, images), expected, rtol=1e-3, atol=1e-4)
    save_model(model, tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(compute(loaded, images), compute(model, images), atol=1e-5)


def train_two_steps(model: keras.Model) -> None:
    """Train on two batches: in the first, a head of zeros passes no gradient to the base."""
    model.compile("adam", "categorical_crossentropy", run_eagerly=True)
    labels = np.eye(2)[[0, 1, 0, 1]]
    model.fit(IMAGES.astype(np.float32), labels, batch_size=2, verbose=0)


@pytest.mark.parametrize("freeze", [True, False])
def test_frozen_base_keeps_its_weights(tmp_path, freeze):
    write_weights("mobilenet-v2", 32, tmp_path / "base.weights.h5")
    model = build_network("mobilenet-v2", 32, 2, 0.0, 0.0, 0.0)
    load_pretrained(model, network_of("mobilenet-v2", tmp_path / "base.weights.h5", freeze))
    base, head = model.get_layer("base"), model.layers[-1]
    of_base, of_head = base.get_weights(), head.get_weights()
    train_two_steps(model)
    pairs = zip(of_base, base.get_weights(), strict=True)
    assert all(np.array_equal(before, after) for before, after in pairs) == freeze
    assert not np.array_equal(of_head[0], head.get_weights()[0])


def scale_kernels(base: keras.Model) -> None:
    """Set kernels that keep the variance of features, as those of a trained network do.

    With Keras's first ones and no batch statistics, gradients of the first layers are rounded to 0.
    """
    rng = np.random.default_rng(3)
    for layer in base.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
            is_depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
            inputs = np.prod(layer.kernel.shape[: 2 if is_depthwise else 3])
            layer.kernel.assign(rng.normal(0, np.sqrt(2 / inputs), layer.kernel.shape))


@pytest.mark.parametrize("name", ["mobilenet-v2", "efficientnet-lite0"])
def test_fine_tuning_keeps_statistics(tmp_path, name):
    """And trains every other weight of the base."""
    trained = application_base(name, 32, None)
    scale_kernels(trained)
    trained.save_weights(tmp_path / "base.weights.h5")
    model = build_network(name, 32, 2, 0.0, 0.0, 0.0)
    load_pretrained(model, network_of(name, tmp_path / "base.weights.h5", freeze=False))
    base = model.get_layer("base")
    before = {layer.name: layer.get_weights() for layer in base.layers if layer.weights}
    images = IMAGES.astype(np.float32)
    outputs = compute(model, images)
    np.testing.assert_allclose(model(images, training=True), outputs, atol=1e-5)
    train_two_steps(model)
    kinds = set()
    for name_of_layer, weights in before.items():
        layer = base.get_layer(name_of_layer)
        kept = isinstance(layer, keras.layers.BatchNormalization)
        for old, new in zip(weights, layer.get_weights(), strict=True):
            assert np.array_equal(old, new) == kept, name_of_layer
        kinds.add((type(layer).__name__, kept))
    assert {("Conv2D", False), ("DepthwiseConv2D", False)} <= kinds
    assert not np.allclose(compute(model, images), outputs, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "first"),
    [("mobilenet-v2", "block_3_depthwise"), ("efficientnet-lite0", "block31_depthwise")],
)
def test_early_layers_keep_their_weights(tmp_path, name, first):
    """The first one that trains has an output of an eighth of the resolution."""
    trained = application_base(name, 32, None)
    scale_kernels(trained)
    trained.save_weights(tmp_path / "base.weights.h5")
    model = build_network(name, 32, 2, 0.0, 0.0, 0.0)
    load_pretrained(model, network_of(name, tmp_path / "base.weights.h5", freeze="early"))
    base = model.get_layer("base")
    before = {layer.name: layer.get_weights() for layer in base.layers if layer.weights}
    train_two_steps(model)
    changed = [
        name
        for name, weights in before.items()
        if any(map(np.any, map(np.not_equal, weights, base.get_layer(name).get_weights())))
    ]
    convolutions = [
        layer.name
        for layer in base.layers
        if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D)
    ]
    assert changed == convolutions[convolutions.index(first) :]


def test_missing_weights_are_reported_in_one_line(tmp_path, monkeypatch):
    """And those of another network, of a network with its top, and of no network."""
    write_weights("mobilenet-v2", 32, tmp_path / "mobilenet.weights.h5")
    (tmp_path / "text.h5").write_text("no weights")
    with_top = keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3), classes=3)
    with_top.save_weights(tmp_path / "top.weights.h5")
    vgg16 = build_network("vgg16", 32, 2, 0.0, 0.0, 0.0)
    for name in ("mobilenet.weights.h5", "text.h5", "missing.h5"):
        with pytest.raises(UserError, match=name):
            load_pretrained(vgg16, network_of("vgg16", tmp_path / name))
    mobilenet = build_network("mobilenet-v2", 32, 2, 0.0, 0.0, 0.0)
    expected = r"top.weights.h5 holds no weights of mobilenet-v2 without its top"
    with pytest.raises(UserError, match=expected):
        load_pretrained(mobilenet, network_of("mobilenet-v2", tmp_path / "top.weights.h5"))
    with pytest.raises(UserError, match=r"ingest\.image_size 16"):
        build_network("vgg16", 16, 2, 0.0, 0.0, 0.0)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    with pytest.raises(UserError, match="imagenet can't be downloaded") as raised:
        load_pretrained(vgg16, network_of("vgg16", "imagenet"))
    assert "\n" not in str(raised.value)


def test_installed_weights_are_never_downloaded(tmp_path, monkeypatch):
    """They come from the file that the stage `pretrained` writes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pretrained, "download_weights", lambda *_: pytest.fail("a download"))
    model = build_network("efficientnet-lite0", 32, 2, 0.0, 0.0, 0.0)
    network = network_of("efficientnet-lite0", "imagenet", freeze=False)
    with pytest.raises(UserError, match=r"data/weights/efficientnet-lite0\.weights\.h5 is missing"):
        load_pretrained(model, network)
    Path("data/weights").mkdir(parents=True)
    base = write_weights("efficientnet-lite0", 32, network.weights_file)
    load_pretrained(model, network)
    pairs = zip(model.get_layer("base").get_weights(), base.get_weights(), strict=True)
    assert all(np.array_equal(loaded, written) for loaded, written in pairs)
