"""The weighted soft vote of the members. Pure functions on arrays."""

import numpy as np

from brainmri.evaluation.log_loss import log_loss
from brainmri.evaluation.metrics import headline_metrics, precision_and_recall

ENSEMBLE, UNIFORM = "ensemble", "uniform vote"  # voters besides the members
FITTED_SCHEMES = ("greedy", "stacking")  # see `fitted_weights`; others are by member


def member_score(
    scheme: str, labels: np.ndarray, probabilities: np.ndarray, positive: int | None
) -> float:
    """Score a member by its out-of-bag predictions; higher is better.

    Parameters
    ----------
    scheme : str
        See `params.Weigh`. "uniform" is 1 for every member. "softmax" is the mean of accuracy, ROC
        AUC, precision and recall. "log_loss", "greedy" and "stacking" are exp(−log loss), the
        geometric mean of the probabilities of the true classes. A ROC AUC of images of a single
        class, which ranks nothing, counts as 0.5.
    labels : ndarray of int, shape (n,)
        True classes of the member's out-of-bag images.
    probabilities : ndarray of float, shape (n, classes)
        The member's predictions for them.
    positive : int, optional
        The positive class, of which "softmax" takes precision and recall.
    """
    if scheme == "uniform":
        return 1.0
    if scheme in ("log_loss", *FITTED_SCHEMES):
        return float(np.exp(-log_loss(labels, probabilities)))
    headlines = headline_metrics(labels, probabilities)
    area = 0.5 if np.isnan(headlines["roc_auc"]) else headlines["roc_auc"]
    if scheme == "auc":
        return area
    if scheme == "softmax":
        precision, recall = precision_and_recall(labels, probabilities, positive)
        return float(np.mean([headlines["accuracy"], area, precision, recall]))
    return headlines[scheme]


def voting_weights(scheme: str, scores: np.ndarray) -> np.ndarray:
    """Compute voting weights from the members' scores; they sum to 1.

    They are proportional to the scores, or under "softmax" to their exponentials.

    Parameters
    ----------
    scheme : str
        See `member_score`; not one of `FITTED_SCHEMES`.
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


def soft_vote(probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Compute the weighted mean of the members' class probabilities.

    Parameters
    ----------
    probabilities : ndarray of float, shape (members, n, classes)
    weights : ndarray of float, shape (members,)
        They sum to 1.

    Returns
    -------
    ndarray of float, shape (n, classes)
        Each row sums to 1.
    """
    # By `einsum`: the last bits of `@` and `tensordot` depend on processor and environment.
    mean = np.einsum("m,mnc->nc", weights, probabilities)
    return mean / mean.sum(axis=1, keepdims=True)


def out_of_bag_vote(
    probabilities: list[np.ndarray], rows: list[np.ndarray], weights: np.ndarray, images: int
) -> np.ndarray:
    """Compute the vote on each image of those members for which it is out-of-bag.

    Parameters
    ----------
    probabilities : list of ndarray of float, shape (n_i, classes)
        Each member's predictions for its out-of-bag images.
    rows : list of ndarray of int, shape (n_i,)
        Rows of those images.
    weights : ndarray of float, shape (members,)
    images : int
        Number of rows in the store.

    Returns
    -------
    ndarray of float, shape (images, classes)
        NaN for images that are out-of-bag for no member.
    """
    votes = np.zeros((images, probabilities[0].shape[1]))
    total = np.zeros((images, 1))
    for predicted, member_rows, weight in zip(probabilities, rows, weights, strict=True):
        votes[member_rows] += weight * predicted
        total[member_rows] += weight
    with np.errstate(invalid="ignore"):
        return votes / total
