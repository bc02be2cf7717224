"""Novelty agrees with scikit-learn's principal components and Pillow's thumbnails."""

import numpy as np
import pytest

from brainmri.models.novelty import fit_novelty, novelty_model, thumbnailer
from brainmri.models.principal_components import reconstruction_error
from tests.support.novelty import limit_by_hand, thumbnails_by_hand, unexplained_by_hand


def test_novelty_model_gives_the_fitted_novelty():
    base = np.random.default_rng(1).normal(size=(5, 40 * 40))
    images = np.random.default_rng(0).normal(size=(400, 5)) @ base
    noise = np.random.default_rng(2).normal(size=images.shape)
    images = np.clip(images * 12 + 120 + noise * 4, 0, 255)
    images = images.reshape(400, 40, 40, 1).astype(np.float32)
    thumbnails = thumbnailer((40, 40, 1)).predict(images, verbose=0).astype(float)
    mean, components, limit = fit_novelty(thumbnails[:300], np.arange(300), 0.1)
    model = novelty_model((40, 40, 1), mean, components, limit)
    novelty = model.predict(images, verbose=0)
    expected = reconstruction_error(thumbnails, mean, components) / limit
    np.testing.assert_allclose(novelty, expected, rtol=1e-4)
    assert 0 < np.mean(novelty[300:] > 1) < 0.25
    others = np.random.default_rng(3).integers(0, 256, (20, 40, 40, 1)).astype(np.float32)
    assert model.predict(others, verbose=0).min() > 1


def test_rounding_errors_change_no_limit():
    rng = np.random.default_rng(0)
    thumbnails = rng.normal(size=(60, 64))
    *_, limit = fit_novelty(thumbnails, np.arange(len(thumbnails)), 0.1)
    for _ in range(5):
        last_bits = rng.choice([-1, 0, 1], thumbnails.shape) * 2.0**-52
        assert fit_novelty(thumbnails * (1 + last_bits), np.arange(60), 0.1)[2] == limit


@pytest.mark.parametrize("count", [103, 13])
def test_fit_novelty_agrees_with_scikit_learn(count):
    rng = np.random.default_rng(0)
    thumbnails = (
        rng.normal(size=(count, 30)) @ rng.normal(size=(30, 64))
        + 0.3 * rng.normal(size=(count, 64))
        + 5
    )
    mean, components, limit = fit_novelty(thumbnails, np.arange(len(thumbnails)), 0.1)
    assert limit == pytest.approx(limit_by_hand(thumbnails, range(count), 0.1))
    assert len(components) == min(20, count // 2)
    others = rng.normal(size=(9, 64)) + 5
    np.testing.assert_allclose(
        reconstruction_error(others, mean, components),
        unexplained_by_hand(others, thumbnails),
        rtol=1e-6,
    )


def test_groups_are_held_out_as_a_whole():
    """Slices of a patient who is in the other folds would be explained by them."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(40), 10)
    slices = rng.normal(size=(60, 64))[:, np.newaxis] + 0.2 * rng.normal(size=(60, 10, 64))
    training, others = slices[:40].reshape(400, 64), slices[40:].reshape(200, 64)
    order = rng.permutation(400)
    mean, components, limit = fit_novelty(training[order], patients[order], 0.1)
    assert np.mean(reconstruction_error(others, mean, components) > limit) < 0.2
    *_, limit = fit_novelty(training[order], np.arange(400), 0.1)
    assert np.mean(reconstruction_error(others, mean, components) > limit) > 0.5


@pytest.mark.parametrize("side", [16, 32, 64])
def test_thumbnails_are_standardized(side):
    images = np.random.default_rng(0).integers(0, 256, (3, side, side, 1)).astype(np.float32)
    images[2] = 100 + images[2] / 255  # nearly flat
    thumbnails = thumbnailer((side, side, 1)).predict(images, verbose=0)
    np.testing.assert_allclose(thumbnails, thumbnails_by_hand(images), atol=5e-3)
