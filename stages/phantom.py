"""Draws the built-in data: synthetic brain slices, one folder for each class.

    dvc repro data/dvc.yaml        (plain `dvc repro` draws them too while `data.source` is data/phantom)

Reads   params: phantom
Writes  data/phantom/CLASS/CLASS-NNN.png
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stages.shared.files import write_bytes
from stages.shared.params import load_params
from stages.shared.phantoms import draw_numbered, to_png
from stages.shared.progress import progress
from stages.shared.running import run_stage

FOLDER = Path("data/phantom")


def main() -> None:
    params = load_params().phantom
    wanted = [(kind, index) for kind, count in params.classes.model_dump().items() for index in range(count)]
    with ThreadPoolExecutor() as pool:
        pictures = pool.map(lambda one: to_png(draw_numbered(*one, params.seed).image), wanted)
        for (kind, index), png in progress(zip(wanted, pictures, strict=True), len(wanted), "drawing synthetic slices"):
            write_bytes(FOLDER / kind / f"{kind}-{index:03d}.png", png)


if __name__ == "__main__":
    run_stage(main)
