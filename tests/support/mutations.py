"""Image files with random damage, the same for a seed."""

import io
import random

import numpy as np
from PIL import Image

from brainmri.images.files import FORMATS
from tests.support.dicom_files import encode_dicom
from tests.support.image_files import GRAY_RAMP, exif_of

WORDS = b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\1\0\0", b"\x80\0\0\0"


def files_to_damage() -> list[bytes]:
    """Encode a small image in each format, with EXIF data, and as DICOM."""
    ramp = Image.fromarray(GRAY_RAMP)
    contents = [encode_dicom(GRAY_RAMP), encode_dicom(GRAY_RAMP.astype(np.uint16) * 16)]
    variants = [(kind, "L", {}) for kind in FORMATS] + [
        ("JPEG", "RGB", {"progressive": True, "exif": exif_of(6)}),
        ("PNG", "I;16", {"exif": exif_of(6)}),
        ("WEBP", "RGBA", {"lossless": True, "exif": exif_of(6)}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "F", {}),
        ("GIF", "P", {"interlace": 1}),
    ]
    for kind, mode, options in variants:
        file = io.BytesIO()
        ramp.convert(mode).save(file, kind, **options)
        contents.append(file.getvalue())
    return contents


def mutate(content: bytes, seed: int) -> bytes:
    """Change, insert, repeat or remove a few bytes, more often near the start."""
    random_of_seed = random.Random(seed)
    damaged = bytearray(content)
    for _ in range(random_of_seed.randint(1, 4)):
        start = int(random_of_seed.random() ** 3 * len(damaged))
        length = random_of_seed.choice((1, 1, 2, 4, 16))
        kind = random_of_seed.randrange(5)
        if kind == 0:
            damaged[start : start + 1] = random_of_seed.randbytes(1)
        elif kind == 1:
            word = random_of_seed.choice(WORDS)
            damaged[start : start + len(word)] = word
        elif kind == 2:
            damaged[start:start] = random_of_seed.randbytes(length)
        elif kind == 3:
            damaged[start:start] = damaged[start : start + length]
        else:
            del damaged[start : start + length]
    if random_of_seed.random() < 0.1:
        del damaged[random_of_seed.randrange(len(damaged)) :]
    return bytes(damaged)
