"""The ensemble as TensorFlow's SavedModel, for TensorFlow Serving."""

import shutil
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from brainmri.common.files import write_json
from brainmri.models.about import About
from brainmri.networks.saving import ABOUT


def save_serving(model: keras.Model, folder: str | Path, about: About) -> None:
    """Save an ensemble with the signature `serving_default` and assets.extra/about.json.

    TensorFlow numbers functions as they are made: equal bytes need a process that made the same
    ones before.
    """
    folder = Path(folder)
    shutil.rmtree(folder, ignore_errors=True)
    served = tf.Module()
    served.variables_of_model = model.variables
    images = tf.TensorSpec(model.inputs[0].shape, tf.uint8, "images")
    served.classify = tf.function(
        lambda images: model(images, training=False), [images], autograph=False
    )
    tf.saved_model.save(served, str(folder), {"serving_default": served.classify})
    (folder / "fingerprint.pb").unlink(missing_ok=True)  # a random number
    write_json(folder / "assets.extra" / ABOUT, about)


def load_serving(folder: str | Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Return a function from images to the outputs of a SavedModel."""
    served = tf.saved_model.load(str(folder))  # its variables live as long as it does

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        outputs = served.signatures["serving_default"](images=tf.constant(images))
        return {key: values.numpy() for key, values in outputs.items()}

    return predict
