"""An image file of any common kind becomes a square of grey pixels. Image files are untrusted input."""

import hashlib
import io
import stat
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
MAX_PIXELS = 100_000_000
MAX_BYTES = 4 * MAX_PIXELS
MAX_SIDE = 20_000
MIN_SIDE = 8
HASH_SIDE = 16
CONTRAST = 20  # grey levels
CHUNK = 8  # files that a thread decodes in one go
AHEAD = 4  # such chunks for each thread, in work or waiting
OVERSAMPLING = 2  # a picture is decoded at no less than so many times its size in the store


class ImageError(Exception):
    """The file holds no image that can be used; the message says why."""


@dataclass(frozen=True)
class Picture:
    """A decoded image file.

    Attributes
    ----------
    pixels : ndarray of uint8, shape (size, size)
        Grey levels, upright, aspect ratio kept, centred on black.
    sha256 : str
        Of the file's bytes, hexadecimal.
    perceptual_hash : str
        Of the picture, 256 bits, hexadecimal; see `difference_hash`.
    width, height : int
        Of the original, upright, in pixels.
    mode : str
        Pillow's name of the original's pixel format, such as "RGB" or "I;16".
    """

    pixels: np.ndarray
    sha256: str
    perceptual_hash: str
    width: int
    height: int
    mode: str


def decode(path: str | Path, size: int, crop: bool = False) -> Picture:
    """Read an image file.

    Parameters
    ----------
    path : str or Path
        PNG, JPEG, BMP, GIF, TIFF or WebP, told by its content, whatever its name.
    size : int
        Height and width of the result, in pixels.
    crop : bool
        Whether the picture is cut to the head first; see `head_box`.

    Raises
    ------
    ImageError
        If it cannot be read, is no image, broken or animated, or has too many bytes, or too many or too few pixels: see
        `MAX_BYTES`, `MAX_PIXELS`, `MAX_SIDE` and `MIN_SIDE`.
    """
    path = Path(path)
    try:
        file = path.stat()
        if not stat.S_ISREG(file.st_mode):  # a named pipe, say, whose content may never come
            raise ImageError("not a regular file")
        if file.st_size > MAX_BYTES:
            raise ImageError(f"{file.st_size:,} bytes; at most {MAX_BYTES:,} are read")
        content = path.read_bytes()
    except OSError as error:
        raise ImageError(error.strerror or str(error)) from None
    if not content:
        raise ImageError("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow warns of is either harmless or checked below
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                _check_size(image)
                mode, (width, height) = image.mode, image.size
                orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
                if orientation >= 5:  # it lies on its side
                    width, height = height, width
                image.draft(None, (OVERSAMPLING * size, OVERSAMPLING * size))  # a JPEG need not be decoded at its full size
                image.load()
                grey = to_grey(image if orientation == 1 else ImageOps.exif_transpose(image))
    except Image.UnidentifiedImageError:
        raise ImageError("not an image of a known format") from None
    except Image.DecompressionBombError:
        raise ImageError(f"more than {MAX_PIXELS:,} pixels") from None
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise ImageError(f"broken image ({error})") from None  # what Pillow's decoders raise on damaged files
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{width}×{height} pixels are too few; a side has {MIN_SIDE} or more")
    if min(width, height) * size < max(width, height):
        raise ImageError(f"{width}×{height} pixels are too narrow to resize to {size}×{size}")
    perceptual_hash = difference_hash(grey)
    pixels = frame(grey, head_box(grey) if crop else None, size)
    sha256 = hashlib.sha256(content).hexdigest()
    return Picture(pixels, sha256, perceptual_hash, width, height, mode)


def decode_all(paths: Iterable[Path], size: int, crop: bool, threads: int) -> Iterator[tuple[Path, Picture | ImageError]]:
    """Read image files in parallel, and yield them in order; no more than a few for each thread wait at a time.

    Parameters
    ----------
    paths : iterable of Path
        Read as they are needed.
    size, crop : see `decode`
    threads : int
        That decode at a time.

    Yields
    ------
    path, Picture or ImageError
    """

    def attempt(path: Path) -> tuple[Path, Picture | ImageError]:
        try:
            return path, decode(path, size, crop)
        except ImageError as error:
            return path, error

    paths = iter(paths)
    chunks = iter(lambda: list(islice(paths, CHUNK)), [])
    with ThreadPoolExecutor(threads) as pool:
        todo = (pool.submit(lambda chunk: list(map(attempt, chunk)), chunk) for chunk in chunks)
        waiting = deque(islice(todo, AHEAD * threads))
        try:
            while waiting:
                decoded = waiting.popleft().result()
                waiting.extend(islice(todo, 1))
                yield from decoded
        finally:
            for one in waiting:
                one.cancel()


def to_grey(image: Image.Image) -> Image.Image:
    """The image as 8-bit grey levels, mode "L".

    Colours become their luma (ITU-R 601-2). Transparent parts become black. Integer images of more than 8 bits are taken
    to fill 12 bits, as many scanners do, if none of their levels is higher, and 16 bits otherwise.
    """
    if image.mode == "L":
        return image
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError("levels outside of 16 bits")
        bits = next(bits for bits in (8, 12, 16) if levels.max() < 2**bits)
        return Image.fromarray(np.round(levels * (255 / (2**bits - 1))).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point levels, whose range is not known; store 8 or 16 bits")
    if "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return image.convert("RGB").convert("L")


def frame(grey: Image.Image, box: tuple[int, int, int, int] | None, size: int) -> np.ndarray:
    """The part of a picture in a box, or all of it, resized and padded with black to a square: uint8, shape (size, size)."""
    part = grey.crop(box) if box else grey
    return np.asarray(ImageOps.pad(part, (size, size), Image.Resampling.BICUBIC))


def head_box(grey: Image.Image) -> tuple[int, int, int, int]:
    """Where the head is: the box around all that stands out from the background.

    The background's level is the median of the picture's rim; what differs from it by more than `CONTRAST` levels in a
    smoothed copy stands out. Rows and columns with only a few such places, as of letters, do not count.

    Parameters
    ----------
    grey : Image
        Mode "L".

    Returns
    -------
    tuple of int
        Left, upper, right, lower, in pixels; the whole picture if less than a tenth of it stands out.
    """
    side = 64
    small = np.asarray(grey.resize((side, side), Image.Resampling.BOX), np.int16)
    rim = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
    stands_out = np.abs(small - np.median(rim)) > CONTRAST
    if stands_out.mean() < 0.1:
        return 0, 0, *grey.size
    rows, columns = (np.flatnonzero(stands_out.mean(axis=axis) > 0.1) for axis in (1, 0))
    if not len(rows) or not len(columns):
        return 0, 0, *grey.size
    left, right = columns[0] * grey.width // side, -(-(columns[-1] + 1) * grey.width // side)
    upper, lower = rows[0] * grey.height // side, -(-(rows[-1] + 1) * grey.height // side)
    return int(left), int(upper), int(right), int(lower)


def difference_hash(grey: Image.Image) -> str:
    """Perceptual hash of a picture: does it get brighter to the right, at 16×16 places.

    Copies of a picture that were scaled or compressed anew differ in few bits.

    Returns
    -------
    str
        256 bits in hexadecimal.

    References
    ----------
    N. Krawetz, "Kind of Like That", The Hacker Factor Blog, 2013 (there with 8×8 places).
    """
    small = np.asarray(grey.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.LANCZOS))
    return np.packbits(small[:, 1:] > small[:, :-1]).tobytes().hex()


def _check_size(image: Image.Image) -> None:
    if max(image.size) > MAX_SIDE:
        raise ImageError(f"{image.width}×{image.height} pixels; a side may have {MAX_SIDE:,}")
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"{image.width}×{image.height} pixels; at most {MAX_PIXELS:,} in all are read")
    if getattr(image, "n_frames", 1) > 1:
        raise ImageError(f"{image.n_frames} frames; a single picture is expected")
