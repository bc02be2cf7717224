"""How unlike the training images an image is: what their principal components do not explain of it.

A network gives an answer to any picture. Photographs, other parts of the body, other scanners' slices are told by this measure,
which looks at a thumbnail and knows nothing of the classes.
"""

import keras
import numpy as np
from keras import layers
from threadpoolctl import threadpool_limits

SIDE = 32  # pixels of the thumbnail
COMPONENTS = 20
FOLDS = 5
FLAT = 5.0  # grey levels: contrasts well below are noise, and are not stretched


def thumbnailer(shape: tuple[int, int, int]) -> keras.Model:
    """A model from images, float, n×h×w×1, to thumbnails of zero mean and unit variance, n×`SIDE`²."""
    images = keras.Input(shape, name="pixels")
    small = layers.Flatten()(layers.Resizing(SIDE, SIDE, antialias=True)(images))
    return keras.Model(images, layers.LayerNormalization(epsilon=FLAT**2, center=False, scale=False)(small), name="thumbnail")


def fit_novelty(thumbnails: np.ndarray, false_alarms: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Principal components of training images, and the limit of what they may leave unexplained.

    Parameters
    ----------
    thumbnails : ndarray of float, shape (n, pixels)
        Of the training images.
    false_alarms : float
        Share of the training images that lie above the limit when they are left out, a fold of them at a time.

    Returns
    -------
    mean : ndarray, shape (pixels,)
    components : ndarray, shape (k, pixels)
        Orthonormal; `COMPONENTS` of them, fewer if there are hardly more images.
    limit : float
        Of the mean squared error of the reconstruction.
    """
    with threadpool_limits(1):  # or the last bits depend on the number of cores
        fold = np.arange(len(thumbnails)) % min(FOLDS, len(thumbnails))
        left_out = [
            unexplained(thumbnails[fold == one], *principal_components(thumbnails[fold != one])) for one in np.unique(fold)
        ]
        return *principal_components(thumbnails), float(np.quantile(np.concatenate(left_out), 1 - false_alarms))


def principal_components(thumbnails: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = thumbnails.mean(axis=0)
    centred = thumbnails - mean
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return mean, vectors.T[::-1][: min(COMPONENTS, len(thumbnails) // 2)]


def unexplained(thumbnails: np.ndarray, mean: np.ndarray, components: np.ndarray) -> np.ndarray:
    """Mean squared error of each thumbnail's reconstruction from the components, shape (n,)."""
    centred = thumbnails - mean
    return np.mean((centred - centred @ components.T @ components) ** 2, axis=1)


def novelty_model(shape: tuple[int, int, int], mean: np.ndarray, components: np.ndarray, limit: float) -> keras.Model:
    """A model from images, float, n×h×w×1, to how unlike the training images they are, shape (n,); above 1: warn."""
    thumbnail = thumbnailer(shape)
    scores = layers.Dense(len(components), name="components")
    rebuild = layers.Dense(len(mean), name="reconstruction")
    error = layers.Subtract()([thumbnail.outputs[0], rebuild(scores(thumbnail.outputs[0]))])
    scores.set_weights([components.T, -components @ mean])
    rebuild.set_weights([components, mean])
    return keras.Model(thumbnail.inputs, keras.ops.mean(keras.ops.square(error), axis=-1) / limit, name="novelty")
