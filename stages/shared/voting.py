"""How members vote: a weighted mean of their class probabilities. Pure functions on arrays."""

import numpy as np

from stages.shared import metrics

ENSEMBLE, UNIFORM = "ensemble", "uniform vote"  # voters, beside the members


def score(scheme: str, labels: np.ndarray, probabilities: np.ndarray) -> float:
    """What a member's out-of-bag predictions are worth under a scheme; higher is better.

    Parameters
    ----------
    scheme : {"uniform", "accuracy", "balanced_accuracy", "auc", "softmax", "log_loss"}
        "uniform" is 1 for every member. "softmax" is the mean of accuracy, ROC AUC, precision and recall. "log_loss" is
        exp(−log loss), the geometric mean of the probabilities given to the true classes. A ROC AUC of images of a single
        class, which rank nothing, counts as 0.5.
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
    area = 0.5 if np.isnan(headlines["roc_auc"]) else headlines["roc_auc"]
    if scheme == "auc":
        return area
    if scheme == "softmax":
        return float(np.mean([headlines["accuracy"], area, *metrics.precision_and_recall(labels, probabilities)]))
    return headlines[scheme]


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


def out_of_bag_vote(probabilities: list[np.ndarray], rows: list[np.ndarray], weights: np.ndarray, images: int) -> np.ndarray:
    """The vote on each image of those members to whom it is out-of-bag.

    Parameters
    ----------
    probabilities : list of ndarray of float, shape (n_i, classes)
        Each member's predictions for its out-of-bag images.
    rows : list of ndarray of int, shape (n_i,)
        Rows of those images.
    weights : ndarray of float, shape (members,)
        Voting weights.
    images : int
        Number of rows.

    Returns
    -------
    ndarray of float, shape (images, classes)
        NaN for images that are out-of-bag to no member.
    """
    votes, total = np.zeros((images, probabilities[0].shape[1])), np.zeros((images, 1))
    for of_member, where, weight in zip(probabilities, rows, weights, strict=True):
        votes[where] += weight * of_member
        total[where] += weight
    with np.errstate(invalid="ignore"):
        return votes / total


def calibrate(probabilities: np.ndarray, temperature: float, biases: np.ndarray) -> np.ndarray:
    """Probabilities made surer by a temperature below 1, or less sure above, and shifted towards classes by biases.

    Parameters
    ----------
    probabilities : ndarray of float, shape (n, classes)
    temperature : float
        Divides the logarithms; above 0.
    biases : ndarray of float, shape (classes,)
        Added to them then.

    Returns
    -------
    ndarray of float, shape (n, classes)
        Each row sums to 1.
    """
    scores = np.log(np.maximum(probabilities, 1e-7)) / temperature + biases
    scaled = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scaled / scaled.sum(axis=1, keepdims=True)


def fit_calibration(labels: np.ndarray, probabilities: np.ndarray) -> tuple[float, np.ndarray]:
    """The temperature and the biases with which predictions have the lowest log loss; few predictions move them little.

    As if they were drawn from normal distributions: the temperature's logarithm with standard deviation 0.5, biases with 1.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
        True classes.
    probabilities : ndarray of float, shape (n, classes)

    Returns
    -------
    temperature : float
    biases : ndarray of float, shape (classes,)
        The first is 0.

    References
    ----------
    A. Alexandari, A. Kundaje, A. Shrikumar, "Maximum Likelihood with Bias-Corrected Calibration is Hard-To-Beat at Label
    Shift Adaptation", ICML 2020.
    """
    from scipy.optimize import minimize

    def unlikeliness(values: np.ndarray) -> float:
        told = calibrate(probabilities, np.exp(values[0]), np.append(0, values[1:]))
        return len(labels) * metrics.log_loss(labels, told) + (values[0] / 0.5) ** 2 / 2 + (values[1:] ** 2).sum() / 2

    best = minimize(unlikeliness, np.zeros(probabilities.shape[1])).x
    return float(np.exp(best[0])), np.append(0, best[1:])
