"""An image file of any common kind becomes a square of grey pixels. Image files are untrusted input.

Levels. Images of 8 bits or fewer keep their levels. All others, whose levels may have any range, go through one window: see
`fill_grey_scale`.
"""

import hashlib
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from stages.shared.image_files import MAX_PIXELS, ImageError, open_image, read_file, read_levels

MIN_SIDE = 8
MIN_LEVELS = 8  # fewer are a mask or a blank; slices have more than a hundred, but for halftones of 1 bit
HASH_SIDE = 16
WITHOUT_CANVAS = 0.45  # of an image is the head, or more, where there is no canvas around
GRID = 64  # rows and columns in which the head is looked for
CONTRAST = 20  # grey levels
WINDOW = 0.1, 99.9  # percentiles
CHUNK = 8  # files that a thread decodes in one go
AHEAD = 4  # such chunks for each thread, in work or waiting
OVERSAMPLING = 2  # a picture is decoded at no less than so many times its size in the store
SAMPLE_SIDE = 1024  # pixels of a longer side are sampled to find the window
UPRIGHT = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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
        Of the head, 256 bits, hexadecimal; see `head_hash`.
    whole_hash : str
        Of the whole image where the head fills most of it, else of the head: on a canvas, the margins of different slices are
        alike.
    width, height : int
        Of the original, upright, in pixels.
    mode : str
        Pillow's name of the original's pixel format, such as "RGB" or "I;16".
    levels : tuple of (black, white)
        The original's levels that became 0 and 255; (0, 255) for 8 bits or fewer.
    """

    pixels: np.ndarray
    sha256: str
    perceptual_hash: str
    whole_hash: str
    width: int
    height: int
    mode: str
    levels: tuple[float, float]


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
        If it cannot be read, is no image, broken or animated, or has too many bytes, or too many or too few pixels or levels: see
        `MAX_BYTES`, `MAX_PIXELS`, `MAX_SIDE`, `MIN_SIDE` and `MIN_LEVELS`.
    """
    content = read_file(Path(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow warns of is either harmless or checked below
            return _decode(content, size, crop)
    except ImageError:
        raise
    except Image.UnidentifiedImageError:
        raise ImageError("not an image of a known format") from None
    except Image.DecompressionBombError:
        raise ImageError(f"more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # noqa: BLE001, a damaged file makes decoders raise almost anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"broken image ({reason})") from None


def _decode(content: bytes, size: int, crop: bool) -> Picture:
    with open_image(content) as image:
        mode, (width, height) = image.mode, image.size
        deep = read_levels(image, content)  # before `getexif`, which decodes a PNG
        orientation = 1 if image.format == "TIFF" else image.getexif().get(ExifTags.Base.Orientation, 1)  # Pillow turns a TIFF
        if deep:
            grey, levels = fill_grey_scale(*deep)
        else:
            image.draft(None, (OVERSAMPLING * size, OVERSAMPLING * size))  # a JPEG need not be decoded at its full size
            image.load()
            grey, levels = to_grey(image), (0, 255)
    if orientation in UPRIGHT:
        grey = grey.transpose(UPRIGHT[orientation])
        if orientation >= 5:  # it was on its side
            width, height = height, width
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{width}×{height} pixels are too few; a side has {MIN_SIDE} or more")
    if min(width, height) * size < max(width, height):
        raise ImageError(f"{width}×{height} pixels are too narrow to resize to {size}×{size}")
    least = 2 if mode == "1" else MIN_LEVELS
    if (distinct := np.count_nonzero(grey.histogram())) < least:
        raise ImageError(f"{distinct} distinct grey level(s), as of a mask or a blank; {least} or more are expected")
    box = head_box(grey)
    pixels = frame(grey, box if crop else None, size)
    sha256 = hashlib.sha256(content).hexdigest()
    return Picture(pixels, sha256, *hash_image(grey, box), width, height, mode, levels)


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
    """An image of 8 bits or fewer as grey levels, mode "L". Colors become their luma (ITU-R 601-2), transparent parts black."""
    if image.mode == "L":
        return image
    if "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return image.convert("RGB").convert("L")


def fill_grey_scale(levels: np.ndarray, zero_is_white: bool = False) -> tuple[Image.Image, tuple[float, float]]:
    """Spread the levels that the head uses over the grey scale; lower ones become 0 and higher ones 255.

    The window is from the 0.1 percentile in the head's box to the 99.9 percentile of what stands out from the background
    there, so that neither hot pixels nor the canvas around the head count. To find the head, the window is first from the
    1 to the 99 percentile of the whole image.

    Parameters
    ----------
    levels : ndarray of numbers, shape (height, width)
        Of any range; what is not a finite number becomes the lowest or highest that is, and NaN the lowest.
    zero_is_white : bool
        Whether higher levels are darker.

    Returns
    -------
    grey : Image
        Mode "L".
    levels : tuple of (black, white)
        The levels that became 0 and 255.

    Raises
    ------
    ImageError
        If no level is a finite number.
    """
    sign = -1.0 if zero_is_white else 1.0
    levels = sign * levels.astype(np.float64)
    finite = levels[np.isfinite(levels)]
    if not len(finite):
        raise ImageError("none of its levels is a number")
    levels = np.nan_to_num(levels, copy=False, nan=finite.min(), posinf=finite.max(), neginf=finite.min())

    step = -(-max(levels.shape) // SAMPLE_SIDE)
    sample = levels[::step, ::step]
    low, high = _percentiles(sample, 1, sample, 99)
    grey = _apply_window(sample, low, high)
    left, upper, right, lower = head_box(grey)
    head = sample[upper:lower, left:right]
    tissue = head[np.abs(head - _rim_level(sample)) > CONTRAST / 255 * (high - low)]
    low, high = _percentiles(head, WINDOW[0], tissue if len(tissue) else head, WINDOW[1])
    grey = _apply_window(levels, low, high)
    black, white = (int(level) if level.is_integer() else level for level in (sign * low, sign * high))
    return grey, (black, white)


def _percentiles(values: np.ndarray, low: float, others: np.ndarray, high: float) -> tuple[float, float]:
    """The low percentile of values and the high one of others; the whole range if that leaves nothing between them."""
    window = np.percentile(values, low, method="higher").item(), np.percentile(others, high, method="lower").item()
    return window if window[0] < window[1] else (values.min().item(), values.max().item())


def _apply_window(levels: np.ndarray, low: float, high: float) -> Image.Image:
    scaled = (levels - low) * (255 / ((high - low) or 1))
    return Image.fromarray(np.round(np.clip(scaled, 0, 255)).astype(np.uint8))


def frame(grey: Image.Image, box: tuple[int, int, int, int] | None, size: int) -> np.ndarray:
    """The part of a picture in a box, or all of it, resized and padded with black to a square: uint8, shape (size, size)."""
    part = grey.crop(box) if box else grey
    return np.asarray(ImageOps.pad(part, (size, size), Image.Resampling.BICUBIC))


def head_box(grey: Image.Image) -> tuple[int, int, int, int]:
    """Where the head is: the box around all that stands out from the background.

    The background's level is the median of the image's rim; what differs from it by more than `CONTRAST` levels in a
    smoothed copy stands out. Rows and columns with only a few such places, as of letters, do not count. If that fills less
    than a quarter of an image that is flat around it, a slice on a large canvas, it is looked at again without the canvas.

    Parameters
    ----------
    grey : Image
        Mode "L".

    Returns
    -------
    tuple of int
        Left, upper, right, lower, in pixels; the whole image if less than a tenth of it stands out and it has no canvas.
    """
    side = GRID
    small = _shrink(grey)
    contrast = np.abs(small - _rim_level(small))
    stands_out = contrast > CONTRAST
    enough = stands_out.mean() >= 0.1
    spans = []
    for axis in (0, 1):
        fractions = stands_out.mean(axis=axis)
        places = np.flatnonzero(fractions > (0.1 if enough else fractions.max() / 4))
        if not len(places):
            return 0, 0, *grey.size
        spans.append((int(places[0]), int(places[-1]) + 1))

    box = _to_pixels(*spans, grey, side)
    if _area(box) < grey.width * grey.height / 4:
        around = [(max(0, start - (end - start) // 4 - 1), min(side, end + (end - start) // 4 + 1)) for start, end in spans]
        canvas = np.ones((side, side), bool)
        canvas[slice(*around[1]), slice(*around[0])] = False
        left, upper, right, lower = _to_pixels(*around, grey, side)
        if np.mean(contrast[canvas] > CONTRAST / 4) < 0.02 and min(right - left, lower - upper) >= MIN_SIDE:
            inner = head_box(grey.crop((left, upper, right, lower)))
            return left + inner[0], upper + inner[1], left + inner[2], upper + inner[3]
    return box if enough else (0, 0, *grey.size)


def _to_pixels(columns: tuple[int, int], rows: tuple[int, int], grey: Image.Image, side: int) -> tuple[int, int, int, int]:
    """The box of pixels that holds these of so many columns and rows."""
    (left, right), (upper, lower) = columns, rows
    return left * grey.width // side, upper * grey.height // side, -(-right * grey.width // side), -(-lower * grey.height // side)


def _area(box: tuple[int, int, int, int]) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _shrink(grey: Image.Image) -> np.ndarray:
    return np.asarray(grey.resize((GRID, GRID), Image.Resampling.BOX), np.int16)


def _rim_level(levels: np.ndarray) -> float:
    """The background's level: the median of the rim."""
    return float(np.median(_rim(levels)))


def _rim(levels: np.ndarray) -> np.ndarray:
    return np.concatenate([levels[0], levels[-1], levels[:, 0], levels[:, -1]])


def hash_image(grey: Image.Image, box: tuple[int, int, int, int]) -> tuple[str, str]:
    """The perceptual hashes of an image whose head is in a box: `perceptual_hash` and `whole_hash` of `Picture`."""
    if _area(box) < grey.width * grey.height and (inner := _cut_canvas(grey, box)):
        return (head_hash(inner, head_box(inner)),) * 2
    of_head = head_hash(grey, box)
    whole = _area(box) >= WITHOUT_CANVAS * grey.width * grey.height
    return of_head, difference_hash(grey) if whole else of_head


def _cut_canvas(grey: Image.Image, box: tuple[int, int, int, int]) -> Image.Image | None:
    """The slice in a box, if it has a flat background of its own, unlike that around the box."""
    margins = -(-grey.width // GRID), -(-grey.height // GRID)  # how far the box may be from the slice's edge
    box = box[0] + margins[0], box[1] + margins[1], box[2] - margins[0], box[3] - margins[1]
    if min(box[2] - box[0], box[3] - box[1]) < MIN_SIDE:
        return None
    part = grey.crop(box)
    rim = _rim(_shrink(part))
    is_flat = np.mean(np.abs(rim - np.median(rim)) > CONTRAST) < 0.25
    return part if is_flat and abs(np.median(rim) - _rim_level(_shrink(grey))) > CONTRAST else None


def head_hash(grey: Image.Image, box: tuple[int, int, int, int]) -> str:
    """Perceptual hash of the head in a box: `difference_hash` of its middle.

    The middle is centered on all that stands out from the background by half the head's own contrast, and 3.6 of its standard
    deviations wide and high. Unlike a box's edges, these hardly change with the image's scale, brightness or canvas.
    """
    grow = (box[2] - box[0]) // 4, (box[3] - box[1]) // 4
    region = box[0] - grow[0], box[1] - grow[1], box[2] + grow[0], box[3] + grow[1]
    part = grey.crop(region)
    inside = _shrink(Image.new("L", grey.size, 255).crop(region)) > 127  # the region may reach beyond the image
    contrast = np.abs(_shrink(part) - _rim_level(_shrink(grey))) * inside
    visible = contrast[contrast > CONTRAST / 4]
    if not len(visible):
        return difference_hash(grey.crop(box))
    rows, columns = np.nonzero(contrast > np.median(visible) / 2)
    edges = []
    for places, length in ((columns, part.width), (rows, part.height)):
        center, reach = (places.mean() + 0.5) * length / GRID, 1.8 * max(places.std(), 1) * length / GRID
        edges.append((max(0, center - reach), min(length, center + reach)))
    (left, right), (upper, lower) = edges
    return difference_hash(part, (left, upper, right, lower))


def difference_hash(grey: Image.Image, box: tuple[float, float, float, float] | None = None) -> str:
    """Perceptual hash of an image, or of a box in it: does it get brighter to the right, at 16×16 places.

    Copies of an image that were scaled or compressed again differ in few bits.

    Returns
    -------
    str
        256 bits in hexadecimal.

    References
    ----------
    N. Krawetz, "Kind of Like That", The Hacker Factor Blog, 2013 (there with 8×8 places).
    """
    small = np.asarray(grey.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.LANCZOS, box))
    return np.packbits(small[:, 1:] > small[:, :-1]).tobytes().hex()
