"""What every contestant starts from: the image files, decoded, and the same split into training and
test images.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image


def load(
    folder: Path, size: int, split: Path
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images and labels, test images and labels; images n×size×size, uint8."""
    classes = sorted(path.name for path in folder.iterdir())
    files = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((folder / name).iterdir())
    ]
    images = np.stack(
        [np.asarray(Image.open(path).convert("L").resize((size, size))) for path, _ in files]
    )
    labels = np.array([label for _, label in files])
    rows = json.loads(split.read_text())
    return (
        images[rows["training"]],
        labels[rows["training"]],
        images[rows["test"]],
        labels[rows["test"]],
    )
