"""Find the head in an image, crop to it, and pad to a square."""

import numpy as np
from PIL import Image, ImageOps

MIN_SIDE = 8
GRID = 64  # rows and columns of the smoothed copy in which the head is searched
CONTRAST = 20  # gray levels
MIN_FRACTION = 0.1  # of the image, or of a row or column, that differs from the background

Box = tuple[int, int, int, int]  # left, upper, right, lower, in pixels
Span = tuple[int, int]  # first, and first after the last


def crop_and_pad(gray: Image.Image, box: Box | None, size: int) -> np.ndarray:
    """Crop an image to a box, resize it and pad it with black to a square.

    Parameters
    ----------
    gray : Image
        Mode "L".
    box : tuple of int or None
        Left, upper, right, lower, in pixels; None for the whole image.
    size : int
        Height and width of the result, in pixels.

    Returns
    -------
    ndarray of uint8, shape (size, size)
    """
    part = gray.crop(box) if box else gray
    return np.asarray(ImageOps.pad(part, (size, size), Image.Resampling.BICUBIC))


def head_box(gray: Image.Image) -> Box:
    """Find the head: the box around all that differs from the background.

    The background's level is the median of the image's rim. What differs from it by more than
    `CONTRAST` levels in a smoothed copy is foreground. Rows and columns with little foreground, as
    of letters, do not count. If the box fills less than a quarter of an image that is flat around
    it, a slice on a large canvas, the search is repeated without the canvas.

    Parameters
    ----------
    gray : Image
        Mode "L".

    Returns
    -------
    tuple of int
        Left, upper, right, lower, in pixels; the whole image if less than a tenth of it is
        foreground and it has no canvas.
    """
    whole = (0, 0, *gray.size)
    small = shrink(gray)
    contrast = np.abs(small - rim_level(small))
    foreground = contrast > CONTRAST
    is_large = foreground.mean() >= MIN_FRACTION
    columns = _foreground_span(foreground.mean(axis=0), is_large)
    rows = _foreground_span(foreground.mean(axis=1), is_large)
    if not columns or not rows:
        return whole
    box = _to_pixels(columns, rows, gray)
    if area(box) < gray.width * gray.height / 4:
        region = _region_on_canvas(contrast, columns, rows, gray)
        if region:
            left, upper = region[:2]
            inner = head_box(gray.crop(region))
            return left + inner[0], upper + inner[1], left + inner[2], upper + inner[3]
    return box if is_large else whole


def area(box: Box) -> int:
    """Compute the area of a box, in pixels."""
    return (box[2] - box[0]) * (box[3] - box[1])


def shrink(gray: Image.Image) -> np.ndarray:
    """Shrink an image to `GRID` rows and columns by averaging: int16, shape (GRID, GRID)."""
    return np.asarray(gray.resize((GRID, GRID), Image.Resampling.BOX), np.int16)


def rim_level(levels: np.ndarray) -> float:
    """Compute the level of the background: the median of the rim."""
    return float(np.median(rim(levels)))


def rim(levels: np.ndarray) -> np.ndarray:
    """Return the outermost rows and columns of an image, one after the other."""
    return np.concatenate([levels[0], levels[-1], levels[:, 0], levels[:, -1]])


def _foreground_span(fractions: np.ndarray, is_large: bool) -> Span | None:
    """Find the first and last row, or column, with enough foreground.

    Parameters
    ----------
    fractions : ndarray of float, shape (GRID,)
        Fraction of each row, or column, that is foreground.
    is_large : bool
        Whether so much of the image is foreground that a fixed threshold will do.
    """
    threshold = MIN_FRACTION if is_large else fractions.max() / 4
    indices = np.flatnonzero(fractions > threshold)
    return (int(indices[0]), int(indices[-1]) + 1) if len(indices) else None


def _region_on_canvas(
    contrast: np.ndarray, columns: Span, rows: Span, gray: Image.Image
) -> Box | None:
    """Return the region around a head, a quarter of its sides wider, if all else is flat."""
    wide_columns, wide_rows = _widen(columns), _widen(rows)
    canvas = np.ones((GRID, GRID), bool)
    canvas[slice(*wide_rows), slice(*wide_columns)] = False
    region = _to_pixels(wide_columns, wide_rows, gray)
    left, upper, right, lower = region
    is_flat = np.mean(contrast[canvas] > CONTRAST / 4) < 0.02
    is_large_enough = min(right - left, lower - upper) >= MIN_SIDE
    return region if is_flat and is_large_enough else None


def _widen(span: Span) -> Span:
    start, end = span
    margin = (end - start) // 4 + 1
    return max(0, start - margin), min(GRID, end + margin)


def _to_pixels(columns: Span, rows: Span, gray: Image.Image) -> Box:
    """Return the smallest box of whole pixels that holds columns and rows of the grid."""
    (left, right), (upper, lower) = columns, rows
    return (
        left * gray.width // GRID,
        upper * gray.height // GRID,
        -(-right * gray.width // GRID),
        -(-lower * gray.height // GRID),
    )
