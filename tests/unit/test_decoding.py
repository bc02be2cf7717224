"""Decoding: images of every common format become the right gray pixels, upright and in order."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brainmri.images.decoding import decode
from brainmri.images.files import FORMATS, ImageError
from brainmri.images.workers import decode_all
from brainmri.sampling.groups import decode_hashes, near_duplicate_groups
from tests.support.image_files import (
    GRAY_RAMP,
    SLICES,
    exif_of,
    save_image,
    step_image,
    transpose,
)

ORIENTATIONS = range(1, 9)


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def black_or_white(levels: np.ndarray) -> np.ndarray:
    return np.where(levels > 127, 255, 0).astype(np.uint8)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1"])
def test_gray_of_any_mode(tmp_path, mode):
    levels = black_or_white(GRAY_RAMP) if mode == "1" else GRAY_RAMP
    image = decode(save_image(tmp_path, Image.fromarray(levels).convert(mode)), 64)
    assert image.mode == mode
    np.testing.assert_array_equal(image.pixels, levels)


def test_colors_become_luma(tmp_path):
    rows, columns = np.mgrid[:64, :64]
    colors = np.stack([rows * 4, columns * 3, 200 - rows], axis=-1).astype(np.uint8)
    pixels = decode(save_image(tmp_path, Image.fromarray(colors)), 64).pixels
    assert np.abs(pixels - colors @ (0.299, 0.587, 0.114)).max() <= 1


def test_cmyk_jpeg_is_not_inverted(tmp_path):
    cmyk = Image.fromarray(GRAY_RAMP).convert("CMYK")
    image = decode(save_image(tmp_path, cmyk, "image.jpg", quality=95), 64)
    assert image.mode == "CMYK"
    assert np.abs(image.pixels.astype(int) - GRAY_RAMP).mean() < 3


def test_transparent_parts_become_black(tmp_path):
    light = GRAY_RAMP // 2 + 100
    is_opaque = np.tile(np.arange(64) < 32, (64, 1))
    alpha = np.where(is_opaque, 255, 0).astype(np.uint8)
    image = Image.fromarray(np.stack([light] * 3 + [alpha], axis=-1))
    palette = Image.fromarray(np.where(is_opaque, light, 250).astype(np.uint8)).convert("P")
    palette.info["transparency"] = palette.getpixel((60, 0))
    gray = Image.fromarray(np.where(is_opaque, light, 250).astype(np.uint8))
    gray.info["transparency"] = 250
    for variant in (image, palette, gray, image.convert("LA")):
        pixels = decode(save_image(tmp_path, variant), 64).pixels
        assert pixels[:, :30].min() >= 100
        assert pixels[:, 34:].max() == 0


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_image_is_named(tmp_path, mode):
    image = Image.fromarray(GRAY_RAMP).convert(mode)
    image.putalpha(0)
    with pytest.raises(ImageError, match="all of it is transparent; save it without its alpha"):
        decode(save_image(tmp_path, image), 64)
    image.putpixel((63, 0), (*image.getpixel((63, 0))[:-1], 255))
    with pytest.raises(ImageError, match="2 distinct gray"):
        decode(save_image(tmp_path, image), 64)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation_is_applied(tmp_path, orientation):
    upright = Image.fromarray(GRAY_RAMP[:, :40].repeat(2, axis=1))
    stored = transpose(upright, orientation)
    image = decode(save_image(tmp_path, stored, exif=exif_of(orientation)), 64)
    assert (image.width, image.height) == upright.size
    expected = decode(save_image(tmp_path, upright), 64).pixels
    np.testing.assert_array_equal(image.pixels, expected)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize(
    ("kind", "mode"),
    [("JPEG", "L"), ("WEBP", "RGB"), ("PNG", "I;16"), ("TIFF", "RGB"), ("MPO", "RGB")],
)
def test_orientation_of_each_format(tmp_path, kind, mode, orientation):
    is_deep = mode == "I;16"
    upright = Image.fromarray(SLICES[0][:, :120])
    stored = transpose(upright, orientation)
    if is_deep:
        stored = Image.fromarray(np.asarray(stored).astype(np.uint16) * 16)
    else:
        stored = stored.convert(mode)
    options = {
        "JPEG": {"quality": 95},
        "WEBP": {"lossless": True},
        "MPO": {
            "quality": 95,
            "save_all": True,
            "append_images": [stored.resize((90, 90))],
        },
    }.get(kind, {})
    name = f"image.{kind.lower()}"
    path = save_image(tmp_path, stored, name, format=kind, exif=exif_of(orientation), **options)
    image = decode(path, 64)
    assert (image.width, image.height) == upright.size
    expected = decode(save_image(tmp_path, upright), 64).pixels.astype(float)
    if is_deep:
        low, high = np.percentile(upright, (0.1, 99.9))
        expected = np.clip((expected - low) * 255 / (high - low), 0, 255)
    assert np.abs(image.pixels - expected).mean() < 3


def test_aspect_ratio_is_kept(tmp_path):
    levels = 200 + GRAY_RAMP[:50].repeat(2, axis=0).repeat(4, axis=1)[:100, :200] // 8
    pixels = decode(save_image(tmp_path, Image.fromarray(levels)), 64).pixels
    assert pixels.shape == (64, 64)
    assert pixels[16:48].min() >= 200
    assert pixels[:16].max() == 0
    assert pixels[48:].max() == 0


def test_format_is_detected_by_content(tmp_path):
    path = save_image(tmp_path, Image.fromarray(GRAY_RAMP), "image.png")
    path.rename(tmp_path / "image.jpg")
    np.testing.assert_array_equal(decode(tmp_path / "image.jpg", 64).pixels, GRAY_RAMP)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_read(rng, tmp_path, kind):
    levels = np.kron(rng.integers(0, 256, (8, 8), np.uint8), np.ones((8, 8), np.uint8))
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100}}.get(kind, {})
    path = save_image(tmp_path, Image.fromarray(levels), "image", format=kind, **options)
    tolerance = 3 if kind == "JPEG" else 0
    assert np.abs(decode(path, 64).pixels.astype(int) - levels).max() <= tolerance


def photometric_interpretation(path: Path) -> int:
    """Return the tag of a TIFF; if it is 0, zero is white, and Pillow inverts what it writes."""
    with Image.open(path) as file:
        return file.tag_v2[262]


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("compression", ["raw", "group4", "tiff_lzw"])
def test_white_is_zero_tiff_of_1_bit(tmp_path, photometric, compression):
    halftone = Image.fromarray(GRAY_RAMP).convert("1")
    options = {"compression": compression, "tiffinfo": {262: photometric}}
    path = save_image(tmp_path, halftone, "image.tiff", **options)
    assert photometric_interpretation(path) == photometric
    np.testing.assert_array_equal(decode(path, 64).pixels, np.asarray(halftone) * 255)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "jpeg"])
def test_white_is_zero_tiff_of_8_bits(tmp_path, compression):
    options = {"compression": compression, "tiffinfo": {262: 0}}
    path = save_image(tmp_path, Image.fromarray(GRAY_RAMP), "image.tiff", **options)
    assert photometric_interpretation(path) == 0
    tolerance = 6 if compression == "jpeg" else 0
    assert np.abs(decode(path, 64).pixels.astype(int) - GRAY_RAMP).max() <= tolerance


def test_second_image_of_a_camera_is_ignored(tmp_path):
    first = Image.fromarray(SLICES[0])
    second = Image.fromarray(SLICES[1]).resize((80, 80))
    options = {"quality": 95, "save_all": True, "append_images": [second]}
    path = save_image(tmp_path, first, "image.jpg", format="MPO", **options)
    with Image.open(path) as file:
        assert file.n_frames == 2
    expected = decode(save_image(tmp_path, first), 64).pixels
    assert np.abs(decode(path, 64).pixels.astype(int) - expected).mean() < 3


@pytest.mark.parametrize("orientation", [1, 6])
def test_size_and_pixels_of_a_large_jpeg(tmp_path, orientation):
    rows, columns = np.mgrid[:900, :700]
    image = Image.fromarray(((rows / 5 + columns / 9) % 200).astype(np.uint8))
    exif = exif_of(orientation)
    jpeg = decode(save_image(tmp_path, image, "image.jpg", quality=95, exif=exif), 128)
    png = decode(save_image(tmp_path, image, "image.png", exif=exif), 128)
    expected = (700, 900) if orientation == 1 else (900, 700)
    assert (jpeg.width, jpeg.height) == (png.width, png.height) == expected
    assert np.abs(jpeg.pixels.astype(int) - png.pixels).mean() < 4


def test_large_jpeg_is_decoded_at_twice_the_size(rng, tmp_path):
    levels = np.kron(rng.integers(0, 256, (64, 64), np.uint8), np.ones((16, 16), np.uint8))
    path = save_image(tmp_path, Image.fromarray(levels), "image.jpg", quality=90)
    with Image.open(path) as file:
        file.draft("L", (256, 256))
        assert file.size == (256, 256)
        expected = np.asarray(file.resize((128, 128), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(decode(path, 128).pixels, expected)


def test_small_head_in_a_large_jpeg_is_sharp(tmp_path):
    """It is decoded larger than the rest of the image needs."""
    head = Image.fromarray(SLICES[0])
    photo = Image.new("L", (2000, 1500))
    photo.paste(head, (300, 400))
    of_png = decode(save_image(tmp_path, photo, "photo.png"), 96, crop=True)
    of_jpeg = decode(save_image(tmp_path, photo, "photo.jpg", quality=95), 96, crop=True)
    assert np.abs(of_jpeg.pixels.astype(int) - of_png.pixels).mean() < 1.5
    hashes = decode_hashes([of_png.perceptual_hashes, of_jpeg.perceptual_hashes])
    assert near_duplicate_groups(hashes, 20).tolist() == [0, 0]


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("sideways", [False, True])
def test_pixels_are_resized_and_centered_on_black(rng, tmp_path, crop, sideways):
    levels = np.zeros((96, 160), np.uint8)
    levels[12:84, 20:140] = rng.integers(60, 256, (72, 120))
    part = levels[12:84, 20:140] if crop else levels
    size, rows, columns = (40, 24), slice(8, 32), slice(None)
    if sideways:
        levels, part = levels.T, part.T
        size, rows, columns = (24, 40), slice(None), slice(8, 32)
    expected = np.zeros((40, 40), np.uint8)
    expected[rows, columns] = Image.fromarray(part).resize(size, Image.Resampling.BICUBIC)
    image = decode(save_image(tmp_path, Image.fromarray(levels)), 40, crop)
    np.testing.assert_array_equal(image.pixels, expected)
    assert (image.width, image.height) == levels.shape[::-1]


def test_checksum_is_that_of_the_file(tmp_path):
    path = save_image(tmp_path, Image.fromarray(GRAY_RAMP))
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert decode(path, 32, crop=True).sha256 == expected


@pytest.mark.parametrize("count", [0, 1, 8, 83])
def test_parallel_decoding_yields_each_file_once(tmp_path, count):
    paths = [
        save_image(tmp_path, step_image(8 + number, 9, 20), f"{number}.png")
        for number in range(count)
    ]
    decoded = list(decode_all(iter(paths), 16, False, 2))
    assert [path for path, _ in decoded] == paths
    assert [image.height for _, image in decoded] == list(range(8, 8 + count))


def test_parallel_decoding_keeps_order_and_limits_lookahead(tmp_path):
    for number in range(3):
        Image.fromarray(GRAY_RAMP // 8 + 60 * number).save(tmp_path / f"{number}.png")
    (tmp_path / "bad.png").write_bytes(b"none")
    names = ["0", "1", "bad", "2"]
    requested = []

    def endless_paths():
        while True:
            for name in names:
                requested.append(name)
                yield tmp_path / f"{name}.png"

    decoded = decode_all(endless_paths(), 32, False, 2)
    first = [next(decoded) for _ in range(40)]
    assert [path.stem for path, _ in first] == names * 10
    assert all(isinstance(image, ImageError) == (path.stem == "bad") for path, image in first)
    darkest = [image.pixels.min() for path, image in first[:4] if path.stem != "bad"]
    assert darkest == [0, 60, 120]
    assert len(requested) < 200
    decoded.close()
