"""How members vote: a weighted mean of their class probabilities. Pure functions on arrays."""

import numpy as np

from stages.shared import metrics


def score(scheme: str, labels: np.ndarray, probabilities: np.ndarray) -> float:
    """What a member's out-of-bag predictions are worth under a scheme; higher is better.

    Parameters
    ----------
    scheme : {"uniform", "accuracy", "balanced_accuracy", "auc", "softmax", "log_loss"}
        "uniform" is 1 for every member. "softmax" is the mean of accuracy, ROC AUC, precision and recall. "log_loss" is
        exp(−log loss), the geometric mean of the probabilities given to the true classes.
    labels : ndarray of int, shape (n,)
        True classes of the member's out-of-bag images.
    probabilities : ndarray of float, shape (n, classes)
        The member's predictions for them.
    """
    if scheme == "uniform":
        return 1.0
    if scheme == "log_loss":
        return float(np.exp(-metrics.log_loss(labels, probabilities)))
    headlines = metrics.headlines(labels, probabilities)
    if scheme == "softmax":
        return float(np.mean([headlines["accuracy"], headlines["roc_auc"], *metrics.precision_and_recall(labels, probabilities)]))
    return headlines["roc_auc" if scheme == "auc" else scheme]


def weights(scheme: str, scores: np.ndarray) -> np.ndarray:
    """Voting weights: proportional to the scores, or under "softmax" to their exponentials; they sum to 1.

    Parameters
    ----------
    scheme : str
        As of `score`.
    scores : ndarray of float, shape (members,)
        Not negative. If all are 0, all weights are equal.

    Returns
    -------
    ndarray of float, shape (members,)
    """
    values = np.exp(scores) if scheme == "softmax" else np.asarray(scores, float)
    if not values.sum() > 0:
        values = np.ones(len(values))
    return values / values.sum()


def vote(probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted soft vote.

    Parameters
    ----------
    probabilities : ndarray of float, shape (members, n, classes)
        Each member's predictions.
    weights : ndarray of float, shape (members,)
        They sum to 1.

    Returns
    -------
    ndarray of float, shape (n, classes)
        Each row sums to 1.
    """
    mean = np.tensordot(weights, probabilities, 1)
    return mean / mean.sum(axis=1, keepdims=True)
