"""Cropping: the head is found on any background and canvas, and letters are not part of it."""

import numpy as np
import pytest
from PIL import Image

from brainmri.images.cropping import head_box
from brainmri.images.decoding import decode
from tests.support.image_files import SLICES, place_on_canvas, save_image


def rectangle(
    rows: tuple[int, int],
    columns: tuple[int, int],
    level: int = 100,
    shape: tuple[int, int] = (64, 64),
    background: int = 0,
) -> np.ndarray:
    """Return levels: a rectangle of one level on a background of another."""
    levels = np.full(shape, background, np.uint8)
    levels[slice(*rows), slice(*columns)] = level
    return levels


def find(levels: np.ndarray) -> tuple[int, int, int, int]:
    return head_box(Image.fromarray(levels))


@pytest.mark.parametrize("background", [0, 255, 40])
def test_head_is_found_beside_letters(tmp_path, background):
    rows, columns = np.mgrid[:300, :400]
    is_head = ((rows - 160) / 90) ** 2 + ((columns - 220) / 70) ** 2 < 1
    levels = np.where(is_head, 150 + rows % 10, background).astype(np.uint8)
    levels[5:12, 5:28:3] = 200  # a label in the corner
    left, upper, right, lower = find(levels)
    assert abs(left - 150) < 15
    assert abs(right - 290) < 15
    assert abs(upper - 70) < 15
    assert abs(lower - 250) < 15
    path = save_image(tmp_path, Image.fromarray(levels))
    cropped, whole = decode(path, 64, crop=True), decode(path, 64)
    head_pixels = [np.sum(abs(image.pixels - 155.0) < 8) for image in (cropped, whole)]
    assert head_pixels[0] > 2 * head_pixels[1]
    assert (cropped.perceptual_hashes, cropped.width) == (whole.perceptual_hashes, whole.width)


@pytest.mark.parametrize("times", [2, 3, 6])
@pytest.mark.parametrize(("x", "y"), [(0.5, 0.5), (0, 0), (0.9, 0.2)])
def test_head_is_found_on_a_large_canvas(times, x, y):
    for image in SLICES[::4]:
        canvas, (left, top) = place_on_canvas(image, times, 0, x, y)
        box = np.subtract(head_box(canvas), (left, top, left, top))
        np.testing.assert_allclose(box, find(image), atol=8)


def test_bright_lesion_is_not_taken_for_the_head():
    rows, columns = np.mgrid[:200, :200]
    head = np.where((rows - 100) ** 2 + (columns - 100) ** 2 < 80**2, 15, 0)
    levels = np.where((rows - 80) ** 2 + (columns - 110) ** 2 < 12**2, 120, head)
    assert find(levels.astype(np.uint8)) == (0, 0, 200, 200)


def test_blank_image_is_kept_whole():
    assert head_box(Image.new("L", (90, 50), 30)) == (0, 0, 90, 50)


@pytest.mark.parametrize(
    ("background", "level", "columns"),
    [(0, 20, (20, 50)), (0, 21, (14, 56)), (120, 100, (20, 50)), (120, 99, (14, 56))],
)
def test_more_than_20_levels_are_foreground(background, level, columns):
    levels = rectangle((10, 50), (20, 50), 250, background=background)
    levels[10:50, 14:20] = levels[10:50, 50:56] = level
    outlier = 255 if background < 50 else 0  # moves the mean of the rim, not its median
    levels[0, :6] = levels[-1, :6] = levels[1:7, -1] = outlier
    assert find(levels) == (columns[0], 10, columns[1], 50)


def test_background_is_the_median_of_all_four_sides():
    levels = rectangle((10, 50), (20, 50))
    levels[0], levels[:40, 0] = 200, 200  # most of two sides
    assert find(levels) == (0, 0, 50, 50)
    assert find(levels[::-1, ::-1]) == (14, 14, 64, 64)


def test_rows_with_a_tenth_of_foreground_belong_to_the_head():
    levels = rectangle((10, 50), (20, 50))
    levels[4:10, 30:36] = 100  # 6 of 64
    levels[50:54, 30:37] = 100  # 7 of 64
    levels[12:18, 14:20] = 100
    levels[20:27, 50:55] = 100
    assert find(levels) == (20, 10, 55, 54)


def test_box_holds_all_pixels_of_its_cells():
    levels = np.kron(rectangle((10, 50), (20, 50)), np.ones((2, 5), np.uint8))
    assert find(levels) == (100, 20, 250, 100)
    # 100/64 and 150/64 pixels to a cell
    box = find(rectangle((22, 81), (31, 117), shape=(100, 150)))
    assert box == (13 * 150 // 64, 14 * 100 // 64, -(-50 * 150 // 64), -(-52 * 100 // 64))


def add_spots(levels: np.ndarray, fraction: float) -> np.ndarray:
    """Brighten a fraction of the pixels around the middle a little: no flat canvas any more."""
    levels = levels.copy()
    rows, columns = np.mgrid[: levels.shape[0], : levels.shape[1]]
    is_around = (np.abs(rows - 31.5) > 18) | (np.abs(columns - 31.5) > 18)
    free = np.flatnonzero((levels == 0) & is_around)
    levels.ravel()[free[:: int(1 / fraction)]] = 10
    return levels


def test_small_heads_are_cropped_on_a_flat_canvas_only():
    small = rectangle((22, 42), (22, 42))  # 400 of 4096 cells: less than a tenth
    large = rectangle((22, 42), (22, 43))  # 420
    assert find(add_spots(small, 0.04)) == (0, 0, 64, 64)
    assert find(add_spots(large, 0.04)) == (22, 22, 43, 42)
    assert find(small) == (22, 22, 42, 42)
    assert find(add_spots(small, 0.01)) == (22, 22, 42, 42)


def test_head_on_a_canvas_is_searched_at_its_own_scale():
    levels = np.zeros((256, 256), np.uint8)
    levels[80:176, 90:166] = 100  # 0.11 of the image
    levels[83:173, 88:90] = 100  # half a cell of the whole image
    left, upper, right, lower = find(levels)
    region_width = 76 + 4 + 2 * (80 // 4 + 4)
    region_height = 96 + 2 * (96 // 4 + 4)
    assert 88 - region_width / 64 <= left <= 88
    assert 80 - region_height / 64 <= upper <= 80
    assert 166 <= right <= 166 + region_width / 64
    assert 176 <= lower <= 176 + region_height / 64


def test_regions_of_8_pixels_are_searched_again():
    assert find(rectangle((30, 34), (29, 33))) == (29, 30, 33, 34)
    assert find(rectangle((30, 33), (29, 33))) == (0, 0, 64, 64)
    levels = rectangle((24, 40), (24, 40))
    levels[40:58, 30:35] = 100  # more than a quarter as wide as the rest
    np.testing.assert_allclose(find(levels), (24, 24, 40, 58), atol=1)


def test_head_of_a_quarter_is_not_searched_again():
    levels = rectangle((16, 48), (16, 48))  # 1024 of 4096 cells
    levels[10:16, 20:26] = 100
    assert find(levels) == (16, 16, 48, 48)
    levels[47] = levels[9]
    # Six of the remaining 56 columns are more than a tenth
    assert find(levels) == (16, 10, 48, 47)
