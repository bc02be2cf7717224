"""Voting weights that are fitted to the log loss of the out-of-bag vote.

The vote is then calibrated, thresholded and scored on the same images, where its log loss is
optimistic: `measure_optimism` computes what it is with weights fitted to other images.

Everything here is computed from `true_class`, the probabilities that the members predict for the
true classes: ndarray of float, shape (members, n), NaN where an image is not out-of-bag for a
member, and at least one number in each column.
"""

from collections.abc import Collection

import numpy as np

from brainmri.evaluation.log_loss import MIN_PROBABILITY
from brainmri.evaluation.results import VoteLogLoss

ROUNDS = 100  # of greedy selection
EQUAL_CHOICES = 20  # choices that the equal vote counts as at its start
PULL = 3  # towards equal weights, as strong as so many images
FOLDS = 5
DECIMALS = 9  # of fitted weights: the optimizer's last digits depend on processor and environment


def true_class_probabilities(
    labels: np.ndarray, predictions: Collection[tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """Collect the probabilities that members predict for the true classes.

    Parameters
    ----------
    labels : ndarray of int, shape (images,)
        Of all rows of the store.
    predictions : collection of (rows, probabilities)
        Of each member: ndarray of int, shape (n_i,), its out-of-bag rows; ndarray of float, shape
        (n_i, classes).

    Returns
    -------
    voted : ndarray of int, shape (n,)
        Rows that are out-of-bag for a member or more.
    true_class : ndarray of float, shape (members, n)
        Of these; from 1e-7, as in `log_loss`, to 1.
    """
    true_class = np.full((len(predictions), len(labels)), np.nan)
    for member, (rows, probabilities) in enumerate(predictions):
        of_true_class = probabilities[np.arange(len(rows)), labels[rows]]
        true_class[member, rows] = np.maximum(of_true_class, MIN_PROBABILITY)
    voted = np.flatnonzero(~np.isnan(true_class).all(axis=0))
    return voted, true_class[:, voted]


def fit_weights(scheme: str, true_class: np.ndarray) -> np.ndarray:
    """Fit voting weights, which sum to 1, by `greedy_weights` or `stacking_weights`.

    Parameters
    ----------
    scheme : {"greedy", "stacking"}
    true_class : ndarray of float, shape (members, n)

    Returns
    -------
    ndarray of float, shape (members,)
    """
    return {"greedy": greedy_weights, "stacking": stacking_weights}[scheme](true_class)


def greedy_weights(true_class: np.ndarray) -> np.ndarray:
    """Select members one by one, with replacement; a weight is how often one was chosen.

    Each of 100 rounds adds the member, the first of equals, with which the log loss of the vote is
    lowest. The result is the best ensemble of all rounds. The start is the equal vote of all
    members, which counts as 20 choices: the paper's sorted initialization, with the whole library.
    It prevents overfitting, and each image keeps a vote, since no weight is 0.

    Parameters
    ----------
    true_class : ndarray of float, shape (members, n)
        Without images, all weights are equal.

    Returns
    -------
    ndarray of float, shape (members,)
        Above 0; they sum to 1. The log loss with them is no higher than with equal weights.

    References
    ----------
    R. Caruana, A. Niculescu-Mizil, G. Crew, A. Ksikes, "Ensemble Selection from Libraries of
    Models", ICML 2004.
    """
    values, is_out_of_bag = _values_and_mask(true_class)
    choices = np.full(len(values), EQUAL_CHOICES / len(values))
    votes, totals = _mix(choices, values), _mix(choices, is_out_of_bag)
    best_choices, best_loss = choices.copy(), np.log(totals / votes).sum()
    for _ in range(ROUNDS):
        losses = np.log((totals + is_out_of_bag) / (votes + values)).sum(axis=1)
        chosen = losses.argmin()
        choices[chosen] += 1
        votes += values[chosen]
        totals += is_out_of_bag[chosen]
        if losses[chosen] < best_loss * (1 - 1e-12):  # by more than rounding
            best_choices, best_loss = choices.copy(), losses[chosen]
    return best_choices / best_choices.sum()


def stacking_weights(true_class: np.ndarray) -> np.ndarray:
    """Fit the weights of a linear opinion pool to its log loss, with a pull towards equal weights.

    They are maximum a posteriori: the prior is a Dirichlet distribution whose concentration is
    1 + 3 / members for each member, as strong as three images. The optimizer starts at equal
    weights, and varies the logits of which they are the softmax.

    Parameters
    ----------
    true_class : ndarray of float, shape (members, n)
        Without images, all weights are equal.

    Returns
    -------
    ndarray of float, shape (members,)
        Above 0; they sum to 1. The log loss with them is no higher than with equal weights.

    References
    ----------
    L. Breiman, "Stacked Regressions", Machine Learning 24, 1996: weights that are not negative.
    """
    from scipy.optimize import minimize
    from scipy.special import log_softmax, softmax

    values, is_out_of_bag = _values_and_mask(true_class)
    members = len(values)

    def negative_log_posterior(logits: np.ndarray) -> tuple[float, np.ndarray]:
        weights = softmax(logits)
        votes, totals = _mix(weights, values), _mix(weights, is_out_of_bag)
        loss = np.log(totals / votes).sum() - PULL * log_softmax(logits).mean()
        slopes = (is_out_of_bag / totals - values / votes).sum(axis=1)
        gradient = weights * slopes - PULL / members
        return loss, gradient - weights * gradient.sum()

    weights = softmax(minimize(negative_log_posterior, np.zeros(members), jac=True).x)
    return np.round(weights, DECIMALS)


def measure_optimism(
    scheme: str,
    true_class: np.ndarray,
    weights: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
) -> VoteLogLoss:
    """Compute the log loss of the vote with weights fitted to the same images, and to others.

    For the latter they are cross-fitted over five folds of independent groups: fitted to four,
    scored on the fifth. Four folds have fewer images than all, so it is slightly pessimistic. A
    single group leaves no images to fit weights to: they are equal.

    Parameters
    ----------
    scheme, true_class : see `fit_weights`
    weights : ndarray of float, shape (members,)
        Fitted to all images.
    labels, groups : ndarray of int, shape (n,)
        True class of each image; its group of images that are not independent.
    """
    folds = deal_groups(labels, groups, FOLDS)
    cross_fitted = np.empty(len(labels))
    for fold in range(FOLDS):
        held_out = folds == fold
        fold_weights = fit_weights(scheme, true_class[:, ~held_out])
        cross_fitted[held_out] = vote_losses(true_class[:, held_out], fold_weights)
    fitted = vote_losses(true_class, weights)
    return {"fitted": float(fitted.mean()), "cross_fitted": float(cross_fitted.mean())}


def vote_losses(true_class: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Compute −ln of the vote's probability of the true class: float, shape (n,), in nats.

    The vote on an image is the weighted mean of the members for which it is out-of-bag; see
    `voting.out_of_bag_vote`.
    """
    values, is_out_of_bag = _values_and_mask(true_class)
    return np.log(_mix(weights, is_out_of_bag) / _mix(weights, values))


def deal_groups(labels: np.ndarray, groups: np.ndarray, folds: int) -> np.ndarray:
    """Assign images to folds, group by group in turn, those of one class after another.

    Parameters
    ----------
    labels, groups : ndarray of int, shape (n,)
        The class of a group is that of its first image.
    folds : int

    Returns
    -------
    ndarray of int, shape (n,)
        The fold of each image; with fewer groups than folds, some folds are empty.
    """
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    fold_of_group = np.empty(len(first), int)
    fold_of_group[np.argsort(labels[first], kind="stable")] = np.arange(len(first)) % folds
    return fold_of_group[group]


def _values_and_mask(true_class: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the probabilities, 0 where an image is not out-of-bag, and 1 where it is, else 0."""
    is_missing = np.isnan(true_class)
    return np.where(is_missing, 0.0, true_class), 1.0 - is_missing


def _mix(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Compute the weighted sum of the members' rows; not by `@`, see `voting.soft_vote`."""
    return np.einsum("m,mn->n", weights, values)
