"""How well heat maps point at known regions."""

import numpy as np

from brainmri.evaluation.results import PointingGame


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
