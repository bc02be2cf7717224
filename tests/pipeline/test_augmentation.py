"""Augmentation: which images change, by how much, and that a seed alone decides it."""

import numpy as np
import tensorflow as tf

from brainmri.training.augmentation import augment, mixup
from tests.support.workspace import NO_AUGMENTATION

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 1), np.uint8)


def seed(number: int) -> tf.Tensor:
    return tf.constant([number, 0], tf.int64)


def augmented(images: np.ndarray, number: int, **strength) -> np.ndarray:
    """Augment the images, with all that is not given off."""
    return augment(images, seed(number), **{**NO_AUGMENTATION, **strength}).numpy()


def test_off_changes_nothing():
    np.testing.assert_allclose(augmented(IMAGES, 0), IMAGES, atol=1e-3)


def test_a_seed_repeats_an_augmentation():
    strong = {
        "flip": True,
        "rotation": 20.0,
        "shift": 0.1,
        "zoom": 0.1,
        "contrast": 0.3,
        "brightness": 0.2,
        "erase": 0.4,
    }
    first, again, other = (augmented(IMAGES, number, **strong) for number in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).mean() > 5
    assert first.min() >= 0
    assert first.max() <= 255


def test_flip_mirrors_about_half():
    flipped = augmented(np.repeat(IMAGES[:1], 40, axis=0), 3, flip=True)
    mirrored = [np.allclose(image, IMAGES[0, :, ::-1], atol=1e-2) for image in flipped]
    same = [np.allclose(image, IMAGES[0], atol=1e-2) for image in flipped]
    assert sum(mirrored) + sum(same) == 40
    assert 8 < sum(mirrored) < 32


def test_rotation_keeps_the_center():
    line = np.zeros((30, 33, 33, 1), np.uint8)
    line[:, 16, 16:29] = 255
    rotated = augmented(line, 4, rotation=90.0)
    assert np.all(rotated[:, 16, 16, 0] > 250)
    rows, columns = np.mgrid[-16:17, -16:17]
    middles = np.transpose(
        [
            (np.average(rows, weights=image), np.average(columns, weights=image))
            for image in rotated[..., 0]
        ]
    )
    np.testing.assert_allclose(np.hypot(*middles), 6, atol=0.5)
    angles = np.degrees(np.arctan2(*middles))
    assert angles.min() < -45
    assert angles.max() > 45
    assert np.abs(angles).max() <= 91


def test_shift_moves_the_center():
    dot = np.zeros((30, 33, 33, 1), np.uint8)
    dot[:, 16, 16] = 255
    shifted = augmented(dot, 4, shift=0.25)
    positions = {np.unravel_index(image[..., 0].argmax(), (33, 33)) for image in shifted}
    assert len(positions) > 15
    assert np.abs(np.subtract([*positions], 16)).max() <= 9


def transforms(**strength) -> tuple[np.ndarray, np.ndarray]:
    """Measure how each of 64 images of 33 rows and 41 columns is moved.

    Levels rise by 4 a column, then by 4 a row, so that they show where a pixel comes from.

    Returns
    -------
    matrices : ndarray, shape (64, 2, 2)
        From output to input (x, y).
    shifts : ndarray, shape (64, 2)
        Of the center.
    """
    rows, columns = np.mgrid[:33, :41]
    parts = []
    for ramp in (columns, rows):
        images = np.broadcast_to(40 + 4 * ramp[..., None], (64, 33, 41, 1)).astype(np.uint8)
        source = (augmented(images, 8, **strength)[..., 0] - 40) / 4
        slope_x = (source[:, 16, 22] - source[:, 16, 18]) / 4
        slope_y = (source[:, 18, 20] - source[:, 14, 20]) / 4
        parts.append((slope_x, slope_y, source[:, 16, 20]))
    (a, b, x), (d, e, y) = parts
    matrices = np.stack([np.stack([a, b], -1), np.stack([d, e], -1)], 1)
    return matrices, np.stack([x - 20, y - 16], -1)


def test_rotations_are_about_the_center():
    """Up to the largest angle, both ways."""
    matrices, shifts = transforms(rotation=20.0)
    identities = np.broadcast_to(np.eye(2), matrices.shape)
    np.testing.assert_allclose(matrices @ matrices.transpose(0, 2, 1), identities, atol=1e-3)
    np.testing.assert_allclose(shifts, 0, atol=1e-3)
    angles = np.degrees(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    assert -20 < angles.min() < -17
    assert 17 < angles.max() < 20


def test_zoom_scales_both_axes_alike():
    """Up to the largest zoom, both ways."""
    matrices, shifts = transforms(zoom=0.25)
    scales = matrices[:, 0, 0]
    np.testing.assert_allclose(matrices, scales[:, None, None] * np.eye(2), atol=1e-3)
    np.testing.assert_allclose(shifts, 0, atol=1e-3)
    assert 1 / 1.25 < scales.min() < 0.85
    assert 1.18 < scales.max() < 1.25


def test_shifts_are_fractions_of_the_size():
    """Of width and height, independent of each other."""
    matrices, shifts = transforms(shift=0.2)
    np.testing.assert_allclose(matrices, np.broadcast_to(np.eye(2), matrices.shape), atol=1e-3)
    for along, size in zip(shifts.T, (41, 33), strict=True):
        assert -0.2 * size < along.min() < -0.17 * size
        assert 0.17 * size < along.max() < 0.2 * size
    assert abs(np.corrcoef(*shifts.T)[0, 1]) < 0.5


def test_transform_is_a_mirrored_similarity():
    """Flip, rotation and zoom at once, independent of each other."""
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


def test_outside_of_the_image_is_black():
    shifted = augmented(np.full((20, 32, 32, 1), 200, np.uint8), 9, shift=0.25)
    assert np.median(shifted.min(axis=(1, 2, 3))) == 0


def test_contrast_changes_around_the_mean():
    """Of each image, up to the largest change both ways."""
    images = np.random.default_rng(3).integers(100, 150, (64, 16, 16, 1), np.uint8)
    images = images.astype(np.float32)
    changed = augmented(images, 10, contrast=0.5)
    means = images.mean(axis=(1, 2, 3), keepdims=True)
    factors = np.std(changed, axis=(1, 2, 3)) / np.std(images, axis=(1, 2, 3))
    expected = means + factors[:, None, None, None] * (images - means)
    np.testing.assert_allclose(changed, expected, atol=1e-2)
    assert 1 / 1.5 < factors.min() < 0.72
    assert 1.4 < factors.max() < 1.5


def test_erase_blanks_a_rectangle():
    """Of about every other image, no larger than allowed, to the image's mean."""
    images = np.random.default_rng(1).integers(0, 256, (60, 32, 32, 1), np.uint8)
    erased = augmented(images, 5, erase=0.5)
    changed = np.abs(erased - images) > 1
    is_erased = changed.any(axis=(1, 2, 3))
    assert 15 < is_erased.sum() < 45
    for mask in changed[is_erased][..., 0]:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert np.ptp(rows) < 16
        assert np.ptp(columns) < 16
        assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.9
    for before, after, mask in zip(images, erased, changed, strict=True):
        np.testing.assert_allclose(after[mask], before.mean(), atol=1e-2)
    extents = [
        [np.ptp(np.flatnonzero(mask.any(axis=axis))) for axis in (0, 1)]
        for mask in changed[is_erased][..., 0]
    ]
    assert min(np.max(extents, axis=0)) > 12
    assert abs(np.corrcoef(*np.transpose(extents))[0, 1]) < 0.6


def test_brightness_moves_all_levels_alike():
    gray = np.full((20, 32, 32, 1), 128, np.uint8)
    offsets = augmented(gray, 6, brightness=0.2) - 128
    assert np.allclose(np.ptp(offsets, axis=(1, 2, 3)), 0)
    assert 20 < np.abs(offsets).max() <= 51.1


def test_mixup_mixes_labels_as_images():
    levels = np.random.default_rng(2).permutation(64).astype(np.float32)
    images = np.broadcast_to(levels[:, None, None, None], (64, 8, 8, 1))
    labels = np.eye(64, dtype=np.float32)
    mixed, fractions = mixup(tf.constant(images), tf.constant(labels), seed(7), 0.4)
    mixed, fractions = mixed.numpy(), fractions.numpy()
    np.testing.assert_allclose(mixed[:, 3, 3, 0], fractions @ levels, rtol=1e-5)
    np.testing.assert_allclose(fractions.sum(axis=1), 1, atol=1e-6)
    of_others = 1 - np.diagonal(fractions)
    assert 0.3 < of_others.max() <= 0.4
    assert 16 < (of_others > 0).sum() < 48
    unmixed, _ = mixup(tf.constant(images), tf.constant(labels), seed(7), 0.0)
    np.testing.assert_array_equal(unmixed, images)
