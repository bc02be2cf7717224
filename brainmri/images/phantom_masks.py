"""Masks of the tumors of synthetic slices, as they are in the store."""

import hashlib
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from brainmri.common.params import Ingest
from brainmri.images.cropping import crop_and_pad, head_box
from brainmri.images.phantoms import KINDS, draw_phantom, to_png
from brainmri.store import metadata


def tumor_masks(images: list[metadata.Image], seed: int, settings: Ingest) -> dict[int, np.ndarray]:
    """Return the masks of all tumors of synthetic slices, by the position of their image.

    See `tumor_mask`.
    """
    masks = {position: tumor_mask(image, seed, settings) for position, image in enumerate(images)}
    return {position: mask for position, mask in masks.items() if mask is not None}


def tumor_mask(image: metadata.Image, seed: int, settings: Ingest) -> np.ndarray | None:
    """Return the mask of a synthetic slice's tumor, cropped and resized as `ingest` does the slice.

    Parameters
    ----------
    image : Image
        Metadata of the slice.
    seed : int
        `phantom.seed`.
    settings : Ingest
        Parameters `ingest`.

    Returns
    -------
    ndarray of bool, shape (image_size, image_size), or None
        None if the image is no synthetic slice of this seed, or has no tumor.
    """
    kind, _, number = PurePosixPath(image["path"]).stem.rpartition("-")
    if kind not in KINDS or kind == "no" or not number.isdecimal():
        return None
    phantom = draw_phantom(kind, int(number), seed)
    if hashlib.sha256(to_png(phantom.image)).hexdigest() != image["sha256"]:
        return None
    box = head_box(Image.fromarray(phantom.image)) if settings.crop else None
    mask = Image.fromarray(phantom.tumor.astype(np.uint8) * 255)
    return crop_and_pad(mask, box, settings.image_size) > 127
