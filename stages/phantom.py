"""Draws the built-in data: synthetic brain slices, one folder for each class.

    dvc repro data/dvc.yaml        (plain `dvc repro` draws them too while `data.source` is data/phantom)

Reads   params: phantom
Writes  data/phantom/CLASS/CLASS-NNN.png
"""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from stages.shared.files import write_bytes
from stages.shared.params import load_params
from stages.shared.phantoms import KINDS, draw
from stages.shared.progress import progress
from stages.shared.running import run_stage

FOLDER = Path("data/phantom")


def main() -> None:
    params = load_params().phantom
    wanted = [(kind, index) for kind, count in params.classes.model_dump().items() for index in range(count)]
    with ThreadPoolExecutor() as pool:
        pictures = pool.map(lambda one: encode(*one, params.seed), wanted)
        for (kind, index), png in progress(zip(wanted, pictures, strict=True), len(wanted), "drawing synthetic slices"):
            write_bytes(FOLDER / kind / f"{kind}-{index:03d}.png", png)


def encode(kind: str, index: int, seed: int) -> bytes:
    """One slice as a PNG file; it depends on its kind, its number and the seed alone."""
    rng = np.random.default_rng([seed, KINDS.index(kind), index])
    file = io.BytesIO()
    Image.fromarray(draw(kind, rng).image).save(file, "PNG")
    return file.getvalue()


if __name__ == "__main__":
    run_stage(main)
