"""Batches of images from the store for training, by tf.data.

What is shuffled are positions; pixels are looked up when their batch is due.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from brainmri.common.params import Member, Train
from brainmri.common.resources import free_memory
from brainmri.store.reader import RadReader
from brainmri.training.augmentation import augment, mixup

MEMORY_FRACTION = 0.1  # of free memory, at most, for a member's pixels with cache: auto
no_autograph = tf.autograph.experimental.do_not_convert  # no function has control flow on tensors


class Examples(NamedTuple):
    """What a model is trained on, and evaluated on after each epoch.

    Attributes
    ----------
    batches : tf.data.Dataset
        Of the in-bag images, endless; see `endless_batches`.
    read : callable
        From rows of the store to inputs of the model, without augmentation: float32.
    labels : ndarray of int
        By row.
    in_bag, out_of_bag : list of int
        Rows; those in-bag may repeat.
    """

    batches: tf.data.Dataset
    read: Callable[[list[int]], np.ndarray]
    labels: np.ndarray
    in_bag: list[int]
    out_of_bag: list[int]


def training_batches(
    rad: RadReader, in_bag: list[int], classes: int, train: Train, member: Member
) -> tf.data.Dataset:
    """Return endless batches of augmented images, labels and weights.

    Each pass over the in-bag images is in another random order.

    Parameters
    ----------
    rad : RadReader
    in_bag : list of int
        Rows of the store, which may repeat.
    classes : int
    train : Train
    member : Member

    Returns
    -------
    tf.data.Dataset
        Of images (float32, n×h×w×1, levels 0 to 255), one-hot labels (float32, n×classes) and
        weights (float32, n).
    """
    look_up = pixel_lookup(rad, in_bag, train.cache)
    strength = {
        key: value * member.augment
        for key, value in train.augment.model_dump(exclude={"flip"}).items()
    }

    def draw(positions: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return augment(look_up(positions), seed, train.augment.flip, **strength)

    return endless_batches(draw, rad.labels[in_bag], classes, train, member)


def feature_batches(
    features: np.ndarray, labels: np.ndarray, classes: int, train: Train, member: Member
) -> tf.data.Dataset:
    """Return endless batches of features, each of a random view of an image, labels and weights.

    Parameters
    ----------
    features : ndarray of float32, shape (n, views, k)
        Of the in-bag images.
    labels : ndarray of int, shape (n,)
    classes : int
    train : Train
    member : Member

    Returns
    -------
    tf.data.Dataset
        Of features (float32, batch×k), and labels and weights as in `training_batches`.
    """
    of_views, views = tf.constant(features), features.shape[1]

    def draw(positions: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        view = tf.random.stateless_uniform(tf.shape(positions), seed, 0, views, tf.int64)
        return tf.gather_nd(of_views, tf.stack([positions, view], 1))

    return endless_batches(draw, labels, classes, train, member)


def endless_batches(
    draw: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    labels: np.ndarray,
    classes: int,
    train: Train,
    member: Member,
) -> tf.data.Dataset:
    """Return endless batches of examples, mixed, with their labels and weights.

    Parameters
    ----------
    draw : callable
        From positions in `labels`, and a seed of two integers, to the examples of a batch.
    labels : ndarray of int, shape (n,)
    classes : int
    train : Train
    member : Member
    """
    one_hot = tf.one_hot(labels, classes)
    weight_of = class_weights(train.class_weights, labels, classes)
    example_weights = tf.constant(weight_of[labels], tf.float32)

    @no_autograph
    def make_batch(step: tf.Tensor, positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        seed = tf.stack([step, tf.constant(member.seed, tf.int64)])
        examples, targets = draw(positions, seed), tf.gather(one_hot, positions)
        examples, targets = mixup(examples, targets, seed, train.mixup)
        return examples, targets, tf.gather(example_weights, positions)

    @no_autograph
    def shuffled_position(index: tf.Tensor) -> tf.Tensor:
        # Dataset.shuffle has a state that every new iterator changes, and with replicas Keras makes
        # more iterators.
        seed = tf.stack([tf.constant(member.seed, tf.int64), index // len(labels)])
        return tf.random.experimental.index_shuffle(index % len(labels), seed, len(labels) - 1)

    positions = tf.data.Dataset.range(np.iinfo(np.int64).max).map(shuffled_position)
    positions = positions.batch(train.batch_size * train.replicas, drop_remainder=True)
    return with_options(positions.enumerate().map(make_batch))


def class_weights(scheme: str, labels: np.ndarray, classes: int) -> np.ndarray:
    """Compute the weight of each class in the loss: float, shape (classes,).

    Parameters
    ----------
    scheme : {"balanced", "none"}
        Inversely proportional to the number of images, with a mean of 1 over the images; or all 1.
    labels : ndarray of int, shape (n,)
    classes : int
    """
    if scheme == "none":
        return np.ones(classes)
    counts = np.bincount(labels, minlength=classes)
    return len(labels) / (classes * counts)


def pixel_lookup(
    rad: RadReader, rows: Sequence[int], cache: str
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return a function from positions in `rows` to the images there, uint8.

    Parameters
    ----------
    rad : RadReader
    rows : sequence of int
        Of the store.
    cache : {"memory", "none", "auto"}
        Whether the images are in memory, or are read batch by batch; auto: in memory if they fit.
    """
    _, height, width, channels = rad.shape
    bytes_needed = len(rows) * height * width * channels
    fits = bytes_needed < free_memory() * MEMORY_FRACTION
    if cache == "memory" or (cache == "auto" and fits):
        pixels = tf.constant(rad.images(rows))
        return lambda positions: tf.gather(pixels, positions)
    row_of = np.array(rows)

    def read(positions: np.ndarray) -> np.ndarray:
        return rad.images(row_of[positions])

    def look_up(positions: tf.Tensor) -> tf.Tensor:
        images = tf.numpy_function(read, [positions], tf.uint8, stateful=False)
        return tf.ensure_shape(images, (positions.shape[0], height, width, channels))

    return look_up


def with_options(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Prefetch batches; with replicas, each batch is split among them.

    The data can't be sharded by file, as tf.data would: it comes from none. Its tuning thread is
    off: there is nothing to tune, and the end of training was measured to wait for it many seconds.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)
