"""Image files of every common kind are read right; what is no usable image is refused with its reason."""

import hashlib
import io
import os
import struct
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import AppendingTiffWriter

from stages.shared import image_files
from stages.shared.image_files import FORMATS, MAX_BYTES, ImageError, open_image
from stages.shared.images import decode, decode_all, difference_hash, hash_image, head_box, head_hash, to_grey
from stages.shared.phantoms import draw_numbered
from stages.shared.sampling import hash_array, near_duplicate_groups

GREY = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))  # 64×64, darker left, brighter right

SLICES = [draw_numbered(kind, number, 0).image for kind in ("no", "yes") for number in range(8)]


def save(folder, image, name="image.png", **options):
    image.save(folder / name, **options)
    return folder / name


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1"])
def test_modes_of_a_grey_picture_give_the_same_pixels(tmp_path, mode):
    grey = Image.fromarray(np.where(GREY > 127, 255, 0).astype(np.uint8)) if mode == "1" else Image.fromarray(GREY)
    picture = decode(save(tmp_path, grey.convert(mode)), 64)
    assert picture.mode == mode
    np.testing.assert_array_equal(picture.pixels, np.asarray(grey))


def test_colours_become_luma(tmp_path):
    rows, columns = np.mgrid[:64, :64]
    colors = np.stack([rows * 4, columns * 3, 200 - rows], axis=-1).astype(np.uint8)
    pixels = decode(save(tmp_path, Image.fromarray(colors)), 64).pixels
    assert np.abs(pixels - colors @ (0.299, 0.587, 0.114)).max() <= 1


def test_cmyk_jpeg_is_not_inverted(tmp_path):
    picture = decode(save(tmp_path, Image.fromarray(GREY).convert("CMYK"), "image.jpg", quality=95), 64)
    assert picture.mode == "CMYK"
    assert np.abs(picture.pixels.astype(int) - GREY).mean() < 3


def test_transparent_parts_become_black(tmp_path):
    light = GREY // 2 + 100
    alpha = np.where(np.arange(64) < 32, 255, 0) * np.ones((64, 1))
    image = Image.fromarray(np.stack([light] * 3 + [alpha.astype(np.uint8)], axis=-1))
    palette = Image.fromarray(np.where(alpha > 0, light, 250).astype(np.uint8)).convert("P")
    palette.info["transparency"] = palette.getpixel((60, 0))
    for one in (image, palette, image.convert("LA")):
        pixels = decode(save(tmp_path, one), 64).pixels
        assert pixels[:, :30].min() >= 100
        assert pixels[:, 34:].max() == 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    turned = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that Pillow's EXIF table undoes
    upright = Image.fromarray(GREY[:, :40].repeat(2, axis=1))
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(turned[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = decode(save(tmp_path, stored, exif=exif), 64)
    assert (picture.width, picture.height) == upright.size
    np.testing.assert_array_equal(picture.pixels, decode(save(tmp_path, upright), 64).pixels)


def test_aspect_ratio_is_kept_and_the_rest_is_black(tmp_path):
    pixels = decode(
        save(tmp_path, Image.fromarray(200 + GREY[:50, :].repeat(2, axis=0).repeat(4, axis=1)[:100, :200] // 8)), 64
    ).pixels
    assert pixels.shape == (64, 64)
    assert pixels[16:48].min() >= 200
    assert pixels[:16].max() == 0
    assert pixels[48:].max() == 0


def test_content_not_name_tells_the_format(tmp_path):
    path = save(tmp_path, Image.fromarray(GREY), "image.png")
    path.rename(tmp_path / "image.jpg")
    np.testing.assert_array_equal(decode(tmp_path / "image.jpg", 64).pixels, GREY)


def noise(kind, mode="L", side=64, **options):
    file = io.BytesIO()
    levels = np.random.default_rng(0).integers(0, 256, (side, side), np.uint8)
    Image.fromarray(levels).convert(mode).save(file, kind, **options)
    return file.getvalue()


def animation(kind="GIF"):
    file = io.BytesIO()
    frames = [Image.new("L", (64, 64), level) for level in (0, 255)]
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"<html>no image</html>", "not an image"),
        (noise("PNG")[:2000], "broken image"),
        (noise("JPEG")[:2000], "broken image"),
        *((animation(kind), "2 frames") for kind in ("GIF", "PNG", "WEBP", "TIFF")),
        (b"P5 30000 10 255\n", "not an image"),
    ],
)
def test_unusable_files_are_refused_with_a_reason(tmp_path, content, reason):
    (tmp_path / "image.jpg").write_bytes(content)
    with pytest.raises(ImageError, match=reason):
        decode(tmp_path / "image.jpg", 64)


def test_huge_images_are_refused_before_they_are_decoded(tmp_path):
    for size, reason in (((20_001, 1), "a side may have"), ((12_000, 12_000), "at most")):
        path = save(tmp_path, Image.new("1", size))
        with pytest.raises(ImageError, match=reason):
            decode(path, 64)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "L"), ("WEBP", "RGB"), ("PNG", "I;16"), ("TIFF", "RGB"), ("MPO", "RGB")])
def test_orientation_is_applied_in_every_format_that_declares_it(tmp_path, kind, mode, orientation):
    turned = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    upright = Image.fromarray(SLICES[0][:, :120])
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(turned[orientation]))
    stored = Image.fromarray(np.asarray(stored).astype(np.uint16) * 16) if mode == "I;16" else stored.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}, "MPO": {"quality": 95, "save_all": True}}.get(kind, {})
    if kind == "MPO":
        options["append_images"] = [stored.resize((90, 90))]
    picture = decode(save(tmp_path, stored, f"image.{kind.lower()}", format=kind, exif=exif, **options), 64)
    assert (picture.width, picture.height) == upright.size
    expected = decode(save(tmp_path, upright), 64).pixels
    low, high = np.percentile(upright, (0.1, 99.9))
    expected = np.clip((expected - low) * 255 / (high - low), 0, 255) if mode == "I;16" else expected
    assert np.abs(picture.pixels - expected.astype(float)).mean() < 3


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("compression", ["raw", "group4", "tiff_lzw"])
def test_zero_is_white_in_a_tiff_of_1_bit_where_it_says_so(tmp_path, photometric, compression):
    bits = Image.fromarray(GREY).convert("1")  # a halftone
    path = save(tmp_path, bits, "image.tiff", compression=compression, tiffinfo={262: photometric})  # Pillow turns the bits
    with Image.open(path) as file:
        assert file.tag_v2[262] == photometric
    np.testing.assert_array_equal(decode(path, 64).pixels, np.asarray(bits) * 255)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "jpeg"])
def test_zero_is_white_in_a_tiff_of_8_bits_where_it_says_so(tmp_path, compression):
    path = save(tmp_path, Image.fromarray(GREY), "image.tiff", compression=compression, tiffinfo={262: 0})  # Pillow turns them
    with Image.open(path) as file:
        assert file.tag_v2[262] == 0
    assert np.abs(decode(path, 64).pixels.astype(int) - GREY).max() <= (6 if compression == "jpeg" else 0)


def test_a_second_image_that_a_camera_adds_does_not_count(tmp_path):
    first, second = Image.fromarray(SLICES[0]), Image.fromarray(SLICES[1]).resize((80, 80))
    path = save(tmp_path, first, "image.jpg", format="MPO", quality=95, save_all=True, append_images=[second])
    with Image.open(path) as file:
        assert file.n_frames == 2
    assert np.abs(decode(path, 64).pixels.astype(int) - decode(save(tmp_path, first), 64).pixels).mean() < 3


def tiff_of(pages):
    """The bytes of a TIFF of several pages, each with tags of its own."""
    file = io.BytesIO()
    with AppendingTiffWriter(file) as writer:
        for page, tags in pages:
            page.save(writer, "TIFF", tiffinfo=tags)
            writer.newFrame()
    return file.getvalue()


@pytest.mark.parametrize("kind", [1, 4])
@pytest.mark.parametrize("preview_first", [False, True])
def test_a_preview_or_a_mask_in_a_tiff_does_not_count(tmp_path, kind, preview_first):
    image, preview = Image.fromarray(SLICES[0]), Image.fromarray(SLICES[1]).resize((80, 80))
    pages = [(preview, {254: kind}), (image, {254: 0})] if preview_first else [(image, {}), (preview, {254: kind})]
    (tmp_path / "pages.tiff").write_bytes(tiff_of(pages))
    picture = decode(tmp_path / "pages.tiff", 64)
    assert (picture.width, picture.height) == image.size
    np.testing.assert_array_equal(picture.pixels, decode(save(tmp_path, image), 64).pixels)


def test_the_image_after_a_preview_may_not_be_too_large():
    preview, large = Image.fromarray(GREY), Image.new("1", (20_001, 8))
    assert open_image(tiff_of([(large.crop((0, 0, 20_000, 8)), {}), (preview, {254: 1})])).size == (20_000, 8)
    with pytest.raises(ImageError, match="a side may have"):
        open_image(tiff_of([(preview, {254: 1}), (large, {})]))


def test_a_raw_file_of_which_only_a_preview_can_be_read_is_refused(tmp_path):
    path = save(tmp_path, Image.fromarray(SLICES[0]), "raw.tiff", tiffinfo={254: 1})
    content = path.read_bytes()
    tag = (
        content.index(struct.pack("<HH", 297, 3))
        if struct.pack("<HH", 297, 3) in content
        else content.index(struct.pack("<HH", 284, 3))
    )
    path.write_bytes(content[:tag] + struct.pack("<H", 330) + content[tag + 2 :])
    with pytest.raises(ImageError, match="only a preview in it can be read"):
        decode(path, 64)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_damaged_exif_is_one_line_about_one_file(tmp_path, kind):
    """Each byte of the EXIF block in turn, and blocks that end early."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "maker of some scanner"
    exif.get_ifd(0x8769)[0x9003] = "2026:01:01 00:00:00"
    path = save(tmp_path, Image.fromarray(GREY), "image", format=kind, exif=exif)
    assert read_or_refuse(path)
    content = path.read_bytes()
    start = content.index(b"maker of some scanner") - 80
    for place in range(start, start + 140):
        for value in (0, 255):
            path.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
            read_or_refuse(path)
    if kind == "JPEG":
        for kept in range(len(exif.tobytes())):
            path = save(tmp_path, Image.fromarray(GREY), "cut", format=kind, exif=exif.tobytes()[:kept])
            read_or_refuse(path)


def read_or_refuse(path) -> bool:
    """Whether an image is read; if not, a line says why."""
    try:
        assert decode(path, 32, crop=True).pixels.shape == (32, 32)
    except ImageError as error:
        assert str(error)
        assert "\n" not in str(error)
        return False
    return True


EXIF = Image.Exif()
EXIF[0x0112] = 6
EXIF.get_ifd(0x8769)[0x9003] = "2026:01:01 00:00:00"
WHOLE = [
    noise("PNG", side=16, exif=EXIF),
    noise("TIFF", "RGB", 16, exif=EXIF),
    noise("JPEG", "L", 16, exif=EXIF),
    noise("MPO", "RGB", 16, exif=EXIF, save_all=True, append_images=[Image.new("RGB", (16, 16))]),
    *(noise(kind, side=16) for kind in FORMATS),
    noise("PNG", "P", 16, transparency=3),
    noise("PNG", "I;16", 16),
    noise("JPEG", "CMYK", 16, exif=EXIF, progressive=True),
    noise("GIF", "P", 16, transparency=3, interlace=1),
    *(noise("TIFF", mode, 16, compression=how) for how in ("tiff_lzw", "tiff_adobe_deflate", "jpeg") for mode in ("L", "RGB")),
    noise("TIFF", "F", 16),
    noise("WEBP", "RGBA", 16, lossless=True, exif=EXIF),
    noise("BMP", "1", 16),
]


@pytest.mark.parametrize("whole", WHOLE, ids=range(len(WHOLE)))
def test_images_are_read_before_they_are_damaged(tmp_path, whole):
    (tmp_path / "whole").write_bytes(whole)
    assert decode(tmp_path / "whole", 32, crop=True).pixels.std() > 10


@given(
    whole=st.sampled_from(WHOLE),
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=5),
    kept=st.floats(0, 1) | st.just(1),
)
@settings(deadline=None, max_examples=200)
def test_whatever_is_damaged_in_an_image_it_is_read_or_refused_with_a_reason(tmp_path_factory, whole, changes, kept):
    content = bytearray(whole)
    for place, value in changes:  # headers are hit more often than pixels
        start = int(place**4 * len(content))
        content[start : start + len(value)] = value
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content[: int(kept * len(content))])
    read_or_refuse(path)


def test_what_is_no_regular_file_and_what_has_too_many_bytes_is_refused_unread(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="not a regular file"):
        decode(tmp_path / "pipe.png", 32)
    with open(tmp_path / "large.png", "wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ImageError, match="at most 400,000,000 are read"):
        decode(tmp_path / "large.png", 32)


def test_missing_and_too_narrow_files_are_refused(tmp_path):
    with pytest.raises(ImageError, match="No such file"):
        decode(tmp_path / "none.png", 64)
    with pytest.raises(ImageError, match="too narrow"):
        decode(save(tmp_path, Image.new("L", (10, 2000))), 64)


def test_perceptual_hash_is_close_for_a_copy_and_far_for_another_picture():
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (12, 12), np.uint8)).resize((200, 200), Image.Resampling.BICUBIC)
    other = Image.fromarray(rng.integers(0, 256, (12, 12), np.uint8)).resize((200, 200), Image.Resampling.BICUBIC)
    copy = to_grey(picture.resize((150, 150)).convert("RGB"))

    def distance(a, b):
        return (int(difference_hash(a), 16) ^ int(difference_hash(b), 16)).bit_count()

    assert distance(picture, copy) <= 20
    assert distance(picture, other) > 60


@pytest.mark.parametrize("background", [0, 255, 40])
def test_cropping_finds_the_head_on_any_background_and_passes_over_letters(tmp_path, background):
    rows, columns = np.mgrid[:300, :400]
    head = ((rows - 160) / 90) ** 2 + ((columns - 220) / 70) ** 2 < 1
    picture = np.where(head, 150 + rows % 10, background).astype(np.uint8)
    picture[5:12, 5:28:3] = 200  # a label in the corner
    left, upper, right, lower = head_box(Image.fromarray(picture))
    assert abs(left - 150) < 15
    assert abs(right - 290) < 15
    assert abs(upper - 70) < 15
    assert abs(lower - 250) < 15
    path = save(tmp_path, Image.fromarray(picture))
    cropped, whole = decode(path, 64, crop=True), decode(path, 64)
    assert np.sum(abs(cropped.pixels - 155.0) < 8) > 2 * np.sum(abs(whole.pixels - 155.0) < 8)
    assert (cropped.perceptual_hash, cropped.width) == (whole.perceptual_hash, whole.width)


def on_canvas(image, times, level=0, x=0.5, y=0.5):
    """An image on a canvas so many times as wide and high, at a place from 0, 0 (top left) to 1, 1."""
    height, width = image.shape
    canvas = np.full((times * height, times * width), level, np.uint8)
    top, left = int((times - 1) * height * y), int((times - 1) * width * x)
    canvas[top : top + height, left : left + width] = image
    return Image.fromarray(canvas), (left, top, left, top)


@pytest.mark.parametrize("times", [2, 3, 6])
@pytest.mark.parametrize(("x", "y"), [(0.5, 0.5), (0, 0), (0.9, 0.2)])
def test_cropping_finds_the_head_on_a_large_canvas(times, x, y):
    for image in SLICES[::4]:
        canvas, shift = on_canvas(image, times, 0, x, y)
        box = np.subtract(head_box(canvas), shift)
        np.testing.assert_allclose(box, head_box(Image.fromarray(image)), atol=8)


def test_cropping_does_not_take_a_bright_lesion_in_a_dark_head_for_the_head():
    rows, columns = np.mgrid[:200, :200]
    head = np.where((rows - 100) ** 2 + (columns - 100) ** 2 < 80**2, 15, 0)
    dark = np.where((rows - 80) ** 2 + (columns - 110) ** 2 < 12**2, 120, head)
    assert head_box(Image.fromarray(dark.astype(np.uint8))) == (0, 0, 200, 200)


@pytest.mark.parametrize(("times", "level"), [(2, 0), (3, 0), (5, 0), (2, 255), (3, 90)])
def test_slices_on_a_canvas_stay_apart_and_their_copies_together(tmp_path, times, level):
    images = []
    for image in SLICES:
        canvas, _ = on_canvas(image, times, level, 0.7, 0.3)
        images += [canvas, canvas.resize((round(canvas.width * 0.8), round(canvas.height * 0.8)))]
    pictures = [decode(save(tmp_path, image, "image.bmp"), 64, crop=False) for image in images]
    groups = near_duplicate_groups(hash_array((one.perceptual_hash, one.whole_hash) for one in pictures), 20)
    assert len(set(groups[::2])) == len(SLICES)
    assert np.mean(groups[::2] == groups[1::2]) > 0.8


def test_cropping_keeps_a_picture_that_is_all_background():
    assert head_box(Image.new("L", (90, 50), 30)) == (0, 0, 90, 50)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_is_told_at_its_own_size_and_gives_the_picture_that_a_png_gives(tmp_path, orientation):
    rows, columns = np.mgrid[:900, :700]
    picture = Image.fromarray(((rows / 5 + columns / 9) % 200).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    jpeg = decode(save(tmp_path, picture, "image.jpg", quality=95, exif=exif), 128)
    png = decode(save(tmp_path, picture, "image.png", exif=exif), 128)
    assert (jpeg.width, jpeg.height) == (png.width, png.height) == ((700, 900) if orientation == 1 else (900, 700))
    assert np.abs(jpeg.pixels.astype(int) - png.pixels).mean() < 4


def test_decoding_in_parallel_keeps_the_order_and_reads_no_further_ahead_than_it_must(tmp_path):
    for number in range(3):
        Image.fromarray(GREY // 8 + 60 * number).save(tmp_path / f"{number}.png")
    (tmp_path / "bad.png").write_bytes(b"none")
    names = ["0", "1", "bad", "2"]
    asked = []

    def endless():
        while True:
            for name in names:
                asked.append(name)
                yield tmp_path / f"{name}.png"

    decoded = decode_all(endless(), 32, False, 2)
    first = [next(decoded) for _ in range(40)]
    assert [path.stem for path, _ in first] == names * 10
    assert all(isinstance(picture, ImageError) == (path.stem == "bad") for path, picture in first)
    assert [picture.pixels.min() for path, picture in first[:4] if path.stem != "bad"] == [0, 60, 120]
    assert len(asked) < 200
    decoded.close()


@pytest.mark.parametrize("count", [0, 1, 8, 83])
def test_decoding_in_parallel_gives_every_file_once_in_order(tmp_path, count):
    paths = [save(tmp_path, ramp(8 + number, 9, 20), f"{number}.png") for number in range(count)]
    decoded = list(decode_all(iter(paths), 16, False, 2))
    assert [path for path, _ in decoded] == paths
    assert [picture.height for _, picture in decoded] == list(range(8, 8 + count))


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def ramp(height, width, levels=8):
    return Image.fromarray(np.resize(np.arange(levels) * 30, (height, width)).astype(np.uint8))


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (ramp(8, 8), None),
        (ramp(7, 8), "8×7 pixels are too few"),
        (ramp(8, 7), "7×8 pixels are too few"),
        (ramp(9, 9, levels=7), "7 distinct"),
        (Image.fromarray(np.eye(9, dtype=bool)), None),
        (Image.new("1", (9, 9), 1), "1 distinct"),
        (ramp(512, 8), None),
        (ramp(513, 8), "8×513 pixels are too narrow"),
        (ramp(8, 513), "513×8 pixels are too narrow"),
    ],
)
def test_the_least_sides_and_levels_that_are_read(tmp_path, image, reason):
    path = save(tmp_path, image)
    if reason:
        with pytest.raises(ImageError, match=reason):
            decode(path, 64)
    else:
        assert (decode(path, 64).width, decode(path, 64).height) == image.size


def test_the_most_pixels_and_bytes_that_are_read(tmp_path, monkeypatch):
    with warnings.catch_warnings(action="ignore"):
        for size, reason in (
            ((20_000, 5_000), None),
            ((20_000, 5_001), "at most 100,000,000"),
            ((5, 20_000), None),
            ((5, 20_001), "a side"),
        ):
            content = save(tmp_path, Image.new("1", size)).read_bytes()
            if reason:
                with pytest.raises(ImageError, match=reason):
                    open_image(content)
            else:
                assert open_image(content).size == size
    path = save(tmp_path, Image.fromarray(GREY))
    monkeypatch.setattr(image_files, "MAX_BYTES", path.stat().st_size)
    decode(path, 32)
    monkeypatch.setattr(image_files, "MAX_BYTES", path.stat().st_size - 1)
    with pytest.raises(ImageError, match="are read"):
        decode(path, 32)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_read(rng, tmp_path, kind):
    levels = np.repeat(np.repeat(rng.integers(0, 256, (8, 8), np.uint8), 8, axis=0), 8, axis=1)
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100}}.get(kind, {})
    picture = decode(save(tmp_path, Image.fromarray(levels), "image", format=kind, **options), 64)
    assert np.abs(picture.pixels.astype(int) - levels).max() <= (3 if kind == "JPEG" else 0)


def test_the_checksum_is_of_the_bytes_of_the_file(tmp_path):
    path = save(tmp_path, Image.fromarray(GREY))
    assert decode(path, 32, crop=True).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def block(rows, columns, level=100, shape=(64, 64), background=0):
    """A rectangle of one level on a background of another."""
    levels = np.full(shape, background, np.uint8)
    levels[slice(*rows), slice(*columns)] = level
    return levels


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_pixels_are_the_picture_or_its_head_resized_bicubically_at_the_middle_of_black(rng, tmp_path, crop, turned):
    levels = np.zeros((96, 160), np.uint8)
    levels[12:84, 20:140] = rng.integers(60, 256, (72, 120))
    levels = levels.T if turned else levels
    part = levels[20:140, 12:84] if crop and turned else levels[12:84, 20:140] if crop else levels
    small = Image.fromarray(part).resize((24, 40) if turned else (40, 24), Image.Resampling.BICUBIC)
    expected = np.zeros((40, 40), np.uint8)
    expected[slice(8, 32) if not turned else slice(None), slice(8, 32) if turned else slice(None)] = small
    picture = decode(save(tmp_path, Image.fromarray(levels)), 40, crop)
    np.testing.assert_array_equal(picture.pixels, expected)
    assert (picture.width, picture.height) == levels.shape[::-1]


def test_a_large_jpeg_is_decoded_at_twice_the_stored_size(rng, tmp_path):
    levels = np.kron(rng.integers(0, 256, (64, 64), np.uint8), np.ones((16, 16), np.uint8))
    path = save(tmp_path, Image.fromarray(levels), "image.jpg", quality=90)
    with Image.open(path) as file:
        file.draft("L", (256, 256))
        assert file.size == (256, 256)
        expected = np.asarray(file.resize((128, 128), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(decode(path, 128).pixels, expected)


def test_the_background_is_the_median_of_the_rim_and_what_differs_by_more_than_20_stands_out():
    for background, level, columns in ((0, 20, (20, 50)), (0, 21, (14, 56)), (120, 100, (20, 50)), (120, 99, (14, 56))):
        levels = block((10, 50), (20, 50), 250, background=background)
        levels[10:50, 14:20] = levels[10:50, 50:56] = level
        levels[0, :6] = levels[-1, :6] = levels[1:7, -1] = 255 if background < 50 else 0  # moves the mean, not the median
        assert head_box(Image.fromarray(levels)) == (columns[0], 10, columns[1], 50)
    levels = block((10, 50), (20, 50))
    levels[0], levels[:40, 0] = 200, 200  # most of two sides
    assert head_box(Image.fromarray(levels)) == (0, 0, 50, 50)
    assert head_box(Image.fromarray(levels[::-1, ::-1])) == (14, 14, 64, 64)


def test_rows_and_columns_of_which_a_tenth_stands_out_belong_to_the_head():
    levels = block((10, 50), (20, 50))
    levels[4:10, 30:36] = 100  # 6 of 64
    levels[50:54, 30:37] = 100  # 7 of 64
    levels[12:18, 14:20] = 100
    levels[20:27, 50:55] = 100
    assert head_box(Image.fromarray(levels)) == (20, 10, 55, 54)


def test_the_box_holds_all_pixels_of_its_cells_in_images_of_any_shape():
    levels = np.kron(block((10, 50), (20, 50)), np.ones((2, 5), np.uint8))
    assert head_box(Image.fromarray(levels)) == (100, 20, 250, 100)
    box = head_box(Image.fromarray(block((22, 81), (31, 117), shape=(100, 150))))  # 100/64 and 150/64 pixels to a cell
    assert box == (13 * 150 // 64, 14 * 100 // 64, -(-50 * 150 // 64), -(-52 * 100 // 64))


def spotted(levels, share):
    """With so large a share of other pixels around the middle a little brighter, so that it is no flat canvas."""
    levels = levels.copy()
    rows, columns = np.mgrid[: levels.shape[0], : levels.shape[1]]
    free = (levels == 0) & ((np.abs(rows - 31.5) > 18) | (np.abs(columns - 31.5) > 18))
    places = np.flatnonzero(free)[:: int(1 / share)]
    levels.ravel()[places] = 10
    return Image.fromarray(levels)


def test_an_image_of_which_less_than_a_tenth_stands_out_is_not_cut_unless_it_is_on_a_flat_canvas():
    small, large = block((22, 42), (22, 42)), block((22, 42), (22, 43))  # 400 and 420 of 4096 cells
    assert head_box(spotted(small, 0.04)) == (0, 0, 64, 64)
    assert head_box(spotted(large, 0.04)) == (22, 22, 43, 42)
    assert head_box(Image.fromarray(small)) == (22, 22, 42, 42)
    assert head_box(spotted(small, 0.01)) == (22, 22, 42, 42)


def test_a_head_on_a_canvas_is_looked_at_again_at_its_own_scale():
    levels = np.zeros((256, 256), np.uint8)
    levels[80:176, 90:166] = 100  # 0.11 of the image
    levels[83:173, 88:90] = 100  # half a cell of the whole image
    left, upper, right, lower = head_box(Image.fromarray(levels))
    around = 76 + 4 + 2 * (80 // 4 + 4), 96 + 2 * (96 // 4 + 4)
    assert 88 - around[0] / 64 <= left <= 88
    assert 80 - around[1] / 64 <= upper <= 80
    assert 166 <= right <= 166 + around[0] / 64
    assert 176 <= lower <= 176 + around[1] / 64


def test_small_heads_are_found_whole_down_to_a_crop_of_8_pixels():
    assert head_box(Image.fromarray(block((30, 34), (29, 33)))) == (29, 30, 33, 34)
    assert head_box(Image.fromarray(block((30, 33), (29, 33)))) == (0, 0, 64, 64)
    levels = block((24, 40), (24, 40))
    levels[40:58, 30:35] = 100  # more than a quarter as wide as the rest
    np.testing.assert_allclose(head_box(Image.fromarray(levels)), (24, 24, 40, 58), atol=1)


def test_a_head_of_a_quarter_of_the_image_is_not_looked_at_again():
    levels = block((16, 48), (16, 48))  # 1024 of 4096 cells
    levels[10:16, 20:26] = 100
    assert head_box(Image.fromarray(levels)) == (16, 16, 48, 48)
    levels[47] = levels[9]
    left, upper, right, lower = head_box(Image.fromarray(levels))
    assert (left, right, lower) == (16, 48, 47)
    assert upper == 10  # six of the 56 columns that are left are more than a tenth


def bits(image, box=None):
    """Where a picture of 17×16 pixels gets brighter to the right, in hexadecimal."""
    small = np.asarray(image.resize((17, 16), Image.Resampling.LANCZOS, box), int)
    return f"{int(''.join('01'[int(step > 0)] for step in np.diff(small).ravel()), 2):064x}"


def test_the_difference_hash_tells_where_a_picture_gets_brighter_to_the_right(rng):
    levels = np.zeros((16, 17), np.uint8)
    levels[0], levels[1], levels[2], levels[3, 5] = np.arange(17) * 10, np.arange(17)[::-1] * 10, 90, 30
    expected = "ffff" + "0000" * 2 + "0800" + "0000" * 12
    assert difference_hash(Image.fromarray(levels)) == expected
    larger = rng.integers(0, 256, (30, 40), np.uint8)
    larger[2:18, 3:20] = levels
    assert difference_hash(Image.fromarray(larger), (3, 2, 20, 18)) == expected
    picture = Image.fromarray(rng.integers(0, 256, (75, 90), np.uint8))
    assert difference_hash(picture) == bits(picture)


def middle_of_head(levels, box, background):
    """Hash of the middle of a head whose box, grown by a quarter of its sides, has cells of 2×3 pixels."""
    left, upper = box[0] - 21, box[1] - 32
    around = np.pad(levels, 200)
    part = around[upper + 200 : upper + 392, left + 200 : left + 328]
    inside = np.pad(np.ones_like(levels), 200)[upper + 200 : upper + 392, left + 200 : left + 328]
    cells = np.floor(part.reshape(64, 3, 64, 2).mean(axis=3) + 0.5).mean(axis=1).round()  # Pillow rounds rows first
    shares = inside.reshape(64, 3, 64, 2).mean(axis=(1, 3))
    contrast = np.where(shares >= 0.5, np.abs(cells - background), 0)
    rows, columns = np.nonzero(contrast > np.median(contrast[contrast > 5]) / 2)
    x, y = 2 * (columns.mean() + 0.5), 3 * (rows.mean() + 0.5)
    across, down = 2 * 1.8 * max(1, columns.std()), 3 * 1.8 * max(1, rows.std())
    middle = max(0, x - across), max(0, y - down), min(128, x + across), min(192, y + down)
    return bits(Image.fromarray(part), middle)


@pytest.mark.parametrize(("left", "upper"), [(40, 50), (5, 100), (110, 10)])
@pytest.mark.parametrize("background", [0, 40, 255])
def test_the_hash_of_a_head_is_of_its_middle_whatever_lies_around(rng, left, upper, background):
    levels = np.full((256, 200), background, np.uint8)
    rows, columns = np.mgrid[:256, :200]
    texture = Image.fromarray(rng.integers(0, 256, (20, 16), np.uint8)).resize((200, 256), Image.Resampling.BICUBIC)
    for x, y, half_x, half_y in ((left + 38, upper + 60, 36, 55), (left + 70, upper + 100, 12, 25)):
        levels = np.where(((columns - x) / half_x) ** 2 + ((rows - y) / half_y) ** 2 < 1, texture, levels)
    box = left, upper, left + 86, upper + 128
    assert head_hash(Image.fromarray(levels), box) == middle_of_head(levels, box, background)


def test_a_head_of_one_line_or_of_no_contrast_has_a_hash(rng):
    levels = np.zeros((256, 200), np.uint8)
    levels[60:170, 61:63] = rng.integers(100, 200, (110, 1))
    assert head_hash(Image.fromarray(levels), (40, 50, 126, 178)) == middle_of_head(levels, (40, 50, 126, 178), 0)
    levels = np.kron(rng.integers(0, 6, (32, 25), np.uint8), np.ones((8, 8), np.uint8))
    levels[:, [0, -1]], levels[[0, -1]] = 0, 0
    faint = Image.fromarray(levels)
    assert head_hash(faint, (40, 50, 126, 178)) == bits(faint.crop((40, 50, 126, 178)))


@pytest.mark.parametrize(("background", "across", "is_cut"), [(21, 31, True), (20, 31, False), (60, 32, False), (60, 31, True)])
def test_a_slice_with_a_background_of_its_own_is_hashed_without_the_canvas(rng, background, across, is_cut):
    levels = np.zeros((256, 256), np.uint8)
    levels[52:188, 52:188] = background
    levels[52:188, 70 : 70 + 2 * across] = rng.integers(120, 256, (136, 2 * across))  # on so many of 64 cells above and below
    canvas, box = Image.fromarray(levels), (52, 52, 188, 188)
    inner = canvas.crop((56, 56, 184, 184))  # a cell less at each edge
    expected = head_hash(inner, head_box(inner)) if is_cut else head_hash(canvas, box)
    assert head_hash(inner, head_box(inner)) != head_hash(canvas, box)
    assert hash_image(canvas, box) == (expected, expected)


def test_the_whole_image_is_hashed_too_if_the_head_fills_45_percent_of_it(rng, tmp_path):
    levels = np.kron(rng.integers(0, 256, (10, 10), np.uint8), np.ones((10, 10), np.uint8))
    levels[:, :30], levels[:, 75:] = 0, 0
    image = Image.fromarray(levels)
    of_head, whole = hash_image(image, (30, 0, 75, 100))
    assert (of_head, whole) == (head_hash(image, (30, 0, 75, 100)), bits(image))
    assert of_head != whole
    assert hash_image(image, (30, 0, 74, 100)) == (head_hash(image, (30, 0, 74, 100)),) * 2
    picture = decode(save(tmp_path, Image.fromarray(SLICES[0])), 32, crop=True)
    slice_ = Image.fromarray(SLICES[0])
    assert (picture.perceptual_hash, picture.whole_hash) == (head_hash(slice_, head_box(slice_)), bits(slice_))


def test_a_frame_around_a_head_that_fills_the_image_is_no_canvas(rng):
    levels = np.full((256, 256), 60, np.uint8)
    levels[40:200, 60:200] = rng.integers(120, 256, (160, 140))
    levels[:4], levels[-4:], levels[:, :4], levels[:, -4:] = 0, 0, 0, 0
    image = Image.fromarray(levels)
    assert hash_image(image, (0, 0, 256, 256)) == (head_hash(image, (0, 0, 256, 256)), bits(image))
