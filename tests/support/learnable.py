"""A small set of images that can be learned.

Its classes are unequal, and its groups have one to five near duplicates, as of one patient.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

GROUPS = {"no": 26, "yes": 44}
SIDE = 64


def draw_group(number: int, lesion: bool) -> list[np.ndarray]:
    """Draw near duplicates of one slice.

    They have the same texture and the same lesion, if any, and differ in brightness and noise.
    """
    rng = np.random.default_rng([7, number])
    y, x = np.mgrid[:SIDE, :SIDE] / (SIDE - 1) * 2 - 1
    head = (x / 0.8) ** 2 + (y / 0.92) ** 2 < 1
    texture = gaussian_filter(rng.standard_normal((SIDE, SIDE)), 4)
    pixels = np.where(head, 95 + 18 * texture / texture.std(), 0.0)
    center_x, center_y = rng.uniform(-0.45, 0.45, 2)
    if lesion:
        distance = (x - center_x) ** 2 + (y - center_y) ** 2
        pixels += 120 * np.exp(-distance / (2 * 0.13**2))
    copies = []
    for _ in range(1 + number % 5):
        copy = rng.uniform(0.9, 1.1) * pixels + rng.normal(0, 1.5, pixels.shape) * head
        copies.append(np.clip(np.round(copy), 0, 255).astype(np.uint8))
    return copies


def write_images(folder: Path, shuffled: bool) -> int:
    """Write the set as class folders.

    Parameters
    ----------
    folder : Path
    shuffled : bool
        Whether the class of a group is independent of what its images show.

    Returns
    -------
    int
        Number of images.
    """
    classes = [name for name, count in GROUPS.items() for _ in range(count)]
    contents = list(classes)
    if shuffled:
        np.random.default_rng(11).shuffle(contents)
    count = 0
    for number, (name, content) in enumerate(zip(classes, contents, strict=True)):
        for copy, image in enumerate(draw_group(number, content == "yes")):
            file = io.BytesIO()
            Image.fromarray(image).save(file, "PNG")
            path = folder / name / f"{number:02d}-{copy}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.getvalue())
            count += 1
    return count
