"""Perceptual hashes: copies of an image are close to it, other images are far from it."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from brainmri.images.cropping import head_box
from brainmri.images.decoding import decode, to_gray
from brainmri.images.hashing import difference_hash, head_hash, perceptual_hashes
from brainmri.sampling.groups import decode_hashes, near_duplicate_groups
from tests.support.image_files import SLICES, difference_bits, place_on_canvas, save_image


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def test_difference_hash_is_close_for_copies_only():
    rng = np.random.default_rng(0)
    image, other = (
        Image.fromarray(rng.integers(0, 256, (12, 12), np.uint8)).resize(
            (200, 200), Image.Resampling.BICUBIC
        )
        for _ in range(2)
    )
    copy = to_gray(image.resize((150, 150)).convert("RGB"))

    def distance(first: Image.Image, second: Image.Image) -> int:
        hashes = [int(difference_hash(image).upright, 16) for image in (first, second)]
        return (hashes[0] ^ hashes[1]).bit_count()

    assert distance(image, copy) <= 20
    assert distance(image, other) > 60


@pytest.mark.parametrize(("times", "level"), [(2, 0), (3, 0), (5, 0), (2, 255), (3, 90)])
def test_canvas_neither_joins_slices_nor_separates_copies(tmp_path, times, level):
    images = []
    for image in SLICES:
        canvas, _ = place_on_canvas(image, times, level, 0.7, 0.3)
        size = round(canvas.width * 0.8), round(canvas.height * 0.8)
        images += [canvas, canvas.resize(size)]
    decoded = [decode(save_image(tmp_path, image, "image.bmp"), 64, crop=False) for image in images]
    hashes = decode_hashes(image.perceptual_hashes for image in decoded)
    groups = near_duplicate_groups(hashes, 20)
    assert len(set(groups[::2])) == len(SLICES)
    assert np.mean(groups[::2] == groups[1::2]) > 0.8


def test_bits_of_the_difference_hash(rng):
    levels = np.zeros((16, 17), np.uint8)
    levels[0] = np.arange(17) * 10
    levels[1] = levels[0][::-1]
    levels[2] = 90
    levels[3, 5] = 30
    expected = "ffff" + "0000" * 2 + "0800" + "0000" * 12
    mirrored = "0000" + "ffff" + "0000" + "0020" + "0000" * 12
    assert difference_hash(Image.fromarray(levels)) == (expected, mirrored)
    larger = rng.integers(0, 256, (30, 40), np.uint8)
    larger[2:18, 3:20] = levels
    assert difference_hash(Image.fromarray(larger), (3, 2, 20, 18)) == (expected, mirrored)
    image = Image.fromarray(rng.integers(0, 256, (75, 90), np.uint8))
    expected = difference_bits(image), difference_bits(ImageOps.mirror(image))
    assert difference_hash(image) == expected


def expected_head_hash(levels: np.ndarray, box: tuple, background: int) -> str:
    """Hash the middle of a head; its box, a quarter wider on each side, has cells of 2×3 pixels."""
    left, upper = box[0] - 21, box[1] - 32
    rows, columns = slice(upper + 200, upper + 392), slice(left + 200, left + 328)
    part = np.pad(levels, 200)[rows, columns]
    is_inside = np.pad(np.ones_like(levels), 200)[rows, columns]
    # Pillow rounds rows first
    row_means = np.floor(part.reshape(64, 3, 64, 2).mean(axis=3) + 0.5)
    cells = row_means.mean(axis=1).round()
    fractions_inside = is_inside.reshape(64, 3, 64, 2).mean(axis=(1, 3))
    contrast = np.where(fractions_inside >= 0.5, np.abs(cells - background), 0)
    rows, columns = np.nonzero(contrast > np.median(contrast[contrast > 5]) / 2)
    x, y = 2 * (columns.mean() + 0.5), 3 * (rows.mean() + 0.5)
    half_width = 2 * 1.8 * max(1, columns.std())
    half_height = 3 * 1.8 * max(1, rows.std())
    left, right = max(0, x - half_width), min(128, x + half_width)
    upper, lower = max(0, y - half_height), min(192, y + half_height)
    return difference_bits(Image.fromarray(part), (left, upper, right, lower))


@pytest.mark.parametrize(("left", "upper"), [(40, 50), (5, 100), (110, 10)])
@pytest.mark.parametrize("background", [0, 40, 255])
def test_head_hash_is_of_the_middle(rng, left, upper, background):
    noise = Image.fromarray(rng.integers(0, 256, (20, 16), np.uint8))
    texture = noise.resize((200, 256), Image.Resampling.BICUBIC)
    rows, columns = np.mgrid[:256, :200]
    levels = np.full((256, 200), background, np.uint8)
    ellipses = (left + 38, upper + 60, 36, 55), (left + 70, upper + 100, 12, 25)
    for x, y, half_x, half_y in ellipses:
        is_inside = ((columns - x) / half_x) ** 2 + ((rows - y) / half_y) ** 2 < 1
        levels = np.where(is_inside, texture, levels)
    box = left, upper, left + 86, upper + 128
    expected = expected_head_hash(levels, box, background)
    assert head_hash(Image.fromarray(levels), box).upright == expected


def test_thin_and_faint_heads_have_a_hash(rng):
    box = 40, 50, 126, 178
    levels = np.zeros((256, 200), np.uint8)
    levels[60:170, 61:63] = rng.integers(100, 200, (110, 1))
    assert head_hash(Image.fromarray(levels), box).upright == expected_head_hash(levels, box, 0)
    levels = np.kron(rng.integers(0, 6, (32, 25), np.uint8), np.ones((8, 8), np.uint8))
    levels[:, [0, -1]], levels[[0, -1]] = 0, 0
    faint = Image.fromarray(levels)
    assert head_hash(faint, box).upright == difference_bits(faint.crop(box))


@pytest.mark.parametrize(
    ("background", "cells", "is_cut"),
    [(21, 31, True), (20, 31, False), (60, 32, False), (60, 31, True)],
)
def test_canvas_is_cut_from_a_slice_with_its_own_background(rng, background, cells, is_cut):
    levels = np.zeros((256, 256), np.uint8)
    levels[52:188, 52:188] = background
    # On so many of 64 cells of the upper and of the lower edge
    levels[52:188, 70 : 70 + 2 * cells] = rng.integers(120, 256, (136, 2 * cells))
    canvas, box = Image.fromarray(levels), (52, 52, 188, 188)
    inner = canvas.crop((56, 56, 184, 184))  # a cell less at each edge
    hash_with_canvas = head_hash(canvas, box).upright
    hash_without_canvas = head_hash(inner, head_box(inner)).upright
    assert hash_without_canvas != hash_with_canvas
    expected = hash_without_canvas if is_cut else hash_with_canvas
    assert perceptual_hashes(canvas, box)[:2] == (expected, expected)


def test_whole_image_is_hashed_if_45_percent_are_head(rng):
    levels = np.kron(rng.integers(0, 256, (10, 10), np.uint8), np.ones((10, 10), np.uint8))
    levels[:, :30], levels[:, 75:] = 0, 0
    image = Image.fromarray(levels)
    box, smaller_box = (30, 0, 75, 100), (30, 0, 74, 100)
    of_head, whole, mirrored_head, mirrored_whole = perceptual_hashes(image, box)
    assert (of_head, mirrored_head) == head_hash(image, box)
    assert whole == difference_bits(image)
    assert mirrored_whole == difference_bits(ImageOps.mirror(image))
    assert of_head != whole
    of_head = head_hash(image, smaller_box)
    expected = 2 * [of_head.upright] + 2 * [of_head.mirrored]
    assert [*perceptual_hashes(image, smaller_box)] == expected


def test_hashes_of_a_cropped_slice_are_those_of_the_original(tmp_path):
    image = Image.fromarray(SLICES[0])
    decoded = decode(save_image(tmp_path, image), 32, crop=True)
    assert decoded.perceptual_hashes == perceptual_hashes(image, head_box(image))


def test_frame_around_a_full_head_is_no_canvas(rng):
    levels = np.full((256, 256), 60, np.uint8)
    levels[40:200, 60:200] = rng.integers(120, 256, (160, 140))
    levels[:4], levels[-4:], levels[:, :4], levels[:, -4:] = 0, 0, 0, 0
    image, box = Image.fromarray(levels), (0, 0, 256, 256)
    expected = head_hash(image, box).upright, difference_bits(image)
    assert perceptual_hashes(image, box)[:2] == expected
