"""Measure the exported formats: size, time of one image on one core, accuracy on the test images.

    python -m benchmarks.formats     (where the pipeline has run; the table of docs/deploy.md)

It converts `models/ensemble.keras` itself, also to 8-bit integers, which `export` doesn't write.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from brainmri.networks.runtime import start_tensorflow

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before any runtime counts the cores
start_tensorflow()

import keras
import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from benchmarks.size import count_bytes
from benchmarks.table import cpu_model
from brainmri.common.paths import ENSEMBLE
from brainmri.evaluation.log_loss import log_loss
from brainmri.models.ensemble import batch_predictor, load_ensemble
from brainmri.models.litert import load_litert, to_litert
from brainmri.models.onnx_graph import load_onnx, to_onnx
from brainmri.models.serving import load_serving, save_serving
from brainmri.sampling.files import read_split
from brainmri.store.reader import RadReader
from tests.support.checkout import ROOT

RESULTS = ROOT / "docs/deploy.md"
START, END = "<!-- measured -->", "<!-- end -->"
CALIBRATION_IMAGES, CALIBRATION_BATCH = 60, 4
WARM_UP, REPEATS = 5, 30
Predictor = Callable[[np.ndarray], dict[str, np.ndarray]]


class Batches(CalibrationDataReader):
    """Images by whose activations ONNX Runtime quantizes."""

    def __init__(self, batches: Iterator[np.ndarray]):
        self.batches = batches

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"images": batch}


def quantize_onnx(source: Path, target: Path, batches: Iterator[np.ndarray]) -> None:
    """Quantize the convolutions of the members, by channel; not those that resize for novelty."""
    nodes = onnx.load(source).graph.node
    shapes = {
        node.name: attribute.ints
        for node in nodes
        for attribute in node.attribute
        if attribute.name == "kernel_shape"
    }
    resizing = [name for name, shape in shapes.items() if shape[0] != shape[1]]
    quantize_static(
        source,
        target,
        Batches(batches),
        op_types_to_quantize=["Conv"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        nodes_to_exclude=resizing,
    )


def write_files(folder: Path, model: keras.Model, about, calibration: np.ndarray) -> None:
    """Write the model in each format."""
    starts = range(0, len(calibration), CALIBRATION_BATCH)
    batches = [calibration[start : start + CALIBRATION_BATCH] for start in starts]
    save_serving(model, folder / "saved_model", about)
    (folder / "float.onnx").write_bytes(to_onnx(model, {}))
    quantize_onnx(folder / "float.onnx", folder / "integer.onnx", iter(batches))
    (folder / "float.tflite").write_bytes(to_litert(model, {}))
    (folder / "integer.tflite").write_bytes(to_litert(model, {}, batches))


def list_predictors(folder: Path, model: keras.Model) -> dict[str, tuple[Path, Predictor]]:
    """List the files, and functions from images to their outputs, by name."""
    files = {name: folder / name for name in ("float.tflite", "integer.tflite")}
    litert = {name: load_litert(file.read_bytes()) for name, file in files.items()}
    onnx_files = {name: folder / name for name in ("float.onnx", "integer.onnx")}
    runtime = {name: load_onnx(str(file)) for name, file in onnx_files.items()}
    return {
        "Keras, `model.predict`": (ENSEMBLE, lambda images: model.predict(images, verbose=0)),
        "Keras, one compiled function": (ENSEMBLE, batch_predictor(model)),
        "SavedModel": (folder / "saved_model", load_serving(folder / "saved_model")),
        "ONNX Runtime": (onnx_files["float.onnx"], runtime["float.onnx"]),
        "ONNX Runtime, 8-bit convolutions": (onnx_files["integer.onnx"], runtime["integer.onnx"]),
        "LiteRT": (files["float.tflite"], litert["float.tflite"]),
        "LiteRT, 8-bit": (files["integer.tflite"], litert["integer.tflite"]),
    }


def measure_times(predictors: dict[str, Predictor], image: np.ndarray) -> dict[str, float]:
    """Measure the median CPU time of one image, in milliseconds; predictors take turns."""
    times: dict[str, list[float]] = {name: [] for name in predictors}
    for _ in range(WARM_UP + REPEATS):
        for name, predict in predictors.items():
            start = time.process_time()
            predict(image)
            times[name].append(time.process_time() - start)
    return {name: 1000 * float(np.median(each[WARM_UP:])) for name, each in times.items()}


def main() -> None:
    model, about = load_ensemble(ENSEMBLE)
    with RadReader() as rad:
        split = read_split(len(rad))
        test, labels = rad.images(split["test"]), rad.labels[split["test"]]
        step = max(1, len(split["training"]) // CALIBRATION_IMAGES)
        calibration = rad.images(split["training"][::step])
    expected = batch_predictor(model)(test)["probabilities"]
    lines = [
        "| runtime | file | one image | largest difference | accuracy | log loss |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_files(folder, model, about, calibration)
        listed = list_predictors(folder, model)
        times = measure_times({name: predict for name, (_, predict) in listed.items()}, test[:1])
        for name, (file, predict) in listed.items():
            probabilities = predict(test)["probabilities"]
            cells = [
                name,
                f"{count_bytes(file) / 1e6:.1f} MB",
                f"{times[name]:.0f} ms",
                f"{np.abs(probabilities - expected).max():.1g}",
                f"{np.mean(probabilities.argmax(axis=1) == labels):.3f}",
                f"{log_loss(labels, probabilities):.3f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    machine = f"One core of {cpu_model()}, {len(test)} test images."
    table = "\n".join([machine, "", *lines])
    print(table)
    text = RESULTS.read_text("utf-8")
    head, tail = text.split(START)[0], text.split(END)[1]
    RESULTS.write_text(f"{head}{START}\n{table}\n{END}{tail}", "utf-8")


if __name__ == "__main__":
    main()
