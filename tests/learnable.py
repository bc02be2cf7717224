"""A small set of images that can be learned: unequal classes, and groups of one to five near duplicates, as of one patient."""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

GROUPS = {"no": 26, "yes": 44}
SIDE = 64


def draw_group(number: int, lesion: bool) -> list[np.ndarray]:
    """Draw near duplicates of one slice: the same texture and the same lesion, if any, at other brightness and noise."""
    rng = np.random.default_rng([7, number])
    y, x = np.mgrid[:SIDE, :SIDE] / (SIDE - 1) * 2 - 1
    head = (x / 0.8) ** 2 + (y / 0.92) ** 2 < 1
    texture = gaussian_filter(rng.standard_normal((SIDE, SIDE)), 4)
    slice_ = np.where(head, 95 + 18 * texture / texture.std(), 0.0)
    place_x, place_y = rng.uniform(-0.45, 0.45, 2)
    if lesion:
        slice_ += 120 * np.exp(-((x - place_x) ** 2 + (y - place_y) ** 2) / (2 * 0.13**2))
    copies = []
    for _ in range(1 + number % 5):
        copy = rng.uniform(0.9, 1.1) * slice_ + rng.normal(0, 1.5, slice_.shape) * head
        copies.append(np.clip(np.round(copy), 0, 255).astype(np.uint8))
    return copies


def write_images(folder: Path, shuffled: bool) -> int:
    """Write the set as class folders; shuffled, which class a group is in says nothing of what it shows.

    Returns
    -------
    int
        Number of images.
    """
    classes = [name for name, count in GROUPS.items() for _ in range(count)]
    shown = list(classes)
    if shuffled:
        np.random.default_rng(11).shuffle(shown)
    count = 0
    for number, (name, kind) in enumerate(zip(classes, shown, strict=True)):
        for copy, image in enumerate(draw_group(number, kind == "yes")):
            content = io.BytesIO()
            Image.fromarray(image).save(content, "PNG")
            path = folder / name / f"{number:02d}-{copy}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.getvalue())
            count += 1
    return count
