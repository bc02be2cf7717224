"""Draw synthetic brain slices from a seed: stand-ins where no real images are at hand.

They resemble axial MRI slices only as far as the test of a classifier needs: a head of varied
shape, size and place; scalp, skull, gray and white matter, ventricles, sulci; bias field, blur and
noise. Tumors vary in place, size and contrast; some have a rim or edema. Healthy slices have bright
vessels and small white-matter spots, so that a spot is no proof of a tumor.
"""

import io
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.special import expit

KINDS = ("no", "yes", "glioma", "meningioma", "pituitary")  # `yes` is a random one of `TUMORS`
TUMORS = ("glioma", "meningioma", "pituitary")
TUMOR_PROBABILITIES = (0.6, 0.25, 0.15)


@dataclass(frozen=True)
class Slice:
    """A synthetic slice.

    Attributes
    ----------
    image : ndarray of uint8, shape (height, width)
    tumor : ndarray of bool, shape (height, width)
        Mask of the tumor, without edema; all False in a healthy slice.
    """

    image: np.ndarray
    tumor: np.ndarray


def draw_phantom(kind: str, index: int, seed: int) -> Slice:
    """Draw a slice of the built-in data; it depends on its kind, its number and the seed alone."""
    return draw(kind, np.random.default_rng([seed, KINDS.index(kind), index]))


def to_png(image: np.ndarray) -> bytes:
    """Encode an image, uint8, shape (height, width), as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def draw(kind: str, rng: np.random.Generator) -> Slice:
    """Draw a slice.

    Parameters
    ----------
    kind : {"no", "yes", "glioma", "meningioma", "pituitary"}
        No tumor; any tumor; an irregular one inside the brain; a smooth one at its border; a small
        one at its middle.
    rng : numpy.random.Generator
        Generators in the same state draw the same bytes.

    Returns
    -------
    Slice
        Height and width are between 168 and 260 pixels.
    """
    if kind == "yes":
        kind = str(rng.choice(TUMORS, p=TUMOR_PROBABILITIES))
    height, width = (int(side) for side in rng.integers(168, 261, 2))
    x, y, pixel = _head_coordinates(height, width, rng)
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    head = radius / _outline(angle, rng, 0.02)
    brain = head / rng.uniform(0.80, 0.87)
    folds = gaussian_filter(rng.standard_normal((height, width)), 0.035 / pixel) * 0.035 / pixel
    anatomy = _Anatomy(x, y, head, brain, folds, _tissue_levels(rng))

    image = _draw_tissues(anatomy, rng)
    image = _add_spots(image, anatomy, rng)
    tumor = np.zeros(image.shape, bool)
    if kind != "no":
        image, tumor = _add_tumor(image, kind, anatomy, rng)
    image = _add_artifacts(image, anatomy, rng)
    return Slice(np.round(image).astype(np.uint8), tumor)


class _Anatomy(NamedTuple):
    """The frame in which a slice is drawn; arrays have the shape of the image.

    Attributes
    ----------
    x, y : ndarray of float
        See `_head_coordinates`.
    head, brain : ndarray of float
        Distance from the center in units of the outline: below 1 inside.
    folds : ndarray of float
        Smooth noise, by which borders are made irregular.
    levels : dict of str to float
        See `_tissue_levels`.
    """

    x: np.ndarray
    y: np.ndarray
    head: np.ndarray
    brain: np.ndarray
    folds: np.ndarray
    levels: dict[str, float]


def _head_coordinates(
    height: int, width: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, float]:
    """Compute coordinates in the frame of the head.

    Returns
    -------
    x, y : ndarray of float, shape (height, width)
        In units of the head's half-axes.
    pixel : float
        Size of a pixel in these units.
    """
    half_width = 0.5 * width * rng.uniform(0.8, 0.94)
    half_height = min(0.5 * height * 0.94, half_width * rng.uniform(1.1, 1.35))
    half_width = min(half_width, half_height / 1.05)
    center_x = 0.5 * width + rng.uniform(-0.5, 0.5) * (width - 2 * half_width) * 0.8
    center_y = 0.5 * height + rng.uniform(-0.5, 0.5) * (height - 2 * half_height) * 0.8
    rotation = rng.normal(0, np.deg2rad(5))
    y, x = np.mgrid[:height, :width].astype(np.float64)
    x, y = _rotate(x - center_x, y - center_y, rotation)
    return x / half_width, y / half_height, 1 / half_height


def _outline(angle: np.ndarray, rng: np.random.Generator, roughness: float) -> np.ndarray:
    """Compute the distance of a closed, slightly irregular curve from its center; 1 in the mean."""
    curve = np.ones_like(angle)
    for order in range(2, 7):
        amplitude = roughness * rng.normal() * 2 / order
        curve += amplitude * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    return curve


def _ellipse(
    x: np.ndarray,
    y: np.ndarray,
    center_x: float,
    center_y: float,
    half_x: float,
    half_y: float,
    rotation: float,
) -> np.ndarray:
    """Compute the distance from the center of an ellipse in its half-axes: below 1 inside."""
    x, y = _rotate(x - center_x, y - center_y, rotation)
    return np.hypot(x / half_x, y / half_y)


def _rotate(x: np.ndarray, y: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    cosine, sine = np.cos(angle), np.sin(angle)
    return cosine * x + sine * y, cosine * y - sine * x


def _tissue_levels(rng: np.random.Generator) -> dict[str, float]:
    """Draw gray levels of the tissues, T1-like (dark fluid) or T2-like (bright fluid)."""
    if rng.random() < 0.85:
        levels = {"scalp": 0.75, "skull": 0.08, "fluid": 0.12, "gray": 0.42, "white": 0.60}
    else:
        levels = {"scalp": 0.55, "skull": 0.06, "fluid": 0.85, "gray": 0.52, "white": 0.36}
    return {
        tissue: float(np.clip(level + rng.normal(0, 0.04), 0.02, 1))
        for tissue, level in levels.items()
    }


def _draw_tissues(anatomy: _Anatomy, rng: np.random.Generator) -> np.ndarray:
    """Draw scalp, skull, fluid, gray and white matter, from the outside to the inside."""
    x, y, head, brain, folds, levels = anatomy
    image = np.where(head < 1, levels["scalp"], 0.0)
    image = np.where(head < rng.uniform(0.93, 0.96), levels["skull"], image)
    image = np.where(brain < 1, levels["fluid"], image)
    image = np.where(brain < 0.97 + 0.05 * np.minimum(folds, 0.4), levels["gray"], image)
    image = np.where(brain < 0.86 + 0.16 * folds, levels["white"], image)
    deep_gray = _ellipse(np.abs(x), y, 0.26, 0.02, 0.13, 0.2, 0.3)
    image = np.where(deep_gray + 0.25 * folds < 1, levels["gray"], image)
    is_middle = np.abs(x + 0.02 * folds) < rng.uniform(0.008, 0.02)
    is_fissure = is_middle & (np.abs(y) > 0.4) & (brain < 1)
    image = np.where(is_fissure, levels["fluid"], image)
    for side in (-1, 1):
        ventricle = _ventricle(side * x, y, rng)
        image = np.where(ventricle + 0.1 * folds < 1, levels["fluid"], image)
    return image


def _ventricle(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Compute the distance from a ventricle of two horns: below 1 inside."""
    front_x = rng.uniform(0.08, 0.12)
    front_axes = rng.uniform(0.05, 0.09), rng.uniform(0.16, 0.24)
    front = _ellipse(x, y, front_x, -0.14, *front_axes, -0.35)
    back_x = rng.uniform(0.11, 0.17)
    back_axes = rng.uniform(0.05, 0.08), rng.uniform(0.15, 0.24)
    back = _ellipse(x, y, back_x, 0.2, *back_axes, 0.45)
    return np.minimum(front, back)


def _add_spots(image: np.ndarray, anatomy: _Anatomy, rng: np.random.Generator) -> np.ndarray:
    """Add vessels and small white-matter spots, which slices of every kind have."""
    for _ in range(rng.integers(0, 5)):
        distance = rng.uniform(0.1, 0.75)
        direction = rng.uniform(-np.pi, np.pi)
        center = distance * np.cos(direction), distance * np.sin(direction)
        half_axes = rng.uniform(0.012, 0.03, 2)
        rotation = rng.uniform(0, np.pi)
        spot = _ellipse(anatomy.x, anatomy.y, *center, *half_axes, rotation)
        image = image + rng.uniform(-0.1, 0.2) * np.exp(-(spot**2)) * (anatomy.brain < 1)
    return image


def _add_tumor(
    image: np.ndarray, kind: str, anatomy: _Anatomy, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Add a tumor of a kind; return the image and the mask of the tumor."""
    levels, brain = anatomy.levels, anatomy.brain
    distance = _tumor_distance(kind, anatomy, rng)
    mask = (distance < 1) & (brain < 0.99)

    if rng.random() < 0.85:
        level = max(levels["gray"], levels["white"]) + rng.uniform(0.12, 0.4)
    else:
        level = min(levels["gray"], levels["white"]) - rng.uniform(0.15, 0.35)
    level = np.clip(level, 0.03, 1.1)
    if kind == "glioma" and rng.random() < 0.55:
        image = _add_edema(image, distance, anatomy, rng)
    body = expit((1 - distance) / rng.uniform(0.03, 0.12))
    difference = level * (1 + 0.12 * anatomy.folds) - image
    image = image + body * (brain < 0.99) * difference * rng.uniform(0.7, 1.0)
    if kind == "glioma" and rng.random() < 0.5:
        image = _add_enhancing_rim(image, distance, anatomy, rng)
    return np.clip(image, 0, 1.2), mask


def _tumor_distance(kind: str, anatomy: _Anatomy, rng: np.random.Generator) -> np.ndarray:
    """Compute the distance from the center of a tumor in units of its outline: below 1 inside."""
    direction = rng.uniform(-np.pi, np.pi)
    if kind == "meningioma":
        roughness = 0.04
        radius = rng.uniform(0.62, 0.76)
        size = rng.uniform(0.13, 0.26)
    elif kind == "pituitary":
        roughness = 0.04
        direction = np.pi / 2 + rng.normal(0, 0.3)
        radius = rng.uniform(0.0, 0.16)
        size = rng.uniform(0.11, 0.18)
    else:
        roughness = 0.13
        radius = rng.uniform(0.2, 0.6)
        size = rng.uniform(0.16, 0.34)
    center_x, center_y = radius * np.cos(direction), radius * np.sin(direction)
    half_axes = size * rng.uniform(0.75, 1.25, 2)
    rotation = rng.uniform(0, np.pi)
    ellipse = _ellipse(anatomy.x, anatomy.y, center_x, center_y, *half_axes, rotation)
    angle = np.arctan2(anatomy.y - center_y, anatomy.x - center_x)
    return ellipse / _outline(angle, rng, roughness) + roughness * 0.7 * anatomy.folds


def _add_edema(
    image: np.ndarray, distance: np.ndarray, anatomy: _Anatomy, rng: np.random.Generator
) -> np.ndarray:
    """Add edema, a soft halo in the tissue around a tumor."""
    width = rng.uniform(0.25, 0.6)
    halo = np.exp(-0.5 * (np.maximum(distance - 1, 0) / width) ** 2) * (anatomy.brain < 0.97)
    level = 0.75 * anatomy.levels["gray"] + 0.25 * anatomy.levels["fluid"]
    return image + halo * rng.uniform(0.35, 0.8) * (level - image)


def _add_enhancing_rim(
    image: np.ndarray, distance: np.ndarray, anatomy: _Anatomy, rng: np.random.Generator
) -> np.ndarray:
    """Add an enhancing rim around a darker core of a tumor."""
    rim = np.exp(-0.5 * ((distance - 0.85) / rng.uniform(0.1, 0.18)) ** 2)
    core = np.clip(1 - distance / 0.8, 0, 1)
    change = rim * rng.uniform(0.15, 0.35) - core * rng.uniform(0.1, 0.3)
    return image + change * (anatomy.brain < 0.99)


def _add_artifacts(image: np.ndarray, anatomy: _Anatomy, rng: np.random.Generator) -> np.ndarray:
    """Add texture, blur, a bias field and Rician noise; scale the image to 0 to 255."""
    x, y = anatomy.x, anatomy.y
    texture = gaussian_filter(rng.standard_normal(image.shape), 1.2) * 0.05
    image = gaussian_filter(image * (1 + texture), rng.uniform(0.5, 1.3))
    bias = rng.uniform(-0.15, 0.15, 5)
    field = bias[0] * x + bias[1] * y + bias[2] * x * y + bias[3] * x**2 + bias[4] * y**2
    image = image * np.exp(field)
    noise = rng.uniform(0.01, 0.04)
    real = image + noise * rng.standard_normal(image.shape)
    imaginary = noise * rng.standard_normal(image.shape)
    image = np.hypot(real, imaginary)
    brightness = 255 * rng.uniform(0.75, 1.0)
    return brightness * np.clip(image, 0, 1) ** rng.uniform(0.8, 1.25)
