"""Calibration of class probabilities by a temperature and a bias for each class."""

from collections.abc import Sequence

import numpy as np

from brainmri.evaluation.log_loss import log_loss

# Standard deviations of the priors of the temperature's logarithm and of a bias
TEMPERATURE_SD, BIAS_SD = 0.5, 1.0


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
    scores = np.log(np.maximum(probabilities, 1e-7)) / temperature + np.asarray(biases)
    scaled = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scaled / scaled.sum(axis=1, keepdims=True)


def fit_calibration(labels: np.ndarray, probabilities: np.ndarray) -> tuple[float, np.ndarray]:
    """Fit temperature and biases by maximum a posteriori.

    Few predictions change them little: the priors are normal with mean 0, the temperature's
    logarithm with standard deviation 0.5, each bias with 1.

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
    from scipy.optimize import minimize

    def negative_log_posterior(values: np.ndarray) -> float:
        calibrated = calibrate(probabilities, np.exp(values[0]), np.append(0, values[1:]))
        likelihood = len(labels) * log_loss(labels, calibrated)
        temperature_prior = (values[0] / TEMPERATURE_SD) ** 2 / 2
        bias_prior = ((values[1:] / BIAS_SD) ** 2).sum() / 2
        return likelihood + temperature_prior + bias_prior

    best = minimize(negative_log_posterior, np.zeros(probabilities.shape[1])).x
    return float(np.exp(best[0])), np.append(0, best[1:])
