"""Networks, augmentation, and models on disk."""

import io
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from stages.shared.augmentation import augment, mix
from stages.shared.errors import UserError
from stages.shared.models import join, load_model, predictor, save_model
from stages.shared.networks import APPLICATIONS, NETWORKS, application_base, averaged, build, start_from
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


SEED_NETWORKS = {  # name, size of the images, the recipe's dropout: the layers with weights or rates, as published
    ("seed-cnn", 128, 0.5): [
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
        "32 filters 7x7 valid, linear",
        "pooling 4x4",
        "pooling 4x4",
        "flatten 7200",
        "dense 128, relu",
        "dropout 0.0",
        "dense 2, softmax",
    ],
    ("notebook-2", 240, 0.15): [
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


def test_erasing_blanks_a_rectangle_of_about_every_other_image_and_no_larger_one():
    images = np.random.default_rng(1).integers(0, 256, (60, 32, 32, 1), np.uint8)
    changed = np.abs(augment(images, seed(5), **{**NOTHING, "erase": 0.5}).numpy() - images) > 1
    touched = changed.any(axis=(1, 2, 3))
    assert 15 < touched.sum() < 45
    for one in changed[touched][..., 0]:
        rows, columns = np.flatnonzero(one.any(axis=1)), np.flatnonzero(one.any(axis=0))
        assert np.ptp(rows) < 16
        assert np.ptp(columns) < 16
        assert one[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.9


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
