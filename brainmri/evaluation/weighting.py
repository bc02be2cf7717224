"""The vote's weights, calibrations and threshold, all from out-of-bag predictions alone."""

import numpy as np

from brainmri.evaluation.calibration import calibrate, fit_calibration
from brainmri.evaluation.fitted_weights import (
    fit_weights,
    measure_optimism,
    true_class_probabilities,
)
from brainmri.evaluation.results import Calibration, VotingWeights
from brainmri.evaluation.thresholds import choose_threshold
from brainmri.evaluation.voting import (
    ENSEMBLE,
    FITTED_SCHEMES,
    UNIFORM,
    member_score,
    out_of_bag_vote,
    voting_weights,
)

LabeledVotes = tuple[np.ndarray, np.ndarray]  # labels, and their probabilities
OutOfBagPredictions = dict[str, tuple[np.ndarray, np.ndarray]]  # by member: rows, probabilities


def fit_voting_weights(
    labels: np.ndarray,
    groups: np.ndarray,
    out_of_bag: OutOfBagPredictions,
    scheme: str,
    with_calibration: bool,
    threshold_rule: str,
    min_sensitivity: float,
) -> VotingWeights:
    """Compute the members' weights, each voter's calibration and the vote's threshold.

    Parameters
    ----------
    labels, groups : ndarray of int, shape (images,)
        Of all rows of the store; images of a group are not independent.
    out_of_bag : dict of str to (rows, probabilities)
        By member: ndarray of int, shape (n,); ndarray of float, shape (n, classes).
    scheme : str
        See `member_score`.
    with_calibration : bool
        Whether to fit a calibration for each voter; else all are the identity.
    threshold_rule, min_sensitivity : see `choose_threshold`

    Returns
    -------
    VotingWeights
        With a threshold if there are two classes, and the log loss of the out-of-bag vote if the
        weights are fitted to it.
    """
    scores, weights = weight_members(labels, out_of_bag, scheme)
    equal = np.full(len(weights), 1 / len(weights))
    predictions = {
        ENSEMBLE: _labeled_vote(labels, out_of_bag, weights),
        UNIFORM: _labeled_vote(labels, out_of_bag, equal),
    }
    for name, (rows, probabilities) in out_of_bag.items():
        predictions[name] = labels[rows], probabilities
    calibrations = {
        voter: _fit_calibration(true, probabilities, with_calibration)
        for voter, (true, probabilities) in predictions.items()
    }

    vote: VotingWeights = {"scheme": scheme, "calibrations": calibrations}
    true, probabilities = predictions[ENSEMBLE]
    if probabilities.shape[1] == 2:
        positive = calibrate(probabilities, **calibrations[ENSEMBLE])[:, 1]
        vote["threshold"] = choose_threshold(threshold_rule, true, positive, min_sensitivity)
    if scheme in FITTED_SCHEMES:
        voted, true_class = true_class_probabilities(labels, out_of_bag.values())
        vote["out_of_bag_log_loss"] = measure_optimism(
            scheme, true_class, labels[voted], groups[voted]
        )
    vote["members"] = {
        name: {"score": score, "weight": float(weight)}
        for name, score, weight in zip(out_of_bag, scores, weights, strict=True)
    }
    return vote


def weight_members(
    labels: np.ndarray, out_of_bag: OutOfBagPredictions, scheme: str
) -> tuple[list[float], np.ndarray]:
    """Compute the members' scores and voting weights, in the order of the members.

    Parameters
    ----------
    labels, out_of_bag, scheme : see `fit_voting_weights`

    Returns
    -------
    scores : list of float
        See `member_score`.
    weights : ndarray of float, shape (members,)
        They sum to 1.
    """
    scores = [
        member_score(scheme, labels[rows], probabilities)
        for rows, probabilities in out_of_bag.values()
    ]
    if scheme not in FITTED_SCHEMES:
        return scores, voting_weights(scheme, np.array(scores))
    _, true_class = true_class_probabilities(labels, out_of_bag.values())
    return scores, fit_weights(scheme, true_class)


def _labeled_vote(
    labels: np.ndarray, out_of_bag: OutOfBagPredictions, weights: np.ndarray
) -> LabeledVotes:
    """Return labels and votes of the images that are out-of-bag for a member or more."""
    rows, probabilities = zip(*out_of_bag.values(), strict=True)
    votes = out_of_bag_vote(list(probabilities), list(rows), weights, len(labels))
    has_vote = ~np.isnan(votes[:, 0])
    return labels[has_vote], votes[has_vote]


def _fit_calibration(
    labels: np.ndarray, probabilities: np.ndarray, with_calibration: bool
) -> Calibration:
    """Fit a calibration; without one, return the identity."""
    if not with_calibration:
        return {"temperature": 1.0, "biases": [0.0] * probabilities.shape[1]}
    temperature, biases = fit_calibration(labels, probabilities)
    return {"temperature": temperature, "biases": biases.tolist()}
