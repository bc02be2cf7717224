"""Predict with a network, batch by batch, and evaluate the predictions."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from brainmri.evaluation.log_loss import log_loss
from brainmri.store.reader import RadReader

BATCH_SIZE = 16  # images, maybe several views of each


def compile_prediction(model: keras.Model) -> Callable[[np.ndarray], tf.Tensor]:
    """Return a function from batches of any size to predictions.

    Keras's own `predict` would trace the network again for each size of batch.
    """
    inputs = tf.TensorSpec(model.inputs[0].shape, tf.float32)
    return tf.function(lambda batch: model(batch, training=False), [inputs], autograph=False)


def predict(
    compute: Callable[[np.ndarray], tf.Tensor],
    read: Callable[[list[int]], np.ndarray],
    rows: list[int],
) -> np.ndarray:
    """Predict the class probabilities of the images at these rows.

    Parameters
    ----------
    compute : callable
        See `compile_prediction`.
    read : callable
        From rows of the store to inputs of the model.
    rows : list of int

    Returns
    -------
    ndarray of float32, shape (len(rows), classes)
    """
    batches = (rows[start : start + BATCH_SIZE] for start in range(0, len(rows), BATCH_SIZE))
    return np.concatenate([compute(read(batch)).numpy() for batch in batches])


def evaluate(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Compute "accuracy" and "log_loss" of class probabilities, shape (n, classes)."""
    predicted = probabilities.argmax(axis=1)
    return {
        "accuracy": float(np.mean(predicted == labels)),
        "log_loss": log_loss(labels, probabilities),
    }


def read_images(rad: RadReader, rows: list[int]) -> np.ndarray:
    """Read the images at these rows for a network: float32, shape (len(rows), h, w, 1)."""
    return rad.images(rows).astype(np.float32)
