"""Where in an image the ensemble sees its reasons: class activation maps, averaged over the members by their weights."""

import functools

import keras
import numpy as np
import tensorflow as tf

PREDICTED_AT_ONCE = 16  # images
FINENESS = 4  # pixels: the maps come from the deepest features that still tell places so far apart


def heat_maps(members: dict[str, keras.Model], weights: dict[str, float], images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """What speaks for a class, place by place: HiResCAM of each member, for the image and for its mirror image.

    Features times the gradient of the class's log-odds, summed over channels; what speaks against the class counts as 0. Each
    member's map is scaled to a maximum of 1 before the mean, so that a member weighs what its vote weighs.

    Parameters
    ----------
    members : dict of str to keras.Model
        By name; all take n×h×w×1 images, levels 0 to 255, and give class probabilities.
    weights : dict of str to float
        The members' voting weights, which sum to 1.
    images : ndarray of uint8, shape (n, height, width, 1)
    classes : ndarray of int, shape (n,)
        The class asked about, for each image.

    Returns
    -------
    ndarray of float32, shape (n, height, width)
        0 to 1; all 0 where no member sees anything that speaks for the class.

    References
    ----------
    R. Draelos, L. Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks",
    arXiv:2011.08891, 2020.
    """
    height, width = images.shape[1:3]
    heat = np.zeros((len(images), height, width), np.float32)
    for name, member in members.items():
        explained = with_features(member)
        for start in range(0, len(images), PREDICTED_AT_ONCE):
            rows = slice(start, start + PREDICTED_AT_ONCE)
            batch = tf.constant(images[rows], tf.float32)
            for mirror in (False, True):
                maps = activation_maps(explained, batch[:, :, ::-1] if mirror else batch, classes[rows])
                resized = tf.image.resize(maps[..., None], (height, width), "bicubic")[..., 0].numpy()
                heat[rows] += weights[name] / 2 * np.clip(resized[:, :, ::-1] if mirror else resized, 0, 1)
    return heat


def activation_maps(explained: keras.Model, images: tf.Tensor, classes: np.ndarray) -> tf.Tensor:
    """HiResCAM of one network, each image's scaled to a maximum of 1: shape (n, rows, columns) of its features."""
    with tf.GradientTape() as tape:
        tape.watch(images)
        features, probabilities = explained(images, training=False)
        of_class = tf.gather(probabilities, classes, batch_dims=1)
        log_odds = tf.math.log(of_class + 1e-7) - tf.math.log(1 - of_class + 1e-7)
    maps = tf.nn.relu(tf.reduce_sum(features * tape.gradient(log_odds, features), axis=-1))
    maps = tf.nn.avg_pool2d(maps[..., None], 3, 1, "SAME")[..., 0]  # strided convolutions weigh every other place more
    return maps / tf.maximum(tf.reduce_max(maps, axis=(1, 2), keepdims=True), 1e-12)


@functools.cache
def with_features(member: keras.Model) -> keras.Model:
    """The member's network, which gives both the features that are explained and the class probabilities.

    They are the deepest ones of the wanted fineness; of networks of Keras Applications, whose base is one layer, its output.
    """
    inner = [layer for layer in member.layers if isinstance(layer, keras.Model) and len(layer.output.shape) == 2]
    if inner:  # the network itself, which the member calls for several views of an image
        return with_features(inner[0])
    maps = [layer.output for layer in member.layers if len(layer.output.shape) == 4 and layer.output.shape[-1] > 3]
    fine = [features for features in maps if features.shape[1] * FINENESS >= member.inputs[0].shape[1]]
    return keras.Model(member.inputs, [(fine or maps)[-1], member.outputs[0]])
