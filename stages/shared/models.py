"""Keras models on disk: equal models give equal bytes, and loading one runs no code of its own."""

import io
import json
import re
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from stages.shared.errors import UserError
from stages.shared.files import write_bytes

PREDICTED_AT_ONCE = 32  # images
NO_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip archive can hold


def save_model(model: keras.Model, path: str | Path) -> None:
    """Save a model, without its optimizer's state, the time, and addresses in memory (Keras's ids of shared objects)."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.keras"
        keras.Model(model.inputs, model.outputs, name=model.name).save(file)
        content = io.BytesIO()
        with zipfile.ZipFile(file) as dated, zipfile.ZipFile(content, "w") as undated:
            for name in dated.namelist():
                entry = dated.read(name)
                if name == "metadata.json":
                    entry = json.dumps({**json.loads(entry), "date_saved": ""}).encode()
                if name == "config.json":
                    entry = number_shared_objects(entry)
                undated.writestr(zipfile.ZipInfo(name, NO_TIME), entry)
    write_bytes(path, content.getvalue())


def join(members: dict[str, keras.Model], weights: dict[str, float]) -> keras.Model:
    """The ensemble as one model, in which members compute a batch side by side.

    Parameters
    ----------
    members : dict of str to keras.Model
        By name; all take images of one size, n×h×w×1, and give class probabilities.
    weights : dict of str to float
        The members' voting weights, which sum to 1.

    Returns
    -------
    keras.Model
        Takes uint8 images as the RAD holds them. Gives a mapping: `probabilities` (n, classes), the members' weighted mean,
        and `members` (n, members, classes), what each of them predicts.
    """
    shape = next(iter(members.values())).inputs[0].shape[1:]
    images = keras.Input(shape, dtype="uint8", name="images")
    grey = keras.ops.cast(images, "float32")
    votes = [keras.Model(model.inputs, model.outputs[0], name=name)(grey) for name, model in members.items()]
    mean = sum(vote * weights[name] for name, vote in zip(members, votes, strict=True))
    return keras.Model(images, {"probabilities": mean, "members": keras.ops.stack(votes, 1)}, name="ensemble")


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
        If the file is missing, is no Keras model, or holds code.
    """
    if not Path(path).is_file():
        raise UserError(f"{path} is missing; run `dvc repro` to make it")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (ValueError, OSError, KeyError, TypeError, zipfile.BadZipFile) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{path} is not a model that loads in safe mode ({reason}); run `dvc repro --force` to make it again"
        ) from None
