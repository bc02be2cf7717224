"""Image files: what is no usable image, or is damaged, is refused with a reason in one line."""

import gzip
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

from brainmri.images import files
from brainmri.images.decoding import decode
from brainmri.images.files import FORMATS, MAX_BYTES, ImageError, open_image
from tests.support.image_files import GRAY_RAMP, SLICES, exif_of, save_image, step_image

DATE = "2026:01:01 00:00:00"
SUBFILE_TYPE = 254  # a tag of TIFF


def encode_noise(kind: str, mode: str = "L", side: int = 64, **options) -> bytes:
    file = io.BytesIO()
    levels = np.random.default_rng(0).integers(0, 256, (side, side), np.uint8)
    Image.fromarray(levels).convert(mode).save(file, kind, **options)
    return file.getvalue()


def encode_array() -> bytes:
    file = io.BytesIO()
    np.save(file, GRAY_RAMP)
    return file.getvalue()


def encode_animation(kind: str) -> bytes:
    file = io.BytesIO()
    frames = [Image.new("L", (64, 64), level) for level in (0, 255)]
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    return file.getvalue()


def encode_pages(pages: list[tuple[Image.Image, dict]]) -> bytes:
    """Encode a TIFF of several pages, each with tags of its own."""
    file = io.BytesIO()
    with AppendingTiffWriter(file) as writer:
        for page, tags in pages:
            page.save(writer, "TIFF", tiffinfo=tags)
            writer.newFrame()
    return file.getvalue()


def read_or_refuse(path) -> bool:
    """Decode an image; return whether it was read: if not, a line says why."""
    try:
        assert decode(path, 32, crop=True).pixels.shape == (32, 32)
    except ImageError as error:
        assert str(error)
        assert "\n" not in str(error)
        return False
    return True


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"<html>no image</html>", "not an image"),
        (encode_noise("PNG")[:2000], "broken image"),
        (encode_noise("JPEG")[:2000], "broken image"),
        *((encode_animation(kind), "2 frames") for kind in ("GIF", "PNG", "WEBP", "TIFF")),
        (
            b"P5 30000 10 255\n",
            "^not an image of a known format; PNG, JPEG, BMP, GIF, TIFF, WEBP and DICOM are read$",
        ),
    ],
)
def test_unusable_files_are_refused(tmp_path, content, reason):
    (tmp_path / "image.jpg").write_bytes(content)
    with pytest.raises(ImageError, match=reason):
        decode(tmp_path / "image.jpg", 64)


NIFTI = (348).to_bytes(4, "little") + bytes(340) + b"n+1\0" + bytes(70_000)
TIFF_OF_DOUBLES = encode_noise("TIFF").replace(
    struct.pack("<HHII", 258, 3, 1, 8), struct.pack("<HHII", 258, 3, 1, 64)
)
ANALYZE = (348).to_bytes(4, "little") + bytes(344)
NIFTI_2 = (540).to_bytes(4, "little") + b"n+2\0\r\n\x1a\n" + bytes(532)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (NIFTI, "a NIfTI volume; export its slices as PNG, with nibabel, mri_convert"),
        (NIFTI.replace(b"n+1", b"ni1"), "a NIfTI volume"),
        (NIFTI_2, "a NIfTI volume"),
        (gzip.compress(NIFTI, mtime=0), "a NIfTI volume"),
        (gzip.compress(NIFTI, mtime=0)[:200], "a NIfTI volume"),
        (gzip.compress(bytes(9000), mtime=0), "not an image of a known format"),
        (b"\x1f\x8b" + bytes(9000), "not an image of a known format"),
        (b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(200), "scipy.io.loadmat"),
        (b"MATLAB 7.3 MAT-file" + bytes(493) + b"\x89HDF\r\n\x1a\n", "with h5py"),
        (b"NRRD0004\ntype: float\n", "an NRRD volume; export its slices"),
        (TIFF_OF_DOUBLES, "a TIFF of a kind that can't be read; save it with levels of 8, 16"),
        (b"\x89HDF\r\n\x1a\n" + bytes(900), "an HDF5 file; export its images as PNG, with h5py"),
        (encode_array(), "a NumPy array; export its images as PNG, with numpy.load"),
        (ANALYZE, "the header of an Analyze volume; export its slices as PNG, with nibabel"),
        ((348).to_bytes(4, "big") + bytes(344), "the header of an Analyze volume"),
        (gzip.compress(ANALYZE, mtime=0), "the header of an Analyze volume"),
        (b"ObjectType = Image\nNDims = 3\n", "a MetaImage volume; export its slices as PNG"),
        (encode_noise("JPEG2000"), "a JPEG 2000 image; save it as PNG"),
        (encode_noise("JPEG2000", no_jp2=True), "a JPEG 2000 image; save it as PNG"),
        (b"\0\0\0\x1cftypavif" + bytes(99), "an HEIC or AVIF image; save it as PNG"),
        (b"\0\0\0\x18ftypheic" + bytes(99), "an HEIC or AVIF image; save it as PNG"),
        (b"\0\0\0\x18ftypavc1" + bytes(99), "not an image of a known format"),  # a film
        (b"\n<!doctype HTML><title>Log in", "a web page, not an image of .*; download the file"),
        (b"\xef\xbb\xbf<html lang='en'>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "`git lfs pull`"),
    ],
)
def test_files_that_are_not_read_get_a_hint(tmp_path, content, reason):
    (tmp_path / "brain.nii.gz").write_bytes(content)
    with pytest.raises(ImageError, match=reason):
        decode(tmp_path / "brain.nii.gz", 64)


def test_missing_and_narrow_files_are_refused(tmp_path):
    with pytest.raises(ImageError, match="No such file"):
        decode(tmp_path / "none.png", 64)
    with pytest.raises(ImageError, match="too narrow"):
        decode(save_image(tmp_path, Image.new("L", (10, 2000))), 64)


def test_pipes_and_huge_files_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="not a regular file"):
        decode(tmp_path / "pipe.png", 32)
    with open(tmp_path / "large.png", "wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ImageError, match="at most 400,000,000 are read"):
        decode(tmp_path / "large.png", 32)


@pytest.mark.parametrize(
    ("size", "reason"), [((20_001, 1), "a side may have"), ((12_000, 12_000), "at most")]
)
def test_huge_images_are_not_decoded(tmp_path, size, reason):
    path = save_image(tmp_path, Image.new("1", size))
    with pytest.raises(ImageError, match=reason):
        decode(path, 64)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (step_image(8, 8), None),
        (step_image(7, 8), "8×7 pixels are too few"),
        (step_image(8, 7), "7×8 pixels are too few"),
        (step_image(9, 9, levels=7), "7 distinct"),
        (Image.fromarray(np.eye(9, dtype=bool)), None),
        (Image.new("1", (9, 9), 1), "1 distinct"),
        (step_image(512, 8), None),
        (step_image(513, 8), "8×513 pixels are too narrow"),
        (step_image(8, 513), "513×8 pixels are too narrow"),
    ],
)
def test_smallest_images_that_are_read(tmp_path, image, reason):
    path = save_image(tmp_path, image)
    if reason:
        with pytest.raises(ImageError, match=reason):
            decode(path, 64)
    else:
        assert (decode(path, 64).width, decode(path, 64).height) == image.size


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((20_000, 5_000), None),
        ((20_000, 5_001), "at most 100,000,000"),
        ((5, 20_000), None),
        ((5, 20_001), "a side"),
    ],
)
def test_largest_images_that_are_opened(tmp_path, size, reason):
    content = save_image(tmp_path, Image.new("1", size)).read_bytes()
    with warnings.catch_warnings(action="ignore"):
        if reason:
            with pytest.raises(ImageError, match=reason):
                open_image(content)
        else:
            assert open_image(content).size == size


def test_largest_file_that_is_read(tmp_path, monkeypatch):
    path = save_image(tmp_path, Image.fromarray(GRAY_RAMP))
    size = path.stat().st_size
    monkeypatch.setattr(files, "MAX_BYTES", size)
    decode(path, 32)
    monkeypatch.setattr(files, "MAX_BYTES", size - 1)
    with pytest.raises(ImageError, match="are read"):
        decode(path, 32)


@pytest.mark.parametrize("kind", [1, 4])
@pytest.mark.parametrize("preview_first", [False, True])
def test_previews_and_masks_in_a_tiff_are_ignored(tmp_path, kind, preview_first):
    image = Image.fromarray(SLICES[0])
    preview = Image.fromarray(SLICES[1]).resize((80, 80))
    pages = [(image, {}), (preview, {SUBFILE_TYPE: kind})]
    if preview_first:
        pages = [(preview, {SUBFILE_TYPE: kind}), (image, {SUBFILE_TYPE: 0})]
    (tmp_path / "pages.tiff").write_bytes(encode_pages(pages))
    decoded = decode(tmp_path / "pages.tiff", 64)
    assert (decoded.width, decoded.height) == image.size
    expected = decode(save_image(tmp_path, image), 64).pixels
    np.testing.assert_array_equal(decoded.pixels, expected)


def test_page_after_a_preview_may_not_be_too_large():
    preview = Image.fromarray(GRAY_RAMP)
    too_large = Image.new("1", (20_001, 8))
    largest = too_large.crop((0, 0, 20_000, 8))
    content = encode_pages([(largest, {}), (preview, {SUBFILE_TYPE: 1})])
    assert open_image(content).size == (20_000, 8)
    content = encode_pages([(preview, {SUBFILE_TYPE: 1}), (too_large, {})])
    with pytest.raises(ImageError, match="a side may have"):
        open_image(content)


def test_raw_file_with_a_readable_preview_is_refused(tmp_path):
    path = save_image(tmp_path, Image.fromarray(SLICES[0]), "raw.tiff", tiffinfo={SUBFILE_TYPE: 1})
    content = path.read_bytes()
    page_number, planes, sub_images = (struct.pack("<HH", tag, 3) for tag in (297, 284, 330))
    replaced = page_number if page_number in content else planes
    path.write_bytes(content.replace(replaced, sub_images, 1))
    with pytest.raises(ImageError, match="only a preview in it can be read"):
        decode(path, 64)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_damaged_exif_is_reported_in_one_line(tmp_path, kind):
    """Change each byte of the EXIF block in turn, and shorten the block."""
    maker = "maker of some scanner"
    exif = exif_of(6)
    exif[0x010F] = maker
    exif.get_ifd(0x8769)[0x9003] = DATE
    path = save_image(tmp_path, Image.fromarray(GRAY_RAMP), "image", format=kind, exif=exif)
    assert read_or_refuse(path)
    content = path.read_bytes()
    start = content.index(maker.encode()) - 80
    for position in range(start, start + 140):
        for value in (0, 255):
            path.write_bytes(content[:position] + bytes([value]) + content[position + 1 :])
            read_or_refuse(path)
    if kind == "JPEG":
        block = exif.tobytes()
        for length in range(len(block)):
            options = {"format": kind, "exif": block[:length]}
            read_or_refuse(save_image(tmp_path, Image.fromarray(GRAY_RAMP), "cut", **options))


EXIF = exif_of(6)
EXIF.get_ifd(0x8769)[0x9003] = DATE
SMALL_FILES = [
    encode_noise("PNG", side=16, exif=EXIF),
    encode_noise("TIFF", "RGB", 16, exif=EXIF),
    encode_noise("JPEG", "L", 16, exif=EXIF),
    encode_noise(
        "MPO", "RGB", 16, exif=EXIF, save_all=True, append_images=[Image.new("RGB", (16, 16))]
    ),
    *(encode_noise(kind, side=16) for kind in FORMATS),
    encode_noise("PNG", "P", 16, transparency=3),
    encode_noise("PNG", "I;16", 16),
    encode_noise("JPEG", "CMYK", 16, exif=EXIF, progressive=True),
    encode_noise("GIF", "P", 16, transparency=3, interlace=1),
    *(
        encode_noise("TIFF", mode, 16, compression=compression)
        for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg")
        for mode in ("L", "RGB")
    ),
    encode_noise("TIFF", "F", 16),
    encode_noise("WEBP", "RGBA", 16, lossless=True, exif=EXIF),
    encode_noise("BMP", "1", 16),
]


@pytest.mark.parametrize("content", SMALL_FILES, ids=range(len(SMALL_FILES)))
def test_files_to_damage_are_usable(tmp_path, content):
    (tmp_path / "image").write_bytes(content)
    assert decode(tmp_path / "image", 32, crop=True).pixels.std() > 10


@given(
    content=st.sampled_from(SMALL_FILES),
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=5),
    fraction=st.floats(0, 1) | st.just(1),
)
@settings(deadline=None, max_examples=200)
def test_damaged_images_are_read_or_refused(tmp_path_factory, content, changes, fraction):
    damaged = bytearray(content)
    for position, value in changes:
        start = int(position**4 * len(damaged))  # headers are hit more often than pixels
        damaged[start : start + len(value)] = value
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(damaged[: int(fraction * len(damaged))])
    read_or_refuse(path)
