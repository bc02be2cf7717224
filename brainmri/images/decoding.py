"""Decode image files of common formats to squares of gray pixels; image files are untrusted input.

Images of 8 bits or fewer keep their levels. Those of more bits, whose levels may have any range,
are rescaled; see `intensity.rescale_intensity`. For DICOM files, see `dicom.read_dicom`.
"""

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image

from brainmri.images.cropping import MIN_SIDE, crop_and_pad, head_box
from brainmri.images.dicom import is_dicom, read_dicom
from brainmri.images.files import explain_format, open_image, read_file
from brainmri.images.hashing import perceptual_hashes
from brainmri.images.intensity import rescale_intensity
from brainmri.images.levels import read_levels
from brainmri.images.limits import (
    MAX_PIXELS,
    MIN_LEVELS,
    OUT_OF_MEMORY,
    ImageError,
    check_exif,
)

MIN_LEVELS_OF_1_BIT = 2  # a slice may be a halftone
OVERSAMPLING = 2
UPRIGHT = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
FIRST_SIDEWAYS = 5  # EXIF orientations from here on swap width and height


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image file.

    Attributes
    ----------
    pixels : ndarray of uint8, shape (size, size)
        Gray levels, upright, aspect ratio kept, centered on black.
    sha256 : str
        Of the file's bytes, hexadecimal.
    perceptual_hashes : tuple of str
        See `hashing.perceptual_hashes`.
    width, height : int
        Of the original, upright, in pixels.
    mode : str
        Pillow's name of the original's pixel format, such as "RGB" or "I;16"; of a DICOM file,
        "DICOM MONOCHROME1" or "DICOM MONOCHROME2".
    levels : tuple of (black, white)
        The original's levels that became 0 and 255; (0, 255) for 8 bits or fewer, but for DICOM.
    patient, study : str or None
        BLAKE2b hashes of the PatientID and of the StudyInstanceUID in a DICOM file, hexadecimal,
        only to group the images of a run; None if there is none. See
        `patients.identify_dicom_patients`.
    """

    pixels: np.ndarray
    sha256: str
    perceptual_hashes: tuple[str, str, str, str]
    width: int
    height: int
    mode: str
    levels: tuple[float, float]
    patient: str | None = None
    study: str | None = None


def decode(path: str | Path, size: int, crop: bool = False) -> DecodedImage:
    """Decode an image file.

    Parameters
    ----------
    path : str or Path
        PNG, JPEG, BMP, GIF, TIFF, WebP or DICOM, detected by its content, whatever its name.
    size : int
        Height and width of the result, in pixels.
    crop : bool
        Whether to crop to the head first; see `cropping.head_box`.

    Raises
    ------
    ImageError
        If it can't be read, is not an image, is broken or animated, or has too many bytes, or too
        many or too few pixels or levels: see `files.MAX_BYTES`, `limits.MAX_PIXELS`,
        `limits.MAX_SIDE`, `cropping.MIN_SIDE` and `limits.MIN_LEVELS`. For DICOM, see
        also `dicom.read_dicom`.
    """
    try:
        content = read_file(Path(path))
        with warnings.catch_warnings():
            # What Pillow warns of is either harmless or checked later
            warnings.simplefilter("ignore")
            return _decode(content, size, crop)
    except ImageError:
        raise
    except Image.UnidentifiedImageError:
        raise ImageError(explain_format(content)) from None
    except Image.DecompressionBombError:
        raise ImageError(f"more than {MAX_PIXELS:,} pixels") from None
    except MemoryError:
        raise ImageError(OUT_OF_MEMORY) from None
    except Exception as error:  # noqa: BLE001, a damaged file makes decoders raise almost anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"broken image ({reason})") from None


def to_gray(image: Image.Image) -> Image.Image:
    """Convert an image of 8 bits or fewer to gray levels, mode "L".

    Colors become their luma (ITU-R 601-2), transparent parts black.
    """
    if image.mode == "L" and "transparency" not in image.info:
        return image
    if "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        image = image.convert("RGBA")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image)
    return image.convert("RGB").convert("L")


class _UprightImage(NamedTuple):
    """An image in gray levels, which may be smaller than the original; the rest is the original's.

    `mode`, `width`, `height`, `levels`, `patient` and `study` are those of `DecodedImage`.
    """

    gray: Image.Image
    mode: str
    width: int
    height: int
    levels: tuple[float, float]
    patient: str | None = None
    study: str | None = None


def _decode(content: bytes, size: int, crop: bool) -> DecodedImage:
    image = _read_upright(content, size)
    _check_usable(image, size)
    box = head_box(image.gray)
    head = max(box[2] - box[0], box[3] - box[1])
    if head < size and image.gray.width < image.width:  # a small head in a large JPEG
        image = _read_upright(content, size * max(image.gray.size) // head)
        box = head_box(image.gray)
    return DecodedImage(
        pixels=crop_and_pad(image.gray, box if crop else None, size),
        sha256=hashlib.sha256(content).hexdigest(),
        perceptual_hashes=perceptual_hashes(image.gray, box),
        width=image.width,
        height=image.height,
        mode=image.mode,
        levels=image.levels,
        patient=image.patient,
        study=image.study,
    )


def _read_upright(content: bytes, size: int) -> _UprightImage:
    """Read an image in gray levels; a large JPEG at no less than `OVERSAMPLING` times the size."""
    if is_dicom(content):
        gray, mode, levels, patient, study = read_dicom(content)
        return _UprightImage(gray, mode, *gray.size, levels, patient, study)
    with open_image(content) as image:
        mode = image.mode
        width, height = image.size
        deep = read_levels(image, content)  # before `getexif`, which decodes a PNG
        orientation = 1
        if image.format != "TIFF":  # Pillow turns a TIFF upright itself
            orientation = _read_orientation(image)
        if deep:
            gray, levels = rescale_intensity(*deep)
        else:
            # A JPEG need not be decoded at its full size
            image.draft(None, (OVERSAMPLING * size, OVERSAMPLING * size))
            image.load()
            gray, levels = to_gray(image), (0, 255)
        if gray.getextrema() == (0, 0) and _is_transparent(image):
            raise ImageError("all of it is transparent; save it without its alpha channel")
    if orientation in UPRIGHT:
        gray = gray.transpose(UPRIGHT[orientation])
        if orientation >= FIRST_SIDEWAYS:
            width, height = height, width
    return _UprightImage(gray, mode, width, height, levels)


def _is_transparent(image: Image.Image) -> bool:
    return "A" in image.getbands() and image.getchannel("A").getextrema() == (0, 0)


def _read_orientation(image: Image.Image) -> int:
    if image.format == "PNG":
        image.load()  # EXIF data may come after the pixels
    if "exif" in image.info:
        check_exif(image.info["exif"])
    elif "Raw profile type exif" in image.info:  # in hexadecimal, as some programs write it
        digits = "".join(image.info["Raw profile type exif"].split("\n")[3:])
        check_exif(bytes.fromhex(digits))
    return image.getexif().get(ExifTags.Base.Orientation, 1)


def _check_usable(image: _UprightImage, size: int) -> None:
    """Raise `ImageError` for an image with too few pixels or levels, or too narrow to resize."""
    width, height = image.width, image.height
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{width}×{height} pixels are too few; a side has {MIN_SIDE} or more")
    if min(width, height) * size < max(width, height):
        raise ImageError(f"{width}×{height} pixels are too narrow to resize to {size}×{size}")
    expected = MIN_LEVELS_OF_1_BIT if image.mode == "1" else MIN_LEVELS
    levels = np.count_nonzero(image.gray.histogram())
    if levels < expected:
        raise ImageError(
            f"{levels} distinct gray level(s), as of a mask or a blank;"
            f" {expected} or more are expected"
        )
