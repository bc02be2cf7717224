"""Which test images to explain, their figure, and how well heat maps point at known regions."""

import numpy as np

from brainmri.evaluation.figures import grids
from brainmri.evaluation.figures.layout import short_names
from brainmri.evaluation.figures.overlays import evidence_label
from brainmri.evaluation.results import PointingGame


def choose_examples(
    labels: np.ndarray, predicted: np.ndarray, confidence: np.ndarray, images: int
) -> list[int]:
    """Choose confident correct images, confident wrong ones and unsure ones, a third each.

    The correct ones are of each class in turn. Where too few images are predicted wrong, there are
    more unsure ones.

    Parameters
    ----------
    labels, predicted : ndarray of int, shape (n,)
    confidence : ndarray of float, shape (n,)
        Probability of the predicted class.
    images : int
        How many to choose.

    Returns
    -------
    list of int
        Positions in `labels`.
    """
    by_confidence = np.argsort(-confidence, kind="stable")
    is_correct = (predicted == labels)[by_confidence]
    correct, incorrect = by_confidence[is_correct], by_confidence[~is_correct]
    rank_in_class = np.array(
        [np.sum(labels[correct][:place] == label) for place, label in enumerate(labels[correct])]
    )
    third = -(-images // 3)
    chosen = correct[np.argsort(rank_in_class, kind="stable")][:third].tolist()
    chosen += incorrect[:third].tolist()
    others = [position for position in by_confidence[::-1].tolist() if position not in chosen]
    return (chosen + others)[:images]


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


def pointing_game(heat: np.ndarray, masks: np.ndarray) -> PointingGame:
    """Compare heat maps with masks of the regions that they should highlight.

    Parameters
    ----------
    heat : ndarray of float, shape (n, height, width)
    masks : ndarray of bool, shape (n, height, width)

    Returns
    -------
    PointingGame
        `accuracy` is the fraction of images whose hottest point is in the mask, `energy` the mean
        fraction of the heat in the mask, `chance` the mean fraction of the image in the mask: what
        either is for a random map.

    References
    ----------
    J. Zhang et al., "Top-Down Neural Attention by Excitation Backprop", IJCV 2018 (accuracy);
    H. Wang et al., "Score-CAM", CVPR Workshops 2020 (energy).
    """
    hottest = heat.reshape(len(heat), -1).argmax(axis=1)
    hits = masks.reshape(len(masks), -1)[np.arange(len(masks)), hottest]
    hits &= heat.max(axis=(1, 2)) > 0
    energy = (heat * masks).sum(axis=(1, 2)) / np.maximum(heat.sum(axis=(1, 2)), 1e-9)
    return {
        "images": len(heat),
        "accuracy": float(np.mean(hits)),
        "energy": float(np.mean(energy)),
        "chance": float(np.mean(masks)),
    }
