"""Print predictions as a table, as CSV, or as JSON."""

import csv
import json
import sys
from collections.abc import Iterable

import numpy as np

from brainmri.evaluation.labels import columns, pad, shorten_all
from brainmri.predict.prediction import Prediction

FILE_WIDTH = 40  # columns of the table
NAME_WIDTH = 20
MIN_WIDTH = 8
MAX_CLASSES = 8  # with a column each


def printable(text: object) -> str:
    """Replace characters that a terminal may take for commands, which names can hold, by "?"."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))


def record_of(prediction: Prediction, classes: list[str]) -> dict[str, str | float | bool]:
    """Return a prediction as programs read it: a row of the CSV, or a JSON object.

    Parameters
    ----------
    prediction : Prediction
    classes : list of str

    Returns
    -------
    dict
        Probabilities are between 0 and 1; entropy and mutual information are in nats.
    """
    probabilities = {
        f"probability of {name}": round(float(probability), 6)
        for name, probability in zip(classes, prediction.probabilities, strict=True)
    }
    return {
        "file": str(prediction.path).encode("utf-8", "backslashreplace").decode(),
        "class": classes[prediction.probabilities.argmax()],
        **probabilities,
        "entropy": round(prediction.entropy, 6),
        "mutual_information": round(prediction.mutual_information, 6),
        "novelty": round(prediction.novelty, 4),
        "unlike_training_images": prediction.is_novel,
    }


def print_csv(predictions: Iterable[Prediction], classes: list[str]) -> None:
    """Print predictions as CSV, with a header."""
    writer = None
    for prediction in predictions:
        record = record_of(prediction, classes)
        if writer is None:
            writer = csv.DictWriter(sys.stdout, record, lineterminator="\n")
            writer.writeheader()
        writer.writerow(record)


def print_json_lines(predictions: Iterable[Prediction], classes: list[str]) -> None:
    """Print each prediction as a JSON object on a line of its own."""
    for prediction in predictions:
        print(json.dumps(record_of(prediction, classes)))


def print_table(predictions: Iterable[Prediction], classes: list[str]) -> None:
    """Print predictions as a table, each line as soon as it is known.

    Names are shortened, and of more than `MAX_CLASSES` classes only the two most probable are
    shown: CSV and JSON have all.
    """
    names = shorten_all(classes, NAME_WIDTH)
    width = max(MIN_WIDTH, *map(columns, names))
    print(_header(names, width))
    for prediction in predictions:
        line = _line(prediction, names, width)
        if prediction.is_novel:
            line += f"  unlike the training images ({prediction.novelty:.1f})"
        print(line, flush=True)


def _header(names: list[str], width: int) -> str:
    if len(names) > MAX_CLASSES:
        probabilities = ["probability", pad("next", width), "probability"]
    else:
        probabilities = [" " * (width - columns(name)) + name for name in names]
    file, predicted = pad("file", FILE_WIDTH), pad("class", width)
    return "  ".join([file, predicted, *probabilities, "entropy", "mutual inf."])


def _line(prediction: Prediction, names: list[str], width: int) -> str:
    path = printable(prediction.path)
    if len(path) > FILE_WIDTH:
        path = "…" + path[1 - FILE_WIDTH :]
    first, second, *_ = np.argsort(-prediction.probabilities, kind="stable")
    if len(names) > MAX_CLASSES:
        probabilities = [
            f"{prediction.probabilities[first]:11.3f}",
            pad(names[second], width),
            f"{prediction.probabilities[second]:11.3f}",
        ]
    else:
        probabilities = [f"{probability:{width}.3f}" for probability in prediction.probabilities]
    return "  ".join(
        [
            f"{path:{FILE_WIDTH}}",
            pad(names[first], width),
            *probabilities,
            f"{prediction.entropy:7.3f}",
            f"{prediction.mutual_information:11.3f}",
        ]
    )
