"""Networks of a few weights, whose outputs can be computed by hand."""

import keras

SIDE = 16
FILTERS = 5


def pooling_network(seed: int, classes: int = 3) -> keras.Model:
    """Build a network of one convolution with 16×16 outputs, pooled."""
    keras.utils.set_random_seed(seed)
    images = keras.Input((SIDE, SIDE, 1), name="images")
    fine = _fine_convolution()(keras.layers.Rescaling(1 / 255)(images))
    output = _output_layer(classes)
    pooled = keras.layers.GlobalAveragePooling2D()(fine)
    return keras.Model(images, output(keras.layers.Dropout(0.5)(pooled)))


def two_scale_network(seed: int) -> keras.Model:
    """Build the same with a linear convolution to 2×2 outputs before the pooling."""
    keras.utils.set_random_seed(seed)
    images = keras.Input((SIDE, SIDE, 1), name="images")
    fine = _fine_convolution()(keras.layers.Rescaling(1 / 255)(images))
    last = keras.layers.Conv2D(6, 8, 8, name="last")(fine)
    output = _output_layer(3)
    return keras.Model(images, output(keras.layers.GlobalAveragePooling2D()(last)))


def _fine_convolution() -> keras.layers.Layer:
    return keras.layers.Conv2D(FILTERS, 3, padding="same", activation="relu", name="fine")


def _output_layer(classes: int) -> keras.layers.Layer:
    # Strong enough that the images differ
    kernel = keras.initializers.VarianceScaling(125.0, distribution="untruncated_normal")
    return keras.layers.Dense(classes, "softmax", kernel_initializer=kernel, name="probabilities")
