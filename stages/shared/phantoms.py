"""Synthetic brain slices: drawn from a seed, honest stand-ins where real images are not at hand.

They resemble axial MRI slices only as far as a classifier's test needs: a head of varied shape, size and place; scalp,
skull, grey and white matter, ventricles, sulci; bias field, blur and noise. Tumours vary in place, size and contrast;
some have a rim or oedema. Healthy slices have bright vessels and small white-matter spots, so that "a spot" is no proof.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.special import expit

# What the kinds look like; `yes` is one of the three tumours, drawn at random.
KINDS = ("no", "yes", "glioma", "meningioma", "pituitary")
TUMOURS = ("glioma", "meningioma", "pituitary")


@dataclass(frozen=True)
class Slice:
    """One synthetic slice.

    Attributes
    ----------
    image : ndarray of uint8, shape (height, width)
    tumour : ndarray of bool, shape (height, width)
        Where the tumour itself is (oedema not counted); all False in a healthy slice.
    """

    image: np.ndarray
    tumour: np.ndarray


def draw_numbered(kind: str, index: int, seed: int) -> Slice:
    """A slice of the built-in data; it depends on its kind, its number and the seed alone."""
    return draw(kind, np.random.default_rng([seed, KINDS.index(kind), index]))


def to_png(image: np.ndarray) -> bytes:
    """A slice as the bytes of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def draw(kind: str, rng: np.random.Generator) -> Slice:
    """Draw one slice.

    Parameters
    ----------
    kind : {"no", "yes", "glioma", "meningioma", "pituitary"}
        No tumour; any tumour; an irregular one inside the brain; a smooth one at its border; a small one at its middle.
    rng : numpy.random.Generator
        Two generators in the same state draw the same bytes.

    Returns
    -------
    Slice
        Height and width are between 168 and 260 pixels.
    """
    kind = str(rng.choice(TUMOURS, p=(0.6, 0.25, 0.15))) if kind == "yes" else kind
    height, width = (int(n) for n in rng.integers(168, 261, 2))
    x, y, pixel = _head_coordinates(height, width, rng)
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    head = radius / _outline(angle, rng, 0.02)
    brain = head / rng.uniform(0.80, 0.87)
    folds = gaussian_filter(rng.standard_normal((height, width)), 0.035 / pixel) * 0.035 / pixel

    tissue = _contrast(rng)
    image = np.where(head < 1, tissue["scalp"], 0.0)
    image = np.where(head < rng.uniform(0.93, 0.96), tissue["skull"], image)
    image = np.where(brain < 1, tissue["fluid"], image)
    image = np.where(brain < 0.97 + 0.05 * np.minimum(folds, 0.4), tissue["grey"], image)
    image = np.where(brain < 0.86 + 0.16 * folds, tissue["white"], image)
    deep = _ellipse(np.abs(x), y, 0.26, 0.02, 0.13, 0.2, 0.3)
    image = np.where(deep + 0.25 * folds < 1, tissue["grey"], image)
    image = np.where(
        (np.abs(x + 0.02 * folds) < rng.uniform(0.008, 0.02)) & (np.abs(y) > 0.4) & (brain < 1), tissue["fluid"], image
    )
    for side in (-1, 1):
        front = _ellipse(side * x, y, rng.uniform(0.08, 0.12), -0.14, rng.uniform(0.05, 0.09), rng.uniform(0.16, 0.24), -0.35)
        back = _ellipse(side * x, y, rng.uniform(0.11, 0.17), 0.2, rng.uniform(0.05, 0.08), rng.uniform(0.15, 0.24), 0.45)
        image = np.where(np.minimum(front, back) + 0.1 * folds < 1, tissue["fluid"], image)

    for _ in range(rng.integers(0, 5)):  # vessels and small white-matter spots, in every kind
        at, way = rng.uniform(0.1, 0.75), rng.uniform(-np.pi, np.pi)
        spot = _ellipse(x, y, at * np.cos(way), at * np.sin(way), *rng.uniform(0.012, 0.03, 2), rng.uniform(0, np.pi))
        image += rng.uniform(-0.1, 0.2) * np.exp(-(spot**2)) * (brain < 1)

    tumour = np.zeros(image.shape, bool)
    if kind != "no":
        image, tumour = _add_tumour(image, kind, x, y, brain, folds, tissue, rng)

    texture = gaussian_filter(rng.standard_normal(image.shape), 1.2) * 0.05
    image = gaussian_filter(image * (1 + texture), rng.uniform(0.5, 1.3))
    bias = rng.uniform(-0.15, 0.15, 5)
    image = image * np.exp(bias[0] * x + bias[1] * y + bias[2] * x * y + bias[3] * x**2 + bias[4] * y**2)
    noise = rng.uniform(0.01, 0.04)
    image = np.hypot(image + noise * rng.standard_normal(image.shape), noise * rng.standard_normal(image.shape))  # Rician
    image = 255 * rng.uniform(0.75, 1.0) * np.clip(image, 0, 1) ** rng.uniform(0.8, 1.25)
    return Slice(np.round(image).astype(np.uint8), tumour)


def _head_coordinates(height, width, rng):
    """Coordinates in the head's own frame, in units of its half-axes, and the size of a pixel in them."""
    half_width = 0.5 * width * rng.uniform(0.8, 0.94)
    half_height = min(0.5 * height * 0.94, half_width * rng.uniform(1.1, 1.35))
    half_width = min(half_width, half_height / 1.05)
    centre_x = 0.5 * width + rng.uniform(-0.5, 0.5) * (width - 2 * half_width) * 0.8
    centre_y = 0.5 * height + rng.uniform(-0.5, 0.5) * (height - 2 * half_height) * 0.8
    turn = rng.normal(0, np.deg2rad(5))
    y, x = np.mgrid[:height, :width].astype(np.float64)
    x, y = x - centre_x, y - centre_y
    x, y = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    return x / half_width, y / half_height, 1 / half_height


def _outline(angle, rng, roughness):
    """Distance of a closed, slightly irregular curve from its centre; 1 on average."""
    curve = np.ones_like(angle)
    for k in range(2, 7):
        curve += roughness * rng.normal() * 2 / k * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    return curve


def _ellipse(x, y, centre_x, centre_y, half_x, half_y, turn):
    """Distance from an ellipse's centre in units of its half-axes: below 1 inside."""
    x, y = x - centre_x, y - centre_y
    x, y = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    return np.hypot(x / half_x, y / half_y)


def _contrast(rng):
    """Grey levels of the tissues, T1-like (dark fluid) or T2-like (bright fluid)."""
    if rng.random() < 0.85:
        levels = {"scalp": 0.75, "skull": 0.08, "fluid": 0.12, "grey": 0.42, "white": 0.60}
    else:
        levels = {"scalp": 0.55, "skull": 0.06, "fluid": 0.85, "grey": 0.52, "white": 0.36}
    return {tissue: float(np.clip(level + rng.normal(0, 0.04), 0.02, 1)) for tissue, level in levels.items()}


def _add_tumour(image, kind, x, y, brain, folds, tissue, rng):
    """The image with a tumour of the kind, and the tumour's mask."""
    way = rng.uniform(-np.pi, np.pi)
    if kind == "meningioma":
        at, size, roughness = rng.uniform(0.62, 0.76), rng.uniform(0.13, 0.26), 0.04
    elif kind == "pituitary":
        way, at, size, roughness = np.pi / 2 + rng.normal(0, 0.3), rng.uniform(0.0, 0.16), rng.uniform(0.11, 0.18), 0.04
    else:
        at, size, roughness = rng.uniform(0.2, 0.6), rng.uniform(0.16, 0.34), 0.13
    centre_x, centre_y = at * np.cos(way), at * np.sin(way)
    half_axes = size * rng.uniform(0.75, 1.25, 2)
    distance = _ellipse(x, y, centre_x, centre_y, *half_axes, rng.uniform(0, np.pi))
    distance = distance / _outline(np.arctan2(y - centre_y, x - centre_x), rng, roughness) + roughness * 0.7 * folds
    inside = (distance < 1) & (brain < 0.99)

    if rng.random() < 0.85:
        level = max(tissue["grey"], tissue["white"]) + rng.uniform(0.12, 0.4)
    else:
        level = min(tissue["grey"], tissue["white"]) - rng.uniform(0.15, 0.35)
    level = np.clip(level, 0.03, 1.1)
    if kind == "glioma" and rng.random() < 0.55:  # oedema: a soft halo in the tissue around
        halo = np.exp(-0.5 * (np.maximum(distance - 1, 0) / rng.uniform(0.25, 0.6)) ** 2) * (brain < 0.97)
        image = image + halo * rng.uniform(0.35, 0.8) * (0.75 * tissue["grey"] + 0.25 * tissue["fluid"] - image)
    body = expit((1 - distance) / rng.uniform(0.03, 0.12))
    image = image + body * (brain < 0.99) * (level * (1 + 0.12 * folds) - image) * rng.uniform(0.7, 1.0)
    if kind == "glioma" and rng.random() < 0.5:  # an enhancing rim around a darker core
        rim = np.exp(-0.5 * ((distance - 0.85) / rng.uniform(0.1, 0.18)) ** 2)
        core = np.clip(1 - distance / 0.8, 0, 1)
        image = image + (rim * rng.uniform(0.15, 0.35) - core * rng.uniform(0.1, 0.3)) * (brain < 0.99)
    return np.clip(image, 0, 1.2), inside
