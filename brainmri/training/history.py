"""The history of a training: metrics on in-bag and out-of-bag images after each epoch."""

import time
from pathlib import Path

import keras
import numpy as np

from brainmri.common.files import write_bytes
from brainmri.common.progress import print_record
from brainmri.training.input import Examples
from brainmri.training.prediction import compile_prediction, evaluate, predict

# Of history.csv. `loss` is what training minimizes: on augmented and mixed images, with label
# smoothing and penalties.
COLUMNS = (
    "loss",
    "in_bag_log_loss",
    "in_bag_accuracy",
    "out_of_bag_log_loss",
    "out_of_bag_accuracy",
    "learning_rate",
)
# Evaluating these takes up to a tenth of the time of an epoch on 253 images, less on more.
MAX_IN_BAG_EVALUATED = 64
PRINT_EVERY_S = 5.0  # within an epoch


class EpochLogger(keras.callbacks.Callback):
    """Evaluate the model after each epoch, record its metrics, and print them.

    In-bag and out-of-bag images are evaluated alike: as they are, each once, with its own label.
    Keras's own evaluation of so few takes longer to start than to compute. Callbacks that follow
    find the metrics in their logs.

    Parameters
    ----------
    epochs : int
        Largest number of epochs.
    examples : Examples

    Attributes
    ----------
    history : list of dict of str to float
        The metrics after each epoch, by column.
    """

    def __init__(self, epochs: int, examples: Examples):
        super().__init__()
        self.epochs, self.images = epochs, len(examples.in_bag)
        self.examples = examples
        self.rows = {
            "in_bag": evaluation_sample(examples.in_bag),
            "out_of_bag": examples.out_of_bag,
        }
        self.printed = time.monotonic()
        self.history: list[dict[str, float]] = []

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self.compute = compile_prediction(self.model)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Print how many images are done, if it is time; `batch` is the last one of this epoch."""
        if time.monotonic() - self.printed < PRINT_EVERY_S:
            return
        self.printed = time.monotonic()
        done = len(self.history) * self.images + (batch + 1) * self.images // self.params["steps"]
        print_record({"images": done, "all_images": self.epochs * self.images})

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        for part, rows in self.rows.items():
            probabilities = predict(self.compute, self.examples.read, rows)
            metrics = evaluate(self.examples.labels[rows], probabilities)
            logs.update({f"{part}_{metric}": value for metric, value in metrics.items()})
        learning_rate = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        logs["learning_rate"] = float(learning_rate)
        metrics = {column: logs[column] for column in COLUMNS}
        self.history.append(metrics)
        print_record({"epoch": epoch + 1, "epochs": self.epochs, "metrics": metrics})


def evaluation_sample(in_bag: list[int]) -> list[int]:
    """Choose the in-bag images of the learning curves.

    Returns
    -------
    list of int
        All rows once, or `MAX_IN_BAG_EVALUATED` evenly spaced ones.
    """
    rows = np.unique(in_bag)
    positions = np.linspace(0, len(rows) - 1, min(len(rows), MAX_IN_BAG_EVALUATED))
    return rows[np.round(positions).astype(int)].tolist()


def write_history(path: Path, history: list[dict[str, float]]) -> None:
    """Write the metrics of each epoch as a CSV file; epochs are counted from 1."""
    lines = [",".join(["epoch", *COLUMNS])]
    for epoch, metrics in enumerate(history, 1):
        values = [f"{metrics[column]:.6g}" for column in COLUMNS]
        lines.append(",".join([str(epoch), *values]))
    write_bytes(path, ("\n".join(lines) + "\n").encode())
