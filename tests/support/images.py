"""Image files for a source."""

import io

import numpy as np
from PIL import Image

from tests.support.project import Project


def encode_noise(seed: int, form: str = "PNG", mode: str = "L", **options) -> bytes:
    """Encode an image of 40×40 pixels that differs from those of other seeds."""
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(content, form, **options)
    return content.getvalue()


def write_raw_files(project: Project, files: dict[str, bytes]) -> None:
    """Write files below data/raw, by their paths in it."""
    for name, content in files.items():
        path = project.path / "data/raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
