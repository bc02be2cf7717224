"""Read single-frame DICOM files, untrusted input, with pydicom.

pydicom is imported when the first such file is read. Patient identifiers leave this module only as
a hash, and no message quotes what a file holds, but for words that DICOM defines.
"""

import hashlib
import io
import logging
import re
import struct
import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from brainmri.images.intensity import as_number, map_blocks, rescale_intensity
from brainmri.images.limits import MIN_LEVELS, ImageError, check_scans, check_size

if TYPE_CHECKING:
    from pydicom import Dataset

PACKAGES = ("pydicom", "pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg")
REQUIREMENTS = "requirements/dicom.txt"
MODALITY = "MR"
PREFIX = slice(128, 132)
# The first element of a file without preamble: of group 2 or 8, with a type of value or a length
BARE_START = re.compile(rb"[\2\x08]\0.\0([A-Z]{2}|..\0\0)|\0[\2\x08]\0.[A-Z]{2}", re.DOTALL)
KEYWORDS = (
    "BitsAllocated",
    "BitsStored",
    "Columns",
    "HighBit",
    "ImageType",
    "Modality",
    "ModalityLUTSequence",
    "NumberOfFrames",
    "PatientID",
    "PhotometricInterpretation",
    "PixelAspectRatio",
    "PixelPaddingRangeLimit",
    "PixelPaddingValue",
    "PixelRepresentation",
    "PixelSpacing",
    "RescaleIntercept",
    "RescaleSlope",
    "Rows",
    "SamplesPerPixel",
    "StudyInstanceUID",
    "VOILUTFunction",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
)
COLORS = ("RGB", "YBR_", "PALETTE COLOR", "HSV", "ARGB", "CMYK")  # as names of colors begin
PIXEL_DATA = 0x7FE00010
ALL_PIXEL_DATA = (0x7FE00008, 0x7FE00009, PIXEL_DATA)  # the first two hold floating-point numbers
ITEM, SEQUENCE_DELIMITER = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)  # group and element
UNDEFINED_LENGTH = 0xFFFFFFFF

UNCOMPRESSED = ("ImplicitVRLittleEndian", "ExplicitVRLittleEndian", "ExplicitVRBigEndian")
# What decodes each transfer syntax: pixels do not depend on what else is installed
DECODERS = {
    "RLELossless": "pydicom",
    "JPEGBaseline8Bit": "pillow",
    "JPEG2000": "pillow",
    "JPEG2000Lossless": "pillow",
    "JPEGExtended12Bit": "pylibjpeg",
    "JPEGLossless": "pylibjpeg",
    "JPEGLosslessSV1": "pylibjpeg",
    "JPEGLSLossless": "pylibjpeg",
    "JPEGLSNearLossless": "pylibjpeg",
    "HTJ2K": "pylibjpeg",
    "HTJ2KLossless": "pylibjpeg",
    "HTJ2KLosslessRPCL": "pylibjpeg",
}
START_OF_JPEG_2000 = b"\xff\x4f\xff\x51"
FRAME_MARKERS = {0xC0, 0xC1, 0xC2, 0xC3, 0xF7}  # baseline, extended, progressive, lossless, LS
TABLE_MARKERS = {0xC4, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xF8, 0xFE}  # that come before it

MAX_STRETCH = 0.01  # of pixels that count as square
MAX_READS = 200_000  # of the header: sequences in sequences can make it quadratic
MAX_READ_BYTES = 4 * 2**20  # at a time
MAX_VALUE_BYTES = 2**16  # of an element whose value is used
MAX_RLE_BYTES = 32 * 2**20  # a byte can decode to 64
BITS = (8, 16, 32)  # allocated to a pixel

# They warn of what is harmless, or refused here
warnings.filterwarnings("ignore", module="pydicom")
for name in ("pydicom", "pylibjpeg", "libjpeg", "openjpeg"):
    logging.getLogger(name).propagate = False


class DicomImage(NamedTuple):
    """The image in a DICOM file.

    Attributes
    ----------
    gray : Image
        Mode "L", square pixels in the order in which they are stored.
    mode : str
        "DICOM MONOCHROME1" or "DICOM MONOCHROME2".
    levels : tuple of (black, white)
        The rescaled levels that became 0 and 255.
    patient, study : str or None
        BLAKE2b hashes of the PatientID and of the StudyInstanceUID, hexadecimal; None if the file
        has none.
    """

    gray: Image.Image
    mode: str
    levels: tuple[float, float]
    patient: str | None
    study: str | None


class _HeaderFile(io.BytesIO):
    """A file whose reader may neither read very often nor much at a time."""

    reads = 0

    def read(self, size: int = -1) -> bytes:
        self.reads += 1
        if self.reads > MAX_READS or not 0 <= size <= MAX_READ_BYTES:
            raise ImageError("the header of the DICOM file is too large, or broken")
        return super().read(size)


class _PixelData(NamedTuple):
    """Where pixels are in a file: offset and length, in bytes, and type of value ("OB", "OW")."""

    tag: int
    offset: int
    length: int
    representation: str | None


def is_dicom(content: bytes) -> bool:
    """Return whether a file is DICOM, with or without preamble, by its content."""
    return content[PREFIX] == b"DICM" or BARE_START.match(content) is not None


def read_dicom(content: bytes) -> DicomImage:
    """Read the image in a DICOM file.

    Its levels are rescaled as the file declares, then windowed: by the first VOI LUT of the file,
    else by its first window, else as by `intensity.rescale_intensity`. Padding around the image,
    where the file declares its stored level, gets the darkest of the other levels. Pixels that are
    not square by their spacing, else by their aspect ratio, are resampled.

    Parameters
    ----------
    content : bytes
        Content of the file.

    Raises
    ------
    ImageError
        If the file is broken, or has no pixels, several frames or slices, colors, too many pixels,
        another modality than MR, a window that leaves fewer than `limits.MIN_LEVELS` of its gray
        levels, or a compression that is unknown or lacks its decoder.
    """
    try:
        with np.errstate(all="ignore"):
            return _read_dicom(content)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001, a damaged file makes pydicom raise almost anything
        # Its message may quote the header, and so the patient's name
        raise ImageError(f"broken DICOM file ({type(error).__name__})") from None


def _read_dicom(content: bytes) -> DicomImage:
    syntax, dataset, pixel_data = _read_header(content)
    _check_kind(dataset, pixel_data)
    rows, columns = _integer(dataset, "Rows"), _integer(dataset, "Columns")
    if rows < 1 or columns < 1:
        raise ImageError(f"{columns}×{rows} pixels; the DICOM file is broken")
    check_size(columns, rows)
    stored = _decode_pixels(content, syntax, dataset, pixel_data)
    photometric = _text(dataset, "PhotometricInterpretation")
    zero_is_white = photometric == "MONOCHROME1"
    levels = _darken_padding(_rescale(stored, dataset), stored, dataset, zero_is_white)
    gray, (black, white) = _apply_window(levels, dataset, zero_is_white)
    gray = _with_square_pixels(gray, dataset)
    patient, study = (_hash(dataset, keyword) for keyword in ("PatientID", "StudyInstanceUID"))
    return DicomImage(gray, f"DICOM {photometric}", (black, white), patient, study)


def _read_header(content: bytes) -> tuple[str, "Dataset", _PixelData | None]:
    """Read the keyword of the transfer syntax, the elements of `KEYWORDS`, and where pixels are."""
    from pydicom.filereader import read_dataset
    from pydicom.tag import Tag

    file = _HeaderFile(content)
    if content[PREFIX] == b"DICM":
        file.seek(PREFIX.stop)
    meta = read_dataset(
        file,
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=lambda tag, *_: tag.group != 2,
        specific_tags=[Tag("TransferSyntaxUID")],
    )
    syntax = _transfer_syntax(_text(meta, "TransferSyntaxUID"), content[file.tell() :][:6])
    pixel_data = None

    def is_pixel_data(tag: int, representation: str | None, length: int) -> bool:
        nonlocal pixel_data
        if tag not in ALL_PIXEL_DATA:
            return False
        pixel_data = _PixelData(tag, file.tell(), length, representation)
        return True

    dataset = read_dataset(
        file,
        is_implicit_VR=syntax == "ImplicitVRLittleEndian",
        is_little_endian=syntax != "ExplicitVRBigEndian",
        stop_when=is_pixel_data,
        specific_tags=[Tag(keyword) for keyword in KEYWORDS],
    )
    return syntax, dataset, pixel_data


def _transfer_syntax(uid: str, start: bytes) -> str:
    """Return the keyword of a transfer syntax; if the file has none, guess by its first element."""
    from pydicom.uid import UID

    if not uid:
        if not re.fullmatch(rb"[A-Z]{2}", start[4:]):
            return "ImplicitVRLittleEndian"
        return "ExplicitVRBigEndian" if start[0] == 0 else "ExplicitVRLittleEndian"
    syntax = UID(uid)
    if syntax.keyword in UNCOMPRESSED or syntax.keyword in DECODERS:
        return syntax.keyword
    name = "an unknown transfer syntax"
    if syntax.keyword:
        name = f"the transfer syntax {syntax.name!r}"
    raise ImageError(f"{name} can't be read; save the DICOM file uncompressed (Explicit VR)")


def _check_kind(dataset: "Dataset", pixel_data: _PixelData | None) -> None:
    """Raise `ImageError` for what is no single gray MR image."""
    if pixel_data is None:
        if "Rows" in dataset:
            raise ImageError("the DICOM file is cut short before its pixels")
        raise ImageError("no pixels, as in a directory (DICOMDIR), a report or contours")
    modality = _text(dataset, "Modality").upper()
    if modality not in ("", MODALITY):
        name = modality if re.fullmatch("[A-Z0-9]{1,16}", modality) else "unknown"
        raise ImageError(f"the modality is {name}; only {MODALITY} images, of the brain, are read")
    if pixel_data.tag != PIXEL_DATA:
        raise ImageError("floating-point pixels in DICOM can't be read; save them as integers")
    frames = _integer(dataset, "NumberOfFrames", 1)
    if frames > 1:
        raise ImageError(
            f"{frames:,} frames; a single image is expected:"
            " export each slice as a DICOM or PNG file of its own"
        )
    kinds = {str(kind) for kind in _values(dataset, "ImageType")}
    if "MOSAIC" in kinds:
        raise ImageError(
            "a mosaic of all slices of a volume; a single slice is expected:"
            " convert the series to a file for each slice"
        )
    if "LOCALIZER" in kinds:
        raise ImageError("a localizer, which plans other series; a slice of these is expected")
    photometric = _text(dataset, "PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        name = photometric if photometric.startswith(COLORS) else "unknown or missing"
        raise ImageError(
            f"the photometric interpretation is {name[:18]}, not MONOCHROME2;"
            " export the DICOM file in gray, or as PNG"
        )
    if _integer(dataset, "SamplesPerPixel", 1) != 1:
        raise ImageError("several samples for each pixel; export the DICOM file in gray, or as PNG")


def _decode_pixels(
    content: bytes, syntax: str, dataset: "Dataset", pixel_data: _PixelData
) -> np.ndarray:
    """Decode the stored levels: integers, shape (rows, columns)."""
    from pydicom import uid
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder

    rows, columns = _integer(dataset, "Rows"), _integer(dataset, "Columns")
    bits = _integer(dataset, "BitsAllocated")
    if bits not in BITS:
        raise ImageError(f"{bits} bits are allocated to a pixel; 8, 16 or 32 are read")
    stored = _integer(dataset, "BitsStored", bits)
    high = _integer(dataset, "HighBit", stored - 1)
    if high != stored - 1:  # the decoder would take other bits
        raise ImageError(
            f"the highest of {stored} stored bits is {high}; expected {stored - 1}: convert the"
            " file with a current DICOM program"
        )
    decoder = get_decoder(getattr(uid, syntax))
    plugin = DECODERS.get(syntax, "")
    if syntax in UNCOMPRESSED:
        source = _uncompressed_pixels(content, pixel_data, rows * columns * bits // 8)
    elif plugin in decoder.available_plugins:
        frame = _compressed_frame(content, pixel_data)
        _check_frame(frame, syntax, columns, rows)
        source = encapsulate([frame], has_bot=False)
    else:
        name = getattr(uid, syntax).name
        raise ImageError(f"compressed as {name}; to read it: pip install -r {REQUIREMENTS}")
    levels, _ = decoder.as_array(
        source,
        raw=True,
        decoding_plugin=plugin,
        rows=rows,
        columns=columns,
        number_of_frames=1,
        samples_per_pixel=1,
        photometric_interpretation="MONOCHROME2",
        bits_allocated=bits,
        bits_stored=stored,
        pixel_representation=_integer(dataset, "PixelRepresentation", 0),
        pixel_keyword="PixelData",
        pixel_vr=pixel_data.representation or "OW",
    )
    return levels.reshape(rows, columns)


def _uncompressed_pixels(content: bytes, pixel_data: _PixelData, expected: int) -> bytes:
    length = min(pixel_data.length, len(content) - pixel_data.offset)
    if length < expected:
        raise ImageError(
            f"{length:,} bytes of pixels; {expected:,} are expected: the file is cut short"
        )
    return content[pixel_data.offset :][:expected]


def _compressed_frame(content: bytes, pixel_data: _PixelData) -> bytes:
    """Join the fragments of the compressed frame; the first item, a table of offsets, is none."""
    items, position = [], pixel_data.offset
    while pixel_data.length == UNDEFINED_LENGTH and position + 8 <= len(content):
        group, element, length = struct.unpack_from("<HHI", content, position)
        position += 8
        if (group, element) == SEQUENCE_DELIMITER:
            return b"".join(items[1:])
        if (group, element) != ITEM or position + length > len(content):
            break
        items.append(content[position : position + length])
        position += length
    raise ImageError("compressed pixels are broken, or the DICOM file is cut short")


def _check_frame(frame: bytes, syntax: str, columns: int, rows: int) -> None:
    """Raise `ImageError` for a frame that may decode to more than the image's pixels."""
    if syntax == "RLELossless":
        if len(frame) > MAX_RLE_BYTES:
            raise ImageError(f"{len(frame):,} bytes of RLE; at most {MAX_RLE_BYTES:,} are read")
        return
    width, height, samples = _frame_shape(frame)
    if (width, height, samples) != (columns, rows, 1):
        raise ImageError(
            f"{columns}×{rows} pixels by the header, {width}×{height} of {samples} sample(s) as"
            " compressed; the DICOM file is broken"
        )
    if not frame.startswith(START_OF_JPEG_2000):
        check_scans(frame)


def _frame_shape(frame: bytes) -> tuple[int, int, int]:
    """Read width, height and samples for each pixel of a JPEG, JPEG-LS or JPEG 2000 codestream."""
    if frame.startswith(START_OF_JPEG_2000):
        right, lower, left, upper = struct.unpack_from(">4I", frame, 8)
        (samples,) = struct.unpack_from(">H", frame, 40)
        return right - left, lower - upper, samples
    position = 2
    while True:
        start, marker, length = struct.unpack_from(">BBH", frame, position)
        if marker in FRAME_MARKERS:
            height, width, samples = struct.unpack_from(">HHB", frame, position + 5)
            return width, height, samples
        if start != 0xFF or marker not in TABLE_MARKERS:
            raise ImageError("compressed pixels are broken, or of an unknown kind")
        position += 2 + length


def _rescale(stored: np.ndarray, dataset: "Dataset") -> np.ndarray:
    """Apply the modality LUT, or slope and intercept, to levels of shape (rows, columns)."""
    if lut := _read_lut(dataset, "ModalityLUTSequence", stored):
        return lut.apply(stored)
    slope, intercept = _number(dataset, "RescaleSlope"), _number(dataset, "RescaleIntercept")
    if slope is None or intercept is None:
        return stored
    levels = stored * slope
    levels += intercept
    return levels


def _darken_padding(
    levels: np.ndarray, stored: np.ndarray, dataset: "Dataset", zero_is_white: bool
) -> np.ndarray:
    """Replace the levels of padding, whose stored value is far from any tissue's."""
    value = _padding(dataset, "PixelPaddingValue")
    if value is None:
        return levels
    limit = _padding(dataset, "PixelPaddingRangeLimit")
    low, high = sorted((value, value if limit is None else limit))
    is_padding = (stored >= low) & (stored <= high)
    if not is_padding.any() or is_padding.all():
        return levels
    others = levels[~is_padding]
    return np.where(is_padding, others.max() if zero_is_white else others.min(), levels)


def _padding(dataset: "Dataset", keyword: str) -> int | None:
    """Read a stored value of 16 bits, whose sign is that of the pixels; None if there is none."""
    element = dataset.get_item(keyword) if keyword in dataset else None
    if element is None or not isinstance(element.value, bytes) or len(element.value) < 2:
        return None
    order = "little" if element.is_little_endian else "big"
    is_signed = _integer(dataset, "PixelRepresentation", 0) == 1
    return int.from_bytes(element.value[:2], order, signed=is_signed)


def _apply_window(
    levels: np.ndarray, dataset: "Dataset", zero_is_white: bool
) -> tuple[Image.Image, tuple[float, float]]:
    """Map rescaled levels to gray; also return the levels that become 0 and 255."""
    center, width = _number(dataset, "WindowCenter"), _number(dataset, "WindowWidth")
    function = _text(dataset, "VOILUTFunction") or "LINEAR"
    if lut := _read_lut(dataset, "VOILUTSequence", levels):

        def brightness(levels: np.ndarray) -> np.ndarray:
            return lut.apply(levels) / lut.maximum

        low, high = lut.first, lut.first + len(lut.values) - 1
    elif center is None or width is None or width <= (function == "LINEAR"):
        return rescale_intensity(levels, zero_is_white)
    elif function == "SIGMOID":

        def brightness(levels: np.ndarray) -> np.ndarray:
            return 1 / (1 + np.exp(-4 * (levels - center) / width))

        reach = width / 4 * np.log(2 * 255 - 1).item()  # where it rounds to 0 and 255
        low, high = center - reach, center + reach
    else:
        if function == "LINEAR":  # of whole levels: DICOM, part 3, C.11.2.1.2.1
            center, width = center - 0.5, width - 1
        low, high = center - width / 2, center + width / 2

        def brightness(levels: np.ndarray) -> np.ndarray:
            return (levels - low) / width

    def to_gray(levels: np.ndarray) -> np.ndarray:
        return np.round(255 * np.clip(brightness(levels), 0, 1)).astype(np.uint8)

    pixels = map_blocks(to_gray, levels)
    _check_window(Image.fromarray(pixels), levels)
    window = as_number(float(low)), as_number(float(high))
    if zero_is_white:
        return Image.fromarray(255 - pixels), window[::-1]
    return Image.fromarray(pixels), window


def _check_window(windowed: Image.Image, levels: np.ndarray) -> None:
    """Raise `ImageError` if an image has too few gray levels because of its window."""
    shown = np.count_nonzero(windowed.histogram())
    if shown >= MIN_LEVELS:
        return
    stretched, _ = rescale_intensity(levels)
    count = np.count_nonzero(stretched.histogram())
    if count >= MIN_LEVELS:
        raise ImageError(
            f"its window leaves {shown} distinct gray level(s) of {count}; {MIN_LEVELS} or more are"
            " expected: correct or remove its WindowCenter or VOILUTSequence, unless the image is a"
            " blank"
        )


class _LookupTable(NamedTuple):
    """A table of DICOM: the values for `first` and the levels after it, and the highest value."""

    values: np.ndarray
    first: int
    maximum: int

    def apply(self, levels: np.ndarray) -> np.ndarray:
        """Return the value for each level; levels off the table have that of its nearer end."""
        indices = np.clip(np.round(levels - float(self.first)), 0, len(self.values) - 1)
        return self.values[indices.astype(int)]


def _read_lut(dataset: "Dataset", keyword: str, levels: np.ndarray) -> _LookupTable | None:
    """Read the first lookup table of a sequence; None if there is none."""
    from pydicom.dataelem import RawDataElement
    from pydicom.filereader import read_sequence

    if keyword not in dataset:
        return None
    sequence = dataset.get_item(keyword)
    items = sequence.value or b""
    if isinstance(sequence, RawDataElement):
        # pydicom would read it without bounds
        file, layout = _HeaderFile(items), (sequence.is_implicit_VR, sequence.is_little_endian)
        items = read_sequence(file, *layout, len(items), "iso8859")
    if not items:
        return None
    descriptor, data = (items[0].get_item(name) for name in ("LUTDescriptor", "LUTData"))
    order = "<" if descriptor.is_little_endian else ">"
    count, first, bits = struct.unpack(f"{order}3H", descriptor.value)
    count = count or 2**16
    is_signed = _integer(dataset, "PixelRepresentation", 0) == 1
    if descriptor.VR in ("SS", "US"):  # implicit VR leaves it open
        is_signed = descriptor.VR == "SS"
    if first >= 2**15 and (is_signed or levels.min() < 0):
        first -= 2**16
    has_16_bits = len(data.value) >= 2 * count
    values = np.frombuffer(data.value, f"{order}u2" if has_16_bits else "u1", count)
    if not 8 <= bits <= 16:
        raise ImageError(f"a lookup table of {bits} bits; the DICOM file is broken")
    return _LookupTable(values, first, 2**bits - 1)


def _with_square_pixels(gray: Image.Image, dataset: "Dataset") -> Image.Image:
    """Stretch an image whose pixels are wider or higher by more than 1 %."""
    ratio = _pixel_height(dataset, "PixelSpacing") or _pixel_height(dataset, "PixelAspectRatio")
    if ratio is None or abs(ratio - 1) <= MAX_STRETCH:
        return gray
    width, height = gray.size
    size = (width, round(height * ratio)) if ratio > 1 else (round(width / ratio), height)
    check_size(*size)
    return gray.resize(size, Image.Resampling.BICUBIC)


def _pixel_height(dataset: "Dataset", keyword: str) -> float | None:
    """Return the height of a pixel relative to its width; None if the file has no such numbers."""
    if _value(dataset, keyword) is None:
        return None
    try:
        height, width = map(float, dataset[keyword].value)
        ratio = height / width
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return ratio if 0 < ratio < np.inf else None


def _hash(dataset: "Dataset", keyword: str) -> str | None:
    """Return a hash of an identifier; None if it is missing."""
    identifier = _text(dataset, keyword).encode("utf-8", "surrogateescape")
    return hashlib.blake2b(identifier, digest_size=16).hexdigest() if identifier else None


def _value(dataset: "Dataset", keyword: str) -> object:
    """Return the value of an element, the first of several; None if it has none."""
    return next(iter(_values(dataset, keyword)), None)


def _values(dataset: "Dataset", keyword: str) -> list[object]:
    """Return the values of an element."""
    if keyword not in dataset:
        return []
    content = dataset.get_item(keyword).value
    if isinstance(content, bytes) and len(content) > MAX_VALUE_BYTES:
        raise ImageError(f"{len(content):,} bytes of {keyword}; the DICOM file is broken")
    element = dataset[keyword]
    return list(element.value) if element.VM > 1 else [element.value]


def _text(dataset: "Dataset", keyword: str) -> str:
    return str(_value(dataset, keyword) or "").strip(" \0")


def _integer(dataset: "Dataset", keyword: str, default: int | None = None) -> int:
    value = _value(dataset, keyword)
    if value in (None, "", b""):
        if default is None:
            raise ImageError(f"no {keyword}; the DICOM file is broken")
        return default
    return int(value)


def _number(dataset: "Dataset", keyword: str) -> float | None:
    """Return a number; None if the file has none, or none that is finite."""
    try:
        number = float(_value(dataset, keyword))
    except (TypeError, ValueError, OverflowError):
        return None
    return number if np.isfinite(number) else None
