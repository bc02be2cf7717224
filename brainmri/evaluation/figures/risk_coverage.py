"""Risk-coverage curves."""

import numpy as np

from brainmri.evaluation.figures.layout import (
    ENSEMBLE_COLOR,
    WRONG_COLOR,
    encode_png,
    new_figure,
    plot_style,
)
from brainmri.evaluation.results import SetMetrics


def draw_risk_coverage(
    fractions: np.ndarray, accuracies: np.ndarray, sets: SetMetrics | None
) -> bytes:
    """Draw the accuracy on the decided images over the fraction that is decided.

    Parameters
    ----------
    fractions, accuracies : see `decision_metrics.risk_coverage`
    sets : SetMetrics, optional
        Drawn as a point, with the interval of its accuracy, if a set has a single class.
    """
    with plot_style():
        figure, axes = new_figure(5, 4.8)
        axes.step(
            fractions, accuracies, where="post", color=ENSEMBLE_COLOR, label="most confident images"
        )
        lowest, bar = accuracies.min(), ""
        if sets and sets["decided_accuracy"] is not None:
            accuracy, interval = sets["decided_accuracy"], sets["interval"]["decided_accuracy"]
            low, high = interval or (accuracy, accuracy)
            axes.errorbar(
                sets["decided"],
                accuracy,
                [[max(0, accuracy - low)], [max(0, high - accuracy)]],
                color=WRONG_COLOR,
                marker="o",
                capsize=4,
                linestyle="none",
                label=f"prediction sets, error rate {sets['error']:g}",
            )
            lowest = min(lowest, low)
            bar = " (bar: 95 % interval)" if interval else ""
        axes.set(
            title="Accuracy on the images that are decided",
            xlabel="fraction of the test images that is decided",
            ylabel=f"accuracy on these{bar}",
            xlim=(0, 1.03),
            ylim=(max(-0.02, lowest - 0.05), 1.02),
        )
        axes.grid(alpha=0.3)
        axes.legend(loc="lower left", fontsize="small")
        return encode_png(figure)
