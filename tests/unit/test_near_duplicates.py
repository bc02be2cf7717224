"""Near duplicates, flipped ones too, are those of a comparison of all pairs of images."""

import tracemalloc
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from brainmri.images.cropping import head_box
from brainmri.images.hashing import perceptual_hashes
from brainmri.sampling import groups, near_duplicates
from brainmri.sampling.groups import decode_hashes, near_duplicate_groups
from brainmri.sampling.near_duplicates import nearest_duplicates
from tests.support.groups import connected_groups, without_mirror_images
from tests.support.image_files import SLICES


def all_distances(hashes, others):
    """Compute the distances of all pairs: by the hash and the flip in which they differ least."""
    bits, other_bits = (np.unpackbits(array, axis=-1) for array in (hashes, others))
    upright, mirrored = np.split(bits, 2, axis=1)
    other_bits = other_bits[:, : upright.shape[1]]

    def differing(first, flipped):
        rows = first.reshape(*first.shape[:2], -1, 16)
        first = (rows[:, :, ::-1] if flipped else rows).reshape(first.shape)
        return (first[:, None] != other_bits).sum(axis=3).min(axis=2)

    flips = [differing(mirrored, False), differing(upright, True), differing(mirrored, True)]
    return np.minimum(differing(upright, False), np.ceil(np.min(flips, axis=0) * 4 / 3).astype(int))


@st.composite
def hash_sets(draw):
    """Draw hashes in clusters: of several sizes, with equal ones and some all zero."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    count, centers = draw(st.integers(1, 40)), draw(st.integers(1, 6))
    shape = draw(st.sampled_from([(2, 8), (2, 32), (4, 32), (6, 16)]))
    bits = rng.random((centers, *shape[:-1], 8 * shape[-1])) < draw(
        st.sampled_from([0.0, 0.1, 0.5])
    )
    bits = bits[rng.integers(centers, size=count)]
    bits ^= rng.random(bits.shape) < draw(st.sampled_from([0.0, 0.03, 0.1, 0.3]))
    hashes = np.packbits(bits, axis=-1)
    is_flipped = rng.random(count) < draw(st.sampled_from([0.0, 0.3]))
    hashes[is_flipped] = np.roll(hashes[is_flipped], shape[0] // 2, axis=1)
    is_upside_down = rng.random(count) < draw(st.sampled_from([0.0, 0.3]))
    rows = hashes.reshape(*hashes.shape[:2], -1, 2)
    rows[is_upside_down] = rows[is_upside_down, :, ::-1]
    return hashes


@contextmanager
def small_blocks():
    """Make a few images fill several blocks."""
    with (
        patch.object(groups, "BLOCK_ROWS", 4),
        patch.object(near_duplicates, "BLOCK_ROWS", 4),
        patch.object(near_duplicates, "BLOCK_COLUMNS", 8),
    ):
        yield


@settings(deadline=None, max_examples=200)
@given(hash_sets(), st.integers(0, 40) | st.sampled_from([100, 255, 256]))
def test_groups_are_connected_near_duplicates(hashes, bits):
    is_pair = np.triu(all_distances(hashes, hashes) <= bits, 1)
    expected = connected_groups(is_pair | is_pair.T)
    with small_blocks():
        assert near_duplicate_groups(hashes, bits).tolist() == expected


@settings(deadline=None)
@given(st.data(), st.integers(0, 40) | st.sampled_from([100, 255, 256]))
def test_nearest_duplicates(data, bits):
    hashes = data.draw(hash_sets())
    changed = hashes[data.draw(st.lists(st.integers(0, len(hashes) - 1), max_size=30))]
    changed ^= changed & data.draw(st.sampled_from([0, 1, 17]))
    with small_blocks():
        nearest, distances = nearest_duplicates(hashes, changed, bits)
    if not len(changed):
        assert set(nearest) == set(distances) == {-1}
        return
    expected = all_distances(hashes, changed)
    is_near = expected.min(axis=1) <= bits
    np.testing.assert_array_equal(nearest, np.where(is_near, expected.argmin(axis=1), -1))
    np.testing.assert_array_equal(distances, np.where(is_near, expected.min(axis=1), -1))


def test_nearest_duplicate_by_any_hash():
    hashes = np.zeros((1, 2, 32), np.uint8)
    others = np.full((3, 2, 32), 255, np.uint8)
    others[1, 0, :31] = 0
    others[2, 1, :30] = 0
    hashes, others = (
        without_mirror_images(*np.moveaxis(array, 1, 0)) for array in (hashes, others)
    )
    for bits, index, distance in ((8, 1, 8), (7, -1, -1), (None, -1, -1)):
        nearest, distances = nearest_duplicates(hashes, others, bits)
        assert (nearest.tolist(), distances.tolist()) == ([index], [distance])


@pytest.mark.parametrize("flip", [ImageOps.mirror, ImageOps.flip, lambda image: image.rotate(180)])
def test_flipped_copies_are_near_duplicates(flip):
    images = [Image.fromarray(levels) for levels in SLICES]
    hashes = [perceptual_hashes(image, head_box(image)) for image in images]
    copies = [flip(image) for image in images]
    hashes += [perceptual_hashes(copy, head_box(copy)) for copy in copies]
    count = len(images)
    groups = near_duplicate_groups(decode_hashes(hashes), 20)
    assert groups.tolist() == [*range(count), *range(count)]
    # Three quarters of the bits, since a head resembles its own mirror image
    changed = decode_hashes(hashes[:1])
    changed[:, :2] ^= np.packbits(np.arange(256) % 16 == 0)
    for bits, index in ((22, 0), (21, -1)):
        nearest, _ = nearest_duplicates(decode_hashes(hashes[count : count + 1]), changed, bits)
        assert nearest.tolist() == [index]


def test_no_images():
    none = np.zeros((0, 4, 32), np.uint8)
    assert near_duplicate_groups(none, 20).tolist() == []
    nearest, distances = nearest_duplicates(none, np.zeros((3, 4, 32), np.uint8), 20)
    assert nearest.tolist() == distances.tolist() == []


def test_memory_of_large_groups_is_bounded():
    """The 2e7 pairs of these near duplicates would take 300 MB."""
    hashes = np.zeros((6000, 4, 32), np.uint8)
    hashes[:, 1, :2] = np.arange(6000, dtype=np.uint16).view(np.uint8).reshape(-1, 2)
    hashes[:, 0, :3] = np.random.default_rng(0).integers(0, 256, (6000, 3), np.uint8)
    tracemalloc.start()
    assert not near_duplicate_groups(hashes, 20).any()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40e6
