"""Figures are readable with two classes and with a hundred, whatever their names.

Nothing is cut off or covered, no letter lacks a font, and matplotlib warns of nothing.
"""

import itertools

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cbook import STEP_LOOKUP_MAP
from matplotlib.colors import to_hex
from matplotlib.text import Text
from sklearn import metrics as sk

from brainmri.evaluation.figures import fonts, grids, layout, overlays
from brainmri.evaluation.figures.accuracies import draw_accuracies
from brainmri.evaluation.figures.confusion import draw_confusion_matrix
from brainmri.evaluation.figures.crossval import draw_crossval
from brainmri.evaluation.figures.curves import COLORS, draw_class_curves, draw_learning_curves
from brainmri.evaluation.figures.reliability import draw_reliability
from brainmri.evaluation.names import columns, pad, shorten, shorten_all

HARD = [
    "no",
    "yes",
    "a_class_name_of_sixty_seven_letters_that_goes_on_and_on_until_it_ends",
    "a_class_name_of_sixty_seven_letters_that_goes_off_and_on_until_it_ends",
    "W" * 67,
    "$a$ b",
    "_background",
    "脑胶质瘤" * 9,
    "опухоль",
    "όγκος",
    "ورم",
    "גידול",
    "🧠 brain",
    "e\u0301tude",
    "मस्तिष्क",
    "뇌종양",
    "zero\u200bwidth",
    "\u202eevil",
    "tab\tand\nline",
    "\udc80 no UTF-8",
]
COUNTS = [2, 4, 20, 100]
pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were drawn."""
    figures, print_png = [], FigureCanvasAgg.print_png

    def capture(canvas, *arguments, **options):
        figures.append(canvas.figure)
        return print_png(canvas, *arguments, **options)

    monkeypatch.setattr(FigureCanvasAgg, "print_png", capture)
    return figures


def names(count: int) -> list[str]:
    """Return names of so many classes, the hard ones first."""
    return (HARD[-count:] if count < len(HARD) else HARD) + [
        f"class {number}" for number in range(count - len(HARD))
    ]


def predictions(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Make labels and probabilities of six images of each of so many classes."""
    labels = np.repeat(np.arange(count), 6)
    logits = np.random.default_rng(0).normal(size=(len(labels), count)) + 2 * np.eye(count)[labels]
    return labels, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def check(figure) -> None:
    """Check that nothing is cut off, that plots fill the figure and that no label is covered."""
    renderer, whole = figure.canvas.get_renderer(), figure.bbox
    assert max(whole.width, whole.height) < 2600
    inches = figure.get_tightbbox(renderer)
    assert min(inches.x0, inches.y0) >= -0.01  # a pixel
    assert inches.x1 <= figure.get_figwidth() + 0.01
    assert inches.y1 <= figure.get_figheight() + 0.01
    letters = {letter for text in figure.findobj(Text) for letter in text.get_text()}
    assert letters
    assert all(map(fonts.drawable, letters - {"\n", layout.LEFT_TO_RIGHT}))
    for legend, axes in itertools.product(figure.legends, figure.axes):
        assert not legend.get_window_extent(renderer).overlaps(axes.get_window_extent(renderer))
        assert legend.get_window_extent(renderer).y1 <= axes.get_tightbbox(renderer).y0 + 1
    area = sum(
        axes.get_window_extent(renderer).width * axes.get_window_extent(renderer).height
        for axes in figure.axes
    )
    assert area / (whole.width * whole.height) > 0.25
    for axes in figure.axes:
        for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
            extents = [label.get_window_extent(renderer) for label in labels if label.get_text()]
            assert not any(first.overlaps(second) for first, second in itertools.pairwise(extents))


@pytest.mark.parametrize("count", COUNTS)
def test_confusion_matrices(drawn, count):
    counts = np.random.default_rng(0).integers(0, 30, (count, count))
    counts[0] = 0  # a class without an image
    draw_confusion_matrix(counts, names(count))
    voters = {"ensemble": 0.9, "uniform vote": 0.8, "best member": 0.7, "mean member": 0.6}
    draw_crossval(voters, [0.8, 0.95], [0.8, 0.9], counts, names(count))
    if count == 2:
        draw_crossval(voters, None, [0.8, 0.9], counts, names(count))
    assert len(drawn) == (3 if count == 2 else 2)
    for figure in drawn:
        check(figure)
    (matrix,) = [axes for axes in drawn[0].axes if axes.images]
    labels = [label.get_text().strip(layout.LEFT_TO_RIGHT) for label in matrix.get_yticklabels()]
    assert len(set(labels)) == count
    assert max(map(columns, labels)) <= layout.MAX_NAME == 24
    cells = len(matrix.texts)
    assert cells == (count * count if count <= 20 else 0)


@pytest.mark.parametrize("count", COUNTS)
def test_class_curves(drawn, count):
    classes, (labels, probabilities) = names(count), predictions(count)
    roc, precision_recall, areas = {}, {}, {}
    for label in [1] if count == 2 else range(count):
        order = np.argsort(-probabilities[:, label])
        hits = np.cumsum(labels[order] == label)
        rank = np.arange(1, len(labels) + 1)
        roc[classes[label]] = np.stack([(rank - hits) / (rank - hits)[-1], hits / hits[-1]], axis=1)
        precision_recall[classes[label]] = np.stack([hits / hits[-1], hits / rank], axis=1)
        areas[classes[label]] = (None, None) if label == 1 else (0.9, 0.8)
    draw_class_curves(roc, precision_recall, areas)
    (figure,) = drawn
    check(figure)
    if count == 2:
        assert figure.axes[0].get_legend().get_texts()[0].get_text().endswith(("yes", "no UTF-8"))
        return
    (legend,) = figure.legends
    shown = [text.get_text() for text in legend.get_texts()]
    if count > 20:
        assert shown == [
            "mean of 100 classes: area none, average precision none",
            "each class against the rest",
        ]
        return
    # Also "_background", which matplotlib skips by itself.
    assert len(shown) == len(set(shown)) == count
    assert shown[1].endswith(": none, none")
    for axes in figure.axes:
        lines = [line for line in axes.lines if line.get_linestyle() != ":"]
        assert len({to_hex(line.get_color()) for line in lines}) == count
    legend_colors = [to_hex(line.get_color()) for line in legend.get_lines()]
    assert legend_colors == list(map(to_hex, COLORS[:count]))


@pytest.mark.parametrize("count", [*COUNTS, 250])
def test_figures_of_members(drawn, count):
    accuracies = {
        "ensemble": 0.9,
        "uniform vote": 0.8,
        **{f"member-{number:02d}": 0.7 for number in range(count)},
    }
    draw_accuracies(accuracies, [0.8, 1.0])
    draw_accuracies(accuracies, None)
    epochs = np.arange(1, 5)
    columns = ("in_bag_log_loss", "in_bag_accuracy", "out_of_bag_log_loss", "out_of_bag_accuracy")
    histories = {
        name: {
            "epoch": epochs[: 3 + place % 2],
            **{column: np.linspace(1, 0.1, 3 + place % 2) for column in columns},
        }
        for place, name in enumerate([*accuracies][2:])
    }
    draw_learning_curves(histories)
    for figure in drawn:
        check(figure)
    with_interval, without_interval, learning = drawn
    title = "Accuracy on the test images"
    assert with_interval.axes[0].get_title() == f"{title} (95 % interval)"
    assert without_interval.axes[0].get_title() == title
    solid = {
        to_hex(line.get_color()) for line in learning.axes[0].lines if line.get_linestyle() == "-"
    }
    assert len(solid) == (count if count <= 20 else 2)
    assert len(learning.legends[0].get_texts()) == (count if count <= 20 else 2)


def test_captions_with_hard_names(drawn):
    images = np.zeros((len(HARD), 32, 32), np.uint8)
    shown = layout.short_names(HARD)
    captions = [
        f"{name}.png\n{short}: probability 0.50" for name, short in zip(HARD, shown, strict=True)
    ]
    grids.draw_gallery(images, captions, [False] * len(HARD))
    check(drawn[0])


def test_no_images_are_a_figure_without_axes(drawn):
    none = np.zeros((0, 32, 32), np.uint8)
    grids.draw_gallery(none, [], [])
    grids.draw_heat_maps(none, none.astype(float), 1.0, "evidence", [], [], [])
    for figure, parameter in zip(drawn, ("evaluate.gallery", "explain.images"), strict=True):
        assert figure.get_suptitle() == f"No test images are shown: {parameter} is 0"
        assert figure.axes == []


def test_captions_need_no_fonts_before(drawn, monkeypatch):
    """The fonts of a caption's letters are added before its figure is made."""
    monkeypatch.setattr(fonts, "families", ["DejaVu Sans"])
    fonts.drawable.cache_clear()
    grids.draw_gallery(np.zeros((4, 32, 32), np.uint8), ["脑.png"] * 4, [False] * 4)
    check(drawn[0])
    fonts.drawable.cache_clear()


@pytest.mark.parametrize("name", ["yes", "W" * 67, "脑胶质瘤"])
def test_evidence_for_hard_names(drawn, name):
    images, heat = np.zeros((2, 32, 32), np.uint8), np.ones((2, 32, 32))
    label = overlays.evidence_label(["no", name], name)
    captions = [f"true no, predicted {layout.short_names(['no', name])[1]} 0.50"] * 2
    grids.draw_heat_maps(images, heat, 1.0, label, [None, None], captions, [False, True])
    check(drawn[0])
    assert overlays.panel(images[0], heat[0], 1.0, label).shape[0] > 32


ASYMMETRIC = np.array([[8, 2, 0], [1, 5, 4], [7, 0, 13]])  # rows: true


def check_matrix(axes) -> None:
    """Check cells, ticks and colors of `ASYMMETRIC`."""
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert texts[1, 0] == "2\n20%"  # x is the predicted class
    assert texts[0, 1] == "1\n10%"
    assert texts[0, 2] == "7\n35%"
    assert texts[2, 2] == "13\n65%"
    np.testing.assert_allclose(
        axes.images[0].get_array(), [[0.8, 0.2, 0], [0.1, 0.5, 0.4], [0.35, 0, 0.65]]
    )
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in labels] == ["a", "b", "c"]


def check_bars(axes, accuracies: dict[str, float], interval: list[float]) -> None:
    """Check that there is a bar for each voter, from the top, and the interval of the first."""
    assert [bar.get_width() for bar in axes.patches] == list(accuracies.values())
    assert [label.get_text() for label in axes.get_yticklabels()] == list(accuracies)
    assert {text.get_position()[1]: text.get_text() for text in axes.texts} == {
        place: f"{value:.3f}" for place, value in enumerate(accuracies.values())
    }
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    (ends,) = axes.collections[0].get_segments()
    np.testing.assert_allclose(ends, [[interval[0], 0], [interval[1], 0]])


def test_confusion_matrix_rows_are_true_classes(drawn):
    draw_confusion_matrix(ASYMMETRIC, ["a", "b", "c"])
    (figure,) = drawn
    check_matrix(figure.axes[0])
    assert figure.axes[0].get_title().endswith("40 test images")


def test_crossval_figure(drawn):
    accuracies = {"ensemble": 0.9, "uniform vote": 0.8, "mean member": 0.6}
    draw_crossval(accuracies, [0.75, 0.95], [0.7, 0.85, 1.0], ASYMMETRIC, ["a", "b", "c"])
    bars, matrix = drawn[0].axes
    check_matrix(matrix)
    check_bars(bars, accuracies, [0.75, 0.95])
    (folds,) = [line for line in bars.lines if line.get_label() == "folds"]
    np.testing.assert_allclose(folds.get_xydata(), [[0.7, -0.3], [0.85, -0.3], [1.0, -0.3]])


def test_accuracy_bars(drawn):
    accuracies = {"ensemble": 0.9, "uniform vote": 0.85, "member-00": 0.8, "member-01": 0.7}
    draw_accuracies(accuracies, [0.78, 0.96])
    axes = drawn[0].axes[0]
    check_bars(axes, accuracies, [0.78, 0.96])
    colors = [to_hex(bar.get_facecolor()) for bar in axes.patches]
    assert colors == [layout.ENSEMBLE_COLOR] * 2 + [layout.MEMBER_COLOR] * 2


def test_learning_curves(drawn):
    """Out-of-bag curves are solid, in-bag ones dotted."""
    columns = ("in_bag_log_loss", "in_bag_accuracy", "out_of_bag_log_loss", "out_of_bag_accuracy")
    rng = np.random.default_rng(0)
    histories = {
        f"member-{number:02d}": {
            "epoch": np.arange(1, 6 - number),
            **{column: rng.random(5 - number) for column in columns},
        }
        for number in range(2)
    }
    draw_learning_curves(histories)
    (figure,) = drawn
    legend = zip(figure.legends[0].get_lines(), figure.legends[0].get_texts(), strict=True)
    color_of = {text.get_text(): line.get_color() for line, text in legend}
    for axes, metric in zip(figure.axes, ("log_loss", "accuracy"), strict=True):
        lines = {(line.get_color(), line.get_linestyle()): line.get_xydata() for line in axes.lines}
        assert len(lines) == 4
        for name, history in histories.items():
            for style, part in (("-", "out_of_bag"), (":", "in_bag")):
                expected = np.stack([history["epoch"], history[f"{part}_{metric}"]], axis=1)
                np.testing.assert_array_equal(lines[color_of[name], style], expected)


def test_mean_learning_curve(drawn):
    """The mean at an epoch is over the members that trained that long."""
    histories = {}
    for number in range(21):
        epochs = np.arange(1, 4 - number % 2)
        losses = np.array([3.0, 2.0, 1.0])[: len(epochs)] + number
        histories[f"member-{number:02d}"] = {
            "epoch": epochs,
            "in_bag_log_loss": losses + 100,
            "in_bag_accuracy": losses / 100,
            "out_of_bag_log_loss": losses,
            "out_of_bag_accuracy": losses / 50,
        }
    draw_learning_curves(histories)
    left, right = drawn[0].axes
    # Of 21 members, 21 members, and the 11 with even numbers
    expected = np.array([[1, 13], [2, 12], [3, 11]])
    np.testing.assert_allclose(left.lines[-1].get_xydata(), expected)
    np.testing.assert_allclose(right.lines[-1].get_xydata(), expected / [1, 50])
    assert drawn[0].legends[0].get_lines()[0].get_color() == layout.ENSEMBLE_COLOR


def test_curves_belong_to_their_class(drawn):
    roc = {
        name: np.array([[0, 0], [0.1 * n, 0.6], [1, 1]]) for n, name in enumerate("abc", start=1)
    }
    precision_recall = {
        name: np.array([[0, 1], [0.5, 0.9 - 0.1 * n], [1, 0.5]])
        for n, name in enumerate("abc", start=1)
    }
    areas = {name: (0.8 + 0.01 * n, 0.7 + 0.01 * n) for n, name in enumerate("abc", start=1)}
    draw_class_curves(roc, precision_recall, areas)
    draw_class_curves(*({"b": values["b"]} for values in (roc, precision_recall, areas)))
    several, single = drawn
    legend = zip(several.legends[0].get_lines(), several.legends[0].get_texts(), strict=True)
    shown = {text.get_text(): line.get_color() for line, text in legend}
    assert list(shown) == ["a: 0.810, 0.710", "b: 0.820, 0.720", "c: 0.830, 0.730"]
    for axes, points in zip(several.axes, (roc, precision_recall), strict=True):
        lines = {
            line.get_color(): line.get_xydata()
            for line in axes.lines
            if line.get_linestyle() != ":"
        }
        for color, name in zip(shown.values(), "abc", strict=True):
            np.testing.assert_array_equal(lines[color], points[name])
    left, right = single.axes
    np.testing.assert_array_equal(left.lines[1].get_xydata(), roc["b"])
    np.testing.assert_array_equal(right.lines[0].get_xydata(), precision_recall["b"])
    assert left.get_legend().get_texts()[0].get_text() == "b: area 0.820"
    assert right.get_legend().get_texts()[0].get_text() == "b: average precision 0.720"
    assert (left.get_xlabel(), left.get_ylabel()) == ("false positive rate", "true positive rate")
    assert (right.get_xlabel(), right.get_ylabel()) == ("recall", "precision")


def test_mean_class_curves(drawn):
    names = [f"class {number}" for number in range(22)]
    steep, chance = np.array([[0, 0], [0, 0.5], [0.5, 1], [1, 1]]), np.array([[0, 0], [1, 1.0]])
    roc = {name: steep if number % 2 else chance for number, name in enumerate(names)}
    falling, low = np.array([[0, 1], [0.5, 0.9], [1, 0.6]]), np.array([[0, 1], [1, 0.2]])
    precision_recall = {name: falling if number % 2 else low for number, name in enumerate(names)}
    areas = {name: (0.8 + number / 100, 0.5) for number, name in enumerate(names)}
    draw_class_curves(roc, precision_recall, areas)
    left, right = drawn[0].axes
    rates, precisions = (axes.lines[-1].get_xydata() for axes in (left, right))
    for rate, expected in {0.25: (0.75 + 0.25) / 2, 0.75: (1 + 0.75) / 2}.items():
        assert rates[np.isclose(rates[:, 0], rate), 1] == pytest.approx(expected)
    for recall, expected in {0.25: (0.9 + 0.2) / 2, 0.75: (0.6 + 0.2) / 2}.items():
        assert precisions[np.isclose(precisions[:, 0], recall), 1] == pytest.approx(expected)
    label = drawn[0].legends[0].get_texts()[0].get_text()
    assert label == "mean of 22 classes: area 0.905, average precision 0.500"


@pytest.mark.parametrize("count", [1, 3, 21])
def test_area_is_average_precision(drawn, count):
    labels, probabilities = predictions(max(count, 2))
    curves, areas = {}, {}
    for label in range(count):
        precision, recall, _ = sk.precision_recall_curve(labels == label, probabilities[:, label])
        curves[f"class {label}"] = np.stack([recall, precision], axis=1)[::-1]
        areas[f"class {label}"] = (
            0.5,
            sk.average_precision_score(labels == label, probabilities[:, label]),
        )
    draw_class_curves(dict.fromkeys(curves, np.array([[0, 0], [1, 1]])), curves, areas)
    lines = drawn[0].axes[1].lines
    for line, (_, area) in zip(lines, areas.values(), strict=False):
        x, y = STEP_LOOKUP_MAP[line.get_drawstyle()](*line.get_xydata().T)
        assert np.trapezoid(y, x) == pytest.approx(area)
    if count > 20:  # their mean, on a grid
        recall, precision = lines[-1].get_xydata().T
        mean = np.mean([area for _, area in areas.values()])
        assert np.trapezoid(precision, recall) == pytest.approx(mean, abs=0.02)


def test_reliability_diagram(drawn):
    bins = [(0.55, 0.4, 3), (0.75, 0.8, 9), (0.95, 0.9, 28)]
    draw_reliability(bins, 0.0575)
    axes = drawn[0].axes[0]
    points = [[0.55, 0.4], [0.75, 0.8], [0.95, 0.9]]
    np.testing.assert_allclose(axes.lines[1].get_xydata(), points)
    np.testing.assert_allclose(axes.collections[0].get_offsets(), points)
    np.testing.assert_allclose(axes.collections[0].get_sizes(), [60, 120, 310])
    assert [(text.xy, text.get_text()) for text in axes.texts] == [
        ((0.55, 0.4), "3"),
        ((0.75, 0.8), "9"),
        ((0.95, 0.9), "28"),
    ]
    assert axes.get_xlabel().startswith("confidence")
    assert axes.get_ylabel() == "accuracy"
    draw_reliability([(0.2, 0.1, 3)], 0.1)
    assert drawn[1].axes[0].get_xlim()[0] < 0.2


def test_captions_of_wrong_predictions_are_red(drawn):
    images = np.arange(6)[:, None, None] * 40 + np.zeros((6, 16, 16))
    is_wrong = [True, True, False, True, False, False]
    grids.draw_gallery(images.astype(np.uint8), list("abcdef"), is_wrong)
    shown = [axes for axes in drawn[0].axes if axes.images]
    assert [axes.images[0].get_array()[0, 0].tolist() for axes in shown] == [
        [40 * number] * 3 for number in range(6)
    ]
    assert [axes.get_title() for axes in shown] == list("abcdef")
    red = layout.WRONG_COLOR
    colors = [axes.title.get_color() for axes in shown]
    assert colors == [red, red, "black", red, "black", "black"]


def heated(level: float, heat: float) -> np.ndarray:
    """Compute the color of a pixel of that level under heat, a fraction of the scale."""
    opacity = 0.85 * min(1.5 * heat, 1)
    inferno = np.array(matplotlib.colormaps["inferno"](0.3 + 0.7 * heat)[:3])
    return 0.7 * level * (1 - opacity) + 255 * inferno * opacity


def test_heat_maps_with_tumor_outlines(drawn):
    images = np.stack([np.full((16, 24), 60), np.full((16, 24), 200)]).astype(np.uint8)
    heat, mask = np.zeros((2, 16, 24)), np.zeros((16, 24), bool)
    heat[0, 3, 20], heat[0, 5, 7], heat[1, 12, 2] = 1.0, 9.0, 2.0
    mask[2:6, 15:23] = True
    grids.draw_heat_maps(images, heat, 4.0, "evidence", [mask, None], ["a", "b"], [False, True])
    first, second, bar = drawn[0].axes
    for axes, level in ((first, 60), (second, 200)):
        assert np.all(axes.images[0].get_array()[:, :24] == level)
    pixels = [axes.images[0].get_array()[:, 24:] for axes in (first, second)]
    fractions = {
        (0, 3, 20): 0.25,
        (0, 5, 7): 1,
        (1, 12, 2): 0.5,
        (1, 3, 20): 0,
        (0, 0, 0): 0,
    }
    for (index, row, column), fraction in fractions.items():
        expected = heated(images[index, 0, 0], fraction)
        np.testing.assert_allclose(pixels[index][row, column], expected, atol=1)
    outline = np.concatenate([path.vertices for path in first.collections[0].get_paths()])
    np.testing.assert_allclose(
        [outline.min(axis=0), outline.max(axis=0)], [[24 + 14.5, 1.5], [24 + 22.5, 5.5]]
    )
    assert not second.collections
    assert bar.get_ylim() == (0, 4.0)
    assert bar.get_ylabel() == "evidence"
    assert [axes.title.get_color() for axes in (first, second)] == ["black", layout.WRONG_COLOR]


def test_panel():
    """It has the image, the image under heat, and the color bar."""
    image, heat = np.zeros((32, 32), np.uint8), np.zeros((32, 32))
    image[:16] = 100
    heat[16:, :16] = 3.0
    pixels = overlays.panel(image, heat, 3.0, "evidence").astype(int)
    assert pixels.shape[0] == 12 * 32
    places = {
        (96, 192): [100] * 3,
        (288, 192): [0] * 3,
        (96, 480): [70] * 3,
        (288, 480): heated(0, 1),
        (288, 672): heated(0, 0),
    }
    for (row, column), color in places.items():
        np.testing.assert_allclose(pixels[row, column], color, atol=1)
    bar = pixels[:, 768 + 20]
    colored = np.flatnonzero(np.ptp(bar, axis=1) > 20)
    assert bar[colored[10]].sum() > bar[colored[-10]].sum()  # the hottest color is at the top


def test_evidence_label():
    assert overlays.evidence_label(["no", "yes"], "yes").startswith("evidence for yes,")
    for classes, positive in ((["a", "b"], None), (["a", "b", "c"], "b")):
        label = overlays.evidence_label(classes, positive)
        assert label.startswith("evidence for the predicted class,")


def test_shortened_names():
    """They are cut in the middle and stay distinct."""
    assert shorten("glioma", 24) == "glioma"
    assert shorten("a_class_name_of_sixty_seven_letters", 11) == "a_cla…tters"
    assert shorten("glioma", 6) == "glioma"
    assert shorten("glioma", 5) == "gl…ma"
    assert shorten("glioma", 4) == "gl…a"
    assert shorten("脑胶", 4) == "脑胶"
    assert shorten("脑胶", 3) == "脑…"
    assert columns("e\u0301脑Ａ") == 5
    assert shorten("脑胶质瘤脑胶质瘤", 8) == "脑胶…瘤"
    assert shorten("e\u0301" * 5, 3) == "e\u0301…e\u0301"  # accents stay on their letters
    assert shorten("a\u202eb\x1b", 24) == "a\\u202eb\\x1b"
    assert shorten("\udc80", 24) == "\\udc80"
    assert shorten("glioma", 1) == "…"
    assert shorten("aéc", 24, lambda letter: letter != "é") == "a\\xe9c"
    assert shorten_all(["a" * 30 + "1" + "b" * 30, "other", "a" * 30 + "2" + "b" * 30], 10) == [
        "aaa…bbb #1",
        "other",
        "aaa…bbb #3",
    ]
    assert pad("脑", 5) == "脑   "


def test_letters_without_a_font_are_escaped(monkeypatch):
    monkeypatch.setattr(fonts, "_font_files", list)
    monkeypatch.setattr(fonts, "families", ["DejaVu Sans"])
    fonts.drawable.cache_clear()
    shown = layout.short_names(["glioma é опухоль", "脑瘤"])
    assert shown == ["glioma é опухоль", "\\u8111\\u7624"]
    fonts.drawable.cache_clear()


def test_matplotlib_settings_do_not_matter():
    """Neither a user's settings change figures, nor figures the settings."""
    expected = draw_confusion_matrix(ASYMMETRIC, ["a", "$b$", "c"])
    settings = {"font.size": 20, "font.family": ["serif"], "axes.grid": True, "figure.dpi": 50}
    with matplotlib.rc_context(settings):
        assert draw_confusion_matrix(ASYMMETRIC, ["a", "$b$", "c"]) == expected
        assert {name: matplotlib.rcParams[name] for name in settings} == settings
