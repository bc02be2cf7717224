"""Heat maps, the images that are shown with them, and the tumors that are outlined there."""

import hashlib
import io
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import uniform_filter
from scipy.signal import correlate2d

from brainmri.evaluation.explanations import choose_examples, pointing_game
from brainmri.evaluation.figures.grids import draw_heat_maps
from brainmri.evaluation.figures.overlays import overlay
from brainmri.images.cropping import head_box
from brainmri.images.phantom_masks import tumor_mask
from brainmri.images.phantoms import draw_phantom, to_png
from brainmri.models.heat_maps import explained_classes, feature_extractor, heat_maps, heat_scale
from brainmri.networks.builders import NETWORKS, build_network
from brainmri.networks.saving import load_model, save_model
from brainmri.networks.tta import with_tta
from tests.support.tiny_networks import FILTERS, pooling_network, two_scale_network


@pytest.fixture(scope="module")
def bright_square():
    """Images of noise, half of them with a bright square: positions, labels, a trained network."""
    keras.utils.set_random_seed(3)
    places = np.random.default_rng(0).integers(0, 24, (96, 2))
    images = np.random.default_rng(1).integers(0, 60, (96, 32, 32, 1)).astype(np.uint8)
    labels = np.arange(96) % 2
    for image, (y, x), label in zip(images, places, labels, strict=True):
        if label:
            image[y : y + 8, x : x + 8] += 150
    network = build_network("residual", 32, 2, 0.0, 0.0, 0.0)
    network.compile("adam", "sparse_categorical_crossentropy")
    network.fit(images.astype(np.float32), labels, epochs=12, batch_size=16, verbose=0)
    return images, places, labels, network


def test_heat_is_at_the_finding(bright_square):
    """And nowhere without one."""
    images, places, labels, network = bright_square
    members = {"a": with_tta(network, "mirrored"), "b": network}
    heat = heat_maps(members, {"a": 0.5, "b": 0.5}, images, np.ones(96, int))
    assert heat.shape == (96, 32, 32)
    assert heat.min() >= 0
    bright = labels == 1
    hottest = heat[bright].reshape(48, -1).argmax(axis=1)
    positions = np.stack(np.unravel_index(hottest, (32, 32)), axis=1)
    inside = np.all((positions >= places[bright] - 2) & (positions < places[bright] + 10), axis=1)
    assert inside.mean() > 0.8
    peaks = heat.max(axis=(1, 2))
    assert np.median(peaks[~bright]) < np.median(peaks[bright]) / 5
    log_odds = np.diff(np.log(network.predict(images.astype(np.float32), verbose=0)))[bright, 0]
    total = 100 * heat[bright].mean(axis=(1, 2))  # per 1 % of the image, over all of it
    assert 0.7 < np.mean(total) / np.mean(log_odds) < 1.3


def test_heat_without_evidence_is_zero():
    """In 16 bits, too, where a small denominator would be 0."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        network = build_network("seed-cnn", 64, 2, 0.0, 0.0, 0.0)
    finally:
        keras.config.set_dtype_policy(policy)
    dense = [layer for layer in network.layers if isinstance(layer, keras.layers.Dense)]
    dense[1].bias.assign(np.full(64, -1e3))  # no unit is active, so all images look the same
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 1)).astype(np.uint8)
    heat = heat_maps({"a": network}, {"a": 1.0}, images, np.ones(2, int))
    np.testing.assert_array_equal(heat, np.zeros((2, 64, 64)))


def test_heat_of_a_certain_network(bright_square):
    """It is in log-odds, which do not saturate as probabilities do."""
    images, _, labels, network = bright_square
    bright = images[labels == 1][:8]
    heat = heat_maps({"a": network}, {"a": 1.0}, bright, np.ones(8, int))
    certain = keras.models.clone_model(network)
    certain.set_weights(network.get_weights())
    last = certain.get_layer("probabilities")
    last.set_weights([100 * values for values in last.get_weights()])
    assert certain.predict(bright.astype(np.float32), verbose=0)[:, 1].min() > 1 - 1e-6
    of_certain = heat_maps({"a": certain}, {"a": 1.0}, bright, np.ones(8, int))
    np.testing.assert_allclose(of_certain, 100 * heat, rtol=1e-3, atol=1e-3 * of_certain.max())
    twice = heat_maps({"a": network, "b": network}, {"a": 0.25, "b": 0.75}, bright, np.ones(8, int))
    np.testing.assert_allclose(twice, heat, rtol=1e-4, atol=1e-4 * heat.max())


@pytest.mark.parametrize("name", [*NETWORKS, "mobilenet-v2", "efficientnet-lite0"])
def test_heat_maps_of_every_loaded_network(tmp_path, name):
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 1)).astype(np.uint8)
    network = build_network(name, 64, 3, 0.0, 0.0, 0.0)
    save_model(with_tta(network, "zoomed"), tmp_path / "model.keras")
    keras.backend.clear_session()  # so that new layers get the names of those in the file
    heat = heat_maps({"a": load_model(tmp_path / "model.keras")}, {"a": 1.0}, image, np.array([2]))
    assert heat.shape == (1, 64, 64)
    assert np.isfinite(heat).all()


def map_by_hand(network: keras.Model, image: np.ndarray, label: int) -> np.ndarray:
    """Compute the heat map of one of `tiny_networks` from its weights, without TensorFlow."""
    kernel, bias = network.get_layer("fine").get_weights()
    channels = [
        correlate2d(image[..., 0] / 255, kernel[:, :, 0, channel], "same") + bias[channel]
        for channel in range(FILTERS)
    ]
    fine = np.maximum(np.stack(channels, -1), 0)
    head, offset = network.get_layer("probabilities").get_weights()
    is_pooled = len(head) == FILTERS
    if is_pooled:
        last = fine
    else:
        coarse, coarse_bias = network.get_layer("last").get_weights()
        patches = fine.reshape(2, 8, 2, 8, FILTERS)
        last = np.einsum("aybxk,yxkm->abm", patches, coarse) + coarse_bias
    logits = last.mean(axis=(0, 1)) @ head + offset
    others = np.exp(np.where(np.arange(len(logits)) == label, -np.inf, logits))
    of_pooled = head[:, label] - head @ (others / others.sum())  # gradient of the log-odds
    places = amounts = np.maximum(last @ of_pooled / last[..., 0].size, 0)
    if not is_pooled:
        of_fine = np.tile(coarse @ of_pooled / 4, (2, 2, 1))
        places = np.maximum((fine * of_fine).sum(axis=-1), 0)
    neighbors = uniform_filter(np.ones(places.shape), 3, mode="constant")
    places = uniform_filter(places, 3, mode="constant") / neighbors
    return places / max(places.sum(), 1e-12) * amounts.sum() * places.size / 100


@pytest.mark.parametrize("weights", [{"b": 0.7, "a": 0.3}, {"b": 0.0, "a": 1.0}], ids=str)
def test_heat_maps_agree_with_those_by_hand(weights):
    """They are the weighted mean over members, and over an image and its mirror image."""
    images = np.random.default_rng(0).integers(0, 256, (18, 16, 16, 1), np.uint8)
    classes = np.arange(18) % 3
    members = {"a": pooling_network(1), "b": two_scale_network(2)}
    heat = heat_maps(members, weights, images, classes)
    expected = np.zeros((18, 16, 16))
    for name, weight in weights.items():
        for row, (image, label) in enumerate(zip(images, classes, strict=True)):
            mirrored = map_by_hand(members[name], image[:, ::-1], label)[:, ::-1]
            expected[row] += weight / 2 * (map_by_hand(members[name], image, label) + mirrored)
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(heat, expected, rtol=1e-3, atol=1e-4 * expected.max())


@pytest.mark.parametrize(("name", "last_size"), [("residual", 4), ("efficientnet-lite0", 2)])
def test_fine_features_are_of_every_fourth_pixel(name, last_size):
    """Or finer: the deepest of these, also of a network whose base is a single layer."""
    network = with_tta(build_network(name, 64, 2, 0.0, 0.0, 0.0), "mirrored")
    compute_features, head = feature_extractor(network)
    fine, last, pooled = compute_features(np.zeros((1, 64, 64, 1), np.float32))
    assert fine.shape[1:3] == (16, 16)
    assert last.shape[1:3] == (last_size, last_size)
    assert pooled.shape[1] == head.kernel.shape[0] == 2 * last.shape[3]


class LevelStore:
    """Stand-in for the store: each image has its row as its level."""

    labels = np.arange(200) % 3

    def images(self, rows):
        return np.broadcast_to(np.array(rows, np.uint8)[:, None, None, None], (len(rows), 8, 8, 1))


def test_heat_scale_is_exceeded_by_a_tenth_of_the_findings(monkeypatch):
    calls = []

    def hottest_in_a_corner(members, weights, images, classes):
        calls.append((members, weights, images[:, 0, 0, 0].tolist(), classes.tolist()))
        heat = np.zeros(images.shape[:3])
        heat[:, 2, 7] = images[:, 2, 7, 0] / 10
        return heat

    monkeypatch.setattr("brainmri.models.heat_maps.heat_maps", hottest_in_a_corner)
    rows = list(range(100, 150))
    spread = [100 + round(49 * step / 23) for step in range(24)]
    scale = heat_scale("members", "weights", LevelStore(), rows)
    assert scale == pytest.approx(np.quantile(spread, 0.9) / 10)
    assert calls == [("members", "weights", spread, [row % 3 for row in spread])]
    assert heat_scale("members", "weights", LevelStore(), [7, 9]) == pytest.approx(0.88)
    assert heat_scale("members", "weights", LevelStore(), [0]) > 0  # a scale divides


def test_explained_classes():
    predicted = np.array([0, 1])
    np.testing.assert_array_equal(explained_classes(predicted, 2, 1), [1, 1])
    np.testing.assert_array_equal(explained_classes(predicted, 2, 0), [0, 0])
    np.testing.assert_array_equal(explained_classes(predicted, 2, None), predicted)
    np.testing.assert_array_equal(explained_classes(predicted, 3, 1), predicted)


def test_pointing_game():
    masks = np.zeros((4, 4, 4), bool)
    masks[:, :2, :2] = True
    heat = np.zeros((4, 4, 4))
    heat[0, 0, 0], heat[0, 3, 3] = 3, 1  # hit, three quarters of the heat inside
    heat[1, 3, 3] = 5  # miss
    heat[2, 1, 1] = 0.1  # hit, all of it; the last map has no heat
    expected = {"images": 4, "accuracy": 0.5, "energy": (0.75 + 0 + 1 + 0) / 4, "chance": 0.25}
    assert pointing_game(heat, masks) == pytest.approx(expected)


def test_choose_examples():
    cases = [  # true class, predicted class, confidence
        (0, 0, 0.95),
        (1, 0, 0.85),
        (0, 0, 0.99),
        (1, 1, 0.90),
        (0, 1, 0.97),
        (1, 1, 0.80),
        (1, 0, 0.60),
        (0, 0, 0.51),
        (1, 1, 0.55),
    ]
    columns = [np.array(column) for column in zip(*cases, strict=True)]
    assert choose_examples(*columns, 6) == [2, 3, 4, 1, 7, 8]
    assert choose_examples(*columns, 7) == [2, 3, 0, 4, 1, 6, 7]
    assert choose_examples(*columns, 20) == [2, 3, 0, 5, 8, 7, 4, 1, 6]
    correct = np.array([0, 2, 3, 5, 7, 8])
    without_wrong = choose_examples(*[column[correct] for column in columns], 5)
    assert without_wrong == [1, 2, 4, 5, 3]  # more of the least confident


@pytest.mark.parametrize("crop", [False, True])
def test_tumor_mask(crop):
    """The tumor is where it was drawn, cropped and scaled as the image in the store."""
    drawn = draw_phantom("glioma", 3, 5)
    sha256 = hashlib.sha256(to_png(drawn.image)).hexdigest()
    image = {"path": "glioma/glioma-003.png", "sha256": sha256}
    settings = SimpleNamespace(crop=crop, image_size=128)
    mask = tumor_mask(image, 5, settings)
    left, upper, right, lower = (
        head_box(Image.fromarray(drawn.image)) if crop else (0, 0, *drawn.image.shape[::-1])
    )
    part = Image.fromarray(255 * drawn.tumor[upper:lower, left:right].astype(np.uint8))
    scale = 128 / max(part.size)
    part = part.resize([round(scale * side) for side in part.size], Image.Resampling.BOX)
    expected = np.zeros((128, 128), bool)
    top, first = (128 - part.height) // 2, (128 - part.width) // 2
    expected[top : top + part.height, first : first + part.width] = np.asarray(part) > 127
    assert np.sum(mask & expected) > 0.85 * np.sum(mask | expected) > 20
    assert tumor_mask(image, 6, settings) is None


@pytest.mark.parametrize(
    "change",
    [
        {"path": "no/no-003.png"},
        {"path": "glioma/other-003.png"},
        {"path": "glioma/glioma-x3.png"},
        {"path": "glioma/glioma.png"},
        {"path": "glioma/glioma-004.png"},
        {"sha256": "0" * 64},
    ],
)
def test_other_images_have_no_tumor_mask(change):
    sha256 = hashlib.sha256(to_png(draw_phantom("glioma", 3, 5).image)).hexdigest()
    image = {"path": "glioma/glioma-003.png", "sha256": sha256, **change}
    assert tumor_mask(image, 5, SimpleNamespace(crop=True, image_size=128)) is None


def test_tumor_outline_is_drawn_where_it_is_known():
    images, heat = np.full((2, 32, 32), 90, np.uint8), np.zeros((2, 32, 32))
    mask = np.zeros((32, 32), bool)
    mask[8:20, 8:20] = True
    for outlines, expected in (
        ([None, None], 0),
        ([None, mask], 40),
        ([np.zeros_like(mask), None], 0),
    ):
        content = draw_heat_maps(images, heat, 1.0, "evidence", outlines, ["a", "b"], [False, True])
        pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
        left, middle = np.split(pixels[:, : int(pixels.shape[1] * 0.9) // 2 * 2], 2, axis=1)
        cyan = [np.sum(np.abs(half - (0, 0xE5, 0xFF)).max(axis=-1) < 60) for half in (left, middle)]
        assert cyan[0] == 0
        assert cyan[1] > expected if expected else cyan[1] == 0


def test_overlays_share_a_scale():
    image = np.full((1, 3), 100, np.uint8)
    dark, half, bright = overlay(image, np.array([[0.0, 1.0, 2.0]]), 2.0)[0].astype(int)
    assert np.ptp(dark) == 0  # gray, without color
    assert dark.max() <= 100
    assert bright.sum() > half.sum() > dark.sum()
    above = overlay(image, np.array([[0.0, 1.0, 9.0]]), 2.0)[0]
    np.testing.assert_array_equal(above, [dark, half, bright])
    np.testing.assert_array_equal(overlay(image, np.array([[0.0, 1.0, 2.0]]), 100.0)[0, 0], dark)
