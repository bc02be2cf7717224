"""Measure image files: what an audit compares, without the pixels; measurements are cached.

The cache is one file, neither output nor input of the pipeline. It holds the files of the last
audit, and is valid while the code and the packages that measure are the same.
"""

import base64
import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from brainmri.audit import colors
from brainmri.audit.colors import is_colored
from brainmri.common.files import to_json, write_bytes
from brainmri.common.paths import AUDIT_CACHE
from brainmri.common.progress import progress
from brainmri.common.resources import usable_cores
from brainmri.images.cache import DECODING_MODULES, decoding_packages, file_identity
from brainmri.images.cropping import area, head_box, rim_level, shrink
from brainmri.images.decoding import decode
from brainmri.images.limits import ImageError
from brainmri.images.sources import SourceFile
from brainmri.images.workers import run_on_files

SIDE = 24  # of the thumbnails by which images are compared, pixels


class Measurement(NamedTuple):
    """What is measured of an image file.

    Attributes
    ----------
    sha256, perceptual_hashes, width, height, mode, patient, study
        See `brainmri.images.decoding.DecodedImage`.
    pixels : str
        BLAKE2b hash of the gray pixels of the whole image, hexadecimal.
    is_colored : bool
        See `colors.is_colored`.
    background : float
        Median gray level of the image's rim.
    head : float
        Fraction of the image that is in the box around the head.
    thumbnail : str
        `SIDE`×`SIDE` gray levels, uint8, in Base64.
    """

    sha256: str
    perceptual_hashes: tuple[str, str, str, str]
    width: int
    height: int
    mode: str
    patient: str | None
    study: str | None
    pixels: str
    is_colored: bool
    background: float
    head: float
    thumbnail: str


def measure_files(
    files: list[SourceFile], size: int, label: str, cache: dict[str, Measurement]
) -> list[Measurement | ImageError]:
    """Measure image files, in parallel, and report progress.

    Parameters
    ----------
    files : list of SourceFile
    size : int
        `ingest.image_size`: perceptual hashes are those of the pipeline.
    label : str
        Of the progress.
    cache : dict of str to Measurement
        By identity of the file; new measurements are added.

    Returns
    -------
    list of Measurement or ImageError
        Of each file; the error says why it can't be used.
    """

    identities = [file_identity(file.file) for file in files]
    measurements = [cache.get(identity) for identity in identities]
    new = [index for index, measurement in enumerate(measurements) if measurement is None]
    results = run_on_files(measure, ((files[index].file, size) for index in new), usable_cores())
    for index, (_, measurement) in zip(new, progress(results, len(new), label), strict=True):
        measurements[index] = measurement
        if identities[index] and not isinstance(measurement, ImageError):
            cache[identities[index]] = measurement
    return measurements


def measure(path: Path, size: int) -> Measurement:
    """Measure an image file.

    Raises
    ------
    ImageError
        If it can't be used; see `decode`.
    """
    image = decode(path, size)
    gray = without_padding(image.pixels, image.width, image.height)
    thumbnail = gray.resize((SIDE, SIDE), Image.Resampling.BOX)
    return Measurement(
        sha256=image.sha256,
        perceptual_hashes=image.perceptual_hashes,
        width=image.width,
        height=image.height,
        mode=image.mode,
        patient=image.patient,
        study=image.study,
        pixels=hashlib.blake2b(image.pixels, digest_size=16).hexdigest(),
        is_colored=is_colored(path, image.mode),
        background=rim_level(shrink(gray)),
        head=area(head_box(gray)) / (gray.width * gray.height),
        thumbnail=base64.b64encode(thumbnail.tobytes()).decode(),
    )


def without_padding(pixels: np.ndarray, width: int, height: int) -> Image.Image:
    """Return an image without the black to which it was padded.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (size, size)
    width, height : int
        Of the original.
    """
    size = len(pixels)
    inner_width = max(1, round(size * min(1, width / height)))
    inner_height = max(1, round(size * min(1, height / width)))
    left, upper = round((size - inner_width) / 2), round((size - inner_height) / 2)
    box = left, upper, left + inner_width, upper + inner_height
    return Image.fromarray(pixels).crop(box)


def thumbnails(measurements: list[Measurement]) -> np.ndarray:
    """Return the thumbnails of images: uint8, shape (n, `SIDE`²)."""
    content = b"".join(base64.b64decode(image.thumbnail) for image in measurements)
    return np.frombuffer(content, np.uint8).reshape(len(measurements), SIDE**2)


def load_cache(size: int, path: Path = AUDIT_CACHE) -> dict[str, Measurement]:
    """Load the measurements of the last audit, by identity of the file; none if they are stale."""
    try:
        content = json.loads(path.read_bytes())
        if content["fingerprint"] == _fingerprint(size):
            return {key: Measurement(*values) for key, values in content["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # missing or damaged
        pass
    return {}


def save_cache(
    files: list[SourceFile], size: int, cache: dict[str, Measurement], path: Path = AUDIT_CACHE
) -> None:
    """Save the measurements of these files, and of no others."""
    identities = sorted({file_identity(file.file) for file in files} & cache.keys())
    measurements = {identity: cache[identity] for identity in identities}
    content = {"fingerprint": _fingerprint(size), "files": measurements}
    write_bytes(path, to_json(content).encode())


def _fingerprint(size: int) -> str:
    """Hash all that a measurement depends on besides the file."""
    paths = [*(module.__file__ for module in DECODING_MODULES), colors.__file__, __file__]
    code = b"".join(Path(path).read_bytes() for path in paths)
    return hashlib.sha256(code + f"{size} {decoding_packages()}".encode()).hexdigest()
