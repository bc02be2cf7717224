"""Limits on what an image file makes its decoder do, checked in its bytes, without decoding."""

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from PIL import Image, TiffImagePlugin

MAX_PIXELS = 100_000_000
MAX_SIDE = 20_000
MIN_LEVELS = 8  # a mask or a blank has fewer, a slice more than a hundred
# Pillow refuses twice as many, also for a region that reaches beyond the image, as a head's may
Image.MAX_IMAGE_PIXELS = 2 * MAX_PIXELS

# Beyond these, an image is large: `workers` decodes it in a process with limits
SMALL_BYTES = 2**22
SMALL_PIXELS = 2**22
SMALL_SCANNED_PIXELS = 2**24
SMALL_RLE_PIXELS = 2**18

MAX_SCANS = 100  # of a progressive JPEG; cameras and programs write about ten
MAX_SCANNED_PIXELS = 20 * MAX_PIXELS  # scans times pixels
MAX_SEGMENTS = 10_000  # of a JPEG
MAX_JUNK = 2**20  # bytes between the segments of a JPEG, which Pillow skips one by one
# Those of JPEG that have a length, and the end of the image
SEGMENT = re.compile(rb"\xff([\xc0-\xc7\xc9-\xcf\xd9-\xef\xfe])")
START_OF_FRAME = {*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)}
APP1 = 0xE1  # holds EXIF data, in one or more segments
EXIF = b"Exif\0\0"
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
MAX_ZEROS = 64  # at the end of a JPEG that has no end-of-image marker

MAX_CHUNKS = 200_000  # of a PNG
PNG = b"\x89PNG\r\n\x1a\n"

MAX_PAGES = 100  # of a TIFF
MAX_TAGS = 65_535  # of all its pages
MAX_VALUES = 400_000  # of a tag: an image of `MAX_PIXELS` has so many tiles of 16×16 pixels
MAX_TILE_PIXELS = 4096**2  # of all tiles together, where these are larger than the image
VALUE_BYTES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8)  # by type of value
STRINGS = (1, 2, 7)  # types of value that are not unpacked one by one

MAX_RLE_PIXELS = 4_000_000  # of a BMP, whose runs Pillow decodes in Python
MAX_RLE_BYTES_OF_PIXEL = 3  # no program writes more than two, and the ends of rows
OUT_OF_MEMORY = "there is not enough memory to decode it"


class ImageError(Exception):
    """The file holds no usable image; the message says why."""


class LargeImage(BaseException):  # no Exception, which decoders and their callers may catch
    """Raised for a large image where only small ones are decoded."""


_small_only = ContextVar("small_only", default=False)


@contextmanager
def small_images_only() -> Iterator[None]:
    """Let the checks in this context raise `LargeImage` for a large image."""
    token = _small_only.set(True)
    try:
        yield
    finally:
        _small_only.reset(token)


def check_small(cost: int, limit: int) -> None:
    """Raise `LargeImage` for a cost above a limit, if only small images are decoded."""
    if cost > limit and _small_only.get():
        raise LargeImage


def check_size(width: int, height: int) -> None:
    """Raise `ImageError` if a side is longer than `MAX_SIDE`, or pixels are above `MAX_PIXELS`."""
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"{width}×{height} pixels; a side may have {MAX_SIDE:,}")
    if width * height > MAX_PIXELS:
        raise ImageError(f"{width}×{height} pixels; at most {MAX_PIXELS:,} in all are read")
    check_small(width * height, SMALL_PIXELS)


def check_content(content: bytes) -> None:
    """Raise `ImageError` for a file that takes long, or much memory, merely to be opened.

    What is no such file of a known format is left to the decoder to refuse.
    """
    if content.startswith(b"\xff\xd8"):
        check_scans(content)
    elif content.startswith(PNG):
        _check_chunks(content)
    elif size := webp_size(content):
        check_size(*size)
    else:
        check_tags(content)


def check_opened(image: Image.Image, content: bytes) -> None:
    """Raise `ImageError` for an image, opened but not loaded, that takes long to decode."""
    check_size(*image.size)
    width, height = image.size
    if image.format == "BMP" and image.tile and image.tile[0].codec_name == "bmp_rle":
        pixels = width * height
        if pixels > MAX_RLE_PIXELS:
            raise ImageError(
                f"{width}×{height} pixels, run-length encoded; at most {MAX_RLE_PIXELS:,} are"
                " read: save it as PNG, or without compression"
            )
        if len(content) > MAX_RLE_BYTES_OF_PIXEL * pixels + 2**16:
            raise ImageError(f"{len(content):,} bytes of runs for {width}×{height} pixels; broken")
        check_small(pixels, SMALL_RLE_PIXELS)
    if image.format == "TIFF":
        _check_tiles(image)


def check_scans(content: bytes) -> None:
    """Raise `ImageError` for a JPEG of too many scans, or segments, or whose end is zeros.

    A scan may have hardly any bytes, and yet visits all pixels. Zeros in place of the rest of a
    download may decode to flat gray.
    """
    scans = pixels = junk = 0
    exif = []
    position = 2
    for _ in range(MAX_SEGMENTS):
        segment = SEGMENT.search(content, position)
        kind = segment[1][0] if segment else END_OF_IMAGE
        if kind == END_OF_IMAGE:
            if not scans:
                raise ImageError("broken image (it ends before its first scan)")
            if segment is None and content.endswith(bytes(MAX_ZEROS + 1)):
                raise ImageError(
                    "broken image (zeros replace its end, as of an unfinished download);"
                    " download or copy it again"
                )
            check_exif(b"".join(exif))
            return
        if not scans:
            junk += segment.start() - position
        if junk > MAX_JUNK:
            raise ImageError(f"more than {MAX_JUNK:,} bytes between the segments of the JPEG")
        if kind in START_OF_FRAME:
            height, width = struct.unpack(">HH", content[segment.end() + 3 :][:4].ljust(4, b"\0"))
            pixels = max(pixels, width * height)
        scans += kind == START_OF_SCAN
        if scans > MAX_SCANS or (scans > 1 and scans * pixels > MAX_SCANNED_PIXELS):
            raise ImageError(
                f"{scans} scans or more in a progressive JPEG; at most {MAX_SCANS}, of"
                f" {MAX_SCANNED_PIXELS:,} pixels in all, are read"
            )
        check_small(scans * pixels, SMALL_SCANNED_PIXELS)
        start = segment.end()
        position = start + int.from_bytes(content[start : start + 2], "big")
        if kind == APP1 and content.startswith(EXIF, start + 2):
            exif.append(content[start + 2 + len(EXIF) : position])
    raise ImageError(f"more than {MAX_SEGMENTS:,} segments in the JPEG")


def webp_size(content: bytes) -> tuple[int, int] | None:
    """Return width and height of the canvas of a WebP file; None if it is none.

    Memory for the whole canvas is taken when the file is opened.
    """
    if not (content.startswith(b"RIFF") and content[8:15] == b"WEBPVP8"):
        return None
    kind = content[15:16]
    if kind == b"X":
        sides = content[24:27], content[27:30]
        width, height = (1 + int.from_bytes(side, "little") for side in sides)
        return width, height
    if kind == b"L":
        bits = int.from_bytes(content[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    sides = content[26:28], content[28:30]
    width, height = (int.from_bytes(side, "little") & 0x3FFF for side in sides)
    return width, height


def check_tags(content: bytes) -> None:
    """Raise `ImageError` for a TIFF of too many pages, tags or values.

    Tags may share their bytes: a small file may have gigabytes of values.
    """
    order = {b"II": "<", b"MM": ">"}.get(content[:2])
    if order is None or not {42, 43} & {*content[2:4]}:
        return
    is_big = content[2] == 43  # BigTIFF
    layouts = ("Q", "HHQQ", "Q") if is_big else ("H", "HHLL", "L")
    count_of_tags, tag, next_page = (struct.Struct(order + layout) for layout in layouts)
    tags = value_bytes = 0
    pages = set()
    try:
        (position,) = next_page.unpack_from(content, 8 if is_big else 4)
        while position and position not in pages:
            if len(pages) == MAX_PAGES:
                raise ImageError(f"more than {MAX_PAGES} pages; a single image is expected")
            pages.add(position)
            (count,) = count_of_tags.unpack_from(content, position)
            position += count_of_tags.size
            for _ in range(count):
                _, kind, values, start = tag.unpack_from(content, position)
                position += tag.size
                tags += 1
                size = values * (VALUE_BYTES[kind] if kind < len(VALUE_BYTES) else 0)
                if size > (8 if is_big else 4):
                    value_bytes += max(0, min(size, len(content) - start))
                if kind not in STRINGS and values > MAX_VALUES and size:
                    raise ImageError(f"{values:,} values of a tag; at most {MAX_VALUES:,} are read")
                if tags > MAX_TAGS or value_bytes > 2 * len(content) + 2**20:
                    raise ImageError("its tags are too many, or share their values; it is broken")
            (position,) = next_page.unpack_from(content, position)
    except struct.error:  # cut short, of which the decoder makes what it can
        return


def check_exif(block: bytes) -> None:
    """Raise `ImageError` for EXIF data, which are laid out as a TIFF, with too many tags."""
    if block.startswith(3 * EXIF):  # Pillow removes them one by one
        raise ImageError("its EXIF data are broken")
    check_tags(block.removeprefix(EXIF).removeprefix(EXIF))


def _check_chunks(content: bytes) -> None:
    position = len(PNG)
    for _ in range(MAX_CHUNKS):
        if position + 8 > len(content) or content[position + 4 : position + 8] == b"IEND":
            return
        position += 12 + int.from_bytes(content[position : position + 4], "big")
    raise ImageError(f"more than {MAX_CHUNKS:,} chunks in the PNG")


def _check_tiles(image: Image.Image) -> None:
    """Raise `ImageError` if the tiles of a TIFF have many more pixels than the image."""
    tags = image.tag_v2
    tile = tags.get(TiffImagePlugin.TILEWIDTH), tags.get(TiffImagePlugin.TILELENGTH)
    if not all(isinstance(side, int) and side > 0 for side in tile):
        return
    width, height = (
        -(-side // of_tile) * of_tile for side, of_tile in zip(image.size, tile, strict=True)
    )
    # Tiles no larger than the image have up to four times its pixels
    if width * height > max(4 * image.width * image.height, MAX_TILE_PIXELS):
        raise ImageError(
            f"tiles of {tile[0]}×{tile[1]} pixels in an image of {image.width}×{image.height};"
            " save it with smaller tiles, or as PNG"
        )
    check_small(width * height, SMALL_PIXELS)
