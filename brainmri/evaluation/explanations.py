"""The figure of heat maps over test images."""

import numpy as np

from brainmri.evaluation.figures import grids
from brainmri.evaluation.figures.layout import short_names
from brainmri.evaluation.figures.overlays import evidence_label


def draw_explanations(
    images: np.ndarray,
    labels: np.ndarray,
    predicted: np.ndarray,
    confidence: np.ndarray,
    heat: np.ndarray,
    scale: float,
    outlines: list[np.ndarray | None],
    classes: list[str],
    positive: str | None,
) -> bytes:
    """Draw images beside the evidence in them.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, height, width)
    labels, predicted : ndarray of int, shape (n,)
    confidence : ndarray of float, shape (n,)
        Probability of the predicted class.
    heat : ndarray of float, shape (n, height, width)
        See `models.heat_maps.heat_maps`.
    scale : float
        Heat at the top of the color bar.
    outlines : list of (ndarray of bool, shape (height, width)) or None
        The tumor of each image, where it is known.
    classes : list of str
    positive : str, optional
        The positive class.

    Returns
    -------
    bytes
        A PNG file.
    """
    names = short_names(classes)
    captions = [
        f"true {names[label]}, predicted {names[prediction]} (p = {probability:.2f})"
        for label, prediction, probability in zip(labels, predicted, confidence, strict=True)
    ]
    is_wrong = (predicted != labels).tolist()
    unit = evidence_label(classes, positive)
    return grids.draw_heat_maps(images, heat, scale, unit, outlines, captions, is_wrong)
