"""Learning curves, ROC curves and precision-recall curves."""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from brainmri.evaluation.figures.layout import (
    ENSEMBLE_COLOR,
    MEMBER_COLOR,
    add_legend_below,
    encode_png,
    new_figure,
    plot_style,
    short_names,
)
from brainmri.evaluation.metrics import format_metric, mean_or_none

TAB20 = matplotlib.colormaps["tab20"].colors
COLORS = TAB20[::2] + TAB20[1::2]  # the ten strong ones, then the ten pale ones
MAX_NAMED = len(COLORS)  # curves with a color and a name each; of more, the mean is drawn

History = dict[str, np.ndarray] | np.ndarray
Areas = tuple[float | None, float | None]  # ROC AUC, average precision
NO_CURVES = "no curves: all test images are of one class"


def draw_learning_curves(histories: dict[str, History]) -> bytes:
    """Draw each member's log loss and accuracy by epoch: out-of-bag solid, in-bag dotted.

    Of more than `MAX_NAMED` members, all curves are thin and of one color, under their mean.

    Parameters
    ----------
    histories : dict of str to (dict of ndarray, or structured ndarray)
        By member. Its columns, of shape (epochs,): `epoch`; `in_bag_log_loss` and
        `out_of_bag_log_loss`, in nats; `in_bag_accuracy` and `out_of_bag_accuracy`.
    """
    with plot_style():
        figure, (left, right) = new_figure(10, 4, columns=2)
        _add_learning_curves(left, histories, "log_loss")
        _add_learning_curves(right, histories, "accuracy")
        left.set(
            title="Log loss: out-of-bag solid, in-bag dotted",
            ylabel="log loss, nats",
            ylim=(0, max(1.0, 1.1 * _highest_late_loss(histories))),
        )
        right.set(
            title="Accuracy: out-of-bag solid, in-bag dotted", ylabel="accuracy", ylim=(0, 1.02)
        )
        solid = [line for line in left.lines if line.get_linestyle() == "-"]
        if len(histories) <= MAX_NAMED:
            add_legend_below(figure, solid, list(histories))
        else:
            labels = [f"mean of {len(histories)} members", "each member"]
            add_legend_below(figure, [solid[-1], solid[0]], labels)
        return encode_png(figure)


def draw_class_curves(
    roc: dict[str, np.ndarray],
    precision_recall: dict[str, np.ndarray],
    areas: dict[str, Areas],
) -> bytes:
    """Draw ROC and precision-recall curves of each class.

    Of more than `MAX_NAMED` classes, all curves are thin and of one color, under their mean. Of
    none, a note says why.

    Parameters
    ----------
    roc : dict of str to ndarray of float, shape (points, 2)
        False and true positive rates, by class.
    precision_recall : dict of str to ndarray of float, shape (points, 2)
        Recalls and precisions, by class.
    areas : dict of str to (ROC AUC, average precision)
        By class; None where they mean nothing.
    """
    names = short_names(list(roc))
    class_areas = [areas[name] for name in roc]
    is_single = len(names) == 1
    with plot_style():
        figure, (left, right) = new_figure(10, 4.6 if is_single else 5.1, columns=2)
        _set_up_class_axes(left, right, "equal" if is_single else "auto")
        lines = []
        for name, style in zip(roc, _class_styles(len(names)), strict=True):
            lines += left.plot(*roc[name].T, **style)
            right.step(*precision_recall[name].T, where="pre", **style)
        if not roc:
            left.text(0.5, 0.9, NO_CURVES, ha="center", transform=left.transAxes)
        elif is_single:
            _add_area_legends(left, right, names[0], class_areas[0])
        elif len(names) <= MAX_NAMED:
            _add_class_legend(figure, lines, names, class_areas)
        else:
            means = _add_mean_curves(
                left, right, list(roc.values()), list(precision_recall.values())
            )
            _add_mean_legend(figure, [*means, lines[0]], class_areas)
        return encode_png(figure)


def _add_learning_curves(axes: Axes, histories: dict[str, History], metric: str) -> None:
    """Add the curves of one metric, and of many members their mean."""
    out_of_bag, in_bag = f"out_of_bag_{metric}", f"in_bag_{metric}"
    has_colors = len(histories) <= MAX_NAMED
    width = 1.5 if has_colors else 0.5
    for index, history in enumerate(histories.values()):
        style = {"color": COLORS[index] if has_colors else MEMBER_COLOR, "linewidth": width}
        axes.plot(history["epoch"], history[out_of_bag], **style)
        axes.plot(history["epoch"], history[in_bag], **style, alpha=0.7, linestyle=":")
    if not has_colors:
        axes.plot(*_mean_by_epoch(histories, out_of_bag), color=ENSEMBLE_COLOR, linewidth=2)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


def _mean_by_epoch(histories: dict[str, History], column: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the epochs, and the mean over the members that trained that long."""
    epochs = np.concatenate([history["epoch"] for history in histories.values()])
    values = np.concatenate([history[column] for history in histories.values()])
    distinct = np.unique(epochs)
    return distinct, np.array([values[epochs == epoch].mean() for epoch in distinct])


def _highest_late_loss(histories: dict[str, History]) -> float:
    """Return the highest out-of-bag log loss after the first quarter of each training."""
    highest = []
    for history in histories.values():
        start = len(history["epoch"]) // 4
        highest.append(np.max(history["out_of_bag_log_loss"][start:]))
    return max(highest)


def _set_up_class_axes(left: Axes, right: Axes, aspect: str) -> None:
    left.plot([0, 1], [0, 1], color="gray", linestyle=":", linewidth=1)
    left.set(title="ROC", xlabel="false positive rate", ylabel="true positive rate")
    right.set(title="Precision and recall", xlabel="recall", ylabel="precision")
    for axes in (left, right):
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect=aspect)
        axes.grid(alpha=0.3)


def _class_styles(count: int) -> list[dict]:
    """Return the style of each class's curves."""
    if count == 1:
        return [{"color": ENSEMBLE_COLOR}]
    if count > MAX_NAMED:
        return [{"color": MEMBER_COLOR, "linewidth": 0.5}] * count
    return [
        {"color": color, "linestyle": "-" if index < MAX_NAMED // 2 else "--"}
        for index, color in enumerate(COLORS[:count])
    ]


def _add_area_legends(left: Axes, right: Axes, name: str, areas: Areas) -> None:
    """Add a legend to each plot of a single class."""
    roc_auc, precision = areas
    roc_label = name if roc_auc is None else f"{name}: area {format_metric(roc_auc)}"
    precision_label = name
    if precision is not None:
        precision_label += f": average precision {format_metric(precision)}"
    left.legend(left.lines[1:], [roc_label], loc="lower right", fontsize="small")
    right.legend(right.lines, [precision_label], loc="lower left", fontsize="small")


def _add_class_legend(
    figure: Figure, lines: list[Line2D], names: list[str], areas: list[Areas]
) -> None:
    labels = [
        f"{name}: {format_metric(roc_auc)}, {format_metric(precision)}"
        for name, (roc_auc, precision) in zip(names, areas, strict=True)
    ]
    title = "class: area under the ROC curve, average precision"
    add_legend_below(figure, lines, labels, title)


def _add_mean_curves(
    left: Axes, right: Axes, roc: list[np.ndarray], precision_recall: list[np.ndarray]
) -> list[Line2D]:
    """Add the classes' mean true positive rate and precision, on a grid; return the ROC curve."""
    grid = np.linspace(0, 1, 201)
    true_rates = np.mean([np.interp(grid, *points.T) for points in roc], axis=0)
    precisions = []
    for points in precision_recall:
        steps = np.minimum(np.searchsorted(points[:, 0], grid), len(points) - 1)
        precisions.append(points[steps, 1])
    style = {"color": ENSEMBLE_COLOR, "linewidth": 2}
    right.plot(grid, np.mean(precisions, axis=0), **style)
    return left.plot(np.append(0, grid), np.append(0, true_rates), **style)


def _add_mean_legend(figure: Figure, lines: list[Line2D], areas: list[Areas]) -> None:
    roc_aucs, precisions = zip(*areas, strict=True)
    roc_auc = format_metric(mean_or_none(list(roc_aucs)))
    precision = format_metric(mean_or_none(list(precisions)))
    label = f"mean of {len(areas)} classes: area {roc_auc}, average precision {precision}"
    add_legend_below(figure, lines, [label, "each class against the rest"])
