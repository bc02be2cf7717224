"""Read all levels of images with more than 8 bits, of which Pillow itself drops some."""

import sys
from collections.abc import Mapping

import numpy as np
from PIL import Image, TiffImagePlugin

from brainmri.images.files import open_image
from brainmri.images.intensity import row_blocks
from brainmri.images.limits import ImageError

LUMA = 0.299, 0.587, 0.114  # ITU-R 601-2
MAX_LEVEL = 65535  # of 16 bits


def read_levels(image: Image.Image, content: bytes) -> tuple[np.ndarray, bool] | None:
    """Read the gray levels of an image with more than 8 bits.

    Parameters
    ----------
    image : Image
        Opened, not loaded.
    content : bytes
        Content of its file.

    Returns
    -------
    levels : ndarray of numbers, shape (height, width)
        In the units of the file; colors become their luma (ITU-R 601-2), transparent parts 0.
    zero_is_white : bool
        Whether the file declares so.

    None for an image of 8 bits or fewer.

    Raises
    ------
    ImageError
        If Pillow can't read the layout of the samples.
    """
    if not image.tile:
        return None
    tags = image.tag_v2 if image.format == "TIFF" else {}
    raw_modes = [tile.args if isinstance(tile.args, str) else tile.args[0] for tile in image.tile]
    if image.mode == "F" or image.mode.startswith("I"):
        photometric = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 0)
        zero_is_white = image.format == "TIFF" and photometric == 0
        return _read_gray(image, raw_modes), zero_is_white

    if image.mode == "L" and tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))[0] == 2:
        raise ImageError("signed 8-bit levels can't be read; save the TIFF with unsigned ones")

    # The 16 bits of a BMP are those of all three colors.
    has_16_bits = image.format == "PNG" and ";16" in raw_modes[0]
    has_16_bits = has_16_bits or tags.get(TiffImagePlugin.BITSPERSAMPLE, (8,))[0] == 16
    if image.mode not in ("RGB", "RGBA", "CMYK") or not has_16_bits:
        return None
    return _read_luma(image, content, raw_modes, tags), False


def _read_gray(image: Image.Image, raw_modes: list[str]) -> np.ndarray:
    if _uses_libtiff(image):
        # It returns the machine's byte order, whatever the file's; some modes of Pillow ignore that
        _set_raw_modes(image, [raw_mode.replace("B", "N") for raw_mode in raw_modes])
    image.load()
    levels = np.asarray(image)
    if raw_modes[0] == "I;32N":
        levels = levels.view(np.uint32)  # Pillow takes them for signed
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        levels = np.where(levels == transparent, 0, levels)
    return levels


def _read_luma(
    image: Image.Image, content: bytes, raw_modes: list[str], tags: Mapping
) -> np.ndarray:
    if _uses_libtiff(image) and tags.get(TiffImagePlugin.PLANAR_CONFIGURATION, 1) == 2:
        raise ImageError(
            "16-bit colors in compressed planes can't be read;"
            " save them pixel by pixel, or uncompressed"
        )
    samples = _read_16_bit_samples(content, raw_modes, _is_big_endian(image, tags))
    is_premultiplied = raw_modes[0].startswith("RGBa")
    transparent = image.info.get("transparency")
    luma = np.empty(samples.shape[:2], np.uint16)
    for rows in row_blocks(samples):
        block = _luma_of(samples[rows], image.mode == "CMYK", is_premultiplied)
        if isinstance(transparent, tuple):
            block = np.where((samples[rows] == transparent).all(axis=-1), 0, block)
        luma[rows] = np.round(block)
    return luma


def _luma_of(samples: np.ndarray, is_cmyk: bool, is_premultiplied: bool) -> np.ndarray:
    """Compute the luma of 16-bit samples of shape (height, width, bands)."""
    bands = [samples[..., band].astype(np.float64) for band in range(samples.shape[-1])]
    if is_cmyk:
        *inks, black = bands
        bands = [(MAX_LEVEL - ink) * (MAX_LEVEL - black) / MAX_LEVEL for ink in inks]
    is_gray = len(bands) == 2
    luma = bands[0]
    if not is_gray:
        luma = sum(weight * band for weight, band in zip(LUMA, bands, strict=False))
    has_alpha = len(bands) in (2, 4)
    if has_alpha and not is_premultiplied:
        luma = luma * bands[-1] / MAX_LEVEL
    return luma


def _read_16_bit_samples(content: bytes, raw_modes: list[str], big_endian: bool) -> np.ndarray:
    """Read an image of several 16-bit samples for each pixel: uint16, shape (height, width, bands).

    Pillow keeps only the high byte of such samples. Given the other byte order, it keeps the low
    byte.
    """

    def read(raw_modes: list[str]) -> np.ndarray:
        with open_image(content) as image:
            _set_raw_modes(image, raw_modes)
            image.load()
            return np.asarray(image)

    if raw_modes == ["LA;16B"]:
        # Pillow expands it to RGBA, which has as many bytes as 16-bit gray and alpha
        samples = read(["RGBA"])
        return _join_bytes(samples[..., ::2], samples[..., 1::2])
    names = [raw_mode.partition(";")[0].replace("RGBa", "RGBA") for raw_mode in raw_modes]
    own_order, other_order = "BL" if big_endian else "LB"
    high = read([f"{name};16{own_order}" for name in names])
    low = read([f"{name};16{other_order}" for name in names])
    return _join_bytes(high, low)


def _join_bytes(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    samples = high.astype(np.uint16)
    samples <<= 8
    samples |= low
    return samples


def _is_big_endian(image: Image.Image, tags: Mapping) -> bool:
    if image.format == "PNG":
        return True
    if _uses_libtiff(image):
        return sys.byteorder == "big"
    return tags.prefix == b"MM"


def _uses_libtiff(image: Image.Image) -> bool:
    return image.tile[0].codec_name == "libtiff"


def _set_raw_modes(image: Image.Image, raw_modes: list[str]) -> None:
    tiles = zip(image.tile, raw_modes, strict=True)
    image.tile = [
        tile._replace(args=raw_mode if isinstance(tile.args, str) else (raw_mode, *tile.args[1:]))
        for tile, raw_mode in tiles
    ]
