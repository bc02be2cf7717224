"""Image files of every common kind are read right; what is no usable image is refused with its reason."""

import io
import os
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import AppendingTiffWriter

from stages.shared.image_files import FORMATS, MAX_BYTES, ImageError
from stages.shared.images import decode, decode_all, difference_hash, head_box, to_grey
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


@pytest.mark.parametrize("kind", [1, 4])
@pytest.mark.parametrize("preview_first", [False, True])
def test_a_preview_or_a_mask_in_a_tiff_does_not_count(tmp_path, kind, preview_first):
    image, preview = Image.fromarray(SLICES[0]), Image.fromarray(SLICES[1]).resize((80, 80))
    pages = [(preview, {254: kind}), (image, {254: 0})] if preview_first else [(image, {}), (preview, {254: kind})]
    file = io.BytesIO()
    with AppendingTiffWriter(file) as writer:
        for page, tags in pages:
            page.save(writer, "TIFF", tiffinfo=tags)
            writer.newFrame()
    (tmp_path / "pages.tiff").write_bytes(file.getvalue())
    picture = decode(tmp_path / "pages.tiff", 64)
    assert (picture.width, picture.height) == image.size
    np.testing.assert_array_equal(picture.pixels, decode(save(tmp_path, image), 64).pixels)


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


def read_or_refuse(path):
    try:
        assert decode(path, 32, crop=True).pixels.shape == (32, 32)
    except ImageError as error:
        assert str(error)
        assert "\n" not in str(error)


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


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_read(tmp_path, kind):
    levels = np.repeat(np.repeat(np.random.default_rng(5).integers(0, 256, (8, 8), np.uint8), 8, axis=0), 8, axis=1)
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100}}.get(kind, {})
    picture = decode(save(tmp_path, Image.fromarray(levels), "image", format=kind, **options), 64)
    assert np.abs(picture.pixels.astype(int) - levels).max() <= (3 if kind == "JPEG" else 0)
