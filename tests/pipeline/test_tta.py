"""Test-time augmentation."""

import numpy as np
import tensorflow as tf

from brainmri.models.networks import build_network
from brainmri.models.saving import load_model, save_model
from brainmri.models.tta import with_tta

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


def resize(images: list[np.ndarray]) -> np.ndarray:
    return tf.image.resize(np.stack(images)[..., None], (32, 32)).numpy()
