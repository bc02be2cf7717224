"""Random changes of training images, a batch at a time, that depend on a seed alone."""

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
    """Flip, turn, shift and zoom each image in one interpolation, change its contrast and brightness, and blank a part.

    Keras's own layers interpolate once for each kind of change and keep a random state; one step with a stateless seed is
    faster and the same whatever runs in parallel.

    Parameters
    ----------
    images : tensor, shape (n, h, w, channels)
        Grey levels, 0 to 255.
    seed : tensor of two integers
        The same seed makes the same changes.
    flip : bool
        Mirror every other image, by chance, left and right.
    rotation : float
        Largest turn, degrees.
    shift, zoom, contrast : float
        Largest shift as a share of the size; largest zoom and change of contrast as a share.
    brightness : float
        Largest change of all levels, as a share of 255.
    erase : float
        Largest side of the rectangle that every other image, by chance, has blanked to its mean level, as a share of the size.

    Returns
    -------
    tensor of float32, same shape
        Levels 0 to 255.
    """
    images = tf.cast(images, tf.float32)
    if not (flip or rotation or shift or zoom or contrast or brightness or erase):
        return images
    count, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    random = tf.random.stateless_uniform((12, count), seed, -1, 1)
    turn = random[0] * (rotation * math.pi / 180)
    scale = tf.exp(random[1] * math.log1p(zoom))
    mirror = tf.where((random[2] < 0) & flip, -1.0, 1.0)
    cos, sin = tf.cos(turn) * scale, tf.sin(turn) * scale
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    # Output pixel (x, y), seen from the centre, shows input pixel (mirror·(cos·x − sin·y), sin·x + cos·y).
    a, b, d, e = mirror * cos, -mirror * sin, sin, cos
    c = centre_x - a * centre_x - b * centre_y + random[3] * shift * width
    f = centre_y - d * centre_x - e * centre_y + random[4] * shift * height
    none = tf.zeros_like(a)
    images = keras.ops.image.affine_transform(images, tf.stack([a, b, c, d, e, f, none, none], axis=1), "bilinear", "constant", 0)
    mean = tf.reduce_mean(images, axis=(1, 2, 3), keepdims=True)
    factor = tf.exp(random[5] * math.log1p(contrast))[:, None, None, None]
    lighter = (255 * brightness * random[6])[:, None, None, None]
    images = tf.clip_by_value((images - mean) * factor + mean + lighter, 0, 255)
    if not erase:
        return images
    blank = within(random[7], random[8], erase, height)[:, :, None] & within(random[9], random[10], erase, width)[:, None, :]
    return tf.where((blank & (random[11] < 0)[:, None, None])[..., None], mean, images)


def mix(images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor, most: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Mix every other image, by chance, with the image before it, and their labels in the same shares.

    Parameters
    ----------
    images : tensor of float32, shape (n, h, w, channels)
    labels : tensor of float32, shape (n, classes)
        One-hot.
    seed : tensor of two integers
        The same seed mixes alike.
    most : float
        Largest share of the other image, 0 to 0.5.

    Returns
    -------
    images, labels : tensors of float32, same shapes

    References
    ----------
    H. Zhang, M. Cisse, Y. Dauphin, D. Lopez-Paz, "mixup: Beyond Empirical Risk Minimization", ICLR 2018; there the shares
    follow a beta distribution.
    """
    if not most:
        return images, labels
    seed = tf.random.experimental.stateless_fold_in(seed, 1)  # other numbers than those of `augment`
    share, chance = tf.unstack(tf.random.stateless_uniform((2, tf.shape(images)[0]), seed))
    share = tf.where(chance < 0.5, most * share, 0.0)
    return tuple(one + tf.reshape(share, (-1, *[1] * (one.ndim - 1))) * (tf.roll(one, 1, 0) - one) for one in (images, labels))


def within(place: tf.Tensor, extent: tf.Tensor, largest: float, size: int) -> tf.Tensor:
    """Which of `size` positions lie in a random stretch of each image: bool, shape (n, size). Both numbers are from -1 to 1."""
    middle = (place[:, None] + 1) / 2 * size
    return tf.abs(tf.range(size, dtype=tf.float32)[None] - middle) < (extent[:, None] + 1) / 4 * largest * size
