"""Measure the images per second of `ingest`, and of decoding and resizing them with Pillow alone.

    python -m benchmarks.rates.ingest         (where the pipeline has run)

Pillow's loop has one thread. `ingest` also hashes each file and image, and writes the store. The
last line printed is JSON.
"""

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from benchmarks.commands import wall_time
from brainmri.common.paths import PARAMS
from brainmri.store.reader import RadReader
from stages import ingest

SIDE = 512  # of the image files, pixels
COPIES = 4
SOURCE = "images"


def main() -> None:
    params = PARAMS.read_text()
    with RadReader() as rad:
        images = rad.images(range(len(rad)))[..., 0]
        labels = rad.labels
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        files = write_images(images, labels)
        write_params(params)
        pillow_time = wall_time(lambda: read_with_pillow(files, images.shape[1:]))
        ingest_time = wall_time(ingest.main)
    print(json.dumps({"here": len(files) / ingest_time, "against": len(files) / pillow_time}))


def write_images(images: np.ndarray, labels: np.ndarray) -> list[Path]:
    """Write JPEG files of the images, `COPIES` of each in different sizes; return their paths."""
    files = []
    for copy in range(COPIES):
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            file = Path(f"{SOURCE}/{label}/{copy}-{index}.jpg")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).resize((SIDE + copy, SIDE)).save(file, quality=90)
            files.append(file)
    return files


def write_params(params: str) -> None:
    """Write the parameters, with the image files as the source."""
    content = yaml.safe_load(params)
    content["data"]["source"] = SOURCE
    PARAMS.write_text(yaml.safe_dump(content, sort_keys=False))


def read_with_pillow(files: list[Path], size: tuple[int, int]) -> np.ndarray:
    """Decode the files and resize the images, one after the other."""
    return np.stack([np.asarray(Image.open(file).convert("L").resize(size)) for file in files])


if __name__ == "__main__":
    main()
