"""The networks, by name.

Each takes gray images, n×h×w×1, levels 0 to 255, and returns class probabilities, n×classes. Their
functions here compute the features for the last layer, n×k, from the images, the penalty on
kernels and the dropout rate.
"""

from functools import partial

import keras
from keras import layers, regularizers

from brainmri.networks.applications import MOMENTUM, application_features, pool_features


def build_network(
    name: str, size: int, classes: int, l1: float, l2: float, dropout: float
) -> keras.Model:
    """Build a network; its weights come from Keras's random seed.

    Parameters
    ----------
    name : str
        A key of `NETWORKS` or of `applications.APPLICATIONS`.
    size : int
        Height and width of the images, pixels.
    classes : int
        Number of classes, 2 or more.
    l1, l2 : float
        Penalties on the kernels of convolutions and dense layers; of "seed-cnn", on those of dense
        layers alone; of `applications.APPLICATIONS`, on that of the last layer alone.
    dropout : float
        Fraction of the features dropped before the last layer, below 1; of "seed-cnn", after the
        first dense layer.

    Raises
    ------
    UserError
        If the network takes no images as small as these.
    """
    penalty = regularizers.L1L2(l1, l2) if l1 or l2 else None
    images = keras.Input((size, size, 1), name="images")
    compute_features = NETWORKS.get(name) or partial(application_features, name)
    features = compute_features(images, penalty, dropout)
    initializer = "glorot_uniform" if name in NETWORKS else "zeros"
    classify = output_layer(classes, penalty, initializer)
    return keras.Model(images, classify(features), name=name.replace("-", "_"))


def build_head(width: int, classes: int, l1: float, l2: float, dropout: float) -> keras.Model:
    """Build what follows the features of a pretrained network, n×`width`; see `build_network`."""
    penalty = regularizers.L1L2(l1, l2) if l1 or l2 else None
    features = keras.Input((width,), name="features")
    classify = output_layer(classes, penalty, "zeros")
    return keras.Model(features, classify(layers.Dropout(dropout)(features)))


def output_layer(classes: int, penalty, initializer: str) -> layers.Dense:
    """Return the layer that computes class probabilities."""
    return layers.Dense(
        classes,
        "softmax",
        dtype="float32",
        kernel_initializer=initializer,
        kernel_regularizer=penalty,
        name="probabilities",
    )


def seed_cnn(images, penalty, dropout):
    """Build the original system's: four convolutions with max pooling, then two dense layers.

    Its members differ in one dropout rate, here that after the first dense layer; the rate after
    the second one is fixed.

    References
    ----------
    https://github.com/A-PachecoT/brain-mri-classification
    """
    x = layers.Rescaling(1 / 255)(images)
    for filters in (32, 64, 64, 128):
        x = layers.Conv2D(filters, 3, activation="relu")(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Flatten()(x)
    x = layers.Dense(128, "relu", kernel_regularizer=penalty)(x)
    x = layers.Dropout(dropout)(x)
    x = layers.Dense(64, "relu", kernel_regularizer=penalty)(x)
    return layers.Dropout(0.3)(x)


def notebook_1(images, penalty, dropout):
    """Build the first network of A. Bansal's notebook: one wide convolution, pooled twice.

    The original project cites that notebook, which augments the images before it splits them; here
    the split comes first. The statistics of batch normalization follow faster than there, whose
    copies of images make ten times the steps.

    References
    ----------
    https://www.kaggle.com/code/anibansal/brain-mri-classification
    """
    x = layers.Rescaling(1 / 255)(images)
    x = layers.ZeroPadding2D(2)(x)
    x = layers.Conv2D(32, 7, kernel_regularizer=penalty)(x)
    x = layers.BatchNormalization(momentum=MOMENTUM)(x)
    x = layers.ReLU()(x)
    x = layers.MaxPooling2D(4, padding="same")(layers.MaxPooling2D(4, padding="same")(x))
    x = layers.Flatten()(x)
    x = layers.Dense(128, "relu", kernel_regularizer=penalty)(x)
    return layers.Dropout(dropout)(x)


def notebook_2(images, penalty, dropout):
    """Build the second one of that notebook: three 9×9 convolutions, each pooled, a dense layer."""
    x = layers.Rescaling(1 / 255)(images)
    for filters, rate in ((16, 0.45), (16, 0.25), (36, 0.25)):
        x = layers.Conv2D(
            filters, 9, padding="same", activation="relu", kernel_regularizer=penalty
        )(x)
        x = layers.MaxPooling2D()(x)
        x = layers.Dropout(rate)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(512, "relu", kernel_regularizer=penalty)(x)
    return layers.Dropout(dropout)(x)


def residual(images, penalty, dropout, sides=False):
    """Build a small residual network: a strided stem, then a block at each of three scales.

    Each image is standardized first. With `sides`, the second block also takes what stands out
    against the other side of the head.

    References
    ----------
    K. He, X. Zhang, S. Ren, J. Sun, "Identity Mappings in Deep Residual Networks", ECCV 2016.
    """
    x = residual_stem(images, penalty)
    x = layers.MaxPooling2D()(x)
    x = residual_block(x, 32, 1, penalty)
    if sides:
        x = compare_sides(x)
    for filters in (48, 96):  # multiples of 16 fill the vector registers of CPUs
        x = residual_block(x, filters, 2, penalty)
    return layers.Dropout(dropout)(pool_features(x))


def residual_deep(images, penalty, dropout):
    """Build the same with blocks at four scales and no pooling after the stem: twice the time."""
    x = residual_stem(images, penalty)
    for filters, strides in ((16, 1), (32, 2), (64, 2), (128, 2)):
        x = residual_block(x, filters, strides, penalty)
    return layers.Dropout(dropout)(pool_features(x))


def residual_stem(images, penalty):
    """Standardize each image, and convolve it with a stride of 2."""
    x = layers.LayerNormalization(axis=(1, 2, 3), center=False, scale=False, epsilon=1.0)(images)
    x = convolve(x, 16, 5, 2, penalty)
    return normalize_and_activate(x)


def residual_block(x, filters, strides, penalty):
    """Add two 3×3 convolutions and a 1×1 convolution as the shortcut."""
    y = convolve(x, filters, 3, strides, penalty)
    y = normalize_and_activate(y)
    y = convolve(y, filters, 3, 1, penalty)
    shortcut = convolve(x, filters, 1, strides, penalty)
    return normalize_and_activate(layers.Add()([shortcut, y]))


def compare_sides(x):
    """Append by how much the smoothed features exceed the highest ones near the mirrored position.

    A head is nearly symmetric: what one side alone has stands out.
    """
    smooth = layers.AveragePooling2D(3, 1, "same")(x)
    mirrored = keras.ops.flip(smooth, 2)
    highest = layers.MaxPooling2D(3, 1, "same")(mirrored)
    excess = layers.ReLU()(layers.Subtract()([smooth, highest]))
    return layers.Concatenate()([x, excess])


def convolve(x, filters, kernel, strides, penalty):
    """Convolve without a bias, which the batch normalization that follows would cancel."""
    convolution = layers.Conv2D(
        filters,
        kernel,
        strides,
        "same",
        use_bias=False,
        kernel_regularizer=penalty,
        kernel_initializer="he_normal",
    )
    return convolution(x)


def normalize_and_activate(x):
    """Apply batch normalization and ReLU."""
    return layers.ReLU()(layers.BatchNormalization(momentum=MOMENTUM)(x))


NETWORKS = {
    "residual": residual,
    "residual-sides": partial(residual, sides=True),
    "residual-deep": residual_deep,
    "seed-cnn": seed_cnn,
    "notebook-1": notebook_1,
    "notebook-2": notebook_2,
}
