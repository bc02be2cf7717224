"""Color in image files: gray slices that are saved as RGB have none."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from brainmri.images.files import open_image, read_file

GRID = 64  # rows and columns of the smoothed copy, without the noise of JPEG's colors
MIN_DIFFERENCE = 20  # of two channels, gray levels
GRAY_MODES = ("1", "L", "LA", "La", "F")


def is_colored(path: Path, mode: str) -> bool:
    """Check whether the channels of an image differ anywhere, as in an arrow or a color map.

    Parameters
    ----------
    path : Path
    mode : str
        Pillow's name of its pixel format.

    Returns
    -------
    bool
        False for an image that can't be decoded in color.
    """
    if mode in GRAY_MODES or mode.startswith(("I", "DICOM")):
        return False
    image = open_in_color(path, GRID)
    if image is None:
        return False
    small = np.asarray(image.resize((GRID, GRID), Image.Resampling.BOX))
    return bool(np.ptp(small.astype(int), axis=2).max() > MIN_DIFFERENCE)


def open_in_color(path: Path, size: int) -> Image.Image | None:
    """Open an image file as RGB, of no fewer than so many pixels on a side where it has them.

    Returns
    -------
    Image or None
        None if it can't be decoded in color.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # harmless, or checked by `decode`
            with open_image(read_file(path)) as image:
                image.draft("RGB", (size, size))
                return ImageOps.exif_transpose(_on_black(image))
    except Exception:  # noqa: BLE001, see `decode`, which reports the files that can't be used
        return None


def _on_black(image: Image.Image) -> Image.Image:
    """Convert an image to RGB, transparent parts to black."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    black = Image.new("RGBA", image.size, (0, 0, 0, 255))
    return Image.alpha_composite(black, image).convert("RGB")
