"""Class activation maps: where in an image the ensemble sees evidence for a class, in log-odds."""

import functools
from collections.abc import Callable, Sequence
from functools import partial

import keras
import numpy as np
import tensorflow as tf

from brainmri.networks.tta import single_view
from brainmri.store.reader import RadReader

BATCH_SIZE = 16
MAX_STRIDE = 4  # pixels between positions of the features by which evidence is localized
SCALE_IMAGES, SCALE_QUANTILE = 24, 0.9


def explained_classes(predicted: np.ndarray, classes: int, positive: int | None) -> np.ndarray:
    """Choose the class whose evidence the map of each image shows.

    Of two classes it is the positive one, whatever is predicted: the other one is the absence of a
    finding, which has no place in an image. Without a positive class, and of more than two, it is
    the predicted class, against the rest.

    Parameters
    ----------
    predicted : ndarray of int, shape (n,)
        By the decision rule.
    classes : int
    positive : int, optional
        The positive class.

    Returns
    -------
    ndarray of int, shape (n,)
    """
    if classes == 2 and positive is not None:
        return np.full(len(predicted), positive)
    return predicted


def heat_maps(
    members: dict[str, keras.Model],
    weights: dict[str, float],
    images: np.ndarray,
    classes: np.ndarray,
) -> np.ndarray:
    """Map the evidence for a class: the members' HiResCAM, averaged by their voting weights.

    HiResCAM is the features times the gradient of the class's log-odds against the rest, summed
    over channels; evidence against the class counts as 0. The amount of evidence comes from a
    network's last features: where only pooling and one layer follow, their contributions and the
    biases sum to the log-odds. Its location comes from finer features. Each member's map is the
    mean of those of the image and of its mirror image. No map is scaled to its maximum, so that
    maps of different images can be compared.

    Parameters
    ----------
    members : dict of str to keras.Model
        By name; all take n×h×w×1 images, levels 0 to 255, and return class probabilities.
    weights : dict of str to float
        The members' voting weights, which sum to 1.
    images : ndarray of uint8, shape (n, height, width, 1)
    classes : ndarray of int, shape (n,)
        The class to explain in each image; see `explained_classes`.

    Returns
    -------
    ndarray of float32, shape (n, height, width)
        0 or more: what a position adds to the log-odds, in nats per 1 % of the image's area. All 0
        where there is no evidence for the class.

    References
    ----------
    R. Draelos, L. Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of
    convolutional neural networks", arXiv:2011.08891, 2020.
    """
    evidence = np.zeros(images.shape[:3], np.float32)
    for name, member in members.items():
        for start in range(0, len(images), BATCH_SIZE):
            rows = slice(start, start + BATCH_SIZE)
            batch = tf.constant(images[rows], tf.float32)
            evidence[rows] += weights[name] / 2 * resized_maps(member, batch, classes[rows])
            mirrored = resized_maps(member, batch[:, :, ::-1], classes[rows])
            evidence[rows] += weights[name] / 2 * mirrored[:, :, ::-1]
    return np.maximum(evidence, 0)  # bicubic interpolation overshoots


def heat_scale(
    members: dict[str, keras.Model],
    weights: dict[str, float],
    rad: RadReader,
    rows: Sequence[int],
) -> float:
    """Choose the top of the color scale of all maps: a tenth of these images have a higher maximum.

    Parameters
    ----------
    members, weights
        See `heat_maps`.
    rad : RadReader
    rows : sequence of int
        Of training images with findings; `SCALE_IMAGES` of them, evenly spaced, are enough.

    Returns
    -------
    float
        Above 0, in the unit of `heat_maps`.
    """
    positions = np.linspace(0, len(rows) - 1, min(len(rows), SCALE_IMAGES)).round().astype(int)
    sample = [rows[position] for position in positions]
    heat = heat_maps(members, weights, rad.images(sample), rad.labels[sample])
    return max(float(np.quantile(heat.max(axis=(1, 2)), SCALE_QUANTILE)), 1e-6)


def resized_maps(member: keras.Model, images: tf.Tensor, classes: np.ndarray) -> np.ndarray:
    """Compute `activation_maps`, in the size of the images: float32, shape (n, height, width)."""
    maps = activation_maps(member, images, classes)
    return tf.image.resize(maps[..., None], images.shape[1:3], "bicubic")[..., 0].numpy()


def activation_maps(member: keras.Model, images: tf.Tensor, classes: np.ndarray) -> tf.Tensor:
    """Compute the maps of one network.

    Parameters
    ----------
    member : keras.Model
    images : tensor of float32, shape (n, height, width, 1)
    classes : ndarray of int, shape (n,)

    Returns
    -------
    tensor of float32, shape (n, rows, columns) of the network's fine features
        In nats per 1 % of the area.
    """
    compute_features, output = feature_extractor(member)
    with tf.GradientTape() as tape:
        tape.watch(images)
        fine, last, pooled = compute_features(images)
        logits = tf.matmul(tf.cast(pooled, tf.float32), output.kernel) + output.bias
        targets = tf.one_hot(classes, logits.shape[-1])
        others = tf.reduce_logsumexp(logits - 1e9 * targets, axis=1)
        # Of log-odds, not of probabilities, whose gradient vanishes near 0 and 1
        log_odds = tf.reduce_sum(logits * targets, axis=1) - others
    tensors = fine, last, *tape.gradient(log_odds, [fine, last])
    fine, last, fine_gradient, last_gradient = (tf.cast(each, tf.float32) for each in tensors)
    positions = tf.nn.relu(tf.reduce_sum(fine * fine_gradient, axis=-1))
    amounts = tf.nn.relu(tf.reduce_sum(last * last_gradient, axis=-1))
    # Smoothed, since strided convolutions have higher gradients at every other position
    positions = tf.nn.avg_pool2d(positions[..., None], 3, 1, "SAME")[..., 0]
    total = tf.reduce_sum(positions, axis=(1, 2), keepdims=True)
    fractions = positions / tf.maximum(total, 1e-12)
    positions_per_cent = positions.shape[1] * positions.shape[2] / 100
    return fractions * tf.reduce_sum(amounts, axis=(1, 2), keepdims=True) * positions_per_cent


@functools.cache
def feature_extractor(
    member: keras.Model,
) -> tuple[Callable[[tf.Tensor], list[tf.Tensor]], keras.layers.Dense]:
    """Return a function from images to the features of a member, and the member's output layer.

    The features are the fine ones, the last ones, and the input of the output layer. The fine ones
    are the deepest ones at a stride of at most `MAX_STRIDE`.
    """
    member = single_view(member)
    output, height = member.get_layer("probabilities"), member.inputs[0].shape[1]
    pooled = member.operations[-2].output  # not the layer's input: members may share a network
    base = next((layer for layer in member.layers if isinstance(layer, keras.Model)), None)
    if base is None:
        maps = feature_maps(member)
        extract = keras.Model(member.inputs, [finest(maps, height), maps[-1], pooled])
        return partial(extract, training=False), output

    # The base is a layer with a graph of its own, which must be run to have features inside of it.
    position = member.operations.index(base)
    prepare = keras.Model(member.inputs, member.operations[position - 1].output)
    extract = keras.Model(base.inputs, [finest(feature_maps(base), height), base.outputs[0]])
    finish = keras.Model(member.operations[position + 1].input, pooled)

    def features(images: tf.Tensor) -> list[tf.Tensor]:
        fine, last = extract(prepare(images, training=False), training=False)
        return [fine, last, finish(last, training=False)]

    return features, output


def feature_maps(model: keras.Model) -> list[keras.KerasTensor]:
    """Return the feature maps of a network, from the first to the last."""
    tensors = [layer.input for layer in model.layers if not isinstance(layer.input, list)]
    return [tensor for tensor in tensors if len(tensor.shape) == 4 and tensor.shape[-1] > 3]


def finest(maps: list[keras.KerasTensor], height: int) -> keras.KerasTensor:
    """Return the deepest feature maps at a stride of at most `MAX_STRIDE` from that height."""
    fine = [features for features in maps if features.shape[1] * MAX_STRIDE >= height]
    return (fine or maps)[-1]
