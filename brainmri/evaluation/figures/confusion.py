"""Confusion matrices."""

import numpy as np
from matplotlib.axes import Axes

from brainmri.evaluation.figures.layout import (
    encode_png,
    font_size,
    label_axis,
    letter_width,
    new_figure,
    plot_style,
    short_names,
    spacing,
)
from brainmri.evaluation.names import columns

MIN_CELL = 0.5  # inches of a cell with numbers in it


def draw_confusion_matrix(counts: np.ndarray, classes: list[str]) -> bytes:
    """Draw a confusion matrix: images, and their fraction of the true class.

    Parameters
    ----------
    counts : ndarray of int, shape (classes, classes)
        Rows: true class; columns: predicted class.
    classes : list of str
    """
    names = short_names(classes)
    with plot_style():
        figure, axes = new_figure(*confusion_matrix_size(names))
        add_confusion_matrix(axes, counts, names)
        return encode_png(figure)


def confusion_matrix_size(names: list[str]) -> tuple[float, float]:
    """Compute width and height, in inches, of a confusion matrix with its labels."""
    cell = cell_size(names)
    side = cell * len(names)
    margin = max(0.0, max(map(columns, names)) - 8) * letter_width(font_size(cell))
    below = margin if _needs_rotation(names, cell) else 0
    color_bar = 0 if cell >= MIN_CELL else 0.8
    return 2.4 + side + margin + color_bar, 2.0 + side * 8 / 9 + below


def cell_size(names: list[str]) -> float:
    """Compute the side of a cell, in inches."""
    return spacing(len(names), 0.9, 13)


def add_confusion_matrix(axes: Axes, counts: np.ndarray, names: list[str]) -> None:
    """Add a confusion matrix to axes; where cells are too small for numbers, with a color bar.

    Parameters
    ----------
    counts : see `draw_confusion_matrix`
    names : list of str
        The classes' `short_names`.
    """
    cell = cell_size(names)
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    if cell >= MIN_CELL:
        _add_numbers(axes, counts, fractions, min(10, 14 * cell))
    else:
        axes.figure.colorbar(image, ax=axes, label="fraction of the true class", shrink=0.5)
    label_axis(axes.xaxis, names, cell)
    label_axis(axes.yaxis, names, cell)
    if _needs_rotation(names, cell):
        axes.tick_params("x", labelrotation=90)
    axes.set(
        title=f"Confusion matrix, {counts.sum()} test images", xlabel="predicted", ylabel="true"
    )


def _add_numbers(axes: Axes, counts: np.ndarray, fractions: np.ndarray, points: float) -> None:
    for (row, column), fraction in np.ndenumerate(fractions):
        text = axes.text(
            column,
            row,
            f"{counts[row, column]}\n{fraction:.0%}",
            ha="center",
            va="center",
            color="white" if fraction > 0.5 else "black",
            fontsize=points,
        )
        text.set_in_layout(False)  # it is within the axes; to measure each takes long


def _needs_rotation(names: list[str], cell: float) -> bool:
    """Return whether labels are too long to be written horizontally below their cells."""
    return max(map(columns, names)) * letter_width(font_size(cell)) > 0.95 * cell
