"""Networks, augmentation, and models on disk."""

import io
import json
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from stages.shared import networks
from stages.shared.augmentation import augment, mix
from stages.shared.errors import UserError
from stages.shared.models import join, load_ensemble, load_model, members_of, predictor, save_model, save_serving
from stages.shared.networks import (
    APPLICATIONS,
    NETWORKS,
    FusedBatchNormalization,
    application_base,
    averaged,
    build,
    start_from,
    training_normalization,
)
from stages.shared.params import SMALLEST_IMAGES

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 1), np.uint8)
LARGER_IMAGES = np.random.default_rng(0).integers(0, 256, (4, 48, 48, 1), np.uint8)  # of a size that each network takes
NOTHING = {
    "flip": False,
    "rotation": 0.0,
    "shift": 0.0,
    "zoom": 0.0,
    "contrast": 0.0,
    "brightness": 0.0,
    "erase": 0.0,
}


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_give_probabilities_of_each_class(name, classes):
    probabilities = build(name, 48, classes, 1e-6, 1e-4, 0.3).predict(LARGER_IMAGES, verbose=0)
    assert probabilities.shape == (4, classes)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_penalties_and_dropout_reach_the_network(name):
    plain, strict = build(name, 48, 2, 0.0, 0.0, 0.0), build(name, 48, 2, 1e-3, 1e-3, 0.5)
    assert not plain.losses
    assert sum(float(loss) for loss in strict.losses) > 0
    assert any(isinstance(layer, keras.layers.Dropout) and layer.rate == 0.5 for layer in strict.layers)


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


@pytest.mark.parametrize(("network", "expected"), SEED_NETWORKS.items(), ids=[name for name, _, _ in SEED_NETWORKS])
def test_seed_networks_have_the_published_layers(network, expected):
    name, size, dropout = network
    model = build(name, size, 2, 0.0, 0.0, dropout)
    assert [line for line in map(describe, model.layers) if line] == expected


def describe(layer):
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


def test_the_original_network_penalizes_dense_layers_alone():
    model = build("seed-cnn", 48, 2, 1e-5, 1e-4, 0.3)
    penalized = [type(layer).__name__ for layer in model.layers if getattr(layer, "kernel_regularizer", None)]
    assert penalized == ["Dense", "Dense", "Dense"]
    everywhere = build("notebook-2", 48, 2, 1e-5, 1e-4, 0.3)
    assert sum(bool(getattr(layer, "kernel_regularizer", None)) for layer in everywhere.layers) == 5


@pytest.mark.parametrize(("name", "size"), [*((name, 48) for name in NETWORKS), ("notebook-3", 32)])
def test_penalties_are_of_all_kernels_of_the_layers_that_have_them(name, size):
    model = build(name, size, 3, 1e-3, 1e-2, 0.0)
    kinds = {"seed-cnn": keras.layers.Dense, "notebook-3": keras.layers.Dense}.get(name, keras.layers.Conv2D | keras.layers.Dense)
    kernels = [layer.kernel.numpy() for layer in model.layers if isinstance(layer, kinds)]
    expected = sum(1e-3 * np.abs(kernel).sum() + 1e-2 * np.square(kernel).sum() for kernel in kernels)
    assert len(kernels) >= 1
    np.testing.assert_allclose(sum(float(loss) for loss in model.losses), expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["residual", "residual-sides", "residual-deep"])
def test_residual_networks_compute_what_their_description_says(name):
    model = build(name, 48, 3, 0.0, 0.0, 0.2)
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            assert (layer.momentum, layer.epsilon) == (0.9, 1e-3)
            layer.set_weights(
                [rng.uniform(*span, weight.shape) for span, weight in zip(BATCH_STATISTICS, layer.weights, strict=True)]
            )
        if isinstance(layer, keras.layers.Conv2D):
            assert isinstance(layer.kernel_initializer, keras.initializers.HeNormal)
    images = LARGER_IMAGES.astype(np.float32)
    images[2:] = 100 + images[2:] / 64  # hardly any contrast
    features = keras.Model(model.inputs, model.get_layer("probabilities").input).predict(images, verbose=0)
    expected = residual_by_hand(name, model, images)
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-3 * expected.max())
    assert np.ptp(expected, axis=0).max() > 0.1 * expected.max()


BATCH_STATISTICS = (0.5, 1.5), (-0.5, 0.5), (-0.5, 0.5), (0.5, 1.5)  # spans of scale, offset, mean and variance


def residual_by_hand(name, model, images):
    """What its last layer takes, from its weights and TensorFlow's functions alone."""
    kernels = [layer.kernel for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    statistics = [layer.get_weights() for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]

    def activated(x):
        scale, offset, mean, variance = statistics.pop(0)
        return tf.nn.relu((x - mean) / np.sqrt(variance + 1e-3) * scale + offset)

    mean, variance = images.mean(axis=(1, 2, 3), keepdims=True), images.var(axis=(1, 2, 3), keepdims=True)
    assert kernels[0].shape == (5, 5, 1, 16)
    x = activated(tf.nn.conv2d((images - mean) / np.sqrt(variance + 1), kernels.pop(0), 2, "SAME"))
    blocks = ((16, 1), (32, 2), (64, 2), (128, 2)) if name == "residual-deep" else ((32, 1), (48, 2), (96, 2))
    if name != "residual-deep":
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
        y = activated(tf.nn.conv2d(x, first, stride, "SAME"))
        x = activated(tf.nn.conv2d(x, shortcut, stride, "SAME") + tf.nn.conv2d(y, second, 1, "SAME"))
    assert not kernels
    assert not statistics
    return np.concatenate([np.mean(x, axis=(1, 2)), np.max(x, axis=(1, 2))], axis=1)


def test_the_normalization_of_training_is_keras_own_computed_faster():
    images = np.random.default_rng(0).normal(3, 2, (8, 5, 5, 3)).astype(np.float32)
    layers = [FusedBatchNormalization(momentum=0.7), keras.layers.BatchNormalization(momentum=0.7)]
    outputs = []
    for layer in layers:
        layer.build(images.shape)
        layer.set_weights([np.array(values) for values in ([1.0, 2, 3], [0.1, 0.2, 0.3], [1.0, 2, 4], [1.0, 2, 3])])
        outputs.append([layer(images, training=training).numpy() for training in (False, True)])
    for fused, expected in zip(*outputs, strict=True):
        np.testing.assert_allclose(fused, expected, rtol=1e-4, atol=1e-4)
    for fused, expected in zip(*(layer.get_weights() for layer in layers), strict=True):
        np.testing.assert_allclose(fused, expected, rtol=5e-3)  # its variance is that of a sample: 200/199 of Keras's
    assert training_normalization(1) is FusedBatchNormalization
    assert training_normalization(2)().synchronized


@pytest.mark.parametrize("name", [*NETWORKS, *APPLICATIONS])
def test_the_smallest_images_of_a_network_are_known(name):
    smallest = SMALLEST_IMAGES.get(name, 16)  # the least of ingest.image_size
    assert build(name, smallest, 2, 0.0, 0.0, 0.0)
    if name in SMALLEST_IMAGES:
        with pytest.raises((UserError, ValueError)):
            build(name, smallest - 1, 2, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("name", NETWORKS)
def test_saved_models_are_equal_bytes_and_load_in_safe_mode(tmp_path, name):
    models = []
    for path in ("one.keras", "two.keras"):
        keras.backend.clear_session()
        keras.utils.set_random_seed(0)
        models.append(build(name, 48, 2, 0.0, 1e-4, 0.3))
        save_model(models[-1], tmp_path / path)
    model = models[-1]
    assert (tmp_path / "one.keras").read_bytes() == (tmp_path / "two.keras").read_bytes()
    loaded = load_model(tmp_path / "one.keras")
    expected = model.predict(LARGER_IMAGES, verbose=0)
    np.testing.assert_allclose(loaded.predict(LARGER_IMAGES, verbose=0), expected, atol=1e-6)


def test_models_with_code_or_no_model_are_refused(tmp_path):
    inputs = keras.Input((4,))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x + 1)(inputs)).save(tmp_path / "lambda.keras")
    (tmp_path / "text.keras").write_text("no model")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("config.json", "{}")
    (tmp_path / "empty.keras").write_bytes(archive.getvalue())
    for name in ("lambda", "text", "empty", "missing"):
        with pytest.raises(UserError, match=f"{name}.keras"):
            load_model(tmp_path / f"{name}.keras")


def seed(number):
    return tf.constant([number, 0], tf.int64)


def test_augmentation_that_is_off_changes_nothing():
    np.testing.assert_allclose(augment(IMAGES, seed(0), **NOTHING), IMAGES, atol=1e-3)


def test_augmentation_depends_on_its_seed_alone():
    strong = {
        "flip": True,
        "rotation": 20.0,
        "shift": 0.1,
        "zoom": 0.1,
        "contrast": 0.3,
        "brightness": 0.2,
        "erase": 0.4,
    }
    first, again, other = (augment(IMAGES, seed(number), **strong).numpy() for number in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).mean() > 5
    assert first.min() >= 0
    assert first.max() <= 255


def test_flip_mirrors_some_images_and_leaves_the_others():
    flipped = augment(np.repeat(IMAGES[:1], 40, axis=0), seed(3), **{**NOTHING, "flip": True}).numpy()
    mirrored = [np.allclose(one, IMAGES[0, :, ::-1], atol=1e-2) for one in flipped]
    same = [np.allclose(one, IMAGES[0], atol=1e-2) for one in flipped]
    assert sum(mirrored) + sum(same) == 40
    assert 8 < sum(mirrored) < 32


def test_turn_keeps_the_middle_and_shift_moves_it():
    dot, line = np.zeros((2, 30, 33, 33, 1), np.uint8)
    dot[:, 16, 16] = 255
    line[:, 16, 16:29] = 255
    turned = augment(line, seed(4), **{**NOTHING, "rotation": 90.0}).numpy()
    assert np.all(turned[:, 16, 16, 0] > 250)
    rows, columns = np.mgrid[-16:17, -16:17]
    middles = np.transpose([(np.average(rows, weights=one), np.average(columns, weights=one)) for one in turned[..., 0]])
    np.testing.assert_allclose(np.hypot(*middles), 6, atol=0.5)
    angles = np.degrees(np.arctan2(*middles))
    assert angles.min() < -45
    assert angles.max() > 45
    assert np.abs(angles).max() <= 91
    moved = augment(dot, seed(4), **{**NOTHING, "shift": 0.25}).numpy()
    places = {np.unravel_index(one[..., 0].argmax(), (33, 33)) for one in moved}
    assert len(places) > 15
    assert np.abs(np.subtract([*places], 16)).max() <= 9


def transforms(**strength):
    """How each of 64 images of 33 rows and 41 columns is moved: matrices from output to input (x, y), and shifts of the center.

    Levels rise by 4 a column, then by 4 a row, so that they tell where a pixel comes from.
    """
    rows, columns = np.mgrid[:33, :41]
    parts = []
    for ramp in (columns, rows):
        images = np.broadcast_to(40 + 4 * ramp[..., None], (64, 33, 41, 1)).astype(np.uint8)
        source = (augment(images, seed(8), **{**NOTHING, **strength}).numpy()[..., 0] - 40) / 4
        slopes = (source[:, 16, 22] - source[:, 16, 18]) / 4, (source[:, 18, 20] - source[:, 14, 20]) / 4
        parts.append((*slopes, source[:, 16, 20]))
    (a, b, x), (d, e, y) = parts
    return np.stack([np.stack([a, b], -1), np.stack([d, e], -1)], 1), np.stack([x - 20, y - 16], -1)


def test_turns_are_rotations_about_the_center_of_up_to_the_largest_angle_both_ways():
    matrices, shifts = transforms(rotation=20.0)
    np.testing.assert_allclose(matrices @ matrices.transpose(0, 2, 1), np.broadcast_to(np.eye(2), matrices.shape), atol=1e-3)
    np.testing.assert_allclose(shifts, 0, atol=1e-3)
    angles = np.degrees(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    assert -20 < angles.min() < -17
    assert 17 < angles.max() < 20


def test_zoom_scales_both_axes_alike_up_to_the_largest_both_ways():
    matrices, shifts = transforms(zoom=0.25)
    scales = matrices[:, 0, 0]
    np.testing.assert_allclose(matrices, scales[:, None, None] * np.eye(2), atol=1e-3)
    np.testing.assert_allclose(shifts, 0, atol=1e-3)
    assert 1 / 1.25 < scales.min() < 0.85
    assert 1.18 < scales.max() < 1.25


def test_shifts_are_shares_of_width_and_height_independent_of_each_other():
    matrices, shifts = transforms(shift=0.2)
    np.testing.assert_allclose(matrices, np.broadcast_to(np.eye(2), matrices.shape), atol=1e-3)
    for along, size in zip(shifts.T, (41, 33), strict=True):
        assert -0.2 * size < along.min() < -0.17 * size
        assert 0.17 * size < along.max() < 0.2 * size
    assert abs(np.corrcoef(*shifts.T)[0, 1]) < 0.5


def test_flip_turn_and_zoom_are_one_mirrored_similarity():
    matrices, _ = transforms(flip=True, rotation=20.0, zoom=0.25)
    mirrored = np.linalg.det(matrices) < 0
    assert 16 < mirrored.sum() < 48
    matrices[mirrored, 0] *= -1  # left and right
    (a, b), (d, e) = matrices.transpose(1, 2, 0)
    np.testing.assert_allclose(a, e, atol=2e-3)
    np.testing.assert_allclose(b, -d, atol=2e-3)
    assert a.min() > 0
    angles, scales = np.arctan2(d, a), np.hypot(a, d)
    assert abs(np.corrcoef(angles, scales)[0, 1]) < 0.5
    assert abs(np.corrcoef(angles, mirrored)[0, 1]) < 0.5


def test_what_comes_from_outside_the_image_is_black():
    moved = augment(np.full((20, 32, 32, 1), 200, np.uint8), seed(9), **{**NOTHING, "shift": 0.25}).numpy()
    assert np.median(moved.min(axis=(1, 2, 3))) == 0


def test_contrast_changes_around_each_images_mean_up_to_the_largest_both_ways():
    images = np.random.default_rng(3).integers(100, 150, (64, 16, 16, 1), np.uint8).astype(np.float32)
    changed = augment(images, seed(10), **{**NOTHING, "contrast": 0.5}).numpy()
    means = images.mean(axis=(1, 2, 3), keepdims=True)
    factors = np.std(changed, axis=(1, 2, 3)) / np.std(images, axis=(1, 2, 3))
    np.testing.assert_allclose(changed, means + factors[:, None, None, None] * (images - means), atol=1e-2)
    assert 1 / 1.5 < factors.min() < 0.72
    assert 1.4 < factors.max() < 1.5


def test_erasing_blanks_a_rectangle_of_about_every_other_image_and_no_larger_one():
    images = np.random.default_rng(1).integers(0, 256, (60, 32, 32, 1), np.uint8)
    blanked = augment(images, seed(5), **{**NOTHING, "erase": 0.5}).numpy()
    changed = np.abs(blanked - images) > 1
    touched = changed.any(axis=(1, 2, 3))
    assert 15 < touched.sum() < 45
    for one in changed[touched][..., 0]:
        rows, columns = np.flatnonzero(one.any(axis=1)), np.flatnonzero(one.any(axis=0))
        assert np.ptp(rows) < 16
        assert np.ptp(columns) < 16
        assert one[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.9
    for before, after, where in zip(images, blanked, changed, strict=True):
        np.testing.assert_allclose(after[where], before.mean(), atol=1e-2)
    extents = [[np.ptp(np.flatnonzero(one.any(axis=axis))) for axis in (0, 1)] for one in changed[touched][..., 0]]
    assert min(np.max(extents, axis=0)) > 12
    assert abs(np.corrcoef(*np.transpose(extents))[0, 1]) < 0.6


def test_brightness_moves_all_levels_of_an_image_alike():
    grey = np.full((20, 32, 32, 1), 128, np.uint8)
    brighter = augment(grey, seed(6), **{**NOTHING, "brightness": 0.2}).numpy() - 128
    assert np.allclose(np.ptp(brighter, axis=(1, 2, 3)), 0)
    assert 20 < np.abs(brighter).max() <= 51.1


def test_mixing_keeps_labels_in_step_with_images():
    levels = np.random.default_rng(2).permutation(64).astype(np.float32)
    images, labels = np.broadcast_to(levels[:, None, None, None], (64, 8, 8, 1)), np.eye(64, dtype=np.float32)
    mixed, shares = (part.numpy() for part in mix(tf.constant(images), tf.constant(labels), seed(7), 0.4))
    np.testing.assert_allclose(mixed[:, 3, 3, 0], shares @ levels, rtol=1e-5)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)
    other = 1 - np.diagonal(shares)
    assert 0.3 < other.max() <= 0.4
    assert 16 < (other > 0).sum() < 48
    np.testing.assert_array_equal(mix(tf.constant(images), tf.constant(labels), seed(7), 0.0)[0], images)


def test_views_of_an_image_are_averaged(tmp_path):
    model = build("residual", 32, 2, 0.0, 0.0, 0.1)
    both, six = averaged(model, "mirrored"), averaged(model, "zoomed")
    save_model(six, tmp_path / "model.keras")

    def predict(one, images):
        return np.reshape(one.predict(images.astype(np.float32), verbose=0), (4, 2))

    mirror = IMAGES[:, :, ::-1]
    assert averaged(model, "plain") is model
    np.testing.assert_allclose(predict(both, IMAGES), (predict(model, IMAGES) + predict(model, mirror)) / 2, atol=1e-5)
    large, small = (resize(IMAGES, change) for change in (lambda x: x[2:-2, 2:-2], lambda x: np.pad(x, 2)))
    views = [predict(both, view) for view in (IMAGES, large, small)]
    np.testing.assert_allclose(predict(six, IMAGES), np.mean(views, axis=0), atol=1e-5)
    np.testing.assert_allclose(predict(load_model(tmp_path / "model.keras"), mirror), predict(six, IMAGES), atol=1e-5)


def resize(images, change):
    return tf.image.resize(np.stack([change(image[..., 0]) for image in images])[..., None], (32, 32)).numpy()


def test_a_joined_model_votes_as_its_members_predict_whatever_the_number_of_images(tmp_path):
    names, weights = ("member-00", "member-01", "member-02"), (0.5, 0.3, 0.2)
    members = {}
    for index, name in enumerate(names):
        keras.utils.set_random_seed(index)
        save_model(build("residual", 32, 2, 0.0, 0.0, 0.1), tmp_path / f"{name}.keras")
        members[name] = load_model(tmp_path / f"{name}.keras")
    joined = join(members, dict(zip(names, weights, strict=True)))
    joined.save(tmp_path / "ensemble.keras")
    for model in (joined, load_model(tmp_path / "ensemble.keras")):
        predict = predictor(model)
        for count in (1, 33, 70):
            images = np.random.default_rng(count).integers(0, 256, (count, 32, 32, 1), np.uint8)
            each = [np.reshape(one.predict(images.astype(np.float32), verbose=0), (count, 2)) for one in members.values()]
            told = predict(images)
            np.testing.assert_allclose(told["members"], np.stack(each, 1), atol=1e-5)
            np.testing.assert_allclose(told["probabilities"], np.tensordot(weights, each, 1), atol=1e-5)


def small_member(number):
    """A network of one layer for images of 16 pixels and three classes."""
    images = keras.Input((16, 16, 1), name="images")
    kernel = keras.initializers.RandomNormal(stddev=0.002, seed=number)
    layer = keras.layers.Dense(3, "softmax", kernel_initializer=kernel, name="probabilities")
    return keras.Model(images, layer(keras.layers.Dropout(0.5)(keras.layers.Flatten()(images))), name=f"small_{number}")


SMALL_WEIGHTS = {"member-02": 0.2, "member-00": 0.5, "member-01": 0.3}  # in another order than the members
SMALL_ABOUT = {
    "classes": ["a", "b", "c"],
    "size": 16,
    "crop": True,
    "weights": SMALL_WEIGHTS,
    "threshold": None,
    "heat_scale": 1.5,
    "training_images": {"sha256_prefixes": []},
}


@pytest.fixture(scope="module")
def calibrated():
    """Members, and the model in which they are joined with a calibration and a measure of novelty."""
    members = {f"member-{number:02d}": small_member(number) for number in range(3)}
    images = keras.Input((16, 16, 1))
    novelty = keras.Model(images, keras.ops.mean(images, axis=(1, 2, 3)) / 100)
    return members, join(members, SMALL_WEIGHTS, 1.7, [0.0, 0.5, -1.0], novelty)


def test_a_joined_model_weighs_its_members_and_applies_the_calibration(calibrated, tmp_path):
    members, joined = calibrated
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 1), np.uint8)
    each = np.stack([member.predict(images.astype(np.float32), verbose=0) for member in members.values()], axis=1)
    mean = 0.5 * each[:, 0] + 0.3 * each[:, 1] + 0.2 * each[:, 2]
    scores = mean ** (1 / 1.7) * np.exp([0.0, 0.5, -1.0])
    expected = {
        "probabilities": scores / scores.sum(axis=1, keepdims=True),
        "members": each,
        "novelty": images.mean(axis=(1, 2, 3)) / 100,
    }
    assert np.abs(expected["probabilities"] - mean).max() > 0.05
    (tmp_path / "served").mkdir()
    (tmp_path / "served/old").touch()
    save_serving(joined, tmp_path / "served", SMALL_ABOUT)
    served = tf.saved_model.load(str(tmp_path / "served")).signatures["serving_default"](images=tf.constant(images))
    save_model(joined, tmp_path / "ensemble.keras", SMALL_ABOUT)
    loaded, about = load_ensemble(tmp_path / "ensemble.keras")
    for outputs in (predictor(joined)(images), served, predictor(loaded)(images)):
        assert set(outputs) == set(expected)
        for key, values in expected.items():
            np.testing.assert_allclose(outputs[key], values, atol=1e-5)
    assert about == SMALL_ABOUT == json.loads((tmp_path / "served/assets.extra/about.json").read_text())
    assert not (tmp_path / "served/old").exists()
    for name, member in members_of(loaded, about).items():
        votes = member.predict(images.astype(np.float32), verbose=0)
        np.testing.assert_allclose(votes, each[:, list(members).index(name)], atol=1e-5)


def test_a_vote_of_certain_members_stays_finite(calibrated):
    members, _ = calibrated
    certain = keras.models.clone_model(members["member-00"])
    certain.get_layer("probabilities").set_weights([np.zeros((256, 3)), np.array([500.0, 0.0, 0.0])])
    outputs = predictor(join({"a": certain}, {"a": 1.0}))(np.zeros((1, 16, 16, 1), np.uint8))
    np.testing.assert_allclose(outputs["probabilities"], [[1, 0, 0]], atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"size": 32},
        {"crop": "yes"},
        {"classes": ["a", "b"]},
        {"classes": ["a", "b", 3]},
        {"weights": {**SMALL_WEIGHTS, "member-00": 0.6}},
        {"weights": {"member-00": 0.5, "member-01": 0.5}},
        {"weights": {**SMALL_WEIGHTS, "member-02": 0.1, "member-03": 0.1}},
        {"threshold": "half"},
        {"heat_scale": 0.0},
        {"training_images": {"sha256_prefixes": None}},
        {"training_images": {}},
    ],
    ids=str,
)
def test_what_does_not_fit_the_joined_model_is_refused(calibrated, tmp_path, change):
    save_model(calibrated[1], tmp_path / "ensemble.keras", {**SMALL_ABOUT, **change})
    with pytest.raises(UserError, match="no ensemble of this pipeline"):
        load_ensemble(tmp_path / "ensemble.keras")


def test_weights_of_imagenet_are_those_of_the_bases_network_and_size(monkeypatch):
    model, downloaded = build("vgg16", 32, 2, 0.0, 0.0, 0.0), application_base("vgg16", 32, None)
    asked = []
    monkeypatch.setattr(networks, "application_base", lambda *arguments: asked.append(arguments) or downloaded)
    start_from(model, "vgg16", "imagenet", freeze=True)
    assert asked == [("vgg16", 32, "imagenet")]
    assert not model.get_layer("base").trainable
    for mine, theirs in zip(model.get_layer("base").get_weights(), downloaded.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def weights_of(name, size, path):
    """A weights file of a network of Keras Applications, without its top."""
    keras.utils.set_random_seed(5)
    base = application_base(name, size, None)
    base.save_weights(path)
    return base


@pytest.mark.parametrize("name", APPLICATIONS)
def test_a_network_of_keras_applications_starts_from_a_file_and_sees_grey_as_its_weights_expect(tmp_path, name):
    base = weights_of(name, 64, tmp_path / "base.weights.h5")
    model = build(name, 64, 3, 0.0, 1e-4, 0.3)
    start_from(model, name, str(tmp_path / "base.weights.h5"), freeze=True)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 1)).astype(np.float32)
    module, _ = APPLICATIONS[name]
    features = base.predict(module.preprocess_input(np.repeat(images, 3, axis=3)), verbose=0)
    expected = features.reshape(2, -1) if name == "notebook-3" else features.mean(axis=(1, 2))
    pooled = keras.Model(model.inputs, model.layers[-2].input)
    np.testing.assert_allclose(pooled.predict(images, verbose=0), expected, rtol=1e-3, atol=1e-4)
    save_model(model, tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(images, verbose=0), model.predict(images, verbose=0), atol=1e-5)


@pytest.mark.parametrize("freeze", [True, False])
def test_a_frozen_base_keeps_its_weights_in_training(tmp_path, freeze):
    weights_of("mobilenet-v2", 32, tmp_path / "base.weights.h5")
    model = build("mobilenet-v2", 32, 2, 0.0, 0.0, 0.0)
    start_from(model, "mobilenet-v2", str(tmp_path / "base.weights.h5"), freeze)
    before, head = (layer.get_weights() for layer in (model.get_layer("base"), model.layers[-1]))
    model.compile("adam", "categorical_crossentropy")
    model.fit(IMAGES.astype(np.float32), np.eye(2)[[0, 1, 0, 1]], verbose=0)
    same = [np.array_equal(old, new) for old, new in zip(before, model.get_layer("base").get_weights(), strict=True)]
    assert all(same) == freeze
    assert not np.array_equal(head[0], model.layers[-1].get_weights()[0])


def test_weights_that_can_not_be_had_are_told_in_one_line(tmp_path, monkeypatch):
    weights_of("mobilenet-v2", 32, tmp_path / "mobilenet.weights.h5")
    (tmp_path / "text.h5").write_text("no weights")
    with_top = keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3), classes=3)
    with_top.save_weights(tmp_path / "top.weights.h5")
    model = build("vgg16", 32, 2, 0.0, 0.0, 0.0)
    for name in ("mobilenet.weights.h5", "text.h5", "missing.h5"):
        with pytest.raises(UserError, match=name):
            start_from(model, "vgg16", str(tmp_path / name), freeze=True)
    with pytest.raises(UserError, match=r"top.weights.h5 holds no weights of mobilenet-v2 without its top"):
        start_from(build("mobilenet-v2", 32, 2, 0.0, 0.0, 0.0), "mobilenet-v2", str(tmp_path / "top.weights.h5"), freeze=True)
    with pytest.raises(UserError, match=r"ingest\.image_size 16"):
        build("vgg16", 16, 2, 0.0, 0.0, 0.0)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    with pytest.raises(UserError, match="imagenet can't be downloaded") as raised:
        start_from(model, "vgg16", "imagenet", freeze=True)
    assert "\n" not in str(raised.value)
