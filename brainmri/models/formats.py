"""The ensemble in the formats of other runtimes, each compared with the Keras model."""

import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from brainmri.common.errors import UserError
from brainmri.common.files import format_json, write_bytes
from brainmri.common.paths import EXPORTED, EXPORTED_ABOUT, LITERT_MODEL, ONNX_MODEL, SAVED_MODEL
from brainmri.evaluation.results import Difference
from brainmri.models.about import About

LIMIT = 1e-4  # of the difference of a probability, or of novelty, in parts of it above 1
# Modules, and packages of the same names but for hyphens
PACKAGES = {"onnx": ("onnx", "onnxruntime"), "litert": ("ai_edge_litert",)}
Outputs = dict[str, np.ndarray]
Predictor = Callable[[np.ndarray], Outputs]


def check_packages(formats: list[str]) -> None:
    """Check that what writes and runs these formats is installed.

    Raises
    ------
    UserError
    """
    for name in formats:
        missing = [package for package in PACKAGES.get(name, ()) if find_spec(package) is None]
        if missing:
            names = " and ".join(missing).replace("_", "-")
            raise UserError(
                f"export.formats: {name} needs {names}, which is not installed;"
                " run `pip install -r requirements/export.txt`"
            )


def write_formats(
    formats: list[str],
    model,
    about: About,
    batches: Callable[[], Iterator[np.ndarray]],
    expected: Outputs,
) -> dict[str, Difference]:
    """Write a model in each of these formats but Keras's, beside its about.json.

    Parameters
    ----------
    formats : list of str
        Of `params.ExportFormat`.
    model : keras.Model
        See `ensemble.build_ensemble_model`; with novelty.
    about : About
    batches : callable
        Returns the test images, batch by batch.
    expected : dict of str to ndarray
        The Keras model's outputs for them.

    Returns
    -------
    dict of str to Difference
        The largest difference from these outputs, by format.

    Raises
    ------
    UserError
        If a format can't hold the model, or differs by more than `LIMIT`; nothing is left then.
    """
    shutil.rmtree(EXPORTED, ignore_errors=True)
    text = format_json(about) + "\n"
    write_bytes(EXPORTED_ABOUT, text.encode())
    differences = {}
    try:
        for name, write in WRITERS.items():
            if name in formats:
                predict = write(model, about, text)
                outputs = concatenate([predict(images) for images in batches()])
                differences[name] = largest_difference(name, outputs, expected)
    except UserError:
        shutil.rmtree(EXPORTED)
        raise
    return differences


def concatenate(batches: list[Outputs]) -> Outputs:
    """Concatenate outputs of several batches."""
    return {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}


def largest_difference(name: str, outputs: Outputs, expected: Outputs) -> Difference:
    """Compute the largest difference of each output, to two digits.

    Raises
    ------
    UserError
        If one is larger than `LIMIT`, or no number.
    """
    differences = {}
    for key, values in expected.items():
        scale = np.maximum(values, 1) if key == "novelty" else 1
        difference = np.max(np.abs(outputs[key] - values) / scale)
        if not difference <= LIMIT:
            raise UserError(
                f"export.formats: {key} of the {name} file differ from the Keras model's by up to"
                f" {difference:.2g} on the test images; expected {LIMIT} or less;"
                f" remove {name} from export.formats, or train with train.precision: float32"
            )
        differences[key] = float(f"{difference:.1e}")
    return Difference(**differences)


def _write_saved_model(model, about: About, _: str) -> Predictor:
    from brainmri.models.serving import load_serving, save_serving

    save_serving(model, SAVED_MODEL, about)
    return load_serving(SAVED_MODEL)


def _write_onnx(model, _: About, text: str) -> Predictor:
    from brainmri.models.onnx_graph import load_onnx, to_onnx

    return _write(ONNX_MODEL, to_onnx(model, {EXPORTED_ABOUT.stem: text}), load_onnx)


def _write_litert(model, _: About, text: str) -> Predictor:
    from brainmri.models.litert import load_litert, to_litert

    return _write(LITERT_MODEL, to_litert(model, {EXPORTED_ABOUT.name: text.encode()}), load_litert)


def _write(path: Path, content: bytes, load: Callable[[bytes], Predictor]) -> Predictor:
    write_bytes(path, content)
    return load(content)


# The SavedModel is first: its bytes depend on the functions that TensorFlow has made before.
WRITERS = {"saved_model": _write_saved_model, "onnx": _write_onnx, "litert": _write_litert}
