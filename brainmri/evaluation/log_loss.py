"""Log loss.

It has a module of its own since members depend on it: other metrics must not retrain them.
"""

import numpy as np


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Compute the mean of −ln p(true class), in nats; probabilities below 1e-7 count as 1e-7.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
    probabilities : ndarray of float, shape (n, classes)
    """
    of_true_class = probabilities[np.arange(len(labels)), labels]
    return float(-np.mean(np.log(np.maximum(of_true_class, 1e-7))))
