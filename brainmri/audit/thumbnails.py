"""Thumbnails as data URLs, for a page that needs no other file."""

import base64
import io
from pathlib import Path

from PIL import Image

from brainmri.audit.colors import open_in_color
from brainmri.audit.measuring import without_padding
from brainmri.common.resources import usable_cores
from brainmri.images.decoding import decode
from brainmri.images.limits import ImageError
from brainmri.images.workers import run_on_files

SIDE = 112  # largest, pixels
QUALITY = 80


def thumbnail_urls(files: dict[Path, bool]) -> dict[Path, str]:
    """Encode thumbnails of image files, in parallel.

    Parameters
    ----------
    files : dict of Path to bool
        Whether each image is colored.

    Returns
    -------
    dict of Path to str
        The data URL of a JPEG file; empty for an image that can't be read at this size.
    """
    urls = run_on_files(thumbnail_url, files.items(), usable_cores())
    return {path: "" if isinstance(url, ImageError) else url for (path, _), url in urls}


def thumbnail_url(path: Path, is_colored: bool) -> str:
    """Encode the thumbnail of an image file; see `thumbnail_urls`."""
    image = open_in_color(path, SIDE) if is_colored else _open_gray(path)
    if image is None:
        return ""
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def _open_gray(path: Path) -> Image.Image | None:
    try:
        image = decode(path, SIDE)
    except ImageError:
        return None
    return without_padding(image.pixels, image.width, image.height)
