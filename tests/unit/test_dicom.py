"""DICOM: single-frame MR images become the gray pixels that viewers show; all else is refused."""

import hashlib
import io
import random
import struct
import subprocess
import sys
import time
import zlib
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import Dataset, uid
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_rescale, apply_voi_lut, get_decoder

from brainmri.images import dicom
from brainmri.images.decoding import DecodedImage, decode
from brainmri.images.dicom import is_dicom, read_dicom
from brainmri.images.files import ImageError
from brainmri.images.intensity import rescale_intensity
from tests.support.checkout import ROOT
from tests.support.dicom_files import PREAMBLE, element, encode_dicom
from tests.support.image_files import GRAY_RAMP, SLICES, save_image

BUNDLED = Path(pydicom.__file__).parent / "data/test_files"  # with the package: no downloads
SLICE = SLICES[8]
TWELVE_BITS = SLICE.astype(np.uint16) * 16
SIGNED = TWELVE_BITS.astype(np.int16) - 2000
NOT_BELOW_0 = TWELVE_BITS.astype(np.int16)
UNCOMPRESSED = [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian]
WINDOW = {"WindowCenter": 900, "WindowWidth": 1500}
NAME = "DOE^JANE"
# Outside of pytest, nothing prints them: see the last test
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def gray_of(content: bytes) -> np.ndarray:
    return np.asarray(read_dicom(content).gray)


def decode_content(folder: Path, content: bytes, name: str = "image") -> DecodedImage:
    (folder / name).write_bytes(content)
    return decode(folder / name, 64)


def windowed(levels: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map levels to gray, linearly from low (0) to high (255)."""
    return np.round(np.clip((levels - low) / (high - low), 0, 1) * 255)


def bundled(name: str, *changes: tuple[bytes, bytes]) -> bytes:
    content = (BUNDLED / name).read_bytes()
    for old, new in changes:
        assert old in content
        content = content.replace(old, new, 1)
    return content


@pytest.mark.parametrize(
    "name",
    [
        "MR_small.dcm",
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_expb.dcm",
        "MR_small_implicit.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_padded.dcm",
    ],
)
def test_every_lossless_transfer_syntax_has_the_same_pixels(tmp_path, name):
    image = decode_content(tmp_path, bundled(name))
    levels = pydicom.dcmread(BUNDLED / "MR_small.dcm").pixel_array
    np.testing.assert_array_equal(image.pixels, windowed(levels, -200, 1399))
    assert image.levels == (-200, 1399)
    assert (image.mode, image.width, image.height) == ("DICOM MONOCHROME2", 64, 64)


@pytest.mark.parametrize(
    ("name", "modality"),
    [("JPGExtended.dcm", b"NM"), ("JPEG2000.dcm", b"NM"), ("693_J2KI.dcm", b"CT")],
)
def test_lossy_transfer_syntaxes(name, modality):
    image = read_dicom(bundled(name, (b"CS\2\0" + modality, b"CS\2\0MR")))
    dataset = pydicom.dcmread(BUNDLED / name)
    levels = apply_rescale(dataset.pixel_array, dataset)
    expected = np.asarray(rescale_intensity(levels)[0], int)
    if "WindowWidth" in dataset:
        expected = windowed(levels, *image.levels)
    assert np.abs(np.asarray(image.gray) - expected).max() <= 2


def test_baseline_jpeg():
    jpeg, content = io.BytesIO(), io.BytesIO()
    Image.fromarray(SLICE).save(jpeg, "JPEG", quality=95)
    dataset = pydicom.dcmread(io.BytesIO(encode_dicom(SLICE, **WINDOW)))
    dataset.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    dataset.PixelData = encapsulate([jpeg.getvalue()])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(content)
    expected = windowed(np.asarray(Image.open(jpeg), float), 150, 1649)
    np.testing.assert_array_equal(gray_of(content.getvalue()), expected)


@pytest.mark.parametrize("syntax", [*UNCOMPRESSED, uid.RLELossless], ids=lambda value: value.name)
@pytest.mark.parametrize(
    "levels",
    [SLICE, TWELVE_BITS, SIGNED, (SLICE // 2).astype(np.int8) - 50],
    ids=lambda levels: levels.dtype.name,
)
def test_bits_signs_and_byte_orders(levels, syntax):
    image = read_dicom(encode_dicom(levels, syntax))
    expected, window = rescale_intensity(levels)
    np.testing.assert_array_equal(image.gray, expected)
    assert image.levels == window


@pytest.mark.parametrize(("levels", "first_bit"), [(TWELVE_BITS, 0), (SIGNED // 2, 1)])
def test_bits_that_are_not_stored_do_not_count(levels, first_bit):
    overlay = np.resize([0, 0xF000, 0x5000], levels.shape).astype(np.uint16)
    stored = (levels.astype(np.uint16) & 0x0FFF) | overlay
    content = encode_dicom(stored, BitsStored=12, HighBit=11, PixelRepresentation=first_bit)
    np.testing.assert_array_equal(gray_of(content), rescale_intensity(levels)[0])


def test_bits_in_another_place_are_refused():
    with pytest.raises(ImageError, match="the highest of 12 stored bits is 15; expected 11"):
        read_dicom(encode_dicom(TWELVE_BITS << 4, BitsStored=12, HighBit=15))


@pytest.mark.parametrize("syntax", UNCOMPRESSED, ids=lambda value: value.name)
@pytest.mark.parametrize("name", ["image", "IM000001", "image.png", "scan.ima"])
def test_format_is_detected_by_content(tmp_path, syntax, name):
    with_preamble = decode_content(tmp_path, encode_dicom(SLICE, syntax, **WINDOW), name)
    bare = decode_content(tmp_path, encode_dicom(SLICE, syntax, bare=True, **WINDOW), name)
    np.testing.assert_array_equal(with_preamble.pixels, bare.pixels)
    assert with_preamble.mode == bare.mode == "DICOM MONOCHROME2"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP"])
def test_other_formats_are_not_taken_for_dicom(tmp_path, kind):
    for levels in (GRAY_RAMP, SLICE):
        path = save_image(tmp_path, Image.fromarray(levels), "image", format=kind)
        assert not is_dicom(path.read_bytes())
        assert decode(path, 64).patient is None


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("rescale", [{}, {"RescaleSlope": 0.37, "RescaleIntercept": -120.5}])
@pytest.mark.parametrize(
    "window",
    [WINDOW, {"WindowCenter": [300, 40], "WindowWidth": [801, 80]}],
    ids=["one", "several"],
)
def test_window_is_that_of_pydicom(function, rescale, window):
    content = encode_dicom(SIGNED, VOILUTFunction=function, **rescale, **window)
    dataset = pydicom.dcmread(io.BytesIO(content))
    levels = apply_rescale(dataset.pixel_array, dataset)
    shown = apply_voi_lut(levels, dataset)
    ends = apply_rescale(np.array([-(2.0**15), 2.0**15 - 1]), dataset)
    image = read_dicom(content)
    difference = np.asarray(image.gray) - windowed(shown, *ends)
    assert np.abs(difference).max() <= 1
    assert np.mean(difference != 0) < 0.01
    black, white = image.levels
    assert np.asarray(image.gray)[levels < black].max(initial=0) == 0
    assert np.asarray(image.gray)[levels > white].min(initial=255) == 255


def test_levels_are_rescaled():
    image = read_dicom(encode_dicom(TWELVE_BITS, RescaleSlope=2, RescaleIntercept=-1000))
    gray, (black, white) = rescale_intensity(TWELVE_BITS)
    np.testing.assert_array_equal(image.gray, gray)
    assert image.levels == (2 * black - 1000, 2 * white - 1000)


@pytest.mark.parametrize(
    "window",
    [
        {"WindowCenter": 900},
        {"WindowCenter": 900, "WindowWidth": 0},
        {"WindowCenter": 900, "WindowWidth": 1},
        {"WindowCenter": 900, "WindowWidth": 0, "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": "", "WindowWidth": ""},
        {"VOILUTSequence": []},
    ],
)
def test_unusable_windows_are_ignored(window):
    expected, levels = rescale_intensity(TWELVE_BITS)
    image = read_dicom(encode_dicom(TWELVE_BITS, **window))
    np.testing.assert_array_equal(image.gray, expected)
    assert image.levels == levels


@pytest.mark.parametrize(
    ("elements", "shown"),
    [
        ({"WindowCenter": -5000, "WindowWidth": 100}, 1),
        ({"WindowCenter": 1e6, "WindowWidth": 100, "VOILUTFunction": "SIGMOID"}, 1),
        ({"WindowCenter": 2, "WindowWidth": 2}, 2),
        # A window in stored levels
        ({"RescaleSlope": 0.001, "RescaleIntercept": 0, **WINDOW, "WindowWidth": 2000}, 1),
    ],
)
def test_window_that_leaves_too_few_levels_is_named(elements, shown):
    reason = f"^its window leaves {shown} distinct gray level.* of 199; 8 or more are expected"
    with pytest.raises(ImageError, match=reason):
        read_dicom(encode_dicom(TWELVE_BITS, **elements))


def test_narrowest_window_that_is_read():
    levels = np.resize(np.arange(20, dtype=np.uint16), (40, 40))
    window = {"WindowCenter": 10.5, "VOILUTFunction": "LINEAR_EXACT"}
    gray = gray_of(encode_dicom(levels, WindowWidth=6, **window))
    assert len(np.unique(gray)) == 8
    with pytest.raises(ImageError, match=r"its window leaves 6 distinct gray level.* of 20;"):
        read_dicom(encode_dicom(levels, WindowWidth=5, **window))


@pytest.mark.parametrize("window", [{}, WINDOW, {**WINDOW, "VOILUTFunction": "SIGMOID"}])
def test_zero_is_white_in_monochrome1(window):
    inverted = read_dicom(
        encode_dicom(4095 - TWELVE_BITS, PhotometricInterpretation="MONOCHROME1", **window)
    )
    assert inverted.mode == "DICOM MONOCHROME1"
    if window:
        upright = read_dicom(encode_dicom(4095 - TWELVE_BITS, **window))
        np.testing.assert_array_equal(inverted.gray, 255 - np.asarray(upright.gray))
        assert inverted.levels == upright.levels[::-1]
    else:
        gray, (black, white) = rescale_intensity(TWELVE_BITS)
        np.testing.assert_array_equal(inverted.gray, gray)
        assert inverted.levels == (4095 - black, 4095 - white)


def lookup_table(values: np.ndarray, first: int, bits: int) -> list[Dataset]:
    table = Dataset()
    table.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(values), first, bits])
    table.add_new("LUTData", "OW", values.astype("<u2").tobytes())
    return [table]


@pytest.mark.parametrize("syntax", UNCOMPRESSED[:2], ids=lambda value: value.name)
@pytest.mark.parametrize(
    ("levels", "first"), [(TWELVE_BITS, 100), (SIGNED, -1500), (NOT_BELOW_0, -200)]
)
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_lookup_table_precedes_window(syntax, levels, first, bits):
    values = np.round(np.linspace(0, 1, 3000) ** 2 * (2**bits - 1))
    table = lookup_table(values, first, bits)
    image = read_dicom(encode_dicom(levels, syntax, VOILUTSequence=table, **WINDOW))
    indices = np.clip(levels.astype(int) - first, 0, 2999)
    expected = np.round(values[indices] / (2**bits - 1) * 255)
    np.testing.assert_array_equal(image.gray, expected)
    assert image.levels == (first, first + 2999)


def test_modality_lookup_table_precedes_the_window():
    values = np.arange(4096)[::-1]
    table = lookup_table(values, 0, 16)
    image = read_dicom(encode_dicom(TWELVE_BITS, ModalityLUTSequence=table, **WINDOW))
    expected = read_dicom(encode_dicom(values[TWELVE_BITS].astype(np.uint16), **WINDOW))
    np.testing.assert_array_equal(image.gray, expected.gray)


DEFLATED = (
    PREAMBLE
    + element(2, 0x10, "UI", uid.DeflatedExplicitVRLittleEndian.encode())
    + zlib.compress(bytes(10**7), 9)[2:-4]
)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (encode_dicom(SLICE, NumberOfFrames=12), "12 frames; a single image is expected: export"),
        (
            encode_dicom(SLICE, ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]),
            "a mosaic of all slices of a volume; a single slice is expected",
        ),
        (encode_dicom(SLICE, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "a localizer"),
        (bundled("CT_small.dcm"), "the modality is CT; only MR images, of the brain, are read"),
        (encode_dicom(SLICE, Modality="OT\x1b[2J"), "the modality is unknown; only MR"),
        (encode_dicom(SLICE, PhotometricInterpretation="RGB"), "RGB, not MONOCHROME2; export"),
        (encode_dicom(SLICE, PhotometricInterpretation="YBR_FULL"), "YBR_FULL, not"),
        (encode_dicom(SLICE, PhotometricInterpretation="PALETTE COLOR"), "PALETTE COLOR, not"),
        (encode_dicom(SLICE, PhotometricInterpretation=None), "unknown or missing"),
        (encode_dicom(SLICE, SamplesPerPixel=3), "several samples for each pixel; export"),
        (bundled("rtstruct.dcm"), "no pixels"),
        (bundled("test-SR.dcm"), r"no pixels, as in a directory \(DICOMDIR\), a report"),
        ((BUNDLED / "dicomdirtests/DICOMDIR").read_bytes(), "no pixels"),
        (bundled("MR_truncated.dcm"), "8,130 bytes of pixels; 8,192 are expected"),
        (bundled("MR_small_RLE.dcm")[:6000], "the DICOM file is cut short"),
        (bundled("MR_small.dcm")[:1400], "the DICOM file is cut short before its pixels"),
        (bundled("image_dfl.dcm"), "transfer syntax 'Deflated Explicit VR Little Endian' can't"),
        (DEFLATED, "'Deflated Explicit VR Little Endian' can't be read; save the DICOM"),
        (
            encode_dicom(SLICE).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.9.9.9\0", 1),
            "an unknown transfer syntax can't be read",
        ),
        (encode_dicom(SLICE, BitsAllocated=1), "1 bits are allocated to a pixel; 8, 16 or 32"),
        (encode_dicom(SLICE, Rows=0), "0 pixels; the DICOM file is broken"),
        (encode_dicom(SLICE, Rows=None, Columns=None), "no Rows; the DICOM file is broken"),
        (encode_dicom(SLICE, Rows=20_001), "a side may have 20,000"),
        (encode_dicom(SLICE, Rows=20_000, Columns=5_001), "at most 100,000,000 in all"),
        (encode_dicom(np.zeros((40, 40), np.uint16)), "1 distinct gray level"),
        (encode_dicom(np.zeros((40, 40), np.uint16), **WINDOW), "1 distinct gray level"),
    ],
)
def test_unusable_files_are_refused(tmp_path, content, reason):
    with pytest.raises(ImageError, match=reason):
        decode_content(tmp_path, content)


@pytest.mark.parametrize("syntax", UNCOMPRESSED)
@pytest.mark.parametrize(
    ("levels", "padding", "elements"),
    [
        (SIGNED, -32768, {"PixelPaddingValue": -32768}),
        (SIGNED, -31000, {"PixelPaddingValue": -32768, "PixelPaddingRangeLimit": -30000}),
        (TWELVE_BITS, 65535, {"PixelPaddingValue": 65535}),
        (TWELVE_BITS, 60001, {"PixelPaddingValue": 65535, "PixelPaddingRangeLimit": 60000}),
    ],
)
def test_padding_is_as_dark_as_the_darkest_pixel(syntax, levels, padding, elements):
    is_outside = np.hypot(*np.indices(levels.shape) - 100) > 130
    padded = np.where(is_outside, levels.dtype.type(padding), levels)
    darkest = np.where(is_outside, levels[~is_outside].min(), levels)
    read = read_dicom(encode_dicom(padded, syntax, **elements))
    expected = read_dicom(encode_dicom(darkest, syntax))
    np.testing.assert_array_equal(read.gray, expected.gray)
    assert read.levels == expected.levels


def test_padding_is_black_where_zero_is_white():
    is_outside = np.hypot(*np.indices(TWELVE_BITS.shape) - 100) > 130
    inverted = np.where(is_outside, np.uint16(0), 4095 - TWELVE_BITS)
    elements = {"PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": 0}
    gray = gray_of(encode_dicom(inverted, **elements))
    assert gray[is_outside].max() == 0
    assert gray[~is_outside].max() == 255


@pytest.mark.parametrize("value", [None, "", 12345])
def test_padding_that_no_pixel_has_changes_nothing(value):
    elements = {} if value is None else {"PixelPaddingValue": value}
    content = encode_dicom(TWELVE_BITS, **elements)
    np.testing.assert_array_equal(gray_of(content), gray_of(encode_dicom(TWELVE_BITS)))


def test_modality_in_lower_case():
    assert read_dicom(encode_dicom(TWELVE_BITS, Modality="mr")).patient is None


def test_modality_may_be_missing():
    expected = gray_of(encode_dicom(SLICE))
    np.testing.assert_array_equal(gray_of(encode_dicom(SLICE, Modality=None)), expected)
    np.testing.assert_array_equal(gray_of(encode_dicom(SLICE, Modality="")), expected)


def test_missing_decoder_is_named(monkeypatch):
    content = bundled("MR_small_jpeg_ls_lossless.dcm")
    monkeypatch.setattr(get_decoder(uid.JPEGLSLossless), "_available", {})
    with pytest.raises(ImageError, match=r"pip install -r requirements/dicom\.txt"):
        read_dicom(content)
    assert (ROOT / dicom.REQUIREMENTS).is_file()


@pytest.mark.parametrize("syntax", dicom.DECODERS)
def test_every_decoder_is_installed_for_tests(syntax):
    decoder = get_decoder(getattr(uid, syntax))
    assert dicom.DECODERS[syntax] in decoder.available_plugins


def replace_frame(content: bytes, frame: bytes) -> bytes:
    """Replace the compressed frame of a DICOM file."""
    start = content.index(b"\xe0\x7f\x10\0O") + 12
    return content[:start] + encapsulate([frame], has_bot=False) + b"\xfe\xff\xdd\xe0" + bytes(4)


def frame_of(content: bytes) -> bytes:
    return next(pydicom.encaps.generate_frames(dataset_pixels(content), number_of_frames=1))


def dataset_pixels(content: bytes) -> bytes:
    return pydicom.dcmread(io.BytesIO(content)).PixelData


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("MR_small_jp2klossless.dcm", struct.pack(">2I", 64, 64)),
        ("MR_small_jpeg_ls_lossless.dcm", struct.pack(">2H", 64, 64)),
    ],
)
def test_compressed_pixels_may_not_be_more_than_declared(name, sizes):
    content = bundled(name)
    frame = frame_of(content)
    np.testing.assert_array_equal(gray_of(replace_frame(content, frame)), gray_of(content))
    huge = struct.pack(">2I" if len(sizes) == 8 else ">2H", 60_000, 60_000)
    with pytest.raises(ImageError, match="64×64 pixels by the header, 60000×60000"):
        read_dicom(replace_frame(content, frame.replace(sizes, huge, 1)))


def test_rle_is_bounded(monkeypatch):
    content = bundled("MR_small_RLE.dcm")
    monkeypatch.setattr(dicom, "MAX_RLE_BYTES", len(frame_of(content)))
    read_dicom(content)
    monkeypatch.setattr(dicom, "MAX_RLE_BYTES", len(frame_of(content)) - 1)
    with pytest.raises(ImageError, match="bytes of RLE; at most"):
        read_dicom(content)


UNDEFINED = 0xFFFFFFFF
ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
EXPLICIT = PREAMBLE + element(2, 0x10, "UI", uid.ExplicitVRLittleEndian.encode())
IMPLICIT = PREAMBLE + element(2, 0x10, "UI", uid.ImplicitVRLittleEndian.encode() + b"\0")
LONG_LIST = b"1\\" * 3_000_000
HOSTILE = {
    "sequences in sequences": EXPLICIT + (element(8, 0x1140, "SQ", b"", UNDEFINED) + ITEM) * 5000,
    "tables in tables": EXPLICIT + (element(0x28, 0x3010, "SQ", b"", UNDEFINED) + ITEM) * 5000,
    # Each is searched to the end of the file
    "values without end": EXPLICIT
    + (element(9, 0x10, "OB", b"", UNDEFINED) + struct.pack("<HHI", 0xFFFE, 0xE000, 0)) * 60_000,
    "values without end in a table": EXPLICIT
    + element(
        0x28,
        0x3010,
        "SQ",
        ITEM
        + b"".join(
            element(9, 0x10, "OB", b"", UNDEFINED)
            + struct.pack("<HHI", 0xFFFE, 0xE000, 8)
            + b"\xfe\xff\xdd\xe0\0\0\0\0"
            for _ in range(50_000)
        ),
    ),
    "many elements": EXPLICIT + element(9, 0x10, "US", b"") * 300_000,
    "a long character set": IMPLICIT + struct.pack("<HHI", 8, 5, len(LONG_LIST)) + LONG_LIST,
    "many windows": IMPLICIT
    + struct.pack("<HHI", 0x28, 0x1050, len(LONG_LIST) // 4)
    + LONG_LIST[: len(LONG_LIST) // 4],
    "a length beyond the file": EXPLICIT + element(8, 0x60, "UT", b"MR", 4_000_000_000),
    "rows of another type": EXPLICIT + element(0x28, 0x10, "LO", b"many"),
    "only a preamble": PREAMBLE,
    "only a start": b"\x08\0\x05\0CS",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_headers_are_refused_in_time(content):
    tail = encode_dicom(SLICE)[len(PREAMBLE) :]
    start = time.process_time()
    for end in (b"", tail[tail.index(b"\x08\0\x16\0") :]):
        refuse_or_read(content + end)
    assert time.process_time() - start < 30


def refuse_or_read(content: bytes) -> None:
    """Read a file; if it is refused, a printable line says why."""
    try:
        assert read_dicom(content).gray.mode == "L"
    except ImageError as error:
        assert str(error).isprintable()
        assert NAME not in str(error)


NAMED = {"PatientName": NAME, "PatientID": NAME, "WindowCenter": 900, "WindowWidth": 700}
SMALL = TWELVE_BITS[::12, ::12].copy()
TABLE = lookup_table(np.arange(64), 0, 8)
TO_DAMAGE = [
    *(encode_dicom(SMALL, syntax, **NAMED) for syntax in (*UNCOMPRESSED, uid.RLELossless)),
    encode_dicom(SMALL, uid.ImplicitVRLittleEndian, bare=True, VOILUTSequence=TABLE, **NAMED),
    encode_dicom(SMALL, VOILUTSequence=TABLE, ModalityLUTSequence=TABLE, **NAMED),
    *(
        bundled(name)
        for name in ("MR_small_jp2klossless.dcm", "MR_small_RLE.dcm", "JPEGLSNearLossless_08.dcm")
    ),
]


@given(
    content=st.sampled_from(TO_DAMAGE),
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=5),
    fraction=st.floats(0, 1) | st.just(1),
)
@settings(deadline=None, max_examples=300)
def test_damaged_files_are_read_or_refused(content, changes, fraction):
    damaged = bytearray(content)
    for position, value in changes:
        start = int(position * len(damaged))
        damaged[start : start + len(value)] = value
    refuse_or_read(bytes(damaged[: int(fraction * len(damaged))]))


@pytest.mark.parametrize("content", TO_DAMAGE, ids=range(len(TO_DAMAGE)))
def test_files_that_are_cut_short_are_refused(content):
    pixels = len(dataset_pixels(content)) if content.startswith(PREAMBLE) else SMALL.nbytes
    lengths = random.Random(0).sample(range(len(content) - pixels // 2), 100)
    for length in lengths:
        with pytest.raises(ImageError):
            read_dicom(content[:length])


@pytest.mark.parametrize(
    ("elements", "width", "height"),
    [
        ({"PixelSpacing": [1.0, 0.5]}, 1, 2),
        ({"PixelSpacing": [0.4, 0.6]}, 1.5, 1),
        ({"PixelAspectRatio": [2, 1]}, 1, 2),
        ({"PixelSpacing": [1.0, 1.005], "PixelAspectRatio": [2, 1]}, 1, 1),
        ({"PixelSpacing": [0.0, 1.0]}, 1, 1),
        ({"PixelSpacing": [1.0]}, 1, 1),
        ({"PixelSpacing": None}, 1, 1),
    ],
)
def test_pixels_become_square(elements, width, height):
    rows, columns = SLICE.shape
    gray = read_dicom(encode_dicom(SLICE, **elements)).gray
    plain = read_dicom(encode_dicom(SLICE)).gray
    assert gray.size == (round(columns * width), round(rows * height))
    expected = plain.resize(gray.size, Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(np.asarray(gray), np.asarray(expected))


def test_pixels_that_become_too_many_are_refused():
    with pytest.raises(ImageError, match="pixels"):
        read_dicom(encode_dicom(SLICE, PixelSpacing=[1e6, 1.0]))


def test_patient_is_a_hash(tmp_path):
    image = decode_content(tmp_path, encode_dicom(SLICE, PatientID="  4711 ", PatientName=NAME))
    assert image.patient == hashlib.blake2b(b"4711", digest_size=16).hexdigest()
    assert NAME not in str(asdict(image))
    other = decode_content(tmp_path, encode_dicom(SLICE[::-1], PatientID="4711"))
    assert other.patient == image.patient
    assert decode_content(tmp_path, encode_dicom(SLICE, PatientID="4712")).patient != image.patient
    for missing in ("", "  ", None):
        assert decode_content(tmp_path, encode_dicom(SLICE, PatientID=missing)).patient is None


def test_study_is_a_hash(tmp_path):
    """An anonymized file may have nothing else that joins the slices of a person."""
    image = decode_content(tmp_path, encode_dicom(SLICE, PatientID="", StudyInstanceUID="1.2.3"))
    expected = hashlib.blake2b(b"1.2.3", digest_size=16).hexdigest()
    assert (image.patient, image.study) == (None, expected)


def run(code: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True
    )


def test_pydicom_is_imported_for_dicom_alone(tmp_path):
    path = save_image(tmp_path, Image.fromarray(SLICE))
    code = (
        "import sys; from brainmri.images import cache, decoding; decoding.decode(sys.argv[1], 64);"
        " assert 'pydicom' not in sys.modules"
    )
    assert run(code, str(path)).returncode == 0


def test_warnings_of_pydicom_are_not_printed(tmp_path):
    contents = [
        encode_dicom(SLICE, PatientID="9" * 100, NumberOfFrames=0),
        encode_dicom(SLICE, Modality="a wrong value of CS"),
        bundled("MR_small.dcm") + bytes(1000),
        bundled("MR_small_RLE.dcm"),
        bundled("JPEG-lossy.dcm", (b"CS\2\0NM", b"CS\2\0MR")),
    ]
    for number, content in enumerate(contents * 3):
        (tmp_path / str(number)).write_bytes(content)
    code = (
        "import logging, sys; from pathlib import Path;"
        "from brainmri.images.workers import decode_all;"
        "logging.basicConfig(level=logging.DEBUG);"
        "print(len(list(decode_all(Path(sys.argv[1]).iterdir(), 64, False, 4))))"
    )
    output = run(code, str(tmp_path))
    assert (output.stdout.strip(), output.stderr) == (str(3 * len(contents)), "")
