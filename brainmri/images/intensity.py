"""Map levels of any range to the 256 of the gray scale."""

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from brainmri.images.cropping import CONTRAST, head_box, rim_level
from brainmri.images.limits import ImageError

WINDOW = 0.1, 99.9  # percentiles
FIRST_WINDOW = 1, 99  # percentiles of the whole image, in which the head is searched
SAMPLE_SIDE = 1024  # the window is found in so many pixels of a side, at most
BLOCK_PIXELS = 2**20  # so many levels at a time are converted to 64 bits


def rescale_intensity(
    levels: np.ndarray, zero_is_white: bool = False
) -> tuple[Image.Image, tuple[float, float]]:
    """Stretch the levels of the head over the gray scale; lower ones become 0, higher ones 255.

    The window is from the 0.1 percentile in the head's box to the 99.9 percentile of what differs
    from the background there, so that neither hot pixels nor the canvas around the head count. To
    find the head, the window is first from the 1 to the 99 percentile of the whole image.

    Parameters
    ----------
    levels : ndarray of numbers, shape (height, width)
        Of any range. Infinite ones become the lowest or highest finite one, NaN the lowest.
    zero_is_white : bool
        Whether higher levels are darker.

    Returns
    -------
    gray : Image
        Mode "L".
    levels : tuple of (black, white)
        The levels that became 0 and 255.

    Raises
    ------
    ImageError
        If no level is a finite number.
    """
    sign = -1.0 if zero_is_white else 1.0
    lowest, highest = _finite_range(levels)
    if sign < 0:
        lowest, highest = -highest, -lowest

    def signed(levels: np.ndarray) -> np.ndarray:
        finite = sign * levels.astype(np.float64)
        return np.nan_to_num(finite, copy=False, nan=lowest, posinf=highest, neginf=lowest)

    step = -(-max(levels.shape) // SAMPLE_SIDE)
    low, high = _find_window(signed(levels[::step, ::step]))
    gray = map_blocks(lambda block: _scale(signed(block), low, high), levels)
    return Image.fromarray(gray), (as_number(sign * low), as_number(sign * high))


def map_blocks(function: Callable[[np.ndarray], np.ndarray], levels: np.ndarray) -> np.ndarray:
    """Apply a function of each level to some rows at a time.

    Parameters
    ----------
    function : callable
        Takes levels of shape (rows, width), and returns uint8 of that shape.
    levels : ndarray of numbers, shape (height, width)

    Returns
    -------
    ndarray of uint8, shape (height, width)
    """
    pixels = np.empty(levels.shape, np.uint8)
    for rows in row_blocks(levels):
        pixels[rows] = function(levels[rows])
    return pixels


def row_blocks(levels: np.ndarray) -> Iterator[slice]:
    """Yield slices of rows that have no more than `BLOCK_PIXELS`, but a row at least."""
    height, width = levels.shape[:2]
    step = max(1, BLOCK_PIXELS // max(1, width))
    for start in range(0, height, step):
        yield slice(start, start + step)


def _finite_range(levels: np.ndarray) -> tuple[float, float]:
    """Return the lowest and the highest finite level."""
    lowest, highest = np.inf, -np.inf
    for rows in row_blocks(levels):
        block = levels[rows].astype(np.float64)
        finite = block[np.isfinite(block)]
        if len(finite):
            lowest = min(lowest, finite.min().item())
            highest = max(highest, finite.max().item())
    if lowest > highest:
        raise ImageError("none of its levels is a number")
    return lowest, highest


def _find_window(levels: np.ndarray) -> tuple[float, float]:
    """Return the levels that become 0 and 255."""
    low, high = _percentiles(levels, FIRST_WINDOW[0], levels, FIRST_WINDOW[1])
    left, upper, right, lower = head_box(Image.fromarray(_scale(levels, low, high)))
    head = levels[upper:lower, left:right]
    min_contrast = CONTRAST / 255 * (high - low)
    tissue = head[np.abs(head - rim_level(levels)) > min_contrast]
    return _percentiles(head, WINDOW[0], tissue if len(tissue) else head, WINDOW[1])


def _percentiles(
    values: np.ndarray, low: float, others: np.ndarray, high: float
) -> tuple[float, float]:
    """Compute the low percentile of values and the high one of others.

    If nothing is between them, return the lowest and the highest value.
    """
    lowest = np.percentile(values, low, method="higher").item()
    highest = np.percentile(others, high, method="lower").item()
    if lowest < highest:
        return lowest, highest
    return values.min().item(), values.max().item()


def _scale(levels: np.ndarray, low: float, high: float) -> np.ndarray:
    scaled = (levels - low) * (255 / ((high - low) or 1))
    return np.round(np.clip(scaled, 0, 255)).astype(np.uint8)


def as_number(level: float) -> float | int:
    """Return a whole number as an int, which JSON has without a decimal point."""
    return int(level) if level.is_integer() else level
