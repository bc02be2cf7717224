"""Test-time augmentation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from brainmri.models.ensemble import build_ensemble_model
from brainmri.networks.builders import build_network
from brainmri.networks.saving import load_model, save_model
from brainmri.networks.tta import with_tta

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 1), np.uint8)


def test_predictions_of_views_are_averaged(tmp_path):
    model = build_network("residual", 32, 2, 0.0, 0.0, 0.1)
    mirrored, zoomed = with_tta(model, "mirrored"), with_tta(model, "zoomed")
    save_model(zoomed, tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")

    def predict(model, images):
        return np.reshape(model.predict(images.astype(np.float32), verbose=0), (4, 2))

    mirror = IMAGES[:, :, ::-1]
    assert with_tta(model, "plain") is model
    of_both = (predict(model, IMAGES) + predict(model, mirror)) / 2
    np.testing.assert_allclose(predict(mirrored, IMAGES), of_both, atol=1e-5)
    large = resize([image[2:-2, 2:-2] for image in IMAGES[..., 0]])
    small = resize([np.pad(image, 2) for image in IMAGES[..., 0]])
    of_views = [predict(mirrored, view) for view in (IMAGES, large, small)]
    np.testing.assert_allclose(predict(zoomed, IMAGES), np.mean(of_views, axis=0), atol=1e-5)
    np.testing.assert_allclose(predict(loaded, mirror), predict(zoomed, IMAGES), atol=1e-5)


@pytest.mark.parametrize("views", ["plain", "mirrored", "zoomed"])
@pytest.mark.parametrize("is_member", [True, False], ids=["member", "ensemble"])
def test_a_call_of_a_saved_model_is_no_training(tmp_path, views, is_member):
    """Whoever loads it with Keras alone may not pass `training=False`."""
    model = with_tta(build_network("residual", 32, 2, 0.0, 0.0, 0.5), views)
    if not is_member:
        frozen = with_tta(build_network("mobilenet-v2", 32, 2, 0.0, 0.0, 0.5), views)
        members, weights = {"a": model, "b": frozen}, {"a": 0.5, "b": 0.5}
        model = build_ensemble_model(members, weights, frozen={"b": "shared"}, views=views)
    save_model(model, tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    images = IMAGES.astype(np.float32) if is_member else IMAGES
    expected = loaded(images, training=False)
    for outputs in (loaded(images), loaded(images), loaded(images, training=False)):
        keras.tree.map_structure(np.testing.assert_array_equal, outputs, expected)


def resize(images: list[np.ndarray]) -> np.ndarray:
    return tf.image.resize(np.stack(images)[..., None], (32, 32)).numpy()
