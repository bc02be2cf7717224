"""Networks: their layers, what they compute, penalties, dropout, and the smallest images."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from brainmri.common.errors import UserError
from brainmri.common.params import MIN_IMAGE_SIZE
from brainmri.networks.applications import APPLICATIONS
from brainmri.networks.builders import NETWORKS, build_network
from brainmri.networks.pretrained import copy_weights
from brainmri.networks.training_layers import (
    FastConv2D,
    FastDepthwiseConv2D,
    FusedBatchNormalization,
    copy_to_train,
)

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 48, 48, 1), np.uint8)  # all networks fit


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("name", NETWORKS)
def test_probabilities_of_each_class(name, classes):
    model = build_network(name, 48, classes, 1e-6, 1e-4, 0.3)
    probabilities = model.predict(IMAGES, verbose=0)
    assert probabilities.shape == (4, classes)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_penalties_and_dropout_are_applied(name):
    plain = build_network(name, 48, 2, 0.0, 0.0, 0.0)
    strict = build_network(name, 48, 2, 1e-3, 1e-3, 0.5)
    assert not plain.losses
    assert sum(float(loss) for loss in strict.losses) > 0
    dropouts = [layer.rate for layer in strict.layers if isinstance(layer, keras.layers.Dropout)]
    assert 0.5 in dropouts


SEED_NETWORKS = {  # name, size of the images, the recipe's dropout: the layers, as published
    ("seed-cnn", 128, 0.5): [
        "levels times 1/255",
        "32 filters 3x3 valid, relu",
        "pooling 2x2",
        "64 filters 3x3 valid, relu",
        "pooling 2x2",
        "64 filters 3x3 valid, relu",
        "pooling 2x2",
        "128 filters 3x3 valid, relu",
        "pooling 2x2",
        "flatten 4608",
        "dense 128, relu",
        "dropout 0.5",
        "dense 64, relu",
        "dropout 0.3",
        "dense 2, softmax",
    ],
    ("notebook-1", 240, 0.0): [
        "levels times 1/255",
        "padding 2",
        "32 filters 7x7 valid, linear",
        "normalization",
        "relu",
        "pooling 4x4",
        "pooling 4x4",
        "flatten 7200",
        "dense 128, relu",
        "dropout 0.0",
        "dense 2, softmax",
    ],
    ("notebook-2", 240, 0.15): [
        "levels times 1/255",
        "16 filters 9x9 same, relu",
        "pooling 2x2",
        "dropout 0.45",
        "16 filters 9x9 same, relu",
        "pooling 2x2",
        "dropout 0.25",
        "36 filters 9x9 same, relu",
        "pooling 2x2",
        "dropout 0.25",
        "flatten 32400",
        "dense 512, relu",
        "dropout 0.15",
        "dense 2, softmax",
    ],
    ("notebook-3", 240, 0.5): ["vgg16", "flatten 25088", "dropout 0.5", "dense 2, softmax"],
}


@pytest.mark.parametrize(
    ("network", "expected"), SEED_NETWORKS.items(), ids=[name for name, _, _ in SEED_NETWORKS]
)
def test_seed_networks_have_published_layers(network, expected):
    name, size, dropout = network
    model = build_network(name, size, 2, 0.0, 0.0, dropout)
    assert [line for line in map(describe, model.layers) if line] == expected


def describe(layer: keras.Layer) -> str | None:
    match layer:
        case keras.layers.Conv2D():
            (height, width), activation = layer.kernel_size, layer.activation.__name__
            return f"{layer.filters} filters {height}x{width} {layer.padding}, {activation}"
        case keras.layers.MaxPooling2D():
            return "pooling {}x{}".format(*layer.pool_size)
        case keras.layers.Flatten():
            return f"flatten {layer.output.shape[1]}"
        case keras.layers.Dense():
            return f"dense {layer.units}, {layer.activation.__name__}"
        case keras.layers.Dropout():
            return f"dropout {layer.rate}"
        case keras.layers.Rescaling():
            assert layer.offset == 0
            return f"levels times 1/{1 / layer.scale:.0f}"
        case keras.layers.ZeroPadding2D():
            return f"padding {layer.padding[0][0]}"
        case keras.layers.BatchNormalization():
            return "normalization"
        case keras.layers.ReLU():
            return "relu"
        case keras.Model():
            assert layer.count_params() == 14_714_688  # VGG-16 without its top
            return "vgg16"
    return None


def test_seed_cnn_penalizes_dense_layers_alone():
    model = build_network("seed-cnn", 48, 2, 1e-5, 1e-4, 0.3)
    penalized = [
        type(layer).__name__ for layer in model.layers if getattr(layer, "kernel_regularizer", None)
    ]
    assert penalized == ["Dense", "Dense", "Dense"]
    everywhere = build_network("notebook-2", 48, 2, 1e-5, 1e-4, 0.3)
    assert sum(bool(getattr(layer, "kernel_regularizer", None)) for layer in everywhere.layers) == 5


@pytest.mark.parametrize(("name", "size"), [*((name, 48) for name in NETWORKS), ("notebook-3", 32)])
def test_penalties_are_of_all_kernels(name, size):
    """Of the layers that have a penalty."""
    model = build_network(name, size, 3, 1e-3, 1e-2, 0.0)
    penalized = keras.layers.Conv2D | keras.layers.Dense
    if name in ("seed-cnn", "notebook-3"):
        penalized = keras.layers.Dense
    kernels = [layer.kernel.numpy() for layer in model.layers if isinstance(layer, penalized)]
    expected = sum(
        1e-3 * np.abs(kernel).sum() + 1e-2 * np.square(kernel).sum() for kernel in kernels
    )
    assert len(kernels) >= 1
    np.testing.assert_allclose(sum(float(loss) for loss in model.losses), expected, rtol=1e-4)


# Ranges of scale, offset, mean and variance
BATCH_STATISTICS = ((0.5, 1.5), (-0.5, 0.5), (-0.5, 0.5), (0.5, 1.5))


@pytest.mark.parametrize("name", ["residual", "residual-sides", "residual-deep"])
def test_residual_networks_agree_with_their_description(name):
    model = build_network(name, 48, 3, 0.0, 0.0, 0.2)
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            assert (layer.momentum, layer.epsilon) == (0.9, 1e-3)
            statistics = [
                rng.uniform(*span, weight.shape)
                for span, weight in zip(BATCH_STATISTICS, layer.weights, strict=True)
            ]
            layer.set_weights(statistics)
        if isinstance(layer, keras.layers.Conv2D):
            assert isinstance(layer.kernel_initializer, keras.initializers.HeNormal)
    images = IMAGES.astype(np.float32)
    images[2:] = 100 + images[2:] / 64  # hardly any contrast
    extract = keras.Model(model.inputs, model.get_layer("probabilities").input)
    features = extract.predict(images, verbose=0)
    expected = residual_by_hand(name, model, images)
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-3 * expected.max())
    assert np.ptp(expected, axis=0).max() > 0.1 * expected.max()


def residual_by_hand(name: str, model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Compute the last layer's input from the weights by TensorFlow's functions alone."""
    kernels = [layer.kernel for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    statistics = [
        layer.get_weights()
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]

    def activate(x: tf.Tensor) -> tf.Tensor:
        scale, offset, mean, variance = statistics.pop(0)
        return tf.nn.relu((x - mean) / np.sqrt(variance + 1e-3) * scale + offset)

    mean = images.mean(axis=(1, 2, 3), keepdims=True)
    variance = images.var(axis=(1, 2, 3), keepdims=True)
    assert kernels[0].shape == (5, 5, 1, 16)
    x = activate(tf.nn.conv2d((images - mean) / np.sqrt(variance + 1), kernels.pop(0), 2, "SAME"))
    blocks = ((32, 1), (48, 2), (96, 2))
    if name == "residual-deep":
        blocks = ((16, 1), (32, 2), (64, 2), (128, 2))
    else:
        x = tf.nn.max_pool2d(x, 2, 2, "VALID")
    for block, (filters, stride) in enumerate(blocks):
        if name == "residual-sides" and block == 1:
            smooth = tf.nn.avg_pool2d(x, 3, 1, "SAME")
            other = tf.nn.max_pool2d(tf.reverse(smooth, [2]), 3, 1, "SAME")
            x = tf.concat([x, tf.nn.relu(smooth - other)], -1)
        of_block = [kernels.pop(0) for _ in range(3)]
        assert {kernel.shape[3] for kernel in of_block} == {filters}
        (shortcut,) = [kernel for kernel in of_block if kernel.shape[0] == 1]
        first, second = [kernel for kernel in of_block if kernel.shape[0] == 3]
        y = activate(tf.nn.conv2d(x, first, stride, "SAME"))
        x = tf.nn.conv2d(x, shortcut, stride, "SAME") + tf.nn.conv2d(y, second, 1, "SAME")
        x = activate(x)
    assert not kernels
    assert not statistics
    return np.concatenate([np.mean(x, axis=(1, 2)), np.max(x, axis=(1, 2))], axis=1)


def test_fused_normalization_agrees_with_keras():
    images = np.random.default_rng(0).normal(3, 2, (8, 5, 5, 3)).astype(np.float32)
    layers = [FusedBatchNormalization(momentum=0.7), keras.layers.BatchNormalization(momentum=0.7)]
    weights = ([1.0, 2, 3], [0.1, 0.2, 0.3], [1.0, 2, 4], [1.0, 2, 3])
    outputs = []
    for layer in layers:
        layer.build(images.shape)
        layer.set_weights([np.array(values) for values in weights])
        outputs.append([layer(images, training=training).numpy() for training in (False, True)])
    for fused, expected in zip(*outputs, strict=True):
        np.testing.assert_allclose(fused, expected, rtol=1e-4, atol=1e-4)
    for fused, expected in zip(*(layer.get_weights() for layer in layers), strict=True):
        # The fused variance is that of a sample: 200/199 of Keras's.
        np.testing.assert_allclose(fused, expected, rtol=5e-3)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [9, 10])
@pytest.mark.parametrize(
    ("ours", "expected", "kernel_shape"),
    [
        (FastConv2D, keras.layers.Conv2D, (3, 3, 4, 6)),
        (FastDepthwiseConv2D, keras.layers.DepthwiseConv2D, (3, 3, 4, 1)),
        (FastDepthwiseConv2D, keras.layers.DepthwiseConv2D, (5, 5, 4, 1)),
    ],
    ids=["convolution", "narrow", "wide"],
)
def test_fast_convolutions_agree_with_keras(ours, expected, kernel_shape, size, stride, padding):
    rng = np.random.default_rng(0)
    images = tf.constant(rng.normal(size=(3, size, size + 1, 4)), tf.float32)
    kernel = rng.normal(size=kernel_shape).astype(np.float32)
    options = {"strides": stride, "padding": padding, "activation": "relu"}
    if ours is FastConv2D:
        options["filters"] = kernel_shape[3]
    results = []
    for kind in (ours, expected):
        layer = kind(kernel_size=kernel_shape[0], **options)
        layer.build(images.shape)
        bias = np.linspace(-0.5, 2, layer.bias.shape[0], dtype=np.float32)
        layer.set_weights([kernel, bias])
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = layer(images)
            loss = tf.reduce_sum(outputs**2)
        results.append([outputs, *tape.gradient(loss, [images, *layer.trainable_variables])])
    for values, of_keras in zip(*results, strict=True):
        np.testing.assert_allclose(values, of_keras, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "name", [*NETWORKS, "mobilenet-v2", "efficientnet-b0", "efficientnet-lite0"]
)
def test_copy_to_train_predicts_as_the_network(name):
    """With the same weights, of a network that has been trained."""
    network = build_network(name, 96, 3, 0.0, 1e-4, 0.5)
    rng = np.random.default_rng(0)
    network.set_weights(
        [weight + rng.uniform(0, 0.01, weight.shape) for weight in network.get_weights()]
    )
    copy = copy_to_train(network, replicas=1)
    copy_weights(network, copy)
    images = rng.uniform(0, 255, (2, 96, 96, 1)).astype(np.float32)
    expected = network(images, training=False)
    np.testing.assert_allclose(copy(images, training=False), expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(copy.losses, network.losses, rtol=1e-5)


def test_copy_to_train_has_fast_layers():
    of_type = {
        name: {type(layer) for layer in copy.layers}
        for name, copy in {
            "residual": copy_to_train(build_network("residual", 48, 2, 0.0, 0.0, 0.0), 1),
            "efficientnet-lite0": copy_to_train(
                build_network("efficientnet-lite0", 48, 2, 0.0, 0.0, 0.0), 1
            ).get_layer("base"),
        }.items()
    }
    assert FusedBatchNormalization in of_type["residual"]
    assert keras.layers.BatchNormalization not in of_type["residual"]
    assert {FastConv2D, FastDepthwiseConv2D} < of_type["efficientnet-lite0"]


def test_copy_to_train_normalizes_over_all_devices():
    copy = copy_to_train(build_network("residual", 48, 2, 0.0, 0.0, 0.0), replicas=2)
    (synchronized,) = {
        layer.synchronized
        for layer in copy.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    }
    assert synchronized


def test_copy_to_train_keeps_what_is_frozen():
    network = build_network("mobilenet-v2", 48, 2, 0.0, 0.0, 0.0)
    for layer in network.get_layer("base").layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    copy = copy_to_train(network, replicas=1)
    assert len(copy.trainable_variables) == len(network.trainable_variables)


@pytest.mark.parametrize("name", [*NETWORKS, "mobilenet-v2", "efficientnet-lite0"])
def test_pretrained_networks_start_without_an_opinion(name):
    """With zeros in the last layer, so that its first gradients leave the base as it is."""
    model = build_network(name, 48, 3, 0.0, 0.0, 0.0)
    images = IMAGES.astype(np.float32)
    is_uniform = np.allclose(model(images, training=False), 1 / 3, atol=1e-6)
    assert is_uniform == (name in APPLICATIONS)


@pytest.mark.parametrize("name", [*NETWORKS, *APPLICATIONS])
def test_smallest_images_of_a_network(name):
    smallest = MIN_IMAGE_SIZE.get(name, 16)  # the smallest ingest.image_size
    assert build_network(name, smallest, 2, 0.0, 0.0, 0.0)
    # EfficientNet-Lite0 would take any; below 32 pixels, its last features are of all pixels.
    if name in MIN_IMAGE_SIZE and name != "efficientnet-lite0":
        with pytest.raises((UserError, ValueError)):
            build_network(name, smallest - 1, 2, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("name", ["mobilenet-v2", "densenet121", "notebook-1", "residual"])
def test_statistics_follow_within_hundreds_of_steps(name):
    """Of networks of Keras Applications that train from scratch, as of the project's own."""
    network = build_network(name, 32, 2, 0.0, 0.0, 0.0)
    base = network.get_layer("base") if name in APPLICATIONS else network
    layers = [layer for layer in base.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {layer.momentum for layer in layers} == {0.9}
