"""The pictures for people: each function draws one figure and returns it as the bytes of a PNG file."""

import functools
import io
import unicodedata

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import MaxNLocator
from PIL import Image

from stages.shared.fonts import drawable
from stages.shared.metrics import mean_or_none
from stages.shared.names import columns, shorten, shorten_all

matplotlib.rcParams["text.parse_math"] = False  # class names and paths may hold dollar signs
DPI = 110
ENSEMBLE, MEMBER, WRONG = "#1b5e8c", "#9db8c9", "#b3261e"
OUTLINE = "#00e5ff"  # of a tumor
DIMMED = 0.7  # levels of an image under its heat map, against its own
PANEL_HEIGHT = 384  # pixels, nearly: a whole multiple of the image's height
TAB20 = matplotlib.colormaps["tab20"].colors
COLORS = TAB20[::2] + TAB20[1::2]  # the ten strong ones, then the ten pale ones
MOST_NAMED = len(COLORS)  # curves; of more, their mean is drawn, and each as a thin line
NAME_WIDTH = 24  # columns of a name in a plot
LEFT_TO_RIGHT = "\u200e"  # invisible; or what stands beside a Hebrew or Arabic name changes its place with it
SMALLEST_CELL, SMALLEST_LABEL = 0.5, 0.11  # inches: of a cell with numbers in it, and from one label to the next


def short_names(names: list[str]) -> list[str]:
    """Names as plots show them: short, distinct, and of letters that can be drawn."""
    return [
        f"{LEFT_TO_RIGHT}{name}{LEFT_TO_RIGHT}" if any(map(_is_right_to_left, name)) else name
        for name in shorten_all(names, NAME_WIDTH, drawable)
    ]


def _is_right_to_left(letter: str) -> bool:
    return unicodedata.bidirectional(letter) in ("R", "AL")


def confusion(counts: np.ndarray, classes: list[str]) -> bytes:
    """Confusion matrix: images, and their share of the true class.

    Parameters
    ----------
    counts : ndarray of int, shape (classes, classes)
        Rows: true class; columns: predicted class.
    classes : list of str
        The classes' names.
    """
    figure, axes = _figure(*_confusion_size(classes))
    _draw_confusion(axes, counts, classes)
    axes.set(title=f"Confusion matrix, {counts.sum()} test images")
    return _png(figure)


def learning_curves(histories: dict[str, dict[str, np.ndarray]]) -> bytes:
    """Draw plain log loss and accuracy of all members by epoch: out-of-bag solid, in-bag dotted."""
    figure, (left, right) = _figure(10, 4, columns=2)
    few = len(histories) <= MOST_NAMED
    for index, history in enumerate(histories.values()):
        color = COLORS[index] if few else MEMBER
        weight = 1.5 if few else 0.5
        left.plot(history["epoch"], history["out_of_bag_log_loss"], color=color, linewidth=weight)
        left.plot(history["epoch"], history["in_bag_log_loss"], color=color, linewidth=weight, alpha=0.7, linestyle=":")
        right.plot(history["epoch"], history["out_of_bag_accuracy"], color=color, linewidth=weight)
        right.plot(history["epoch"], history["in_bag_accuracy"], color=color, linewidth=weight, alpha=0.7, linestyle=":")
    if not few:
        for axes, column in ((left, "out_of_bag_log_loss"), (right, "out_of_bag_accuracy")):
            axes.plot(*_mean_by_epoch(histories, column), color=ENSEMBLE, linewidth=2)
    highest = max(np.max(history["out_of_bag_log_loss"][len(history["epoch"]) // 4 :]) for history in histories.values())
    left.set(
        title="Log loss: out-of-bag solid, in-bag dotted",
        xlabel="epoch",
        ylabel="log loss, nats",
        ylim=(0, max(1.0, 1.1 * highest)),
    )
    right.set(title="Accuracy: out-of-bag solid, in-bag dotted", xlabel="epoch", ylabel="accuracy", ylim=(0, 1.02))
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    lines = [line for line in left.lines if line.get_linestyle() == "-"]
    if few:
        _legend_below(figure, lines, list(histories))
    else:
        _legend_below(figure, [lines[-1], lines[0]], [f"mean of {len(histories)} members", "each member"])
    return _png(figure)


def curves(
    roc: dict[str, np.ndarray],
    precision_recall: dict[str, np.ndarray],
    areas: dict[str, tuple[float | None, float | None]],
) -> bytes:
    """ROC and precision-recall curves in two plots.

    Parameters
    ----------
    roc : dict of class name to ndarray, shape (points, 2)
        False and true positive rates.
    precision_recall : dict of class name to ndarray, shape (points, 2)
        Recalls and precisions.
    areas : dict of class name to (ROC AUC, average precision)
        None where they say nothing.
    """
    names = short_names(list(roc))
    single, few = len(names) == 1, len(names) <= MOST_NAMED
    figure, (left, right) = _figure(10, 4.6 if single else 5.1, columns=2)
    left.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1)
    left.set(title="ROC", xlabel="false positive rate", ylabel="true positive rate")
    right.set(title="Precision and recall", xlabel="recall", ylabel="precision")
    for axes in (left, right):
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal" if single else "auto")
        axes.grid(alpha=0.3)
    lines = []
    for index, name in enumerate(roc):
        style = {"color": COLORS[index], "linestyle": "-" if index < 10 else "--"} if few else {"color": MEMBER, "linewidth": 0.5}
        style = {"color": ENSEMBLE} if single else style
        lines += left.plot(*roc[name].T, **style)
        right.step(*precision_recall[name].T, where="pre", **style)
    if single:
        (name,), (area, precision) = names, areas[next(iter(roc))]
        left.legend(left.lines[1:], [f"{name}: area {_number(area)}"], loc="lower right", fontsize="small")
        right.legend(right.lines, [f"{name}: average precision {_number(precision)}"], loc="lower left", fontsize="small")
    elif few:
        shown = [f"{name}: {_number(areas[key][0])}, {_number(areas[key][1])}" for name, key in zip(names, roc, strict=True)]
        _legend_below(figure, lines, shown, "class: area under the ROC curve, average precision")
    else:
        grid = np.linspace(0, 1, 201)
        true_rates = np.mean([np.interp(grid, *points.T) for points in roc.values()], axis=0)
        precisions = [
            points[np.minimum(np.searchsorted(points[:, 0], grid), len(points) - 1), 1] for points in precision_recall.values()
        ]
        mean = left.plot(np.append(0, grid), np.append(0, true_rates), color=ENSEMBLE, linewidth=2)
        right.plot(grid, np.mean(precisions, axis=0), color=ENSEMBLE, linewidth=2)
        area, precision = (_number(mean_or_none(list(values))) for values in zip(*areas.values(), strict=True))
        label = f"mean of {len(names)} classes: area {area}, average precision {precision}"
        _legend_below(figure, [*mean, lines[0]], [label, "each class against the rest"])
    return _png(figure)


def reliability(bins: list[tuple[float, float, int]], error: float) -> bytes:
    """Reliability diagram: how often predictions of a confidence are right.

    Parameters
    ----------
    bins : list of (mean confidence, accuracy, number of images)
    error : float
        Expected calibration error.
    """
    figure, axes = _figure(5, 4.8)
    sure, right, count = map(np.array, zip(*bins, strict=True))
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1)
    axes.plot(sure, right, color=ENSEMBLE)
    axes.scatter(sure, right, s=30 + 400 * count / count.sum(), color=ENSEMBLE, zorder=3)
    for x, y, n in zip(sure, right, count, strict=True):
        axes.annotate(f"{n}", (x, y), (9, -12), textcoords="offset points", fontsize="small")
    axes.set(
        title=f"Reliability: expected calibration error {error:.3f}",
        xlabel="confidence (number of images beside)",
        ylabel="share that is right",
    )
    axes.set(xlim=(min(0.45, sure.min() - 0.05), 1.03), ylim=(-0.03, 1.06))
    axes.grid(alpha=0.3)
    return _png(figure)


def members(accuracies: dict[str, float], interval: list[float] | None) -> bytes:
    """Test accuracy of the ensemble, with its 95 % interval if there is one, against each member's.

    Parameters
    ----------
    accuracies : dict of str to float
        The first is the ensemble's; the members' names begin with "member".
    interval : [low, high], optional
        Of the ensemble's accuracy.
    """
    row = _step(len(accuracies), 0.32, 20)
    figure, axes = _figure(6.5, 1.4 + row * len(accuracies))
    _draw_accuracies(axes, accuracies, interval, row)
    axes.set(title=f"Accuracy on the test images{' (95 % interval)' if interval else ''}", xlim=(0, 1))
    axes.grid(axis="x", alpha=0.3)
    return _png(figure)


def crossval(
    accuracies: dict[str, float], interval: list[float] | None, of_folds: list[float], counts: np.ndarray, classes: list[str]
) -> bytes:
    """Cross-validation: pooled accuracy of each voter, the ensemble's on each fold, and its confusion matrix.

    Parameters
    ----------
    accuracies : dict of str to float
        By voter, the ensemble first.
    interval : list of two floats, optional
        95 % interval of the ensemble's accuracy.
    of_folds : list of float
        The ensemble's accuracy on each fold.
    counts, classes : see `confusion`
    """
    height = 1.6 + 0.45 * max(len(accuracies), 4)
    if len(classes) <= 3:
        figure, (left, right) = _figure(11, height, columns=2)
    else:  # the matrix needs the whole width
        width, below = _confusion_size(classes)
        figure = Figure((max(width, 6.5), height + below), DPI, layout="constrained")
        left, right = figure.subplots(2, 1, height_ratios=(height, below))
    _draw_accuracies(left, accuracies, interval, 0.45)
    left.plot(of_folds, np.zeros(len(of_folds)) - 0.3, "|", color="black", markersize=7, label="folds")
    left.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize="small")
    left.set(title="Accuracy on all folds' test images", xlim=(0, 1))
    _draw_confusion(right, counts, classes)
    right.set_title(f"Confusion matrix, {counts.sum()} test images")
    return _png(figure)


def gallery(images: np.ndarray, captions: list[str], wrong: list[bool]) -> bytes:
    """Images in a grid, captions above; those that were predicted wrong in red.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, height, width)
    captions : list of str, length n
    wrong : list of bool, length n
    """
    title = "Test images by how wrong the ensemble is, worst first (red: wrong)"
    return _png(_grid(title, np.repeat(images[..., np.newaxis], 3, axis=-1), captions, wrong, 2.6)[0])


def explanations(
    images: np.ndarray,
    heat: np.ndarray,
    scale: float,
    label: str,
    outlines: list[np.ndarray | None],
    captions: list[str],
    wrong: list[bool],
) -> bytes:
    """Draw each image beside itself with its heat map laid over it, four pairs in a row, on one color scale.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, height, width)
    heat : ndarray of float, shape (n, height, width)
    scale : float
        The heat at the top of the color bar.
    label : str
        Of the color bar; see `evidence_label`.
    outlines : list of ndarray of bool, shape (height, width), or None, length n
        Where the tumor is, if that is known.
    captions : list of str, length n
    wrong : list of bool, length n
    """
    pairs = np.stack([_pair(image, warmth, scale) for image, warmth in zip(images, heat, strict=True)])
    title = "Test images and the evidence in them, on one scale (caption in red: predicted wrong)"
    figure, grid = _grid(title, pairs, captions, wrong, 3.6)
    width = images.shape[2]
    for axes, outline in zip(grid.flat, outlines, strict=False):
        if outline is not None and outline.any():
            columns = np.arange(width, 2 * width)
            axes.contour(columns, np.arange(len(outline)), outline, [0.5], colors=OUTLINE, linewidths=1)
    figure.set_figwidth(figure.get_figwidth() + 0.9)
    bar = figure.colorbar(_color_scale(scale), ax=grid, label=label, extend="max", fraction=0.015, pad=0.01)
    if any(outline is not None for outline in outlines):
        bar.ax.set_title("tumor", color=OUTLINE, fontsize=9, backgroundcolor="black")
    return _png(figure)


def panel(image: np.ndarray, heat: np.ndarray, scale: float, label: str) -> np.ndarray:
    """Draw an image, itself with its heat map laid over it, and the color bar: uint8, shape (height, width, 3).

    Parameters
    ----------
    image : ndarray of uint8, shape (height, width)
    heat : ndarray of float, shape (height, width)
    scale, label : see `explanations`
    """
    pair = Image.fromarray(_pair(image, heat, scale))
    factor = max(1, round(PANEL_HEIGHT / pair.height))
    pair = pair.resize((pair.width * factor, pair.height * factor), Image.Resampling.BICUBIC)
    return np.concatenate([np.asarray(pair), _color_bar(scale, label, pair.height)], axis=1)


def evidence_label(classes: list[str]) -> str:
    """What the heat of maps of `stages.shared.explanations.explained_classes` means."""
    asked = shorten(classes[1], 10, drawable) if len(classes) == 2 else "the predicted class"
    return f"evidence for {asked},\nlog-odds per 1 % of the image"


def overlay(image: np.ndarray, heat: np.ndarray, scale: float) -> np.ndarray:
    """Lay a heat map over its image, dimmed so that heat stands out: uint8, shape (height, width, 3).

    Parameters
    ----------
    image : ndarray of uint8, shape (height, width)
    heat : ndarray of float, shape (height, width)
        0 or more, in the unit of `scale`.
    scale : float
        The heat that is drawn brightest, and so is any above.
    """
    level = np.clip(heat / scale, 0, 1)[..., np.newaxis]
    colors = matplotlib.colormaps["inferno"](0.3 + 0.7 * level[..., 0])[..., :3] * 255
    opacity = 0.85 * np.minimum(1.5 * level, 1)
    return np.round(DIMMED * image[..., np.newaxis] * (1 - opacity) + colors * opacity).astype(np.uint8)


def _pair(image: np.ndarray, heat: np.ndarray, scale: float) -> np.ndarray:
    return np.concatenate([np.repeat(image[..., np.newaxis], 3, axis=-1), overlay(image, heat, scale)], axis=1)


def _color_scale(scale: float) -> ScalarMappable:
    """The colors that `overlay` gives to a black image."""
    colors = overlay(np.zeros((1, 256), np.uint8), np.linspace(0, 1, 256)[np.newaxis], 1.0)[0] / 255
    return ScalarMappable(Normalize(0, scale), ListedColormap(colors))


@functools.cache
def _color_bar(scale: float, label: str, height: int) -> np.ndarray:
    figure = Figure((1.1, height / DPI), DPI)
    axes = figure.add_axes((0.1, 0.06, 0.2, 0.86))
    figure.colorbar(_color_scale(scale), cax=axes, extend="max").set_label(label, fontsize=7)
    axes.tick_params(labelsize=7)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:height, :, :3].copy()


def _grid(title: str, images: np.ndarray, captions: list[str], wrong: list[bool], width: float) -> tuple[Figure, np.ndarray]:
    """Draw color images, four in a row, each `width` inches wide with its caption above; wrong ones' captions in red."""
    columns = min(4, len(images))
    rows = -(-len(images) // columns)
    height = width * images.shape[1] / images.shape[2] + 0.35
    figure = Figure((width * columns, height * rows + 0.45), DPI, layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, image, caption, is_wrong in zip(grid.flat, images, captions, wrong, strict=False):
        axes.imshow(image)
        lines = [_fitted(line, width, 8) for line in caption.split("\n")]
        axes.set_title("\n".join(lines), fontsize=8, color=WRONG if is_wrong else "black")
    return figure, grid


def _draw_accuracies(axes, accuracies: dict[str, float], interval: list[float] | None, row: float) -> None:
    """A bar for each voter, `row` inches high and members' paler; the interval is the first one's."""
    names, values = list(accuracies), np.array(list(accuracies.values()))
    axes.barh(names, values, color=[MEMBER if "member" in name else ENSEMBLE for name in names])
    if interval:
        ends = [[max(0, values[0] - interval[0])], [max(0, interval[1] - values[0])]]
        axes.errorbar(values[0], 0, xerr=ends, color="black", capsize=4)
    axes.set_ylim(len(names) - 0.4, -0.6)
    _label_axis(axes.yaxis, names, row)
    if row >= SMALLEST_LABEL:
        for place, value in enumerate(values):
            color = "black" if "member" in names[place] else "white"
            text = axes.text(0.01, place, f"{value:.3f}", va="center", color=color, fontsize=_font_size(row))
            text.set_in_layout(False)


def _confusion_size(classes: list[str]) -> tuple[float, float]:
    """Width and height in inches of a confusion matrix with its labels."""
    names = short_names(classes)
    cell = _step(len(classes), 0.9, 13)
    margin = max(0.0, max(map(columns, names)) - 8) * _letter_width(_font_size(cell))
    upright = margin if _is_rotated(names, cell) else 0
    bar = 0 if cell >= SMALLEST_CELL else 0.8
    return 2.4 + cell * len(classes) + margin + bar, 2.0 + cell * len(classes) * 8 / 9 + upright


def _draw_confusion(axes, counts: np.ndarray, classes: list[str]) -> None:
    """Cells with the number of images and the fraction of the true class; where they get too small, a color bar instead."""
    names, cell = short_names(classes), _step(len(classes), 0.9, 13)
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    if cell >= SMALLEST_CELL:
        for (row, column), fraction in np.ndenumerate(fractions):
            color = "white" if fraction > 0.5 else "black"
            content = f"{counts[row, column]}\n{fraction:.0%}"
            text = axes.text(column, row, content, ha="center", va="center", color=color, fontsize=min(10, 14 * cell))
            text.set_in_layout(False)  # it is within the axes; to measure each takes long
    else:
        axes.figure.colorbar(image, ax=axes, label="fraction of the true class", shrink=0.5)
    _label_axis(axes.xaxis, names, cell)
    _label_axis(axes.yaxis, names, cell)
    if _is_rotated(names, cell):
        axes.tick_params("x", labelrotation=90)
    axes.set(xlabel="predicted", ylabel="true")


def _fitted(line: str, width: float, font_size: float) -> str:
    """A line as short as it must be for this many inches, of letters that can be drawn."""
    measure = FigureCanvasAgg(Figure(dpi=72)).get_renderer().get_text_width_height_descent
    text = shorten(line, 99, drawable)
    while measure(text, FontProperties(size=font_size), False)[0] > 72 * width:
        text = shorten(line, columns(text) - 1, drawable)
    return text


def _step(count: int, largest: float, whole: float) -> float:
    """Inches for each of these rows or cells, which together take no more than the whole."""
    return min(largest, whole / count)


def _font_size(step: float) -> float:
    """Points of labels that are this many inches apart."""
    return float(np.clip(50 * step, 6, 10))


def _letter_width(font_size: float) -> float:
    """Inches, on average."""
    return 0.58 * font_size / 72


def _is_rotated(names: list[str], cell: float) -> bool:
    """Whether the labels of cells that wide are too long to be written side by side."""
    return max(map(columns, names)) * _letter_width(_font_size(cell)) > 0.95 * cell


def _label_axis(axis, names: list[str], step: float) -> None:
    """Label places that are `step` inches apart, or each second, third … where labels would overlap."""
    every = int(np.ceil(SMALLEST_LABEL / step))
    axis.set_ticks(range(0, len(names), every), names[::every], fontsize=_font_size(step))


def _legend_below(figure: Figure, lines: list, labels: list[str], title: str | None = None) -> None:
    """A legend below the axes, in as many columns as the figure's width takes, so that it covers no curve."""
    widest = max(map(columns, labels)) * _letter_width(8.5) + 0.6
    across = max(1, min(len(labels), int(figure.get_figwidth() / widest)))
    rows = -(-len(labels) // across)
    figure.set_figheight(figure.get_figheight() + 0.18 * rows + (0.5 if title else 0.3))
    figure.legend(lines, labels, loc="outside lower center", ncols=across, fontsize="small", title=title, title_fontsize="small")


def _mean_by_epoch(histories: dict[str, np.ndarray], column: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs, and the mean over the members that trained that long."""
    epochs = np.concatenate([history["epoch"] for history in histories.values()])
    values = np.concatenate([history[column] for history in histories.values()])
    steps = np.unique(epochs)
    return steps, np.array([values[epochs == epoch].mean() for epoch in steps])


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _figure(width: float, height: float, columns: int = 1):
    figure = Figure((width, height), DPI, layout="constrained")
    return figure, figure.subplots(1, columns)


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})
    return file.getvalue()
