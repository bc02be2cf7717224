"""Images of more than 8 bits: whatever range, format and layout, they decode as 8-bit copies do."""

import io
import itertools
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brainmri.images.cropping import head_box
from brainmri.images.decoding import DecodedImage, decode
from brainmri.images.files import ImageError, open_image
from brainmri.images.intensity import rescale_intensity
from brainmri.images.levels import read_levels
from brainmri.images.phantoms import draw_phantom
from tests.support.image_files import transpose

LUMA = 0.299, 0.587, 0.114
PNG_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by number of bands
SAMPLE_FORMATS = {"u": 1, "i": 2, "f": 3}  # of TIFF, by NumPy's kind


def stretch(levels: np.ndarray) -> np.ndarray:
    """Scale levels so that they fill the gray scale."""
    scaled = levels * (255 / np.percentile(levels, 99.9))
    return np.round(np.clip(scaled, 0, 255)).astype(np.uint8)


SLICE = stretch(draw_phantom("yes", 0, 0).image)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def encode_png(samples: np.ndarray, transparent: tuple[int, ...] = ()) -> bytes:
    """Encode 16-bit samples as PNG: gray, gray and alpha, RGB or RGBA. Pillow can't write these."""
    height, width, bands = samples.shape
    header = struct.pack(">IIBBBBB", width, height, 16, PNG_COLOR_TYPES[bands], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    start = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)
    if transparent:
        start += png_chunk(b"tRNS", struct.pack(f">{bands}H", *transparent))
    return start + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")


def encode_tiff(
    samples: np.ndarray,
    photometric: int,
    order: str = "<",
    tags: dict | None = None,
    planar: bool = False,
) -> bytes:
    """Encode samples of any type, shape (height, width, bands), as a TIFF in either byte order."""
    tags = tags or {}
    height, width, bands = samples.shape
    planes = list(np.moveaxis(samples, -1, 0)) if planar else [samples]
    strips = [plane.astype(plane.dtype.newbyteorder(order)).tobytes() for plane in planes]
    if tags.get(259) == [8]:
        strips = [zlib.compress(strip) for strip in strips]
    values = {
        256: [width],
        257: [height],
        258: [8 * samples.itemsize] * bands,
        259: [1],
        262: [photometric],
        277: [bands],
        278: [height],
        284: [2 if planar else 1],
        339: [SAMPLE_FORMATS[samples.dtype.kind]] * bands,
    }
    values |= tags
    values |= {273: [0] * len(strips), 279: [len(strip) for strip in strips]}
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    directory_end = len(header) + 2 + 12 * len(values) + 4
    values[273] = [directory_end + sum(map(len, strips[:index])) for index in range(len(strips))]
    body = b"".join(strips)
    entries = b""
    for tag, numbers in sorted(values.items()):
        encoded = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(encoded) > 4:
            offset = struct.pack(order + "I", directory_end + len(body))
            body += encoded
            encoded = offset
        entries += struct.pack(order + "HHI", tag, 4, len(numbers)) + encoded
    count = struct.pack(order + "H", len(values))
    no_next_page = struct.pack(order + "I", 0)
    return header + count + entries + no_next_page + body


def encode_with_pillow(levels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(levels).save(content, "PNG")
    return content.getvalue()


def decode_content(folder: Path, content: bytes, crop: bool = True) -> DecodedImage:
    path = folder / "image"
    path.write_bytes(content)
    return decode(path, 64, crop)


def difference(image: DecodedImage, folder: Path) -> float:
    """Compute the mean absolute difference from the 8-bit slice, in gray levels."""
    expected = decode_content(folder, encode_with_pillow(SLICE))
    return np.abs(image.pixels.astype(int) - expected.pixels).mean()


def repeat_bands(levels: np.ndarray, number: int, alpha: float | None = None) -> np.ndarray:
    """Return samples of so many equal bands, the last of which may be alpha."""
    samples = np.repeat(levels[..., np.newaxis], number, axis=-1)
    if alpha is not None:
        samples[..., -1] = alpha
    return samples


def add_hot_pixel(levels: np.ndarray) -> np.ndarray:
    levels = levels.copy()
    levels[levels.shape[0] // 2, levels.shape[1] // 2] = 30_000
    return levels


def add_letters(levels: np.ndarray) -> np.ndarray:
    levels = levels.copy()
    levels[2:7, 2:18:3] = 65_535
    return levels


SIXTEEN_BITS = SLICE.astype(np.uint16) * 257
TWELVE_BITS = SLICE.astype(np.uint16) * 16
LEVELS_4200 = np.round(SLICE * (4200 / 255)).astype(np.uint16)
DEEP = {
    "16 bits": SIXTEEN_BITS,
    "12 bits": TWELVE_BITS,
    "4,200 levels": LEVELS_4200,
    "300 levels": np.round(SLICE * (300 / 255)).astype(np.uint16),
    "an offset": SLICE.astype(np.uint16) * 10 + 1000,
    "a hot pixel": add_hot_pixel(TWELVE_BITS),
    "bright letters": add_letters(LEVELS_4200),
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("levels", DEEP.values(), ids=DEEP)
def test_any_range_decodes_as_8_bits(tmp_path, levels, kind):
    samples = repeat_bands(levels, 1)
    content = encode_png(samples) if kind == "PNG" else encode_tiff(samples, 1)
    image = decode_content(tmp_path, content)
    assert difference(image, tmp_path) < 2
    black, white = image.levels
    brightest = np.percentile(levels, 99.5)
    assert black <= np.percentile(levels, 1)
    assert 0.97 * brightest < white < 1.1 * brightest


FLOATS_WITH_NAN = np.where(SLICE < 3, np.nan, SLICE).astype(np.float32)
TIFF_LAYOUTS = (  # name, samples, photometric interpretation, tags, whether in planes
    ("gray", repeat_bands(TWELVE_BITS, 1), 1, {}, False),
    ("gray, zero is white", repeat_bands(65535 - TWELVE_BITS, 1), 0, {}, False),
    ("signed", repeat_bands(TWELVE_BITS.astype(np.int16) - 1024, 1), 1, {}, False),
    ("signed, 32 bits", repeat_bands(TWELVE_BITS.astype(np.int32) - 1024, 1), 1, {}, False),
    ("float", repeat_bands((SLICE / 255).astype(np.float32), 1), 1, {}, False),
    ("RGB", repeat_bands(TWELVE_BITS, 3), 2, {}, False),
    ("RGB in planes", repeat_bands(TWELVE_BITS, 3), 2, {259: [1]}, True),
    ("RGB and alpha", repeat_bands(TWELVE_BITS, 4, 65535), 2, {338: [2]}, False),
    ("RGB times alpha", repeat_bands(TWELVE_BITS, 4, 65535), 2, {338: [1]}, False),
    ("RGB and more", repeat_bands(TWELVE_BITS, 4, 77), 2, {338: [0]}, False),
    ("CMYK", repeat_bands(65535 - SIXTEEN_BITS, 4, 0), 5, {}, False),
)
LAYOUTS = {
    "PNG gray": encode_png(repeat_bands(TWELVE_BITS, 1)),
    "PNG gray and alpha": encode_png(repeat_bands(TWELVE_BITS, 2, 65535)),
    "PNG RGB": encode_png(repeat_bands(TWELVE_BITS, 3)),
    "PNG RGB and alpha": encode_png(repeat_bands(TWELVE_BITS, 4, 65535)),
    "TIFF 32-bit": encode_tiff(repeat_bands(TWELVE_BITS.astype(np.uint32) * 1_000_000, 1), 1),
    "TIFF float with NaN": encode_tiff(repeat_bands(FLOATS_WITH_NAN, 1), 1),
}
for order, compression in itertools.product("<>", [1, 8]):
    LAYOUTS |= {
        f"TIFF {order} {compression} {name}": encode_tiff(
            samples, photometric, order, {259: [compression]} | tags, planar
        )
        for name, samples, photometric, tags, planar in TIFF_LAYOUTS
    }


@pytest.mark.parametrize("content", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_keeps_all_levels(tmp_path, content):
    image = decode_content(tmp_path, content)
    assert difference(image, tmp_path) < 2
    assert len(np.unique(image.pixels)) > 150


def test_16_bit_colors_become_luma(tmp_path):
    rows, columns = np.mgrid[:64, :64].astype(np.uint16)
    samples = np.stack([rows * 900, columns * 800, (rows + columns) * 400], axis=-1)
    expected = np.asarray(rescale_intensity(samples @ LUMA)[0], int)
    image = decode_content(tmp_path, encode_png(samples), crop=False)
    assert np.abs(image.pixels - expected).max() <= 1
    alpha = np.where(columns < 32, 65535, 0)[..., np.newaxis].astype(np.uint16)
    half_transparent = np.concatenate([samples, alpha], axis=-1)
    pixels = decode_content(tmp_path, encode_png(half_transparent), crop=False).pixels
    assert pixels[:, 32:].max() == 0
    assert len(np.unique(pixels[:, :32])) > 100


def test_small_bright_lesion_is_not_clipped():
    rows, columns = np.mgrid[:200, :200]
    is_head = (rows - 100) ** 2 + (columns - 100) ** 2 < 80**2
    is_lesion = (rows - 80) ** 2 + (columns - 110) ** 2 < 5**2
    levels = np.where(is_lesion, 4000, np.where(is_head, 1000, 0))
    gray = np.asarray(rescale_intensity(levels)[0])
    assert gray[is_lesion].min() > 2 * gray[is_head & ~is_lesion].max()


@pytest.mark.parametrize("canvas", [0, 65_535])
@pytest.mark.parametrize("times", [2, 3, 5])
def test_canvas_does_not_count(canvas, times):
    height, width = LEVELS_4200.shape
    rows = slice(height // 2, height // 2 + height)
    columns = slice(width // 2, width // 2 + width)
    levels = np.full((times * height, times * width), canvas, np.uint16)
    levels[rows, columns] = LEVELS_4200
    gray, (_, white) = rescale_intensity(levels)
    assert 4000 < white <= 4200
    part = np.asarray(gray, int)[rows, columns]
    assert np.abs(part - SLICE).mean() < 3


def test_window_is_in_levels_of_the_file(tmp_path):
    image = decode_content(tmp_path, encode_png(repeat_bands(TWELVE_BITS, 1)))
    assert image.levels == (16, 4080)
    image = decode_content(tmp_path, encode_tiff(repeat_bands(4095 - TWELVE_BITS, 1), 0))
    assert image.levels == (4079, 15)
    assert decode_content(tmp_path, encode_with_pillow(SLICE)).levels == (0, 255)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            encode_png(np.full((40, 40, 1), 3000, np.uint16)),
            r"1 distinct gray level\(s\), as of a mask or a blank; 8 or more",
        ),
        (encode_png(np.arange(1600, dtype=np.uint16).reshape(40, 40, 1) % 5), "5 distinct gray"),
        (
            encode_tiff(np.full((40, 40, 1), np.nan, np.float32), 1),
            "none of its levels is a number",
        ),
        (
            encode_tiff(repeat_bands(TWELVE_BITS, 3), 2, ">", {259: [8]}, planar=True),
            "16-bit colors in compressed planes can't be read",
        ),
    ],
)
def test_unusable_deep_images_are_refused(tmp_path, content, reason):
    with pytest.raises(ImageError, match=reason):
        decode_content(tmp_path, content)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_blanks_and_masks_of_8_bits_are_refused(tmp_path, level):
    blank = np.full((60, 60), level, np.uint8)
    mask = blank.copy()
    mask[20:40, 20:40] = 255 - level
    for levels, count in ((blank, 1), (mask, 2)):
        with pytest.raises(ImageError, match=f"{count} distinct"):
            decode_content(tmp_path, encode_with_pillow(levels))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32, np.float32])
def test_photometric_and_orientation_of_a_tiff(tmp_path, kind, photometric, orientation):
    upright = SLICE[:, :150]
    stored = transpose(Image.fromarray(upright if photometric else 255 - upright), orientation)
    factor = 1 if kind == np.uint8 else 16
    levels = np.asarray(stored).astype(kind) * factor
    content = encode_tiff(levels[..., np.newaxis], photometric, tags={274: [orientation]})
    image = decode_content(tmp_path, content, crop=False)
    expected_content = encode_tiff(upright[..., np.newaxis], 1, tags={274: [1]})
    expected = decode_content(tmp_path, expected_content, crop=False)
    assert (image.width, image.height) == (150, len(upright))
    assert np.abs(image.pixels.astype(int) - expected.pixels).mean() < 3


def test_head_of_a_deep_image_is_that_of_its_copy():
    gray, _ = rescale_intensity(LEVELS_4200)
    np.testing.assert_allclose(head_box(gray), head_box(Image.fromarray(SLICE)), atol=5)


def quantile(values: np.ndarray, fraction: float, rounded: np.ufunc) -> float:
    """Return a value of an array, at a rounded fraction of its ranks."""
    ordered = np.sort(values, axis=None)
    return ordered[int(rounded(fraction * (len(ordered) - 1)))]


def expected_window(
    levels: np.ndarray, rows: tuple[int, int], columns: tuple[int, int], background: float
) -> tuple[float, float]:
    """Compute the window by sorting: 0.1 % of the box's levels, 99.9 % of the foreground's."""
    spread = quantile(levels, 0.99, np.floor) - quantile(levels, 0.01, np.ceil)
    head = levels[slice(*rows), slice(*columns)]
    tissue = head[np.abs(head - background) > 20 / 255 * spread]
    return quantile(head, 0.001, np.ceil), quantile(tissue, 0.999, np.floor)


@pytest.mark.parametrize("background", [0, 5000])
@pytest.mark.parametrize("zero_is_white", [False, True])
def test_window_is_that_of_the_head(background, zero_is_white):
    rng = np.random.default_rng(1)
    levels = background + rng.integers(-2, 3, (128, 128)).astype(float)
    levels[20:108, 30:100] = rng.integers(0, 5001, (88, 70))
    levels[50, 50:52], levels[2, :4], levels[60, 60] = 60_000, 30_000, -9_000
    signed = -levels if zero_is_white else levels
    rim_level = np.median([signed[0], signed[-1], signed[:, 0], signed[:, -1]])
    black, white = expected_window(signed, (20, 108), (30, 100), rim_level)
    gray, window = rescale_intensity(levels, zero_is_white)
    assert window == ((-black, -white) if zero_is_white else (black, white))
    expected = np.round(np.clip((signed - black) * (255 / (white - black)), 0, 255))
    np.testing.assert_array_equal(gray, expected)


@pytest.mark.parametrize(("zero_is_white", "expected"), [(False, [0, 255, 0]), (True, [0, 0, 255])])
def test_nan_and_infinite_levels(zero_is_white, expected):
    levels = np.tile(np.arange(64.0), (64, 1))
    levels[30, 30:33] = np.nan, np.inf, -np.inf
    gray, _ = rescale_intensity(levels, zero_is_white)
    assert np.asarray(gray)[30, 30:33].tolist() == expected


def test_window_is_found_in_a_sample():
    rng = np.random.default_rng(1)
    levels = rng.integers(5000, 9000, (2100, 1500))
    levels[::3, ::3] = rng.integers(100, 4000, (700, 500))
    gray, (black, white) = rescale_intensity(levels)
    assert gray.size == (1500, 2100)
    assert 100 <= black < white < 4000


@pytest.mark.parametrize(("height", "is_sampled"), [(1024, False), (1025, True)])
def test_sample_has_at_most_1024_pixels_a_side(height, is_sampled):
    rng = np.random.default_rng(1)
    levels = rng.integers(5000, 9000, (height, 40))
    levels[::2, ::2] = rng.integers(100, 4000, ((height + 1) // 2, 20))
    _, (_, white) = rescale_intensity(levels)
    assert (white < 4000) == is_sampled


def samples_of(*pixels: tuple[int, ...] | list[int]) -> np.ndarray:
    """Return samples of an image of 10×10 pixels that has these in turn."""
    return np.resize(np.array(pixels, np.uint16), (10, 10, len(pixels[0])))


@pytest.mark.parametrize("transparent", [(1000,), (300, 20_000, 65_535)])
def test_transparent_color_of_a_deep_png_is_black(transparent):
    bands = len(transparent)
    samples = samples_of(transparent, [transparent[0]] * bands, [40_000] * bands)
    content = encode_png(samples, transparent)
    levels, zero_is_white = read_levels(open_image(content), content)
    gray = samples[..., 0] if bands == 1 else np.round(samples @ LUMA)
    is_transparent = (samples == transparent).all(axis=-1)
    np.testing.assert_array_equal(levels, np.where(is_transparent, 0, gray))
    assert not zero_is_white


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", ["LA PNG", "RGBA PNG", "RGBA", "RGBa", "CMYK"])
def test_alpha_and_black_ink_darken_deep_colors(kind, order):
    rng = np.random.default_rng(2)
    samples = rng.integers(0, 65_536, (10, 12, 2 if kind == "LA PNG" else 4)).astype(np.uint16)
    if kind == "RGBa":  # colors are multiplied by alpha
        samples[..., 3] |= 0x8000
        samples[..., :3] >>= 1
    colors, last = samples[..., :-1].astype(float), samples[..., -1].astype(float)
    if kind == "LA PNG":
        expected = colors[..., 0] * last / 65_535
    elif kind == "CMYK":
        expected = (65_535 - colors) @ LUMA * (65_535 - last) / 65_535
    else:
        expected = colors @ LUMA * (1 if kind == "RGBa" else last / 65_535)
    if "PNG" in kind:
        content = encode_png(samples)
    else:
        tags = {"RGBA": {338: [2]}, "RGBa": {338: [1]}}.get(kind)
        content = encode_tiff(samples, 5 if kind == "CMYK" else 2, order, tags)
    levels, _ = read_levels(open_image(content), content)
    np.testing.assert_allclose(levels, expected, atol=0.6)


def test_only_page_is_read_though_marked_as_preview():
    content = encode_tiff(repeat_bands(TWELVE_BITS, 1), 1, tags={254: [1]})
    levels, zero_is_white = read_levels(open_image(content), content)
    np.testing.assert_array_equal(levels, TWELVE_BITS)
    assert not zero_is_white


@pytest.mark.parametrize("masks", [None, (0xF800, 0x07E0, 0x001F)], ids=["5-5-5", "5-6-5"])
def test_bmp_of_16_bits_per_pixel(tmp_path, masks):
    """Its 16 bits are those of all three colors."""
    red, green, blue = np.random.default_rng(0).integers(0, 32, (3, 40, 40))
    pixels = red << 11 | green << 6 | blue if masks else red << 10 | green << 5 | blue
    rows = pixels[::-1].astype("<u2").tobytes()
    offset = 54 + 12 * bool(masks)
    compression = 3 * bool(masks)
    header = struct.pack("<IiiHHIIiiII", 40, 40, 40, 1, 16, compression, len(rows), 0, 0, 0, 0)
    header += struct.pack("<3I", *masks) if masks else b""
    file = tmp_path / "small.bmp"
    start = b"BM" + struct.pack("<IHHI", offset + len(rows), 0, 0, offset)
    file.write_bytes(start + header + rows)
    expected = 255 / 31 * (0.299 * red + 0.587 * green + 0.114 * blue)
    np.testing.assert_allclose(decode(file, 40).pixels, expected, atol=6)


def test_signed_levels_of_8_bits_are_refused():
    """Pillow takes them for unsigned ones: darkest and brightest would change places."""
    content = encode_tiff(SLICE[..., np.newaxis].astype(np.int8), 1)
    with open_image(content) as image, pytest.raises(ImageError, match="signed 8-bit levels"):
        read_levels(image, content)
