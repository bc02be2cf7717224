"""The pictures for people: each function draws one figure and returns it as the bytes of a PNG file."""

import io

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

matplotlib.rcParams["text.parse_math"] = False  # class names and paths may hold dollar signs
DPI = 110
ENSEMBLE, MEMBER, WRONG = "#1b5e8c", "#9db8c9", "#b3261e"


def confusion(counts: np.ndarray, classes: list[str]) -> bytes:
    """Confusion matrix: images, and their share of the true class.

    Parameters
    ----------
    counts : ndarray of int, shape (classes, classes)
        Rows: true class; columns: predicted class.
    classes : list of str
        The classes' names.
    """
    figure, axes = _figure(2.4 + 0.9 * len(classes), 2.0 + 0.8 * len(classes))
    _draw_confusion(axes, counts, classes)
    axes.set(title=f"Confusion matrix, {counts.sum()} test images")
    return _png(figure)


def learning_curves(histories: dict[str, dict[str, np.ndarray]]) -> bytes:
    """Loss and accuracy of all members by epoch, in-bag and out-of-bag."""
    figure, (left, right) = _figure(10, 4, columns=2)
    for index, (name, history) in enumerate(histories.items()):
        colour = f"C{index % 10}"
        left.plot(history["epoch"], history["out_of_bag_loss"], color=colour, label=name)
        left.plot(history["epoch"], history["loss"], color=colour, alpha=0.4, linestyle=":")
        right.plot(history["epoch"], history["out_of_bag_accuracy"], color=colour)
        right.plot(history["epoch"], history["accuracy"], color=colour, alpha=0.4, linestyle=":")
    highest = max(np.max(history["out_of_bag_loss"][len(history["epoch"]) // 4 :]) for history in histories.values())
    left.set(title="Loss", xlabel="epoch", ylabel="out-of-bag log loss (in-bag loss dotted)", ylim=(0, max(1.0, 1.1 * highest)))
    right.set(title="Accuracy", xlabel="epoch", ylabel="out-of-bag accuracy (in-bag dotted)", ylim=(0, 1.02))
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    if len(histories) <= 12:
        left.legend(fontsize="small")
    return _png(figure)


def curves(roc: dict[str, np.ndarray], precision_recall: dict[str, np.ndarray], areas: dict[str, tuple[float, float]]) -> bytes:
    """ROC and precision-recall curves side by side.

    Parameters
    ----------
    roc : dict of class name to ndarray, shape (points, 2)
        False and true positive rates.
    precision_recall : dict of class name to ndarray, shape (points, 2)
        Recalls and precisions.
    areas : dict of class name to (ROC AUC, average precision)
    """
    figure, (left, right) = _figure(10, 4.6, columns=2)
    for index, name in enumerate(roc):
        colour = ENSEMBLE if len(roc) == 1 else f"C{index % 10}"
        left.plot(*roc[name].T, color=colour, label=f"{name}: area {areas[name][0]:.3f}")
        right.step(*precision_recall[name].T, color=colour, where="post", label=f"{name}: average precision {areas[name][1]:.3f}")
    left.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1)
    left.set(title="ROC", xlabel="false positive rate", ylabel="true positive rate")
    right.set(title="Precision and recall", xlabel="recall", ylabel="precision")
    for axes in (left, right):
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower left" if axes is right else "lower right", fontsize="small")
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


def members(accuracies: dict[str, float], interval: list[float]) -> bytes:
    """Test accuracy of the ensemble, with its 95 % interval, against each member's.

    Parameters
    ----------
    accuracies : dict of str to float
        The first is the ensemble's; the members' names begin with "member".
    interval : [low, high]
        Of the ensemble's accuracy.
    """
    figure, axes = _figure(6.5, 1.4 + 0.32 * len(accuracies))
    _draw_accuracies(axes, accuracies, interval)
    axes.set(title="Accuracy on the test images (95 % interval)", xlim=(0, 1))
    axes.grid(axis="x", alpha=0.3)
    return _png(figure)


def crossval(
    accuracies: dict[str, float], interval: list[float], of_folds: list[float], counts: np.ndarray, classes: list[str]
) -> bytes:
    """Cross-validation: pooled accuracy of each voter, the ensemble's on each fold, and its confusion matrix.

    Parameters
    ----------
    accuracies : dict of str to float
        By voter, the ensemble first.
    interval : list of two floats
        95 % interval of the ensemble's accuracy.
    of_folds : list of float
        The ensemble's accuracy on each fold.
    counts, classes : see `confusion`
    """
    figure, (left, right) = _figure(11, 1.6 + 0.45 * max(len(accuracies), 4), columns=2)
    _draw_accuracies(left, accuracies, interval)
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
    return _grid(title, np.repeat(images[..., np.newaxis], 3, axis=-1), captions, wrong, 2.6)


def explanations(images: np.ndarray, heat: np.ndarray, captions: list[str], wrong: list[bool]) -> bytes:
    """Each image beside itself with what speaks for the predicted class laid over it, four pairs in a row.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, height, width)
    heat : ndarray of float, shape (n, height, width)
        0 to 1.
    captions : list of str, length n
    wrong : list of bool, length n
    """
    plain = np.repeat(images[..., np.newaxis], 3, axis=-1)
    warm = np.stack([overlay(image, its) for image, its in zip(images, heat, strict=True)])
    title = "What speaks for the predicted class in test images (red: wrong)"
    return _grid(title, np.concatenate([plain, warm], axis=2), captions, wrong, 3.6)


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A heat map over its image: uint8, shape (height, width, 3); the warmest place is the most opaque.

    Parameters
    ----------
    image : ndarray of uint8, shape (height, width)
    heat : ndarray of float, shape (height, width)
        0 or more; it is scaled to its own maximum.
    """
    heat = (heat / max(heat.max(), 1e-9))[..., np.newaxis]
    colours = matplotlib.colormaps["inferno"](0.3 + 0.7 * heat[..., 0])[..., :3] * 255
    opacity = 0.75 * np.clip(2 * heat, 0, 1)
    return np.round(image[..., np.newaxis] * (1 - opacity) + colours * opacity).astype(np.uint8)


def _grid(title: str, images: np.ndarray, captions: list[str], wrong: list[bool], width: float) -> bytes:
    """Colour images, four in a row, each `width` inches wide with its caption above; wrong ones' captions in red."""
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
        axes.set_title(caption, fontsize=8, color=WRONG if is_wrong else "black")
    return _png(figure)


def _draw_accuracies(axes, accuracies: dict[str, float], interval: list[float]) -> None:
    """A bar for each voter, members' paler; the interval is the first one's."""
    names, values = list(accuracies), np.array(list(accuracies.values()))
    axes.barh(names, values, color=[MEMBER if "member" in name else ENSEMBLE for name in names])
    axes.errorbar(
        values[0], 0, xerr=[[max(0, values[0] - interval[0])], [max(0, interval[1] - values[0])]], color="black", capsize=4
    )
    for row, value in enumerate(values):
        axes.text(0.01, row, f"{value:.3f}", va="center", color="black" if "member" in names[row] else "white")
    axes.invert_yaxis()


def _draw_confusion(axes, counts: np.ndarray, classes: list[str]) -> None:
    shares = counts / counts.sum(axis=1, keepdims=True)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        axes.text(
            column,
            row,
            f"{counts[row, column]}\n{share:.0%}",
            ha="center",
            va="center",
            color="white" if share > 0.5 else "black",
        )
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted", ylabel="true")


def _figure(width: float, height: float, columns: int = 1):
    figure = Figure((width, height), DPI, layout="constrained")
    return figure, figure.subplots(1, columns)


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})
    return file.getvalue()
