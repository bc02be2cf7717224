"""Images per second of `ingest` against decoding and resizing the same files with Pillow in one loop, as JSON.

    python -m benchmarks.rates.ingest         (where the pipeline has run)

`ingest` also hashes each file and picture, and writes the store.
"""

import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from stages import ingest
from stages.shared.rad import RadReader

SIDE, COPIES = 512, 4


def main() -> None:
    params = Path("params.yaml").read_text()
    with RadReader() as rad:
        images, labels = rad.images(range(len(rad)))[..., 0], rad.labels
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        files = []
        for copy in range(COPIES):
            for index, (image, label) in enumerate(zip(images, labels, strict=True)):
                file = Path(f"images/{label}/{copy}-{index}.jpg")
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).resize((SIDE + copy, SIDE)).save(file, quality=90)
                files.append(file)
        content = yaml.safe_load(params)
        content["data"]["source"] = "images"
        Path("params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))

        start = time.perf_counter()
        loop = np.stack([np.asarray(Image.open(file).convert("L").resize(images.shape[1:])) for file in files])
        middle = time.perf_counter()
        ingest.main()
        end = time.perf_counter()
        assert len(loop) == len(files)
    print(json.dumps({"here": len(files) / (end - middle), "against": len(files) / (middle - start)}))


if __name__ == "__main__":
    main()
