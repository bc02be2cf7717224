"""Opens image files, untrusted input, with Pillow, and reads all levels of those with more than 8 bits."""

import io
import stat
import sys
from pathlib import Path

import numpy as np
from PIL import Image, TiffImagePlugin

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
MAX_PIXELS = 100_000_000
MAX_BYTES = 4 * MAX_PIXELS
MAX_SIDE = 20_000
LUMA = 0.299, 0.587, 0.114  # ITU-R 601-2
SUBFILE_TYPE, REDUCED, MASK = 254, 1, 4  # a tag of TIFF, and bits of its value
for (byte_order, photometric, *layout), modes in list(TiffImagePlugin.OPEN_INFO.items()):
    if photometric == 1 and modes[0].startswith(("I", "F")):  # Pillow does not know all of these where zero is white
        TiffImagePlugin.OPEN_INFO.setdefault((byte_order, 0, *layout), modes)


class ImageError(Exception):
    """The file holds no image that can be used; the message says why."""


def read_file(path: Path) -> bytes:
    """The content of a regular file of at most `MAX_BYTES`; what stands against it becomes an `ImageError`."""
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
    return content


def open_image(content: bytes) -> Image.Image:
    """Open the one image of a file: previews, depth maps and masks beside it do not count, animations are refused."""
    image = Image.open(io.BytesIO(content), formats=FORMATS)
    _check_size(image)
    if image.format == "MPO":  # cameras' and phones': the first is what every JPEG viewer shows
        return image
    frames = range(getattr(image, "n_frames", 1))
    if image.format == "TIFF":
        kinds = {}
        for page in frames:
            image.seek(page)
            kinds[page] = image.tag_v2.get(SUBFILE_TYPE, 0)
            if kinds[page] & REDUCED and TiffImagePlugin.SUBIFD in image.tag_v2:
                raise ImageError("only a preview in it can be read, as in a camera's raw file; save it as PNG or plain TIFF")
        frames = [page for page, kind in kinds.items() if not kind & (REDUCED | MASK)] or frames
        image.seek(frames[0])
        _check_size(image)
    if len(frames) > 1:
        raise ImageError(f"{len(frames)} frames; a single picture is expected")
    return image


def read_levels(image: Image.Image, content: bytes) -> tuple[np.ndarray, bool] | None:
    """The grey levels of an image with more than 8 bits.

    Parameters
    ----------
    image : Image
        Opened, not loaded.
    content : bytes
        Of its file.

    Returns
    -------
    levels : ndarray of numbers, shape (height, width)
        As the file counts them; those of colors are their luma (ITU-R 601-2). Transparent parts are 0.
    zero_is_white : bool
        Whether the file declares so.

    None of an image of 8 bits or fewer.
    """
    if not image.tile:
        return None
    tags = image.tag_v2 if image.format == "TIFF" else {}
    by_libtiff = image.tile[0].codec_name == "libtiff"
    layouts = [tile.args if isinstance(tile.args, str) else tile.args[0] for tile in image.tile]  # raw modes; a GIF's: numbers
    if image.mode == "F" or image.mode.startswith("I"):
        if by_libtiff:  # which gives the machine's byte order, whatever the file's, but Pillow forgets that for some
            _set_layouts(image, [layout.replace("B", "N") for layout in layouts])
        image.load()
        levels = np.asarray(image)
        if layouts[0] == "I;32N":
            levels = levels.view(np.uint32)  # Pillow takes them for signed
        if isinstance(transparent := image.info.get("transparency"), int):
            levels = np.where(levels == transparent, 0, levels)
        return levels, image.format == "TIFF" and tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 0) == 0

    has_deep_layout = image.format == "PNG" and ";16" in layouts[0]  # a BMP's 16 bits are those of all three colors
    is_deep = has_deep_layout or tags.get(TiffImagePlugin.BITSPERSAMPLE, (8,))[0] == 16
    if image.mode not in ("RGB", "RGBA", "CMYK") or not is_deep:
        return None
    if by_libtiff and tags.get(TiffImagePlugin.PLANAR_CONFIGURATION, 1) == 2:
        raise ImageError("16-bit colors in compressed planes can't be read; save them pixel by pixel, or uncompressed")
    big_endian = image.format == "PNG" or (sys.byteorder == "big" if by_libtiff else tags.prefix == b"MM")
    samples = _read_16_bit_samples(content, layouts, big_endian)
    bands = [samples[..., band].astype(np.float64) for band in range(samples.shape[-1])]
    if image.mode == "CMYK":
        *inks, black = bands
        bands = [(65535 - ink) * (65535 - black) / 65535 for ink in inks]
    luma = bands[0] if len(bands) == 2 else sum(weight * band for weight, band in zip(LUMA, bands, strict=False))
    if len(bands) in (2, 4) and not layouts[0].startswith("RGBa"):  # whose colors are multiplied by alpha already
        luma = luma * bands[-1] / 65535
    if isinstance(transparent := image.info.get("transparency"), tuple):
        luma = np.where((samples == transparent).all(axis=-1), 0, luma)
    return np.round(luma), False


def _read_16_bit_samples(content: bytes, layouts: list[str], big_endian: bool) -> np.ndarray:
    """Samples of an image with several to a pixel: uint16, shape (height, width, bands).

    Pillow keeps only the high byte of such samples. Given the other byte order, it keeps the low byte.
    """

    def read(layouts: list[str]) -> np.ndarray:
        with open_image(content) as image:
            _set_layouts(image, layouts)
            image.load()
            return np.asarray(image).astype(np.uint16)

    if layouts == ["LA;16B"]:  # which Pillow expands to RGBA: as many bytes as grey and alpha have
        parts = read(["RGBA"])
        return parts[..., ::2] << 8 | parts[..., 1::2]
    names = [layout.partition(";")[0].replace("RGBa", "RGBA") for layout in layouts]
    high, low = (read([f"{name};16{order}" for name in names]) for order in ("BL" if big_endian else "LB"))
    return high << 8 | low


def _set_layouts(image: Image.Image, layouts: list[str]) -> None:
    image.tile = [
        tile._replace(args=layout if isinstance(tile.args, str) else (layout, *tile.args[1:]))
        for tile, layout in zip(image.tile, layouts, strict=True)
    ]


def _check_size(image: Image.Image) -> None:
    if max(image.size) > MAX_SIDE:
        raise ImageError(f"{image.width}×{image.height} pixels; a side may have {MAX_SIDE:,}")
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"{image.width}×{image.height} pixels; at most {MAX_PIXELS:,} in all are read")
