"""What all figures share: style, colors, sizes, labels, and the encoding as PNG."""

import io
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D

from brainmri.evaluation.figures import fonts
from brainmri.evaluation.names import columns, shorten, shorten_all

DPI = 110
ENSEMBLE_COLOR, MEMBER_COLOR, WRONG_COLOR = "#1b5e8c", "#9db8c9", "#b3261e"
MAX_NAME = 24  # columns of a name in a plot
MAX_LINE = 99  # columns of a caption's line before it is fitted
MIN_LABEL_SPACING = 0.11  # inches
# Invisible. It keeps the text around a Hebrew or Arabic name from changing places with it.
LEFT_TO_RIGHT = "\u200e"
_RC_LOCK = threading.RLock()


@contextmanager
def plot_style() -> Iterator[None]:
    """Draw with matplotlib's defaults and the fonts of `fonts.families`.

    A user's matplotlibrc must not change plots, since DVC doesn't know of it. Text is never parsed
    as math: class names and paths may hold dollar signs. `short_names` and `fit_line` add the fonts
    that their letters need, so call them before.
    """
    with _RC_LOCK, matplotlib.rc_context():  # rcParams are those of all threads
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"font.family": fonts.families, "text.parse_math": False})
        yield


def new_figure(width: float, height: float, columns: int = 1) -> tuple[Figure, Axes | np.ndarray]:
    """Make a figure of a size in inches, and its axes in one row."""
    figure = Figure((width, height), DPI, layout="constrained")
    return figure, figure.subplots(1, columns)


def encode_png(figure: Figure) -> bytes:
    """Encode a figure as PNG, without metadata that depend on matplotlib's version."""
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(
        file, metadata={"Software": None}, pil_kwargs={"compress_level": 9}
    )
    return file.getvalue()


def short_names(names: list[str]) -> list[str]:
    """Shorten names for plots: at most `MAX_NAME` columns, distinct, of drawable letters."""
    return [
        f"{LEFT_TO_RIGHT}{name}{LEFT_TO_RIGHT}" if any(map(_is_right_to_left, name)) else name
        for name in shorten_all(names, MAX_NAME, fonts.drawable)
    ]


def fit_line(line: str, width: float, points: float) -> str:
    """Shorten a line of text to a width in inches, at a font size in points.

    Letters that cannot be drawn are escaped.
    """
    text = shorten(line, MAX_LINE, fonts.drawable)
    with plot_style():
        font = FontProperties(size=points)
        renderer = FigureCanvasAgg(Figure(dpi=72)).get_renderer()
        while renderer.get_text_width_height_descent(text, font, False)[0] > 72 * width:
            text = shorten(line, columns(text) - 1, fonts.drawable)
    return text


def spacing(count: int, largest: float, total: float) -> float:
    """Compute the inches for each of so many rows or cells, which take at most `total` together."""
    return min(largest, total / count)


def font_size(label_spacing: float) -> float:
    """Compute the font size, in points, of labels that are so many inches apart."""
    return float(np.clip(50 * label_spacing, 6, 10))


def letter_width(points: float) -> float:
    """Estimate the mean width of a letter, in inches, at a font size in points."""
    return 0.58 * points / 72


def label_axis(axis: Axis, names: list[str], label_spacing: float) -> None:
    """Label ticks that are so many inches apart, or every nth where labels would overlap."""
    every = int(np.ceil(MIN_LABEL_SPACING / label_spacing))
    ticks = range(0, len(names), every)
    axis.set_ticks(ticks, names[::every], fontsize=font_size(label_spacing))


def add_legend_below(
    figure: Figure, lines: list[Line2D], labels: list[str], title: str | None = None
) -> None:
    """Add a legend below the axes, in as many columns as fit, and make the figure higher by it."""
    widest = max(map(columns, labels)) * letter_width(8.5) + 0.6
    legend_columns = max(1, min(len(labels), int(figure.get_figwidth() / widest)))
    rows = -(-len(labels) // legend_columns)
    figure.set_figheight(figure.get_figheight() + 0.18 * rows + (0.5 if title else 0.3))
    figure.legend(
        lines,
        labels,
        loc="outside lower center",
        ncols=legend_columns,
        fontsize="small",
        title=title,
        title_fontsize="small",
    )


def _is_right_to_left(letter: str) -> bool:
    return unicodedata.bidirectional(letter) in ("R", "AL")
