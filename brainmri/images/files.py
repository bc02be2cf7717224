"""Open image files, untrusted input, with Pillow."""

import functools
import io
import re
import stat
import zlib
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, TiffImagePlugin

from brainmri.images.limits import (
    MAX_PIXELS,
    SMALL_BYTES,
    ImageError,
    check_content,
    check_opened,
    check_small,
)

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
MAX_BYTES = 4 * MAX_PIXELS
START_BYTES = 352  # of a file, which show its format
GZIP = b"\x1f\x8b"
NOT_READ = {  # by how files start, the first that matches: what they are, and what to do
    rb"MATLAB 5\.0": "a MATLAB file; export its images as PNG, with scipy.io.loadmat",
    rb"MATLAB 7\.3": "a MATLAB file; export its images as PNG, with h5py",
    rb"\x89HDF\r\n\x1a\n": "an HDF5 file; export its images as PNG, with h5py",
    rb"\x93NUMPY": "a NumPy array; export its images as PNG, with numpy.load and Pillow",
    rb".{344}n[+i]1\0|.{4}n[+i]2\0": (
        "a NIfTI volume; export its slices as PNG, with nibabel, mri_convert or med2image"
    ),
    rb"\x5c\x01\0\0|\0\0\x01\x5c": (
        "the header of an Analyze volume; export its slices as PNG, with nibabel"
    ),
    rb"NRRD": "an NRRD volume; export its slices as PNG, with pynrrd or 3D Slicer",
    rb"ObjectType *=": "a MetaImage volume; export its slices as PNG, with SimpleITK or 3D Slicer",
    rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51": "a JPEG 2000 image; save it as PNG",
    rb".{4}ftyp(?:hei|hev|mif|msf|avi)": "an HEIC or AVIF image; save it as PNG",
    rb"II\*\0|MM\0\*": (
        "a TIFF of a kind that can't be read; save it with levels of 8, 16 or 32 bits"
    ),
    rb"version https://git-lfs": (
        "a pointer of Git LFS; fetch the file itself with `git lfs pull`"
    ),
    rb"(?i:(?:\xef\xbb\xbf)?\s*<(?:!doctype )?html)": (
        "a web page, not an image of a known format; download the file again, logged in if need be"
    ),
}
SUBFILE_TYPE, REDUCED, MASK = 254, 1, 4  # a tag of TIFF, and bits of its value


def read_file(path: Path) -> bytes:
    """Read a regular file.

    Raises
    ------
    ImageError
        If the file is missing, is not regular, can't be read, is empty, or has more than
        `MAX_BYTES`.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a named pipe, say, may never end
            raise ImageError("not a regular file")
        if status.st_size > MAX_BYTES:
            raise ImageError(f"{status.st_size:,} bytes; at most {MAX_BYTES:,} are read")
        check_small(status.st_size, SMALL_BYTES)
        content = path.read_bytes()
    except OSError as error:
        raise ImageError(error.strerror or str(error)) from None
    if not content:
        raise ImageError("empty file")
    return content


def explain_format(content: bytes) -> str:
    """Say why a file that Pillow can't identify is not read, and how to export what it holds."""
    start = content[:START_BYTES]
    if start.startswith(GZIP):
        try:
            # No more is inflated than asked for
            start = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(content, START_BYTES)
        except zlib.error:
            start = b""
    for pattern, explanation in NOT_READ.items():
        if re.match(pattern, start, re.DOTALL):
            return explanation
    return f"not an image of a known format; {', '.join(FORMATS)} and DICOM are read"


def open_image(content: bytes) -> Image.Image:
    """Open the image in a file; previews, depth maps and masks beside it are ignored.

    Parameters
    ----------
    content : bytes
        Content of the file, in one of `FORMATS`, which is detected.

    Returns
    -------
    Image
        Its pixels are not decoded yet.

    Raises
    ------
    ImageError
        If the image is too large, animated, or one of several, or the file is beyond one of
        `limits`.
    PIL.UnidentifiedImageError
        If the file is of another format. Pillow may raise anything else for damaged files.
    """
    _support_white_is_zero()
    check_content(content)
    image = Image.open(io.BytesIO(content), formats=FORMATS)
    check_opened(image, content)
    if image.format == "MPO":  # of cameras and phones; every JPEG viewer shows the first frame
        return image
    if image.format == "GIF" and image.is_animated:  # counting frames may take hours
        raise ImageError("2 frames or more; a single image is expected")
    frames: Sequence[int] = range(getattr(image, "n_frames", 1))  # of any length, so no list
    if image.format == "TIFF":
        frames = _full_pages(image, frames)
        image.seek(frames[0])
        check_opened(image, content)
    if len(frames) > 1:
        raise ImageError(f"{len(frames)} frames; a single image is expected")
    return image


@functools.cache
def _support_white_is_zero() -> None:
    """Let Pillow read gray TIFF files of more than 8 bits in which zero is white.

    It lacks some of these in its table of modes; the others are the same as where zero is black.
    """
    modes_of = TiffImagePlugin.OPEN_INFO
    for (byte_order, photometric, *layout), modes in list(modes_of.items()):
        if photometric == 1 and modes[0].startswith(("I", "F")):
            modes_of.setdefault((byte_order, 0, *layout), modes)


def _full_pages(image: Image.Image, pages: Sequence[int]) -> Sequence[int]:
    """Return the pages of a TIFF that are neither previews nor masks; all pages if none is."""
    types = {}
    for page in pages:
        image.seek(page)
        types[page] = image.tag_v2.get(SUBFILE_TYPE, 0)
        if types[page] & REDUCED and TiffImagePlugin.SUBIFD in image.tag_v2:
            raise ImageError(
                "only a preview in it can be read, as in a camera's raw file;"
                " save it as PNG or plain TIFF"
            )
    return [page for page in pages if not types[page] & (REDUCED | MASK)] or pages
