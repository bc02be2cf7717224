"""Bar charts of the voters' accuracies."""

import numpy as np
from matplotlib.axes import Axes

from brainmri.evaluation.figures.layout import (
    ENSEMBLE_COLOR,
    MEMBER_COLOR,
    MIN_LABEL_SPACING,
    encode_png,
    font_size,
    label_axis,
    new_figure,
    plot_style,
    spacing,
)


def draw_accuracies(accuracies: dict[str, float], interval: list[float] | None) -> bytes:
    """Draw the test accuracy of the ensemble and of the other voters.

    Parameters
    ----------
    accuracies : dict of str to float
        By voter, the ensemble first. Names with "member" in them have paler bars.
    interval : [low, high], optional
        95 % interval of the ensemble's accuracy.
    """
    row_height = spacing(len(accuracies), 0.32, 20)
    title = "Accuracy on the test images"
    if interval:
        title += " (95 % interval)"
    with plot_style():
        figure, axes = new_figure(6.5, 1.4 + row_height * len(accuracies))
        add_accuracy_bars(axes, accuracies, interval, row_height)
        axes.set(title=title, xlim=(0, 1))
        axes.grid(axis="x", alpha=0.3)
        return encode_png(figure)


def add_accuracy_bars(
    axes: Axes, accuracies: dict[str, float], interval: list[float] | None, row_height: float
) -> None:
    """Add a bar for each voter, from the top, and the interval of the first one.

    Parameters
    ----------
    accuracies, interval : see `draw_accuracies`
    row_height : float
        Inches for each bar.
    """
    names = list(accuracies)
    values = np.array(list(accuracies.values()))
    is_member = ["member" in name for name in names]
    axes.barh(names, values, color=[MEMBER_COLOR if pale else ENSEMBLE_COLOR for pale in is_member])
    if interval:
        low, high = interval
        ends = [[max(0, values[0] - low)], [max(0, high - values[0])]]
        axes.errorbar(values[0], 0, xerr=ends, color="black", capsize=4)
    axes.set_ylim(len(names) - 0.4, -0.6)
    label_axis(axes.yaxis, names, row_height)
    if row_height < MIN_LABEL_SPACING:
        return
    for place, value in enumerate(values):
        text = axes.text(
            0.01,
            place,
            f"{value:.3f}",
            va="center",
            color="black" if is_member[place] else "white",
            fontsize=font_size(row_height),
        )
        text.set_in_layout(False)
