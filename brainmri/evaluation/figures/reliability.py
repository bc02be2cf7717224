"""Reliability diagrams."""

import numpy as np

from brainmri.evaluation.figures.layout import (
    ENSEMBLE_COLOR,
    encode_png,
    new_figure,
    plot_style,
)


def draw_reliability(bins: list[tuple[float, float, int]], error: float) -> bytes:
    """Draw a reliability diagram: the accuracy of predictions over their confidence.

    Parameters
    ----------
    bins : list of (mean confidence, accuracy, number of images)
    error : float
        Expected calibration error.
    """
    confidence, accuracy, images = map(np.array, zip(*bins, strict=True))
    with plot_style():
        figure, axes = new_figure(5, 4.8)
        axes.plot([0, 1], [0, 1], color="gray", linestyle=":", linewidth=1)
        axes.plot(confidence, accuracy, color=ENSEMBLE_COLOR)
        areas = 30 + 400 * images / images.sum()
        axes.scatter(confidence, accuracy, s=areas, color=ENSEMBLE_COLOR, zorder=3)
        for x, y, count in zip(confidence, accuracy, images, strict=True):
            axes.annotate(
                f"{count}", (x, y), (9, -12), textcoords="offset points", fontsize="small"
            )
        axes.set(
            title=f"Reliability: expected calibration error {error:.3f}",
            xlabel="confidence (numbers: images in the bin)",
            ylabel="accuracy",
            xlim=(min(0.45, confidence.min() - 0.05), 1.03),
            ylim=(-0.07, 1.06),
        )
        axes.grid(alpha=0.3)
        return encode_png(figure)
