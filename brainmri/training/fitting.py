"""Fit a network to in-bag images: loss, optimizer, learning rate schedule and early stopping."""

from functools import partial

import keras

from brainmri.common.params import Member, Train
from brainmri.store.reader import RadReader
from brainmri.training.budget import number_of_epochs
from brainmri.training.history import EpochLogger
from brainmri.training.input import Examples, training_batches
from brainmri.training.prediction import read_images

WARM_UP_EPOCHS = 3
# Epochs of more steps than this are run some steps at a time, and rounded up to a multiple of them.
MAX_STEPS_AT_ONCE, STEPS_AT_ONCE = 64, 8


def fit(
    model: keras.Model,
    rad: RadReader,
    in_bag: list[int],
    out_of_bag: list[int],
    classes: int,
    train: Train,
    member: Member,
) -> list[dict[str, float]]:
    """Train a network in place.

    Parameters
    ----------
    model : keras.Model
        As `build_network` builds it.
    rad : RadReader
    in_bag, out_of_bag : list of int
        Rows of the store, to train on and to evaluate on.
    classes : int
    train : Train
    member : Member

    Returns
    -------
    list of dict of str to float
        See `EpochLogger.history`.
    """
    batches = training_batches(rad, in_bag, classes, train, member)
    read = partial(read_images, rad)
    examples = Examples(batches, read, rad.labels, in_bag, out_of_bag)
    return fit_to_examples(model, examples, train, member)


def fit_to_examples(
    model: keras.Model, examples: Examples, train: Train, member: Member
) -> list[dict[str, float]]:
    """Train a model in place on images or features; see `fit`."""
    images = len(examples.in_bag)
    steps = -(-images // (train.batch_size * train.replicas))
    if steps > MAX_STEPS_AT_ONCE:
        steps = -(-steps // STEPS_AT_ONCE) * STEPS_AT_ONCE
    epochs = number_of_epochs(images, train, member)
    compile_network(model, steps, epochs, train, member)
    logger = EpochLogger(epochs, examples)
    model.fit(
        examples.batches,
        epochs=epochs,
        steps_per_epoch=steps,
        shuffle=False,
        verbose=0,
        callbacks=[logger, *plateau_callbacks(train)],
    )
    return logger.history


def compile_network(
    model: keras.Model, steps: int, epochs: int, train: Train, member: Member
) -> None:
    """Compile a network with the parameters' loss and optimizer; `steps` are those of an epoch."""
    rate = learning_rate_schedule(member.learning_rate, steps, epochs, train.schedule)
    model.compile(
        keras.optimizers.Adam(rate, global_clipnorm=train.clip_norm),
        keras.losses.CategoricalCrossentropy(label_smoothing=train.label_smoothing),
        steps_per_execution=steps_at_once(steps, train.replicas),
    )
    model.optimizer.build(model.trainable_variables)  # or TensorFlow traces the step twice


def steps_at_once(steps: int, replicas: int) -> int:
    """Return how many steps TensorFlow runs before Keras can report progress: a divisor of those of
    an epoch.
    """
    if replicas > 1:  # TensorFlow fails on loops of synchronized steps
        return 1
    return steps if steps <= MAX_STEPS_AT_ONCE else STEPS_AT_ONCE


def learning_rate_schedule(
    peak: float, steps: int, epochs: int, schedule: str
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Return a constant learning rate, or one that warms up and then falls to 0 along a cosine.

    Parameters
    ----------
    peak : float
        Highest learning rate.
    steps : int
        Of an epoch.
    epochs : int
    schedule : {"cosine", "constant"}
    """
    if schedule == "constant":
        return peak
    warm_up = min(WARM_UP_EPOCHS, epochs // 2) * steps
    decay = epochs * steps - warm_up
    if not warm_up:
        return keras.optimizers.schedules.CosineDecay(peak, decay)
    return keras.optimizers.schedules.CosineDecay(
        0.0, decay, warmup_target=peak, warmup_steps=warm_up
    )


def plateau_callbacks(train: Train) -> list[keras.callbacks.Callback]:
    """Return what lowers the learning rate, or stops, when the out-of-bag log loss stagnates."""
    monitor, callbacks = "out_of_bag_log_loss", []
    if train.reduce_lr:
        callbacks.append(
            keras.callbacks.ReduceLROnPlateau(monitor, 0.5, train.reduce_lr, mode="min")
        )
    if train.early_stopping:
        callbacks.append(
            keras.callbacks.EarlyStopping(
                monitor, 0, train.early_stopping, mode="min", restore_best_weights=True
            )
        )
    return callbacks
