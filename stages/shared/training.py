"""Trains one member of the ensemble on its bootstrap sample. What it learns depends on nothing that runs beside it."""

import stages.shared.start_tensorflow  # noqa: F401, isort: skip

import shutil
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from stages.shared.batches import PREDICTED_AT_ONCE, training_batches, validation_batches
from stages.shared.devices import set_up
from stages.shared.errors import UserError
from stages.shared.files import write_bytes, write_json
from stages.shared.inputs import Inputs
from stages.shared.members import write_predictions
from stages.shared.metrics import log_loss
from stages.shared.models import save_model
from stages.shared.networks import averaged, build, start_from, training_normalization
from stages.shared.params import Member, Params, Train, load_params
from stages.shared.progress import epoch_line
from stages.shared.rad import RadReader, read_metadata, read_sample, read_split
from stages.shared.scratch import scratch

WARM_UP_EPOCHS = 3
IN_BAG_EVALUATED = 64  # in-bag images at most, after each epoch: a fifteenth of the time on 253 images, less on more
COLUMNS = {  # of history.csv, and the logs that they come from
    "loss": "loss",  # what training minimizes: on augmented and mixed images, with label smoothing and penalties
    "in_bag_log_loss": "in_bag_log_loss",
    "in_bag_accuracy": "in_bag_accuracy",
    "out_of_bag_log_loss": "val_log_loss",
    "out_of_bag_accuracy": "val_accuracy",
    "learning_rate": "learning_rate",
}


def train_member(name: str, folder: Path) -> None:
    """Train a member into its scratch folder, which is there only once the training has ended and is of its inputs.

    Parameters
    ----------
    name : str
        Such as "member-00", a key of the parameter `ensemble`.
    folder : Path
        As `scratch` names it. `model.keras`, `history.csv`, class probabilities (`out_of_bag.csv`, `test.csv`) and
        `metrics.json` are written there.

    Raises
    ------
    UserError
        If an input is missing or wrong, if one has changed since the folder was named or while the member trains, or if the
        training diverges.
    """
    inputs, params = Inputs(f"train@{name}"), load_params()
    if scratch(name) != folder:  # later edits of parameters do not matter: those that were read name the folder
        raise UserError(f"an input of {name} changed before it was trained; run `dvc repro` again")
    unfinished = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    fit_and_write(name, params, unfinished)
    inputs.check_files()
    unfinished.rename(folder)


def fit_and_write(name: str, params: Params, folder: Path) -> None:
    """Train a member and write its model, history, predictions and metrics into a folder."""
    member, classes = params.ensemble[name], read_metadata()["classes"]

    devices = set_up(params.train.threads, member.seed, params.train.precision, params.train.replicas)
    with RadReader() as rad:
        split = read_split(len(rad))
        test, (in_bag, out_of_bag) = split["test"], read_sample(name, split["training"])
        shape = params.network.name, rad.shape[1], len(classes), member.l1, member.l2, member.dropout
        with devices.scope():
            trained = build(*shape, training_normalization(params.train.replicas))
            if params.network.weights != "none":
                start_from(trained, **params.network.model_dump())
            history = fit(trained, rad, in_bag, out_of_bag, len(classes), params.train, member)
        model = build(*shape)
        model.set_weights(trained.get_weights())
        model = averaged(model, params.train.views)
        predictions = {"out_of_bag": predict(model, rad, out_of_bag), "test": predict(model, rad, test)}
        of_out_of_bag = rad.labels[out_of_bag]
    if not all(np.isfinite(probabilities).all() for probabilities in predictions.values()):
        raise UserError(f"{name} diverged; expected finite predictions: lower recipes.{member.recipe}.learning_rate")

    save_model(model, folder / "model.keras")
    for rows, which in ((out_of_bag, "out_of_bag"), (test, "test")):
        write_predictions(folder / f"{which}.csv", rows, predictions[which], classes)
    lines = [",".join(["epoch", *COLUMNS])] + [
        ",".join([str(epoch), *(f"{value:.6g}" for value in values)]) for epoch, *values in history
    ]
    write_bytes(folder / "history.csv", ("\n".join(lines) + "\n").encode())
    write_json(
        folder / "metrics.json",
        {
            "out_of_bag": {
                "accuracy": float(np.mean(predictions["out_of_bag"].argmax(axis=1) == of_out_of_bag)),
                "log_loss": log_loss(of_out_of_bag, predictions["out_of_bag"]),
                "images": len(out_of_bag),
            },
            "epochs": len(history),
            "weights": model.count_params(),
            "precision": devices.precision,
        },
    )


def check_weights() -> None:
    """Fail if the weights that members start from can't be had; Keras has downloaded them afterwards, if need be.

    Raises
    ------
    UserError
        See `build` and `start_from`.
    """
    params = load_params()
    with RadReader() as rad:
        model = build(params.network.name, rad.shape[1], 2, 0.0, 0.0, 0.0)
    start_from(model, **params.network.model_dump())


def fit(
    model: keras.Model, rad: RadReader, in_bag: list[int], out_of_bag: list[int], classes: int, train: Train, member: Member
) -> list[tuple[float, ...]]:
    """Train the model in place.

    Returns
    -------
    list of tuples
        For each epoch its number, counted from 1, and the values of `COLUMNS`.
    """
    steps = -(-len(in_bag) // (train.batch_size * train.replicas))
    model.compile(
        keras.optimizers.Adam(learning_rate(member.learning_rate, steps, train), global_clipnorm=train.clip_norm),
        keras.losses.CategoricalCrossentropy(label_smoothing=train.label_smoothing),
        steps_per_execution=steps if train.replicas == 1 else 1,  # TensorFlow fails on loops of synchronised steps
        metrics=[keras.metrics.CategoricalAccuracy("accuracy"), keras.metrics.CategoricalCrossentropy(name="log_loss")],
    )
    model.optimizer.build(model.trainable_variables)  # or TensorFlow traces the step twice
    evaluated = validation_batches(rad, evaluation_sample(in_bag), classes, train.cache)
    callbacks: list[keras.callbacks.Callback] = [Tell(train.epochs, evaluated)]
    if train.reduce_lr:
        callbacks.append(keras.callbacks.ReduceLROnPlateau("val_log_loss", 0.5, train.reduce_lr, mode="min"))
    if train.early_stopping:
        callbacks.append(
            keras.callbacks.EarlyStopping("val_log_loss", 0, train.early_stopping, mode="min", restore_best_weights=True)
        )
    model.fit(
        training_batches(rad, in_bag, classes, train, member),
        epochs=train.epochs,
        steps_per_epoch=steps,
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
        validation_data=validation_batches(rad, out_of_bag, classes, train.cache),
    )
    return callbacks[0].history


def evaluation_sample(in_bag: list[int]) -> list[int]:
    """Pick the in-bag images that the learning curves show: all of them once, or `IN_BAG_EVALUATED` evenly spaced ones."""
    unique = np.unique(in_bag)
    places = np.linspace(0, len(unique) - 1, min(len(unique), IN_BAG_EVALUATED))
    return unique[np.round(places).astype(int)].tolist()


def learning_rate(peak: float, steps: int, train: Train) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Constant, or rising to its peak in the first epochs and falling to 0 along a cosine."""
    if train.schedule == "constant":
        return peak
    warm_up = min(WARM_UP_EPOCHS, train.epochs // 2) * steps
    falling = train.epochs * steps - warm_up
    if not warm_up:
        return keras.optimizers.schedules.CosineDecay(peak, falling)
    return keras.optimizers.schedules.CosineDecay(0.0, falling, warmup_target=peak, warmup_steps=warm_up)


def predict(model: keras.Model, rad: RadReader, rows: list[int]) -> np.ndarray:
    """Class probabilities of the images at these rows, read batch by batch: float32, shape (len(rows), classes)."""
    batches = [rows[start : start + PREDICTED_AT_ONCE] for start in range(0, len(rows), PREDICTED_AT_ONCE)]
    return np.concatenate([model.predict_on_batch(rad.images(batch).astype(np.float32)) for batch in batches])


class Tell(keras.callbacks.Callback):
    """Evaluate the model on in-bag images after each epoch, keep the history, and print a line.

    In-bag and out-of-bag images are evaluated alike: as they are, each once, with its own label.
    """

    def __init__(self, epochs: int, in_bag: tf.data.Dataset):
        super().__init__()
        self.epochs, self.in_bag, self.history = epochs, in_bag, []

    def on_epoch_end(self, epoch, logs=None):
        in_bag = self.model.evaluate(self.in_bag, verbose=0, return_dict=True)
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        logs = {**logs, **{f"in_bag_{name}": value for name, value in in_bag.items()}, "learning_rate": rate}
        values = [float(logs[name]) for name in COLUMNS.values()]
        self.history.append((epoch + 1, *values))
        measures = dict(zip((column.replace("_", " ") for column in COLUMNS), values, strict=True))
        print(epoch_line(epoch + 1, self.epochs, measures), flush=True)
