"""Image files of every common kind are read right; what is no usable image is refused with its reason."""

import io
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.shared.images import FORMATS, MAX_BYTES, ImageError, decode, decode_all, difference_hash, head_box, to_grey

GREY = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))  # 64×64, darker left, brighter right


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
    picture = decode(save(tmp_path, Image.new("RGB", (64, 64), (200, 100, 50))), 64)
    assert abs(int(picture.pixels[0, 0]) - (0.299 * 200 + 0.587 * 100 + 0.114 * 50)) <= 1


def test_cmyk_jpeg_is_not_inverted(tmp_path):
    picture = decode(save(tmp_path, Image.fromarray(GREY).convert("CMYK"), "image.jpg", quality=95), 64)
    assert picture.mode == "CMYK"
    assert np.abs(picture.pixels.astype(int) - GREY).mean() < 3


@pytest.mark.parametrize("factor", [257, 16])
def test_16_bit_images_keep_their_range(tmp_path, factor):
    levels = GREY.astype(np.uint16) * factor  # 16 and 12 bits in use
    for name in ("image.png", "image.tiff"):
        picture = decode(save(tmp_path, Image.fromarray(levels), name), 64)
        assert np.abs(picture.pixels.astype(int) - GREY).max() <= 1


def test_transparent_parts_become_black(tmp_path):
    image = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    image.paste((255, 255, 255, 255), (0, 0, 32, 64))
    palette = image.convert("P")
    palette.info["transparency"] = palette.getpixel((60, 0))
    for one in (image, palette, image.convert("LA")):
        pixels = decode(save(tmp_path, one), 64).pixels
        assert pixels[:, :30].min() == 255
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
    pixels = decode(save(tmp_path, Image.new("L", (200, 100), 255)), 64).pixels
    assert pixels.shape == (64, 64)
    assert pixels[16:48].min() == 255
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


def animation():
    file = io.BytesIO()
    frames = [Image.new("L", (64, 64), level) for level in (0, 255)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"<html>no image</html>", "not an image"),
        (noise("PNG")[:2000], "broken image"),
        (noise("JPEG")[:2000], "broken image"),
        (animation(), "2 frames"),
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


EXIF = Image.Exif()
EXIF[0x0112] = 6
WHOLE = [
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
    try:
        assert decode(path, 32, crop=True).pixels.shape == (32, 32)
    except ImageError as error:
        assert str(error)


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
    picture = np.where(head, 150, background).astype(np.uint8)
    picture[5:12, 5:28:3] = 200  # a label in the corner
    left, upper, right, lower = head_box(Image.fromarray(picture))
    assert abs(left - 150) < 15
    assert abs(right - 290) < 15
    assert abs(upper - 70) < 15
    assert abs(lower - 250) < 15
    path = save(tmp_path, Image.fromarray(picture))
    cropped, whole = decode(path, 64, crop=True), decode(path, 64)
    assert (cropped.pixels == 150).sum() > 2 * (whole.pixels == 150).sum()
    assert (cropped.perceptual_hash, cropped.width) == (whole.perceptual_hash, whole.width)


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
        Image.new("L", (40, 40), 10 * number).save(tmp_path / f"{number}.png")
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
    assert [picture.pixels[0, 0] for path, picture in first[:4] if path.stem != "bad"] == [0, 10, 20]
    assert len(asked) < 200
    decoded.close()
