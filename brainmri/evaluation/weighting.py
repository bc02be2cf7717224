"""The vote's weights and calibrations, from out-of-bag predictions alone."""

from collections.abc import Collection, Iterable

import numpy as np

from brainmri.common.paths import MEMBERS
from brainmri.evaluation.calibration import DECIMALS, fit_calibration
from brainmri.evaluation.fitted_weights import (
    fit_weights,
    measure_optimism,
    true_class_probabilities,
)
from brainmri.evaluation.predictions import read_predictions
from brainmri.evaluation.results import Calibration, VoteLogLoss, VotingWeights
from brainmri.evaluation.voting import (
    ENSEMBLE,
    FITTED_SCHEMES,
    UNIFORM,
    member_score,
    out_of_bag_vote,
    voting_weights,
)
from brainmri.sampling.files import read_sample

# Roughly twice the variance of a member's own noise, as a fraction of the variance that its
# log-odds share with other members; chosen empirically: docs/evaluation.md#ablations
NOISE = 0.3

OutOfBagPredictions = dict[str, tuple[np.ndarray, np.ndarray]]  # by member: rows, probabilities


def read_out_of_bag_predictions(
    members: Iterable[str], training: Collection[int], classes: list[str]
) -> OutOfBagPredictions:
    """Read the members' out-of-bag predictions.

    Parameters
    ----------
    members : iterable of str
        Names.
    training : collection of int
        Rows of the store.
    classes : list of str

    Raises
    ------
    UserError
        If a file is missing or damaged, or a sample is not of training images alone.
    """
    out_of_bag = {}
    for name in members:
        _, rows = read_sample(name, training)
        path = MEMBERS / name / "out_of_bag.csv"
        out_of_bag[name] = np.array(rows), read_predictions(path, rows, classes)
    return out_of_bag


def fit_voting_weights(
    labels: np.ndarray,
    groups: np.ndarray,
    out_of_bag: OutOfBagPredictions,
    scheme: str,
    with_calibration: bool,
    positive: int | None,
) -> VotingWeights:
    """Compute the members' weights and each voter's calibration.

    Parameters
    ----------
    labels, groups : ndarray of int, shape (images,)
        Of all rows of the store; images of a group are not independent.
    out_of_bag : dict of str to (rows, probabilities)
        By member: ndarray of int, shape (n,); ndarray of float, shape (n, classes).
    scheme : str
        See `member_score`.
    with_calibration : bool
        Whether to fit a calibration for each voter, and to sharpen those of the votes; else all are
        the identity.
    positive : int, optional
        The positive class.

    Returns
    -------
    VotingWeights
        With the log loss of the out-of-bag vote if the weights are fitted to it.
    """
    scores, weights = weight_members(labels, out_of_bag, scheme, positive)
    weights_of = {ENSEMBLE: weights, UNIFORM: np.full(len(weights), 1 / len(weights))}
    votes = {
        voter: vote_out_of_bag(out_of_bag, of_voter, len(labels))
        for voter, of_voter in weights_of.items()
    }
    calibrations = {
        voter: _fit_calibration(labels[rows], probabilities, with_calibration)
        for voter, (rows, probabilities) in (votes | out_of_bag).items()
    }
    if with_calibration:
        for voter, of_voter in weights_of.items():
            gain = sharpness_gain(out_of_bag, of_voter, len(labels))
            calibrations[voter] = _sharpen(calibrations[voter], gain)

    vote: VotingWeights = {"scheme": scheme, "calibrations": calibrations}
    if scheme in FITTED_SCHEMES:
        voted, true_class = true_class_probabilities(labels, out_of_bag.values())
        vote["out_of_bag_log_loss"] = measure_optimism(
            scheme, true_class, weights, labels[voted], groups[voted]
        )
    vote["members"] = {
        name: {"score": score, "weight": float(weight)}
        for name, score, weight in zip(out_of_bag, scores, weights, strict=True)
    }
    return vote


def weight_members(
    labels: np.ndarray, out_of_bag: OutOfBagPredictions, scheme: str, positive: int | None
) -> tuple[list[float], np.ndarray]:
    """Compute the members' scores and voting weights, in the order of the members.

    Parameters
    ----------
    labels, out_of_bag, scheme, positive : see `fit_voting_weights`

    Returns
    -------
    scores : list of float
        See `member_score`.
    weights : ndarray of float, shape (members,)
        They sum to 1.
    """
    scores = [
        member_score(scheme, labels[rows], probabilities, positive)
        for rows, probabilities in out_of_bag.values()
    ]
    if scheme not in FITTED_SCHEMES:
        return scores, voting_weights(scheme, np.array(scores))
    _, true_class = true_class_probabilities(labels, out_of_bag.values())
    return scores, fit_weights(scheme, true_class)


def vote_out_of_bag(
    out_of_bag: OutOfBagPredictions, weights: np.ndarray, images: int
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the votes on images that are out-of-bag for a member or more.

    Parameters
    ----------
    out_of_bag : see `fit_voting_weights`
    weights : ndarray of float, shape (members,)
    images : int
        Number of rows in the store.

    Returns
    -------
    rows : ndarray of int, shape (n,)
    votes : ndarray of float, shape (n, classes)
    """
    rows, probabilities = zip(*out_of_bag.values(), strict=True)
    votes = out_of_bag_vote(list(probabilities), list(rows), weights, images)
    voted = np.flatnonzero(~np.isnan(votes[:, 0]))
    return voted, votes[voted]


def sharpness_gain(out_of_bag: OutOfBagPredictions, weights: np.ndarray, images: int) -> float:
    """Compute how much stronger evidence the whole vote is than the out-of-bag votes.

    A mean of more members is less noisy, so the same probability is right more often. Noise weakens
    the evidence of the log-odds of a mean of m members by a factor of 1 / (1 + `NOISE` / m). The
    gain is the ratio of the whole vote's factor to that of the out-of-bag votes.

    Parameters
    ----------
    out_of_bag, weights, images : see `vote_out_of_bag`

    Returns
    -------
    float
        At least 1; 1 if the out-of-bag votes are of as many members as the whole vote. Members of
        different weights count as (Σw)² / Σw².

    References
    ----------
    R. Ranjan, T. Gneiting, "Combining Probability Forecasts", Journal of the Royal Statistical
    Society B 72, 2010: a linear pool of calibrated forecasts is underconfident.
    """
    voting = np.zeros((len(weights), images))
    for member, (rows, _) in enumerate(out_of_bag.values()):
        voting[member, rows] = weights[member]
    voters = _effective_number(voting[:, voting.any(axis=0)]).mean()
    return max(1.0, float((1 + NOISE / voters) / (1 + NOISE / _effective_number(weights))))


def _effective_number(weights: np.ndarray) -> np.ndarray:
    """Count, along the first axis, the members of equal weight whose mean would be as noisy."""
    return weights.sum(axis=0) ** 2 / (weights**2).sum(axis=0)


def _sharpen(calibration: Calibration, gain: float) -> Calibration:
    """Multiply the calibrated log-probabilities by a gain."""
    temperature, biases = calibration["temperature"], np.array(calibration["biases"])
    return {
        "temperature": float(np.round(temperature / gain, DECIMALS)),
        "biases": (biases * gain).round(DECIMALS).tolist(),
    }


def _fit_calibration(
    labels: np.ndarray, probabilities: np.ndarray, with_calibration: bool
) -> Calibration:
    """Fit a calibration; without one, return the identity."""
    if not with_calibration:
        return {"temperature": 1.0, "biases": [0.0] * probabilities.shape[1]}
    temperature, biases = fit_calibration(labels, probabilities)
    return {"temperature": temperature, "biases": biases.tolist()}


def describe_optimism(log_loss: VoteLogLoss) -> str:
    """Say how much too low the log loss is on the images to which weights are fitted."""
    fitted, cross_fitted = log_loss["fitted"], log_loss["cross_fitted"]
    return (
        f"out-of-bag log loss of the vote: {fitted:.4f} with weights fitted to the same images,"
        f" {cross_fitted:.4f} cross-fitted; optimism {cross_fitted - fitted:.4f}"
    )
