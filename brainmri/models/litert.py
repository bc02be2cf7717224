"""The ensemble as a LiteRT (TensorFlow Lite) file, for phones and small computers."""

import io
import zipfile
from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf

from brainmri.common.errors import UserError
from brainmri.common.files import ZIP_EPOCH

SIGNATURE = "serving_default"


def to_litert(
    model: keras.Model, files: dict[str, bytes], calibration: Iterable[np.ndarray] | None = None
) -> bytes:
    """Convert a model of uint8 images, n×h×w×1, with a dictionary of outputs.

    Parameters
    ----------
    model : keras.Model
    files : dict of str to bytes
        Appended as a zip archive, as LiteRT's metadata are: any program for zip archives reads
        them, and the runtime ignores them.
    calibration : iterable of ndarray, optional
        Batches of images by whose activations the file is quantized to 8-bit integers.

    Returns
    -------
    bytes
        Of the file, the same for the same model.

    Raises
    ------
    UserError
        If LiteRT lacks an operator, as for 16-bit floats.
    """
    images = tf.TensorSpec(model.inputs[0].shape, tf.uint8, "images")
    classify = tf.function(lambda images: model(images, training=False), [images], autograph=False)
    variables = tf.Module()
    variables.values = [variable.value for variable in model.variables]  # Keras's own are not found
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [classify.get_concrete_function()], variables
    )
    if calibration is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ({"images": batch} for batch in calibration)
    try:
        content = io.BytesIO(converter.convert())
    except Exception as error:  # noqa: BLE001, the converter raises several kinds
        reason = str(error).splitlines()[0]
        raise UserError(
            f"export.formats: LiteRT can't hold the model ({reason}); remove litert from"
            " export.formats, or train with train.precision: float32"
        ) from None
    with zipfile.ZipFile(content, "a") as archive:
        for name, entry in files.items():
            archive.writestr(zipfile.ZipInfo(name, ZIP_EPOCH), entry)
    return content.getvalue()


def load_litert(content: bytes) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Return a function from images to the outputs of a file, computed on one core."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    run = interpreter.get_signature_runner(SIGNATURE)
    return lambda images: run(images=images)
