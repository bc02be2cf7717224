"""What every contestant starts from, and what it prints in the end.

That is the files of the images in a project's store, decoded, and its split into training and test
images; and the probabilities of the test images.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from brainmri.common.paths import METADATA, SPLIT


def load(
    folder: Path, size: int, project: Path
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images and labels, test images and labels; images n×size×size, uint8.

    Parameters
    ----------
    folder : Path
        The project's `data.source`.
    size : int
        Pixels.
    project : Path
        Where `dvc repro split` has run.
    """
    metadata = json.loads((project / METADATA).read_bytes())
    paths = [folder / image["path"] for image in metadata["images"]]
    images = np.stack(
        [np.asarray(Image.open(path).convert("L").resize((size, size))) for path in paths]
    )
    labels = np.array([metadata["classes"].index(image["class"]) for image in metadata["images"]])
    rows = json.loads((project / SPLIT).read_bytes())
    return (
        images[rows["training"]],
        labels[rows["training"]],
        images[rows["test"]],
        labels[rows["test"]],
    )


def print_probabilities(probabilities: np.ndarray) -> None:
    """Print the class probabilities of the test images, shape (n, classes), as a line of JSON."""
    print(json.dumps(np.asarray(probabilities, float).tolist()))
