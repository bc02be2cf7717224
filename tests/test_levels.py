"""Sources of more than 8 bits: whatever their range, format and layout, the store holds what it holds of an 8-bit copy."""

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from stages.shared.image_files import ImageError, open_image, read_levels
from stages.shared.images import Picture, decode, fill_grey_scale, head_box
from stages.shared.phantoms import draw_numbered

SLICE = draw_numbered("yes", 0, 0).image
SLICE = np.round(np.clip(SLICE * (255 / np.percentile(SLICE, 99.9)), 0, 255)).astype(np.uint8)  # it fills the grey scale


def to_png(samples: np.ndarray, transparent: tuple[int, ...] = ()) -> bytes:
    """A PNG of 16-bit samples: grey, grey and alpha, RGB, or RGB and alpha, which Pillow can't write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, bands = samples.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[bands], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    if transparent:
        start += chunk(b"tRNS", struct.pack(f">{bands}H", *transparent))
    return start + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def to_tiff(pages: list[np.ndarray], photometric: int, order: str = "<", tags: dict | None = None, planar: bool = False) -> bytes:
    """A TIFF of samples of any type, shape (height, width, bands), in either byte order; `tags` are of its last page."""
    content = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    for page, samples in enumerate(pages):
        height, width, bands = samples.shape
        planes = list(np.moveaxis(samples, -1, 0)) if planar else [samples]
        planes = [plane.astype(plane.dtype.newbyteorder(order)).tobytes() for plane in planes]
        if (tags or {}).get(259) == [8]:
            planes = [zlib.compress(plane) for plane in planes]
        kind = {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
        values = {256: [width], 257: [height], 258: [8 * samples.itemsize] * bands, 259: [1], 262: [photometric], 277: [bands]}
        values |= {278: [height], 284: [2 if planar else 1], 339: [kind] * bands}
        if page == len(pages) - 1:
            values |= tags or {}
        values |= {273: [0] * len(planes), 279: [len(plane) for plane in planes]}
        after = len(content) + 2 + 12 * len(values) + 4
        values[273] = [after + sum(map(len, planes[:place])) for place in range(len(planes))]
        body, entries = b"".join(planes), b""
        for tag, numbers in sorted(values.items()):
            packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
            if len(packed) > 4:
                packed, body = struct.pack(order + "I", after + len(body)), body + packed
            entries += struct.pack(order + "HHI", tag, 4, len(numbers)) + packed
        following = after + len(body) if page < len(pages) - 1 else 0
        content += struct.pack(order + "H", len(values)) + entries + struct.pack(order + "I", following) + body
    return content


def read(folder, content: bytes, crop: bool = True) -> Picture:
    path = folder / "image"
    path.write_bytes(content)
    return decode(path, 64, crop)


def difference(picture: Picture, folder) -> float:
    """Mean absolute difference from the 8-bit slice as stored, grey levels."""
    content = io.BytesIO()
    Image.fromarray(SLICE).save(content, "PNG")
    return np.abs(picture.pixels.astype(int) - read(folder, content.getvalue()).pixels).mean()


def bands(levels: np.ndarray, number: int, alpha: float | None = None) -> np.ndarray:
    samples = np.repeat(levels[..., np.newaxis], number, axis=-1)
    if alpha is not None:
        samples[..., -1] = alpha
    return samples


def with_hot_pixel(levels: np.ndarray) -> np.ndarray:
    levels = levels.copy()
    levels[levels.shape[0] // 2, levels.shape[1] // 2] = 30_000
    return levels


def with_letters(levels: np.ndarray) -> np.ndarray:
    levels = levels.copy()
    levels[2:7, 2:18:3] = 65_535
    return levels


DEEP = {
    "16 bits": SLICE.astype(np.uint16) * 257,
    "12 bits": SLICE.astype(np.uint16) * 16,
    "4,200 levels": np.round(SLICE * (4200 / 255)).astype(np.uint16),
    "300 levels": np.round(SLICE * (300 / 255)).astype(np.uint16),
    "an offset": SLICE.astype(np.uint16) * 10 + 1000,
}
DEEP["a hot pixel"] = with_hot_pixel(DEEP["12 bits"])
DEEP["bright letters"] = with_letters(DEEP["4,200 levels"])


@pytest.mark.parametrize("levels", DEEP.values(), ids=DEEP)
def test_any_range_within_16_bits_gives_the_pixels_of_8_bits(tmp_path, levels):
    picture = read(tmp_path, to_png(bands(levels, 1)))
    assert difference(picture, tmp_path) < 2
    assert picture.levels[0] <= np.percentile(levels, 1)
    assert 0.97 * np.percentile(levels, 99.5) < picture.levels[1] < 1.1 * np.percentile(levels, 99.5)


TWELVE, SIXTEEN = DEEP["12 bits"], DEEP["16 bits"]
LAYOUTS = {
    "PNG grey": to_png(bands(TWELVE, 1)),
    "PNG grey and alpha": to_png(bands(TWELVE, 2, 65535)),
    "PNG RGB": to_png(bands(TWELVE, 3)),
    "PNG RGB and alpha": to_png(bands(TWELVE, 4, 65535)),
    "TIFF 32-bit": to_tiff([bands(TWELVE.astype(np.uint32) * 1_000_000, 1)], 1),
    "TIFF float with NaN": to_tiff([bands(np.where(SLICE < 3, np.nan, SLICE).astype(np.float32), 1)], 1),
}
for order, compression in itertools.product("<>", [1, 8]):
    packed = {259: [compression]}
    LAYOUTS |= {
        f"TIFF {order} {compression} {name}": to_tiff([samples], photometric, order, packed | tags, planar)
        for name, samples, photometric, tags, planar in (
            ("grey", bands(TWELVE, 1), 1, {}, False),
            ("grey, zero is white", bands(65535 - TWELVE, 1), 0, {}, False),
            ("signed", bands(TWELVE.astype(np.int16) - 1024, 1), 1, {}, False),
            ("signed, 32 bits", bands(TWELVE.astype(np.int32) - 1024, 1), 1, {}, False),
            ("float", bands((SLICE / 255).astype(np.float32), 1), 1, {}, False),
            ("RGB", bands(TWELVE, 3), 2, {}, False),
            ("RGB in planes", bands(TWELVE, 3), 2, {259: [1]}, True),
            ("RGB and alpha", bands(TWELVE, 4, 65535), 2, {338: [2]}, False),
            ("RGB times alpha", bands(TWELVE, 4, 65535), 2, {338: [1]}, False),
            ("RGB and more", bands(TWELVE, 4, 77), 2, {338: [0]}, False),
            ("CMYK", bands(65535 - SIXTEEN, 4, 0), 5, {}, False),
        )
    }


@pytest.mark.parametrize("content", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_of_deep_samples_keeps_all_their_levels(tmp_path, content):
    picture = read(tmp_path, content)
    assert difference(picture, tmp_path) < 2
    assert len(np.unique(picture.pixels)) > 150


def test_16_bit_colors_become_luma_and_transparent_parts_black(tmp_path):
    rows, columns = np.mgrid[:64, :64].astype(np.uint16)
    samples = np.stack([rows * 900, columns * 800, (rows + columns) * 400], axis=-1)
    luma = samples @ (0.299, 0.587, 0.114)
    expected = np.asarray(fill_grey_scale(luma)[0], int)
    assert np.abs(read(tmp_path, to_png(samples), crop=False).pixels - expected).max() <= 1
    half = np.concatenate([samples, np.where(columns < 32, 65535, 0)[..., np.newaxis].astype(np.uint16)], axis=-1)
    pixels = read(tmp_path, to_png(half), crop=False).pixels
    assert pixels[:, 32:].max() == 0
    assert len(np.unique(pixels[:, :32])) > 100


def test_a_small_bright_lesion_is_not_cut_off():
    rows, columns = np.mgrid[:200, :200]
    head = np.where((rows - 100) ** 2 + (columns - 100) ** 2 < 80**2, 1000, 0)
    lesion = (rows - 80) ** 2 + (columns - 110) ** 2 < 5**2
    levels = np.where(lesion, 4000, head)
    grey = np.asarray(fill_grey_scale(levels)[0])
    assert grey[lesion].min() > 2 * grey[head == 1000].max(where=~lesion[head == 1000], initial=0)


@pytest.mark.parametrize("canvas", [0, 65_535])
@pytest.mark.parametrize("times", [2, 3, 5])
def test_the_canvas_around_a_deep_slice_does_not_count(canvas, times):
    levels = DEEP["4,200 levels"]
    height, width = levels.shape
    whole = np.full((times * height, times * width), canvas, np.uint16)
    whole[height // 2 : height // 2 + height, width // 2 : width // 2 + width] = levels
    grey, (_, white) = fill_grey_scale(whole)
    assert 4000 < white <= 4200
    part = np.asarray(grey, int)[height // 2 : height // 2 + height, width // 2 : width // 2 + width]
    assert np.abs(part - SLICE).mean() < 3


def test_levels_that_became_black_and_white_are_kept_as_the_file_counts_them(tmp_path):
    assert read(tmp_path, to_png(bands(TWELVE, 1))).levels == (16, 4080)
    black, white = read(tmp_path, to_tiff([bands(4095 - TWELVE, 1)], 0)).levels
    assert (black, white) == (4079, 15)
    content = io.BytesIO()
    Image.fromarray(SLICE).save(content, "PNG")
    assert read(tmp_path, content.getvalue()).levels == (0, 255)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (to_png(np.full((40, 40, 1), 3000, np.uint16)), r"1 distinct grey level\(s\), as of a mask or a blank; 8 or more"),
        (to_png(np.arange(1600, dtype=np.uint16).reshape(40, 40, 1) % 5), "5 distinct grey"),
        (to_tiff([np.full((40, 40, 1), np.nan, np.float32)], 1), "none of its levels is a number"),
        (to_tiff([bands(TWELVE, 3)], 2, ">", {259: [8]}, planar=True), "16-bit colors in compressed planes can't be read"),
    ],
)
def test_too_few_levels_to_be_of_use_are_refused(tmp_path, content, reason):
    with pytest.raises(ImageError, match=reason):
        read(tmp_path, content)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_blank_or_a_mask_of_8_bits_is_refused_too(tmp_path, level):
    blank = Image.new("L", (60, 60), level)
    mask = blank.copy()
    mask.paste(255 - level, (20, 20, 40, 40))
    for image, levels in ((blank, 1), (mask, 2)):
        content = io.BytesIO()
        image.save(content, "PNG")
        with pytest.raises(ImageError, match=f"{levels} distinct"):
            read(tmp_path, content.getvalue())


def as_tiff(levels, photometric, orientation):
    return to_tiff([levels[..., np.newaxis]], photometric, tags={274: [orientation]})


def one_bit_tiff(bits, photometric, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = io.BytesIO()
    stored = Image.fromarray(bits if photometric else ~bits).convert("1", dither=Image.Dither.NONE)
    stored.save(content, "TIFF", tiffinfo={274: orientation, 262: photometric})
    return content.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32, np.float32])
def test_tiff_photometric_interpretation_and_orientation_at_every_depth(tmp_path, kind, photometric, orientation):
    upright = SLICE[:, :150]
    turned = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = Image.fromarray(upright if photometric else 255 - upright)
    if orientation > 1:
        stored = stored.transpose(Image.Transpose(turned[orientation]))
    levels = np.asarray(stored).astype(kind) * (1 if kind == np.uint8 else 16)
    picture = read(tmp_path, as_tiff(levels, photometric, orientation), crop=False)
    expected = read(tmp_path, as_tiff(upright, 1, 1), crop=False)
    assert (picture.width, picture.height) == (150, len(upright))
    assert np.abs(picture.pixels.astype(int) - expected.pixels).mean() < 3


def test_the_head_is_cropped_in_a_deep_image_as_in_its_8_bit_copy():
    grey, _ = fill_grey_scale(DEEP["4,200 levels"])
    np.testing.assert_allclose(head_box(grey), head_box(Image.fromarray(SLICE)), atol=5)


def window_of(levels, rows, columns, background):
    """The window by hand: from a thousandth of the box's levels to a thousandth of those unlike the background."""
    ordered = np.sort(levels, axis=None)
    last = len(ordered) - 1
    spread = ordered[int(np.floor(0.99 * last))] - ordered[int(np.ceil(0.01 * last))]
    head = np.sort(levels[slice(*rows), slice(*columns)], axis=None)
    tissue = head[np.abs(head - background) > 20 / 255 * spread]
    return head[int(np.ceil(0.001 * (len(head) - 1)))], tissue[int(np.floor(0.999 * (len(tissue) - 1)))]


@pytest.mark.parametrize("background", [0, 5000])
@pytest.mark.parametrize("zero_is_white", [False, True])
def test_the_window_is_that_of_the_head_without_its_extremes(background, zero_is_white):
    rng = np.random.default_rng(1)
    levels = background + rng.integers(-2, 3, (128, 128)).astype(float)
    levels[20:108, 30:100] = rng.integers(0, 5001, (88, 70))
    levels[50, 50:52], levels[2, :4], levels[60, 60] = 60_000, 30_000, -9_000
    signed = -levels if zero_is_white else levels
    black, white = window_of(signed, (20, 108), (30, 100), np.median([signed[0], signed[-1], signed[:, 0], signed[:, -1]]))
    grey, window = fill_grey_scale(levels, zero_is_white)
    assert window == ((-black, -white) if zero_is_white else (black, white))
    np.testing.assert_array_equal(grey, np.round(np.clip((signed - black) * (255 / (white - black)), 0, 255)))


@pytest.mark.parametrize("zero_is_white", [False, True])
def test_infinite_levels_are_the_ends_and_no_number_is_black(zero_is_white):
    levels = np.tile(np.arange(64.0), (64, 1))
    levels[30, 30:33] = np.nan, np.inf, -np.inf
    grey, _ = fill_grey_scale(levels, zero_is_white)
    assert np.asarray(grey)[30, 30:33].tolist() == ([0, 0, 255] if zero_is_white else [0, 255, 0])


def test_the_window_of_a_large_image_is_found_in_a_sample_of_at_most_1024_a_side():
    rng = np.random.default_rng(1)
    levels = rng.integers(5000, 9000, (2100, 1500))
    levels[::3, ::3] = rng.integers(100, 4000, (700, 500))
    grey, (black, white) = fill_grey_scale(levels)
    assert grey.size == (1500, 2100)
    assert 100 <= black < white < 4000
    for height, outside in ((1024, False), (1025, True)):
        levels = rng.integers(5000, 9000, (height, 40))
        levels[::2, ::2] = rng.integers(100, 4000, ((height + 1) // 2, 20))
        assert (fill_grey_scale(levels)[1][1] < 4000) == outside


LUMA = 0.299, 0.587, 0.114


def of_pixels(*values):
    """Samples of a picture of 10×10 pixels that has these in turn."""
    return np.resize(np.array(values, np.uint16), (10, 10, len(values[0])))


@pytest.mark.parametrize("transparent", [(1000,), (300, 20_000, 65_535)])
def test_the_transparent_color_of_a_deep_png_is_black(transparent):
    samples = of_pixels(transparent, [transparent[0]] * len(transparent), [40_000] * len(transparent))
    content = to_png(samples, transparent)
    levels, zero_is_white = read_levels(open_image(content), content)
    expected = samples[..., 0] if len(transparent) == 1 else np.round(samples @ LUMA)
    np.testing.assert_array_equal(levels, np.where((samples == transparent).all(axis=-1), 0, expected))
    assert not zero_is_white


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", ["LA PNG", "RGBA PNG", "RGBA", "RGBa", "CMYK"])
def test_partial_transparency_and_black_ink_darken_deep_colors(kind, order):
    rng = np.random.default_rng(2)
    samples = rng.integers(0, 65_536, (10, 12, 2 if kind == "LA PNG" else 4)).astype(np.uint16)
    if kind == "RGBa":  # colors are times alpha
        samples[..., 3] |= 0x8000
        samples[..., :3] >>= 1
    colors, last = samples[..., :-1].astype(float), samples[..., -1].astype(float)
    if kind == "LA PNG":
        expected = colors[..., 0] * last / 65_535
    elif kind == "CMYK":
        expected = (65_535 - colors) @ LUMA * (65_535 - last) / 65_535
    else:
        expected = colors @ LUMA * (1 if kind == "RGBa" else last / 65_535)
    tags = {"RGBA": {338: [2]}, "RGBa": {338: [1]}}.get(kind)
    content = to_png(samples) if "PNG" in kind else to_tiff([samples], 5 if kind == "CMYK" else 2, order, tags)
    levels, _ = read_levels(open_image(content), content)
    np.testing.assert_allclose(levels, expected, atol=0.6)


def test_a_tiff_of_one_page_that_is_called_a_preview_is_read():
    content = to_tiff([bands(TWELVE, 1)], 1, tags={254: [1]})
    levels, zero_is_white = read_levels(open_image(content), content)
    np.testing.assert_array_equal(levels, TWELVE)
    assert not zero_is_white


@pytest.mark.parametrize("masks", [None, (0xF800, 0x07E0, 0x001F)], ids=["5-5-5", "5-6-5"])
def test_a_bmp_of_16_bits_per_pixel_has_colors_of_few_bits(tmp_path, masks):
    """Not samples of 16 bits: it was refused as broken."""
    red, green, blue = np.random.default_rng(0).integers(0, 32, (3, 40, 40))
    pixels = red << 11 | green << 6 | blue if masks else red << 10 | green << 5 | blue
    rows = pixels[::-1].astype("<u2").tobytes()
    offset = 54 + 12 * bool(masks)
    header = struct.pack("<IiiHHIIiiII", 40, 40, 40, 1, 16, 3 * bool(masks), len(rows), 0, 0, 0, 0)
    header += struct.pack("<3I", *masks) if masks else b""
    file = tmp_path / "small.bmp"
    file.write_bytes(b"BM" + struct.pack("<IHHI", offset + len(rows), 0, 0, offset) + header + rows)
    expected = 255 / 31 * (0.299 * red + 0.587 * green + 0.114 * blue)
    np.testing.assert_allclose(decode(file, 40).pixels, expected, atol=6)
