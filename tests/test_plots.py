"""Plots are readable at two classes and at a hundred, with any name: nothing is cut off, covered, boxed or warned about."""

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from stages.shared import fonts, pictures
from stages.shared.names import columns, pad, shorten, shorten_all

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
    figures, png = [], pictures._png
    monkeypatch.setattr(pictures, "_png", lambda figure: figures.append(figure) or png(figure))
    return figures


def names(count: int) -> list[str]:
    return (HARD[-count:] if count < len(HARD) else HARD) + [f"class {number}" for number in range(count - len(HARD))]


def predictions(count: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.repeat(np.arange(count), 6)
    logits = np.random.default_rng(0).normal(size=(len(labels), count)) + 2 * np.eye(count)[labels]
    return labels, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def check(figure) -> None:
    """Nothing hangs over the edge, no legend covers a plot, plots fill the figure, no label lies on the next."""
    renderer, whole = figure.canvas.get_renderer(), figure.bbox
    assert max(whole.width, whole.height) < 2600
    inches = figure.get_tightbbox(renderer)
    assert min(inches.x0, inches.y0) >= -0.01  # a pixel
    assert inches.x1 <= figure.get_figwidth() + 0.01
    assert inches.y1 <= figure.get_figheight() + 0.01
    letters = {letter for text in figure.findobj(Text) for letter in text.get_text()}
    assert all(map(fonts.drawable, letters - {"\n", pictures.LEFT_TO_RIGHT}))
    for legend, axes in itertools.product(figure.legends, figure.axes):
        assert not legend.get_window_extent(renderer).overlaps(axes.get_window_extent(renderer))
        assert legend.get_window_extent(renderer).y1 <= axes.get_tightbbox(renderer).y0 + 1
    area = sum(axes.get_window_extent(renderer).width * axes.get_window_extent(renderer).height for axes in figure.axes)
    assert area / (whole.width * whole.height) > 0.25
    for axes in figure.axes:
        for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
            extents = [label.get_window_extent(renderer) for label in labels if label.get_text()]
            assert not any(first.overlaps(second) for first, second in itertools.pairwise(extents))


@pytest.mark.parametrize("count", COUNTS)
def test_confusion_matrices(drawn, count):
    counts = np.random.default_rng(0).integers(0, 30, (count, count))
    counts[0] = 0  # a class without an image
    pictures.confusion(counts, names(count))
    voters = {"ensemble": 0.9, "uniform vote": 0.8, "best member": 0.7, "mean member": 0.6}
    pictures.crossval(voters, [0.8, 0.95], [0.8, 0.9], counts, names(count))
    if count == 2:
        pictures.crossval(voters, None, [0.8, 0.9], counts, names(count))
    for figure in drawn:
        check(figure)
    (matrix,) = [axes for axes in drawn[0].axes if axes.images]
    labels = [label.get_text().strip(pictures.LEFT_TO_RIGHT) for label in matrix.get_yticklabels()]
    assert len(set(labels)) == count
    assert max(map(columns, labels)) <= 24
    cells = len(matrix.texts)
    assert cells == (count * count if count <= 20 else 0)


@pytest.mark.parametrize("count", COUNTS)
def test_curves_of_classes(drawn, count):
    classes, (labels, probabilities) = names(count), predictions(count)
    roc, precision_recall, areas = {}, {}, {}
    for label in [1] if count == 2 else range(count):
        order = np.argsort(-probabilities[:, label])
        hits = np.cumsum(labels[order] == label)
        rank = np.arange(1, len(labels) + 1)
        roc[classes[label]] = np.stack([(rank - hits) / (rank - hits)[-1], hits / hits[-1]], axis=1)
        precision_recall[classes[label]] = np.stack([hits / hits[-1], hits / rank], axis=1)
        areas[classes[label]] = (None, None) if label == 1 else (0.9, 0.8)
    pictures.curves(roc, precision_recall, areas)
    (figure,) = drawn
    check(figure)
    if count == 2:
        assert figure.axes[0].get_legend().get_texts()[0].get_text().endswith(": area none")
        return
    (legend,) = figure.legends
    shown = [text.get_text() for text in legend.get_texts()]
    if count > 20:
        assert shown == ["mean of 100 classes: area none, average precision none", "each class against the rest"]
        return
    assert len(shown) == len(set(shown)) == count  # also "_background", which matplotlib would leave out
    assert shown[1].endswith(": none, none")
    for axes in figure.axes:
        assert len({to_hex(line.get_color()) for line in axes.lines if line.get_linestyle() != ":"}) == count
    assert [to_hex(line.get_color()) for line in legend.get_lines()] == [to_hex(color) for color in pictures.COLORS[:count]]


@pytest.mark.parametrize("count", [*COUNTS, 250])
def test_plots_of_members(drawn, count):
    accuracies = {"ensemble": 0.9, "uniform vote": 0.8, **{f"member-{number:02d}": 0.7 for number in range(count)}}
    pictures.members(accuracies, [0.8, 1.0])
    pictures.members(accuracies, None)
    epochs = np.arange(1, 5)
    columns = ("in_bag_log_loss", "in_bag_accuracy", "out_of_bag_log_loss", "out_of_bag_accuracy")
    histories = {
        name: {"epoch": epochs[: 3 + place % 2], **{column: np.linspace(1, 0.1, 3 + place % 2) for column in columns}}
        for place, name in enumerate([*accuracies][2:])
    }
    pictures.learning_curves(histories)
    for figure in drawn:
        check(figure)
    interval, none, learning = drawn
    assert interval.axes[0].get_title() == "Accuracy on the test images (95 % interval)"
    assert none.axes[0].get_title() == "Accuracy on the test images"
    solid = {to_hex(line.get_color()) for line in learning.axes[0].lines if line.get_linestyle() == "-"}
    assert len(solid) == (count if count <= 20 else 2)
    assert len(learning.legends[0].get_texts()) == (count if count <= 20 else 2)


def test_captions_of_images_with_hard_names(drawn):
    images = np.zeros((len(HARD), 32, 32), np.uint8)
    shown = pictures.short_names(HARD)
    captions = [f"{name}.png\n{short}: probability 0.50" for name, short in zip(HARD, shown, strict=True)]
    pictures.gallery(images, captions, [False] * len(HARD))
    check(drawn[0])


@pytest.mark.parametrize("name", ["yes", "W" * 67, "脑胶质瘤"])
def test_evidence_for_a_class_with_a_hard_name(drawn, name):
    images, label = np.zeros((2, 32, 32), np.uint8), pictures.evidence_label(["no", name])
    captions = [f"true no, predicted {pictures.short_names(['no', name])[1]} 0.50"] * 2
    pictures.explanations(images, np.ones((2, 32, 32)), 1.0, label, [None, None], captions, [False, True])
    check(drawn[0])
    assert pictures.panel(images[0], np.ones((32, 32)), 1.0, label).shape[0] > 32


def test_names_are_shortened_at_the_middle_and_stay_distinct():
    assert shorten("glioma", 24) == "glioma"
    assert shorten("a_class_name_of_sixty_seven_letters", 11) == "a_cla…tters"
    assert (shorten("glioma", 6), shorten("glioma", 5), shorten("glioma", 4)) == ("glioma", "gl…ma", "gl…a")
    assert (shorten("脑胶", 4), shorten("脑胶", 3), columns("e\u0301脑Ａ")) == ("脑胶", "脑…", 5)
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
    monkeypatch.setattr(fonts, "_font_files", lambda: fonts_that_are_there)
    fonts_that_are_there: list[str] = []
    fonts.drawable.cache_clear()
    monkeypatch.setitem(fonts.matplotlib.rcParams, "font.family", ["DejaVu Sans"])
    assert pictures.short_names(["glioma é опухоль", "脑瘤"]) == ["glioma é опухоль", "\\u8111\\u7624"]
    fonts.drawable.cache_clear()
