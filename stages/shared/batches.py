"""The input of training: batches from the RAD, by way of tf.data. Indices are shuffled, pixels are looked up as they are due."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from stages.shared.augmentation import augment, mix
from stages.shared.machine import free_memory
from stages.shared.params import Member, Train
from stages.shared.rad import RadReader

PREDICTED_AT_ONCE = 64  # images
as_it_is = tf.autograph.experimental.do_not_convert  # nothing in these functions is Python's control flow on tensors
SHARE_OF_MEMORY = 0.1  # of what is free: most that a member's pixels may take before they are read batch by batch


def training_batches(rad: RadReader, in_bag: list[int], classes: int, train: Train, member: Member) -> tf.data.Dataset:
    """Endless batches of augmented images, labels (one-hot) and weights; each pass over the in-bag images is shuffled anew."""
    images, labels = pixels(rad, in_bag, train.cache), rad.labels[in_bag]
    counts = np.bincount(labels, minlength=classes)
    weights = len(labels) / (classes * counts) if train.class_weights == "balanced" else np.ones(classes)
    one_hot, weight_of = tf.one_hot(labels, classes), tf.constant(weights[labels], tf.float32)
    strength = {key: value * member.augment for key, value in train.augment.model_dump(exclude={"flip"}).items()}

    @as_it_is
    def batch(step: tf.Tensor, chosen: tf.Tensor):
        seed = tf.stack([step, tf.constant(member.seed, tf.int64)])
        changed = augment(images(chosen), seed, train.augment.flip, **strength)
        return *mix(changed, tf.gather(one_hot, chosen), seed, train.mixup), tf.gather(weight_of, chosen)

    @as_it_is
    def position(index: tf.Tensor) -> tf.Tensor:
        # Dataset.shuffle keeps a state that every new iterator changes, and Keras makes more of them for replicas.
        seed = tf.stack([tf.constant(member.seed, tf.int64), index // len(in_bag)])
        return tf.random.experimental.index_shuffle(index % len(in_bag), seed, len(in_bag) - 1)

    positions = tf.data.Dataset.range(np.iinfo(np.int64).max).map(position)
    positions = positions.batch(train.batch_size * train.replicas, drop_remainder=True)
    return with_settings(positions.enumerate().map(batch))


def validation_batches(rad: RadReader, rows: list[int], classes: int, cache: str) -> tf.data.Dataset:
    """Batches of images as they are, and labels (one-hot)."""
    images, one_hot = pixels(rad, rows, cache), tf.one_hot(rad.labels[rows], classes)
    positions = tf.data.Dataset.range(len(rows)).batch(PREDICTED_AT_ONCE)
    look_up = as_it_is(lambda chosen: (tf.cast(images(chosen), tf.float32), tf.gather(one_hot, chosen)))
    return with_settings(positions.map(look_up))


def pixels(rad: RadReader, rows: list[int], cache: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function from positions in `rows` to images, which are held in memory or read from the RAD as they are needed."""
    _, height, width, channels = rad.shape
    fits = len(rows) * height * width * channels < free_memory() * SHARE_OF_MEMORY
    if cache == "memory" or (cache == "auto" and fits):
        held = tf.constant(rad.images(rows))
        return lambda positions: tf.gather(held, positions)
    row_of = np.array(rows)

    def read(positions: tf.Tensor) -> tf.Tensor:
        images = tf.numpy_function(lambda chosen: rad.images(row_of[chosen]), [positions], tf.uint8, stateful=False)
        return tf.ensure_shape(images, (positions.shape[0], height, width, channels))

    return read


def with_settings(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Prefetched. Replicas share out each batch, not the files that it comes from, of which there is one.

    tf.data's tuning thread is off: there is nothing to tune, and at the end it was measured to be waited for many seconds.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)
