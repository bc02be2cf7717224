"""Heat maps laid over their images."""

import functools

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from PIL import Image

from brainmri.evaluation.figures.fonts import drawable
from brainmri.evaluation.figures.layout import DPI, plot_style
from brainmri.evaluation.names import shorten

DIMMED = 0.7  # levels of an image under its heat map, as a fraction of its own
PANEL_HEIGHT = 384  # pixels, about: a multiple of the image's height
MAX_CLASS = 10  # columns of a class's name at the color bar


def overlay(image: np.ndarray, heat: np.ndarray, scale: float) -> np.ndarray:
    """Lay a heat map over its image, which is dimmed so that heat stands out.

    Parameters
    ----------
    image : ndarray of uint8, shape (height, width)
    heat : ndarray of float, shape (height, width)
        0 or more, in the unit of `scale`.
    scale : float
        The heat that is drawn brightest, as is any above.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
    """
    level = np.clip(heat / scale, 0, 1)[..., np.newaxis]
    colors = matplotlib.colormaps["inferno"](0.3 + 0.7 * level[..., 0])[..., :3] * 255
    opacity = 0.85 * np.minimum(1.5 * level, 1)
    dimmed = DIMMED * image[..., np.newaxis] * (1 - opacity)
    return np.round(dimmed + colors * opacity).astype(np.uint8)


def image_and_overlay(image: np.ndarray, heat: np.ndarray, scale: float) -> np.ndarray:
    """Join an image with its `overlay` at its right: uint8, shape (height, 2 × width, 3)."""
    color_image = np.repeat(image[..., np.newaxis], 3, axis=-1)
    return np.concatenate([color_image, overlay(image, heat, scale)], axis=1)


def panel(image: np.ndarray, heat: np.ndarray, scale: float, label: str) -> np.ndarray:
    """Draw an image, its `overlay` and a color bar in one row.

    Parameters
    ----------
    image, heat, scale : see `overlay`
    label : str
        Of the color bar; see `evidence_label`.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        About `PANEL_HEIGHT` high.
    """
    pair = Image.fromarray(image_and_overlay(image, heat, scale))
    factor = max(1, round(PANEL_HEIGHT / pair.height))
    pair = pair.resize((pair.width * factor, pair.height * factor), Image.Resampling.BICUBIC)
    return np.concatenate([np.asarray(pair), _color_bar(scale, label, pair.height)], axis=1)


def evidence_label(classes: list[str], positive: str | None) -> str:
    """Return the color bar's label for maps of `models.heat_maps.explained_classes`."""
    explained = "the predicted class"
    if len(classes) == 2 and positive is not None:
        explained = shorten(positive, MAX_CLASS, drawable)
    return f"evidence for {explained},\nlog-odds per 1 % of the image"


def color_scale(scale: float) -> ScalarMappable:
    """Return the colors that `overlay` gives to a black image, for a color bar."""
    black = np.zeros((1, 256), np.uint8)
    colors = overlay(black, np.linspace(0, 1, 256)[np.newaxis], 1.0)[0] / 255
    return ScalarMappable(Normalize(0, scale), ListedColormap(colors))


@functools.cache
def _color_bar(scale: float, label: str, height: int) -> np.ndarray:
    """Draw a color bar: uint8, shape (height, width, 3)."""
    with plot_style():
        figure = Figure((1.1, height / DPI), DPI)
        axes = figure.add_axes((0.1, 0.06, 0.2, 0.86))
        bar = figure.colorbar(color_scale(scale), cax=axes, extend="max")
        bar.set_label(label, fontsize=7)
        axes.tick_params(labelsize=7)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:height, :, :3].copy()
