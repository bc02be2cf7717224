"""Draw the built-in data: synthetic brain slices, one folder for each class.

    dvc repro data/dvc.yaml   (plain `dvc repro` draws it too while `data.source` is data/phantom)

Reads   params: phantom
Writes  data/phantom/CLASS/CLASS-NNN.png
"""

from concurrent.futures import ThreadPoolExecutor

from brainmri.common.files import write_bytes
from brainmri.common.params import load_params
from brainmri.common.paths import PHANTOM
from brainmri.common.progress import progress
from brainmri.images.phantoms import draw_phantom, to_png


def main() -> None:
    params = load_params().phantom
    counts = params.classes.model_dump()
    slices = [(kind, index) for kind, count in counts.items() for index in range(count)]

    def draw(numbered: tuple[str, int]) -> bytes:
        kind, index = numbered
        return to_png(draw_phantom(kind, index, params.seed).image)

    with ThreadPoolExecutor() as pool:
        drawn = zip(slices, pool.map(draw, slices), strict=True)
        for (kind, index), png in progress(drawn, len(slices), "drawing synthetic slices"):
            write_bytes(PHANTOM / kind / f"{kind}-{index:03d}.png", png)
