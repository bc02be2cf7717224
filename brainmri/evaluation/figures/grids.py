"""Test images in a grid, with captions: the hardest ones, and those with heat maps."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from brainmri.evaluation.figures.layout import DPI, WRONG_COLOR, encode_png, fit_line, plot_style
from brainmri.evaluation.figures.overlays import color_scale, image_and_overlay

MAX_COLUMNS = 4
CAPTION_SIZE = 8  # points
IMAGE_WIDTH, PAIR_WIDTH = 2.6, 3.6  # inches
OUTLINE_COLOR = "#00e5ff"  # of a tumor


def draw_gallery(images: np.ndarray, captions: list[str], is_wrong: list[bool]) -> bytes:
    """Draw images in a grid, captions above; captions of misclassified images are red.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, height, width)
    captions : list of str, length n
    is_wrong : list of bool, length n
    """
    if not len(images):
        return _draw_none("evaluate.gallery")
    title = "Test images, hardest first (red: misclassified)"
    color_images = np.repeat(images[..., np.newaxis], 3, axis=-1)
    lines = _fit_captions(captions, IMAGE_WIDTH)
    with plot_style():
        figure, _ = _draw_grid(title, color_images, lines, is_wrong, IMAGE_WIDTH)
        return encode_png(figure)


def draw_heat_maps(
    images: np.ndarray,
    heat: np.ndarray,
    scale: float,
    label: str,
    outlines: list[np.ndarray | None],
    captions: list[str],
    is_wrong: list[bool],
) -> bytes:
    """Draw images and their heat maps in a grid, on one color scale.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, height, width)
    heat : ndarray of float, shape (n, height, width)
    scale : float
        The heat at the top of the color bar.
    label : str
        Of the color bar; see `overlays.evidence_label`.
    outlines : list of (ndarray of bool, shape (height, width)) or None, length n
        The tumor of each image, where it is known.
    captions : list of str, length n
    is_wrong : list of bool, length n
    """
    if not len(images):
        return _draw_none("explain.images")
    title = "Test images and the evidence in them, on one scale (caption in red: misclassified)"
    pairs = [
        image_and_overlay(image, heat_map, scale)
        for image, heat_map in zip(images, heat, strict=True)
    ]
    lines = _fit_captions(captions, PAIR_WIDTH)
    with plot_style():
        figure, grid = _draw_grid(title, np.stack(pairs), lines, is_wrong, PAIR_WIDTH)
        for axes, outline in zip(grid.flat, outlines, strict=False):
            if outline is not None and outline.any():
                _add_outline(axes, outline)
        figure.set_figwidth(figure.get_figwidth() + 0.9)
        bar = figure.colorbar(
            color_scale(scale), ax=grid, label=label, extend="max", fraction=0.015, pad=0.01
        )
        if any(outline is not None for outline in outlines):
            bar.ax.set_title("tumor", color=OUTLINE_COLOR, fontsize=9, backgroundcolor="black")
        return encode_png(figure)


def _draw_none(parameter: str) -> bytes:
    """Draw a figure without images, and the parameter that has it so."""
    with plot_style():
        figure = Figure((IMAGE_WIDTH * MAX_COLUMNS, 0.45), DPI)
        figure.suptitle(f"No test images are shown: {parameter} is 0")
        return encode_png(figure)


def _fit_captions(captions: list[str], width: float) -> list[str]:
    """Shorten each line of the captions to a width in inches."""
    return [
        "\n".join(fit_line(line, width, CAPTION_SIZE) for line in caption.split("\n"))
        for caption in captions
    ]


def _draw_grid(
    title: str, images: np.ndarray, captions: list[str], is_wrong: list[bool], width: float
) -> tuple[Figure, np.ndarray]:
    """Draw color images, each so many inches wide, captions above; return the grid of axes too."""
    columns = min(MAX_COLUMNS, len(images))
    rows = -(-len(images) // columns)
    height = width * images.shape[1] / images.shape[2] + 0.35
    figure = Figure((width * columns, height * rows + 0.45), DPI, layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, image, caption, wrong_prediction in zip(
        grid.flat, images, captions, is_wrong, strict=False
    ):
        axes.imshow(image)
        color = WRONG_COLOR if wrong_prediction else "black"
        axes.set_title(caption, fontsize=CAPTION_SIZE, color=color)
    return figure, grid


def _add_outline(axes: Axes, outline: np.ndarray) -> None:
    """Outline the tumor in the right half of a pair."""
    height, width = outline.shape
    columns = np.arange(width, 2 * width)
    axes.contour(columns, np.arange(height), outline, [0.5], colors=OUTLINE_COLOR, linewidths=1)
