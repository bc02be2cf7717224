"""Images, and files of them, for tests of decoding."""

from pathlib import Path

import numpy as np
from PIL import Image

from brainmri.images.phantoms import draw_phantom

# 64×64, darker on the left, brighter on the right
GRAY_RAMP = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
SLICES = [draw_phantom(kind, number, 0).image for kind in ("no", "yes") for number in range(8)]
ORIENTATION = 0x0112  # an EXIF tag
TRANSPOSITIONS = {  # which a reader undoes, by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def save_image(folder: Path, image: Image.Image, name: str = "image.png", **options) -> Path:
    """Save an image in a folder, with Pillow's options; return its path."""
    image.save(folder / name, **options)
    return folder / name


def transpose(upright: Image.Image, orientation: int) -> Image.Image:
    """Return an image as a file of this EXIF orientation stores it."""
    return upright if orientation == 1 else upright.transpose(TRANSPOSITIONS[orientation])


def exif_of(orientation: int) -> Image.Exif:
    """Return EXIF data that hold an orientation."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def step_image(height: int, width: int, levels: int = 8) -> Image.Image:
    """Return an image of so many distinct levels in turn."""
    return Image.fromarray(np.resize(np.arange(levels) * 30, (height, width)).astype(np.uint8))


def difference_bits(image: Image.Image, box: tuple | None = None) -> str:
    """Compute, in another way than the code, where an image of 17×16 gets brighter to the right."""
    small = np.asarray(image.resize((17, 16), Image.Resampling.LANCZOS, box), int)
    is_brighter = np.diff(small).ravel() > 0
    digits = "".join("01"[int(bit)] for bit in is_brighter)
    return f"{int(digits, 2):064x}"


def place_on_canvas(
    image: np.ndarray, times: int, level: int = 0, x: float = 0.5, y: float = 0.5
) -> tuple[Image.Image, tuple[int, int]]:
    """Place an image on a canvas so many times as wide and high.

    Parameters
    ----------
    image : ndarray of uint8, shape (height, width)
    times : int
    level : int
        Of the canvas.
    x, y : float
        Place of the image, from 0, 0 (top left) to 1, 1.

    Returns
    -------
    canvas : Image
    left, top : int
        Of the image, in pixels.
    """
    height, width = image.shape
    canvas = np.full((times * height, times * width), level, np.uint8)
    top, left = int((times - 1) * height * y), int((times - 1) * width * x)
    canvas[top : top + height, left : left + width] = image
    return Image.fromarray(canvas), (left, top)
