"""Decision thresholds on the probability of the second of two classes."""

import numpy as np

from brainmri.evaluation.metrics import mean


def choose_threshold(
    rule: str, labels: np.ndarray, positive: np.ndarray, min_sensitivity: float
) -> float:
    """Choose a threshold; 0.5 where all images are of one class.

    Parameters
    ----------
    rule : {"half", "youden", "sensitivity"}
        0.5; the threshold with the largest sum of sensitivity and specificity (Youden's J); or the
        highest one whose sensitivity is not below `min_sensitivity`.
    labels : ndarray of int, shape (n,)
        0 or 1.
    positive : ndarray of float, shape (n,)
        Probabilities of class 1.
    min_sensitivity : float
        Above 0, at most 1.

    References
    ----------
    W. Youden, "Index for rating diagnostic tests", Cancer 3, 1950.
    """
    if rule == "half" or len(np.unique(labels)) < 2:
        return 0.5
    thresholds = np.unique(positive)[::-1]
    rates = np.array(
        [sensitivity_specificity(labels, positive, threshold) for threshold in thresholds]
    )
    if rule == "youden":
        return float(thresholds[rates.sum(axis=1).argmax()])
    return float(thresholds[np.flatnonzero(rates[:, 0] >= min_sensitivity)[0]])


def sensitivity_specificity(
    labels: np.ndarray, positive: np.ndarray, threshold: float
) -> tuple[float, float]:
    """Compute the fraction of class 1 predicted as 1, and that of class 0 predicted as 0.

    A probability of class 1 at the threshold or above predicts 1. NaN is of a class without images.
    """
    predicted = positive >= threshold
    return mean(predicted[labels == 1]), mean(~predicted[labels == 0])
