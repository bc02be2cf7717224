"""Novelty of an image: how much of it principal components of the training images don't explain.

A network classifies any image. Photographs, other parts of the body and slices of other scanners
are recognized by this measure, which is of thumbnails and knows nothing of the classes.
"""

import keras
import numpy as np
from keras import layers
from threadpoolctl import threadpool_limits

from brainmri.models.principal_components import (
    NOISE_LEVEL,
    held_out_errors,
    principal_components,
)

SIDE = 32  # of a thumbnail, pixels


def thumbnailer(shape: tuple[int, int, int]) -> keras.Model:
    """Build a model from images to thumbnails of zero mean and unit variance.

    Parameters
    ----------
    shape : (height, width, 1)

    Returns
    -------
    keras.Model
        From float images, n×h×w×1, to thumbnails, n×`SIDE`².
    """
    height, width, _ = shape
    resize_rows = layers.Conv2D(SIDE, (height, 1), use_bias=False, name="resized_rows")
    resize_columns = layers.Conv2D(SIDE, (width, 1), use_bias=False, name="resized_columns")
    standardize = layers.LayerNormalization(epsilon=NOISE_LEVEL**2, center=False, scale=False)
    images = keras.Input(shape, name="pixels")
    columns = layers.Reshape((width, SIDE, 1))(resize_rows(images))
    small = layers.Flatten()(resize_columns(columns))
    thumbnail = keras.Model(images, standardize(small), name="thumbnail")
    for layer, length in ((resize_rows, height), (resize_columns, width)):
        layer.set_weights([resizing_weights(length)[:, np.newaxis, np.newaxis, :]])
    return thumbnail


def resizing_weights(length: int) -> np.ndarray:
    """Return the weights of pixels in an antialiased resize along one axis, `length`×`SIDE`.

    A resize is linear in the pixels and separable: two products with constant matrices, which every
    runtime has, are the same as Keras's `Resizing` with `antialias`, which few have.
    """
    identity = np.eye(length, dtype=np.float32)[np.newaxis, ..., np.newaxis]
    resize = layers.Resizing(length, SIDE, antialias=True)
    return np.asarray(resize(identity))[0, ..., 0]


def fit_novelty(
    thumbnails: np.ndarray, groups: np.ndarray, false_alarms: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Fit principal components to training images, and the largest error of a familiar image.

    Parameters
    ----------
    thumbnails : ndarray of float, shape (n, pixels)
        Of the training images.
    groups : ndarray of int, shape (n,)
        Group of each image; a group is held out as a whole.
    false_alarms : float
        Fraction of the training images above the limit when they are held out, one fold at a time.

    Returns
    -------
    mean : ndarray, shape (pixels,)
    components : ndarray, shape (k, pixels)
        Orthonormal; `COMPONENTS` of them, fewer if there are hardly more images.
    limit : float
        Of the mean squared error of the reconstruction.
    """
    with threadpool_limits(1):  # or the last bits depend on the number of cores
        errors = held_out_errors(thumbnails, np.unique(groups, return_inverse=True)[1])
        mean, components = principal_components(thumbnails)
        limit = np.quantile(errors, 1 - false_alarms)
        # Rounded: its last bits depend on the library of linear algebra, as those of the components
        # do, of which the model keeps 32.
        return mean, components, float(f"{limit:.9g}")


def novelty_model(
    shape: tuple[int, int, int], mean: np.ndarray, components: np.ndarray, limit: float
) -> keras.Model:
    """Build a model from images to their novelty.

    Parameters
    ----------
    shape : (height, width, 1)
    mean, components, limit
        See `fit_novelty`.

    Returns
    -------
    keras.Model
        From float images, n×h×w×1, to the error of their reconstruction over the limit, shape (n,):
        warn above 1.
    """
    thumbnail = thumbnailer(shape)
    project = layers.Dense(len(components), name="components")
    reconstruct = layers.Dense(len(mean), name="reconstruction")
    pixels = thumbnail.outputs[0]
    error = layers.Subtract()([pixels, reconstruct(project(pixels))])
    project.set_weights([components.T, -components @ mean])
    reconstruct.set_weights([components, mean])
    novelty = keras.ops.mean(keras.ops.square(error), axis=-1) / limit
    return keras.Model(thumbnail.inputs, novelty, name="novelty")
