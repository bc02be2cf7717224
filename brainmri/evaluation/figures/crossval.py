"""The figure of a cross-validation."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from brainmri.evaluation.figures.accuracies import add_accuracy_bars
from brainmri.evaluation.figures.confusion import add_confusion_matrix, confusion_matrix_size
from brainmri.evaluation.figures.layout import (
    DPI,
    encode_png,
    new_figure,
    plot_style,
    short_names,
)

ROW_HEIGHT = 0.45  # inches of a bar
MAX_BESIDE = 3  # classes of a matrix that fits beside the bars


def draw_crossval(
    accuracies: dict[str, float],
    interval: list[float] | None,
    fold_accuracies: list[float],
    counts: np.ndarray,
    classes: list[str],
) -> bytes:
    """Draw each voter's pooled accuracy, the ensemble's on each fold, and its confusion matrix.

    Parameters
    ----------
    accuracies : dict of str to float
        By voter, the ensemble first.
    interval : [low, high], optional
        95 % interval of the ensemble's accuracy.
    fold_accuracies : list of float
        The ensemble's accuracy on each fold.
    counts, classes : see `confusion.draw_confusion_matrix`
    """
    names = short_names(classes)
    height = 1.6 + ROW_HEIGHT * max(len(accuracies), 4)
    with plot_style():
        figure, bars, matrix = _make_axes(height, names)
        add_accuracy_bars(bars, accuracies, interval, ROW_HEIGHT)
        places = np.zeros(len(fold_accuracies)) - 0.3
        bars.plot(fold_accuracies, places, "|", color="black", markersize=7, label="folds")
        bars.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize="small")
        bars.set(title="Accuracy on all folds' test images", xlim=(0, 1))
        add_confusion_matrix(matrix, counts, names)
        return encode_png(figure)


def _make_axes(height: float, names: list[str]) -> tuple[Figure, Axes, Axes]:
    """Make axes of bars and matrix: in one row, or below each other if the matrix is wide."""
    if len(names) <= MAX_BESIDE:
        figure, (bars, matrix) = new_figure(11, height, columns=2)
        return figure, bars, matrix
    matrix_width, matrix_height = confusion_matrix_size(names)
    size = max(matrix_width, 6.5), height + matrix_height
    figure = Figure(size, DPI, layout="constrained")
    bars, matrix = figure.subplots(2, 1, height_ratios=(height, matrix_height))
    return figure, bars, matrix
