"""Calibration of class probabilities by a temperature and a bias for each class."""

from collections.abc import Sequence

import numpy as np

from brainmri.evaluation.log_loss import MIN_PROBABILITY

# Standard deviations of the priors of the temperature's logarithm and of a bias
TEMPERATURE_SD, BIAS_SD = 0.5, 1.0
DECIMALS = 9  # of what is fitted


def calibrate(
    probabilities: np.ndarray, temperature: float, biases: np.ndarray | Sequence[float]
) -> np.ndarray:
    """Divide the logarithms of probabilities by a temperature, add biases, and normalize.

    Parameters
    ----------
    probabilities : ndarray of float, shape (n, classes)
    temperature : float
        Above 0; below 1 it sharpens, above 1 it softens.
    biases : sequence of float, length classes

    Returns
    -------
    ndarray of float, shape (n, classes)
        Each row sums to 1.
    """
    scores = np.log(np.maximum(probabilities, MIN_PROBABILITY)) / temperature + np.asarray(biases)
    scaled = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scaled / scaled.sum(axis=1, keepdims=True)


def fit_calibration(labels: np.ndarray, probabilities: np.ndarray) -> tuple[float, np.ndarray]:
    """Fit temperature and biases by maximum a posteriori.

    Few predictions change them little: the priors are normal with mean 0, the temperature's
    logarithm with standard deviation 0.5, the difference of any two biases with 1. So the order of
    the classes does not matter.

    The optimizer stops where the posterior is flat but for rounding, at half of the digits, and
    the rest depend on processor and environment. So the gradient's zero is computed from there, and
    rounded to far fewer digits than are correct: equal predictions give equal values.

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
    A. Alexandari, A. Kundaje, A. Shrikumar, "Maximum Likelihood with Bias-Corrected Calibration is
    Hard-To-Beat at Label Shift Adaptation", ICML 2020.
    """
    from scipy.optimize import minimize, root

    log_probabilities = np.log(np.maximum(probabilities, MIN_PROBABILITY))
    classes = probabilities.shape[1]
    is_true = np.eye(classes)[labels]
    prior_sd = np.append(TEMPERATURE_SD, np.full(classes, BIAS_SD / np.sqrt(2)))

    def negative_log_posterior(values: np.ndarray) -> float:
        scores = log_probabilities / np.exp(values[0]) + values[1:]
        highest = scores.max(axis=1)
        totals = np.exp(scores - highest[:, np.newaxis]).sum(axis=1)
        losses = highest + np.log(totals) - scores[np.arange(len(labels)), labels]
        return losses.sum() + ((values / prior_sd) ** 2).sum() / 2

    def gradient(values: np.ndarray) -> np.ndarray:
        temperature = np.exp(values[0])
        of_scores = calibrate(probabilities, temperature, values[1:]) - is_true
        of_temperature = -(of_scores * log_probabilities).sum() / temperature
        return np.append(of_temperature, of_scores.sum(axis=0)) + values / prior_sd**2

    start = minimize(negative_log_posterior, np.zeros(classes + 1), jac=gradient).x
    best = root(gradient, start, tol=1e-12).x
    temperature, biases = np.exp(best[0]), best[1:] - best[1]
    return float(np.round(temperature, DECIMALS)), np.round(biases, DECIMALS)
