"""Where in an image the ensemble sees evidence for a finding: class activation maps, in units of log-odds."""

import functools

import keras
import numpy as np
import tensorflow as tf

from stages.shared.rad import RadReader

PREDICTED_AT_ONCE = 16  # images
FINENESS = 4  # pixels: the maps come from the deepest features that still tell places so far apart
SCALE_IMAGES, SCALE_QUANTILE = 24, 0.9


def explained_classes(probabilities: np.ndarray) -> np.ndarray:
    """Choose the class whose evidence the map of each image shows: int, shape (n,).

    With two classes it is the second one in sorted order ("yes" after "no"), the finding, whatever is predicted: the first is
    its absence, which is nowhere in an image. With more, none is known to be the absence of the others: it is the predicted
    class, against the rest.

    Parameters
    ----------
    probabilities : ndarray of float, shape (n, classes)
    """
    return np.ones(len(probabilities), int) if probabilities.shape[1] == 2 else probabilities.argmax(axis=1)


def heat_maps(members: dict[str, keras.Model], weights: dict[str, float], images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Map the evidence for a class: HiResCAM of each member, for the image and for its mirror image, averaged by the weights.

    HiResCAM is features times the gradient of the class's log-odds against the rest, summed over channels; what speaks against
    the class counts as 0. How much evidence there is comes from a network's last features: where only pooling and one layer
    follow, their contributions and the biases sum to the log-odds. Where it is comes from finer features. No map is scaled to
    its maximum, so that maps of different images can be compared.

    Parameters
    ----------
    members : dict of str to keras.Model
        By name; all take n×h×w×1 images, levels 0 to 255, and give class probabilities.
    weights : dict of str to float
        The members' voting weights, which sum to 1.
    images : ndarray of uint8, shape (n, height, width, 1)
    classes : ndarray of int, shape (n,)
        The class asked about, for each image; see `explained_classes`.

    Returns
    -------
    ndarray of float32, shape (n, height, width)
        0 or more: what a place adds to the log-odds, in nats per 1 % of the image's area. All 0 where nothing speaks for
        the class.

    References
    ----------
    R. Draelos, L. Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks",
    arXiv:2011.08891, 2020.
    """
    height, width = images.shape[1:3]
    evidence = np.zeros((len(images), height, width), np.float32)
    for name, member in members.items():
        for start in range(0, len(images), PREDICTED_AT_ONCE):
            rows = slice(start, start + PREDICTED_AT_ONCE)
            batch = tf.constant(images[rows], tf.float32)
            for mirror in (False, True):
                maps = activation_maps(member, batch[:, :, ::-1] if mirror else batch, classes[rows])
                resized = tf.image.resize(maps[..., None], (height, width), "bicubic")[..., 0].numpy()
                evidence[rows] += weights[name] / 2 * (resized[:, :, ::-1] if mirror else resized)
    return np.maximum(evidence, 0)  # bicubic interpolation overshoots


def heat_scale(members: dict[str, keras.Model], weights: dict[str, float], rad: RadReader, rows: list[int]) -> float:
    """Choose the top of the color scale, one for all images: what the maps of a tenth of these exceed somewhere.

    Parameters
    ----------
    members, weights : see `heat_maps`
    rad : RadReader
    rows : list of int
        Of training images with findings; `SCALE_IMAGES` of them, evenly spaced, are enough.
    """
    places = np.linspace(0, len(rows) - 1, min(len(rows), SCALE_IMAGES)).round().astype(int)
    chosen = [rows[place] for place in places]
    heat = heat_maps(members, weights, rad.images(chosen), rad.labels[chosen])
    return max(float(np.quantile(heat.max(axis=(1, 2)), SCALE_QUANTILE)), 1e-6)


def activation_maps(member: keras.Model, images: tf.Tensor, classes: np.ndarray) -> tf.Tensor:
    """Compute the map of one network, in nats per 1 % of the area: shape (n, rows, columns) of its fine features."""
    explained, output = with_features(member)
    with tf.GradientTape() as tape:
        tape.watch(images)
        fine, last, pooled = explained(images, training=False)
        logits = tf.matmul(tf.cast(pooled, tf.float32), output.kernel) + output.bias
        asked = tf.one_hot(classes, logits.shape[-1])
        others = tf.reduce_logsumexp(logits - 1e9 * asked, axis=1)
        log_odds = tf.reduce_sum(logits * asked, axis=1) - others  # of probabilities it would vanish near 0 and 1
    gradients = tape.gradient(log_odds, [fine, last])
    places, amounts = (
        tf.nn.relu(tf.reduce_sum(features * gradient, axis=-1))
        for features, gradient in zip((fine, last), gradients, strict=True)
    )
    places = tf.nn.avg_pool2d(places[..., None], 3, 1, "SAME")[..., 0]  # strided convolutions weigh every other place more
    shares = places / tf.maximum(tf.reduce_sum(places, axis=(1, 2), keepdims=True), 1e-12)
    per_cent = places.shape[1] * places.shape[2] / 100
    return shares * tf.reduce_sum(amounts, axis=(1, 2), keepdims=True) * per_cent


@functools.cache
def with_features(member: keras.Model) -> tuple[keras.Model, keras.layers.Dense]:
    """The member's network, which gives its fine features, its last ones, and what its output layer takes; and that layer.

    The fine ones are the deepest of the wanted fineness; of networks of Keras Applications, whose base is one layer, its output.
    """
    inner = [layer for layer in member.layers if isinstance(layer, keras.Model) and len(layer.output.shape) == 2]
    if inner:  # the network itself, which the member calls for several views of an image
        return with_features(inner[0])
    taken = [layer.input for layer in member.layers if not isinstance(layer.input, list)]  # a base's output is in its own graph
    maps = [features for features in taken if len(features.shape) == 4 and features.shape[-1] > 3]
    fine = [features for features in maps if features.shape[1] * FINENESS >= member.inputs[0].shape[1]]
    output = member.get_layer("probabilities")
    return keras.Model(member.inputs, [(fine or maps)[-1], maps[-1], output.input]), output
