"""Random augmentation of training images, a batch at a time, that depends on a seed alone."""

import math

import keras
import tensorflow as tf


def augment(
    images: tf.Tensor,
    seed: tf.Tensor,
    flip: bool,
    rotation: float,
    shift: float,
    zoom: float,
    contrast: float,
    brightness: float,
    erase: float,
) -> tf.Tensor:
    """Flip, rotate, shift and zoom each image, change its contrast and brightness, erase a part.

    Keras's own layers interpolate once for each kind of change and keep a random state. A single
    interpolation with a stateless seed is faster, and the same whatever runs in parallel.

    Parameters
    ----------
    images : tensor, shape (n, h, w, channels)
        Gray levels, 0 to 255.
    seed : tensor of two integers
        The same seed makes the same changes.
    flip : bool
        Mirror every other image, at random, left and right.
    rotation : float
        Largest angle, degrees.
    shift, zoom, contrast : float
        Largest shift as a fraction of the size; largest zoom and change of contrast as a fraction.
    brightness : float
        Largest change of all levels, as a fraction of 255.
    erase : float
        Largest side of the rectangle that every other image, at random, has erased to its mean
        level, as a fraction of the size.

    Returns
    -------
    tensor of float32, same shape
        Levels 0 to 255.
    """
    images = tf.cast(images, tf.float32)
    if not (flip or rotation or shift or zoom or contrast or brightness or erase):
        return images
    height, width = images.shape[1], images.shape[2]
    # The rows of `random`: rotation, zoom, flip, shift in x and y, contrast, brightness, and of the
    # erased rectangle position and extent in y, position and extent in x, and whether there is one
    random = tf.random.stateless_uniform((12, tf.shape(images)[0]), seed, -1, 1)
    images = transform(images, random[:5], flip, rotation, shift, zoom)
    mean = tf.reduce_mean(images, axis=(1, 2, 3), keepdims=True)
    factor = tf.exp(random[5] * math.log1p(contrast))[:, None, None, None]
    offset = (255 * brightness * random[6])[:, None, None, None]
    images = tf.clip_by_value((images - mean) * factor + mean + offset, 0, 255)
    if not erase:
        return images
    rows = random_interval(random[7], random[8], erase, height)
    columns = random_interval(random[9], random[10], erase, width)
    is_erased = (random[11] < 0)[:, None, None]
    rectangle = rows[:, :, None] & columns[:, None, :] & is_erased
    return tf.where(rectangle[..., None], mean, images)


def transform(
    images: tf.Tensor, random: tf.Tensor, flip: bool, rotation: float, shift: float, zoom: float
) -> tf.Tensor:
    """Flip, rotate, shift and zoom each image in one interpolation; what was outside is black.

    Parameters
    ----------
    images : tensor of float32, shape (n, h, w, channels)
    random : tensor of float32, shape (5, n)
        From -1 to 1: of rotation, zoom, flip, shift in x and shift in y.
    flip, rotation, shift, zoom
        See `augment`.

    Returns
    -------
    tensor of float32, same shape
    """
    height, width = images.shape[1], images.shape[2]
    angle = random[0] * (rotation * math.pi / 180)
    scale = tf.exp(random[1] * math.log1p(zoom))
    mirror = tf.where((random[2] < 0) & flip, -1.0, 1.0)
    cos, sin = tf.cos(angle) * scale, tf.sin(angle) * scale
    center_x, center_y = (width - 1) / 2, (height - 1) / 2
    # Output pixel (x, y), seen from the center, shows input pixel
    # (mirror·(cos·x − sin·y), sin·x + cos·y).
    a, b = mirror * cos, -mirror * sin
    d, e = sin, cos
    c = center_x - a * center_x - b * center_y + random[3] * shift * width
    f = center_y - d * center_x - e * center_y + random[4] * shift * height
    zeros = tf.zeros_like(a)
    matrices = tf.stack([a, b, c, d, e, f, zeros, zeros], axis=1)
    return keras.ops.image.affine_transform(images, matrices, "bilinear", "constant", 0)


def random_interval(position: tf.Tensor, extent: tf.Tensor, largest: float, size: int) -> tf.Tensor:
    """Mark a random interval of `size` pixels for each image.

    Parameters
    ----------
    position, extent : tensor of float32, shape (n,)
        From -1 to 1: where the middle is, and how long the interval is.
    largest : float
        Largest length, as a fraction of `size`.
    size : int

    Returns
    -------
    tensor of bool, shape (n, size)
    """
    middle = (position[:, None] + 1) / 2 * size
    distance = tf.abs(tf.range(size, dtype=tf.float32)[None] - middle)
    return distance < (extent[:, None] + 1) / 4 * largest * size


def mixup(
    images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor, largest: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mix every other image, at random, with the image before it, and their labels alike.

    Parameters
    ----------
    images : tensor of float32, shape (n, h, w, channels)
    labels : tensor of float32, shape (n, classes)
        One-hot.
    seed : tensor of two integers
        The same seed mixes alike.
    largest : float
        Largest fraction of the other image, 0 to 0.5.

    Returns
    -------
    images, labels : tensors of float32, same shapes

    References
    ----------
    H. Zhang, M. Cisse, Y. Dauphin, D. Lopez-Paz, "mixup: Beyond Empirical Risk Minimization", ICLR
    2018; there the fractions follow a beta distribution.
    """
    if not largest:
        return images, labels
    seed = tf.random.experimental.stateless_fold_in(seed, 1)  # other numbers than in `augment`
    size, chance = tf.unstack(tf.random.stateless_uniform((2, tf.shape(images)[0]), seed))
    fraction = tf.where(chance < 0.5, largest * size, 0.0)
    return _mix_with_previous(images, fraction), _mix_with_previous(labels, fraction)


def _mix_with_previous(batch: tf.Tensor, fraction: tf.Tensor) -> tf.Tensor:
    weight = tf.reshape(fraction, (-1, *[1] * (batch.ndim - 1)))
    return batch + weight * (tf.roll(batch, 1, 0) - batch)
