"""Log loss.

It has a module of its own since members depend on it: other metrics must not retrain them.
"""

import numpy as np

MIN_PROBABILITY = 1e-7  # what lower ones count as, so that no logarithm is infinite


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Compute the mean of −ln p(true class), in nats; lower probabilities count as 1e-7.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
    probabilities : ndarray of float, shape (n, classes)
    """
    of_true_class = probabilities[np.arange(len(labels)), labels]
    return float(-np.mean(np.log(np.maximum(of_true_class, MIN_PROBABILITY))))
