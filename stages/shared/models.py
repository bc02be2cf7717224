"""Keras models on disk: equal models give equal bytes, and loading one runs no code of its own."""

import functools
import io
import json
import re
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from stages.shared.errors import UserError
from stages.shared.files import write_bytes, write_json

PREDICTED_AT_ONCE = 32  # images
ABOUT = "about.json"  # in the archive of a model
KNOWN_BY = 16  # first digits of the training images' hashes, which travel with an ensemble
NO_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip archive can hold


def save_model(model: keras.Model, path: str | Path, about: dict | None = None) -> None:
    """Save a model, without its optimizer's state, the time, and addresses in memory (Keras's ids of shared objects).

    Parameters
    ----------
    model : keras.Model
    path : str or Path
        Of the file, which is a zip archive.
    about : dict, optional
        What a user of the model must know; Keras passes over this entry of the archive, `read_about` reads it.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.keras"
        plain = keras.Model(model.inputs, model.outputs, name=model.name) if model.compiled else model
        plain.save(file)
        content = io.BytesIO()
        with zipfile.ZipFile(file) as dated, zipfile.ZipFile(content, "w") as undated:
            for name in dated.namelist():
                entry = dated.read(name)
                if name == "metadata.json":
                    entry = json.dumps({**json.loads(entry), "date_saved": ""}).encode()
                if name == "config.json":
                    entry = number_shared_objects(entry)
                undated.writestr(zipfile.ZipInfo(name, NO_TIME), entry)
            if about:
                undated.writestr(zipfile.ZipInfo(ABOUT, NO_TIME), json.dumps(about, indent=2, allow_nan=False))
    write_bytes(path, content.getvalue())


def join(
    members: dict[str, keras.Model],
    weights: dict[str, float],
    temperature: float = 1.0,
    biases: Sequence[float] | None = None,
    novelty: keras.Model | None = None,
) -> keras.Model:
    """The ensemble as one model, in which members compute a batch side by side.

    Parameters
    ----------
    members : dict of str to keras.Model
        By name; all take images of one size, n×h×w×1, and give class probabilities.
    weights : dict of str to float
        The members' voting weights, which sum to 1.
    temperature : float
        Of the vote's calibration; see `stages.shared.voting.calibrate`.
    biases : sequence of float, length classes
        Of the calibration; None: all 0.
    novelty : keras.Model, optional
        How unlike the training images an image is; takes images as the members do.

    Returns
    -------
    keras.Model
        Takes uint8 images as the RAD holds them. Gives a mapping: `probabilities` (n, classes), the members' weighted mean,
        calibrated; `members` (n, members, classes), what each of them predicts; `novelty` (n,), if there is a model of it.
    """
    shape = next(iter(members.values())).inputs[0].shape[1:]
    images = keras.Input(shape, dtype="uint8", name="images")
    grey = keras.ops.cast(images, "float32")
    votes = [keras.Model(model.inputs, model.outputs[0], name=name)(grey) for name, model in members.items()]
    mean = sum(vote * weights[name] for name, vote in zip(members, votes, strict=True))
    classes = mean.shape[-1]
    calibration = keras.layers.Dense(classes, "softmax", name="calibration")
    outputs = {"probabilities": calibration(keras.ops.log(keras.ops.maximum(mean, 1e-7)))}
    calibration.set_weights([np.eye(classes) / temperature, np.zeros(classes) if biases is None else np.array(biases)])
    outputs["members"] = keras.ops.stack(votes, 1)
    if novelty:
        outputs["novelty"] = novelty(grey)
    return keras.Model(images, outputs, name="ensemble")


def save_serving(model: keras.Model, folder: str | Path, about: dict) -> None:
    """Save a joined model as TensorFlow's SavedModel, with the signature `serving_default`, as TensorFlow Serving expects it.

    What a user must know is in `assets.extra/about.json`. Functions are numbered as they are made: equal bytes need a process
    that made nothing else before.
    """
    folder = Path(folder)
    shutil.rmtree(folder, ignore_errors=True)
    served = tf.Module()
    served.variables_of_model = model.variables
    served.classify = tf.function(
        lambda images: model(images, training=False), [tf.TensorSpec(model.inputs[0].shape, tf.uint8, "images")]
    )
    tf.saved_model.save(served, str(folder), {"serving_default": served.classify})
    (folder / "fingerprint.pb").unlink(missing_ok=True)  # a random number
    write_json(folder / "assets.extra" / ABOUT, about)


def load_ensemble(path: str | Path) -> tuple[keras.Model, dict]:
    """A joined model and what a user of it must know, in safe mode.

    Raises
    ------
    UserError
        If the file is missing, is no Keras model, holds code, or is not an ensemble that this pipeline exported.
    """
    model = load_model(path)
    try:
        with zipfile.ZipFile(path) as archive:
            about = json.loads(archive.read(ABOUT))
        shape = [None, about["size"], about["size"], 1]
        fits = [list(tensor.shape) for tensor in model.inputs] == [shape] and isinstance(about["crop"], bool)
        told = {key: tuple(tensor.shape[1:]) for key, tensor in model.compute_output_spec(model.inputs[0]).items()}
        classes, members = len(about["classes"]), members_of(model, about)
        fits = fits and told == {"probabilities": (classes,), "members": (len(members), classes), "novelty": ()}
        fits = fits and all(isinstance(name, str) for name in about["classes"])
        fits = fits and abs(sum(about["weights"].values()) - 1) < 1e-3 and isinstance(about["threshold"], float | None)
        fits = fits and about["heat_scale"] > 0
        fits = fits and isinstance(about["training_images"]["sha256_prefixes"], list)
    except Exception:  # noqa: BLE001  (whatever is missing, of another type, or can't be computed)
        fits = False
    if not fits:
        raise UserError(f"{path} is a Keras model, but no ensemble of this pipeline; expected what `dvc repro export` writes")
    return model, about


def members_of(model: keras.Model, about: dict) -> dict[str, keras.Model]:
    """A joined model's members by name; see `load_ensemble`."""
    return {name: model.get_layer(name) for name in about["weights"]}


@functools.cache
def predictor(model: keras.Model) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """A function from images, uint8, n×h×w×1, to what a joined model gives for them, worked out batch by batch.

    Keras's own `predict` spends more time on each call than a small network computes.
    """
    compute = tf.function(lambda batch: model(batch, training=False), [tf.TensorSpec(model.inputs[0].shape, tf.uint8)])

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        batches = [compute(images[start : start + PREDICTED_AT_ONCE]) for start in range(0, len(images), PREDICTED_AT_ONCE)]
        return {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}

    return predict


def number_shared_objects(config: bytes) -> bytes:
    """The configuration with the ids of shared objects numbered in order of appearance."""
    numbers: dict[bytes, int] = {}
    return re.sub(rb'(?<="shared_object_id": )\d+', lambda match: b"%d" % numbers.setdefault(match[0], len(numbers)), config)


def load_model(path: str | Path) -> keras.Model:
    """Load a model in safe mode.

    Raises
    ------
    UserError
        If the file is missing, is no Keras model, holds code, or lacks weights.
    """
    if not Path(path).is_file():
        raise UserError(f"{path} is missing; run `dvc repro` to make it")
    if Path(path).suffix != ".keras":  # Keras reads older formats without regard to safe mode
        raise UserError(f"{path} is not a model that loads in safe mode; expected a file that ends in .keras")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # Keras just warns of weights that are not there
            return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # noqa: BLE001  (whatever Keras, HDF5 and TensorFlow stumble over)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{path} is not a model that loads in safe mode ({reason}); run `dvc repro --force` to make it again"
        ) from None
