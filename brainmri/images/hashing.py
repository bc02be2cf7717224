"""Perceptual hashes, by which near duplicates are found."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from brainmri.images.cropping import (
    CONTRAST,
    GRID,
    MIN_SIDE,
    Box,
    area,
    head_box,
    rim,
    rim_level,
    shrink,
)

HASH_SIDE = 16
MIN_HEAD_FRACTION = 0.45  # of an image that has no canvas around the head
HALF_WIDTH = 1.8  # of the hashed part of a head, in standard deviations


class Hashes(NamedTuple):
    """The hash of an image, and that of its mirror image: 256 bits in hexadecimal."""

    upright: str
    mirrored: str


def perceptual_hashes(gray: Image.Image, box: Box) -> tuple[str, str, str, str]:
    """Compute the perceptual hashes of an image.

    Parameters
    ----------
    gray : Image
        Mode "L".
    box : tuple of int
        Of the head; see `head_box`.

    Returns
    -------
    tuple of str
        Of the head; of the whole image where the head fills most of it, else of the head: on a
        canvas, the margins of different slices are alike. Then both of the mirror image.
    """
    head, whole = _hash_head_and_whole(gray, box)
    return head.upright, whole.upright, head.mirrored, whole.mirrored


def _hash_head_and_whole(gray: Image.Image, box: Box) -> tuple[Hashes, Hashes]:
    if area(box) < gray.width * gray.height:
        image = _without_canvas(gray, box)
        if image is not None:
            head = head_hash(image, head_box(image))
            return head, head
    head = head_hash(gray, box)
    if area(box) >= MIN_HEAD_FRACTION * gray.width * gray.height:
        return head, difference_hash(gray)
    return head, head


def head_hash(gray: Image.Image, box: Box) -> Hashes:
    """Compute the perceptual hash of the head in a box: `difference_hash` of its middle.

    The middle is centered on all that differs from the background by half the head's own contrast,
    and 3.6 of its standard deviations wide and high. Unlike the edges of the box, these hardly
    change with the scale, the brightness or the canvas of the image.
    """
    margin_x, margin_y = (box[2] - box[0]) // 4, (box[3] - box[1]) // 4
    region = box[0] - margin_x, box[1] - margin_y, box[2] + margin_x, box[3] + margin_y
    part = gray.crop(region)
    # The region may reach beyond the image
    is_inside = shrink(Image.new("L", gray.size, 255).crop(region)) > 127
    contrast = np.abs(shrink(part) - rim_level(shrink(gray))) * is_inside
    visible = contrast[contrast > CONTRAST / 4]
    if not len(visible):
        return difference_hash(gray.crop(box))
    rows, columns = np.nonzero(contrast > np.median(visible) / 2)
    left, right = _middle(columns, part.width)
    upper, lower = _middle(rows, part.height)
    return difference_hash(part, (left, upper, right, lower))


def difference_hash(
    gray: Image.Image, box: tuple[float, float, float, float] | None = None
) -> Hashes:
    """Compute the difference hash of an image, or of a box in it.

    Each of 16×16 bits is whether the image gets brighter to the right there. Copies of an image
    that were scaled or compressed again differ in few bits. An image upside down has the rows of
    bits in reverse order. Its mirror image does not follow from the bits, which are 0 where two
    neighbors are equal.

    References
    ----------
    N. Krawetz, "Kind of Like That", The Hacker Factor Blog, 2013 (there with 8×8 bits).
    """
    small = np.asarray(gray.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.LANCZOS, box))
    mirrored = small[:, ::-1]
    return Hashes(*(_to_hex(levels[:, 1:] > levels[:, :-1]) for levels in (small, mirrored)))


def _to_hex(bits: np.ndarray) -> str:
    return np.packbits(bits).tobytes().hex()


def _without_canvas(gray: Image.Image, box: Box) -> Image.Image | None:
    """Return the slice in a box if it has a flat background that differs from that around it."""
    # The box may reach so far beyond the edges of the slice
    margin_x, margin_y = -(-gray.width // GRID), -(-gray.height // GRID)
    left, upper, right, lower = box
    inner = left + margin_x, upper + margin_y, right - margin_x, lower - margin_y
    if min(inner[2] - inner[0], inner[3] - inner[1]) < MIN_SIDE:
        return None
    part = gray.crop(inner)
    edge = rim(shrink(part))
    background = np.median(edge)
    is_flat = np.mean(np.abs(edge - background) > CONTRAST) < 0.25
    is_other_background = abs(background - rim_level(shrink(gray))) > CONTRAST
    return part if is_flat and is_other_background else None


def _middle(positions: np.ndarray, length: int) -> tuple[float, float]:
    """Return the ends of the middle of a head along one side of an image.

    Parameters
    ----------
    positions : ndarray of int, shape (n,)
        Rows, or columns, of the grid that the head's pixels are in.
    length : int
        Of the side, in pixels.
    """
    center = (positions.mean() + 0.5) * length / GRID
    reach = HALF_WIDTH * max(positions.std(), 1) * length / GRID
    return max(0, center - reach), min(length, center + reach)
