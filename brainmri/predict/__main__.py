"""Predict the classes of new images.

    python -m brainmri.predict PATH…

PATH is a file, a folder, a pattern such as 'scans/*.png', or - for a list on standard input.

Prints for each image the predicted class, the probability of each class, and how far the members
disagree: the entropy of their mean vote and the mutual information of vote and member, in nats,
both before calibration; and a decision: the one class in the image's prediction set, which lacks
the true class for a stated rate of images, or "unsure" with the classes in it, or since the image
is unlike the training images: its `novelty`, the error of its reconstruction from their principal
components over a limit, is above 1. The fraction of test images above it is in metrics/export.json.

With --by-patient, prints for each patient the number of slices, and the class by the mean of their
probabilities. A patient has a number of this run; --patient finds the patient in the path of a
file; else a patient is as the table has it, or DICOM's PatientID.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from brainmri.common.command import run_command
from brainmri.common.errors import UserError, printable
from brainmri.common.files import format_json
from brainmri.common.paths import ENSEMBLE
from brainmri.common.progress import progress
from brainmri.common.resources import usable_cores
from brainmri.evaluation.prediction_sets import error_rate
from brainmri.images.decoding import DecodedImage
from brainmri.images.limits import ImageError
from brainmri.images.workers import decode_all
from brainmri.models.about import About
from brainmri.networks.runtime import start_tensorflow
from brainmri.predict.files import label_files, list_files
from brainmri.predict.labeled import describe_metrics, evaluate_labeled
from brainmri.predict.output import (
    patient_record,
    print_csv,
    print_json_lines,
    print_patient_table,
    print_table,
    record_of,
    why_no_sets,
)
from brainmri.predict.patients import (
    dicom_patients,
    find_patients,
    number_patients,
    patient_pattern,
    predict_patients,
    warn_of_several_folders,
    with_patients,
)
from brainmri.predict.prediction import Prediction
from brainmri.predict.table import read_table


def main() -> None:
    run(parse_arguments())


class Parser(argparse.ArgumentParser):
    """Escapes what it repeats of its arguments, which may be names of files."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def parse_arguments() -> argparse.Namespace:
    parser = Parser(
        prog="python -m brainmri.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="+", metavar="PATH")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print CSV")
    form.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser.add_argument(
        "--labels",
        action="store_true",
        help="the images are in class folders: also print the metrics of the predictions, with and"
        " without near duplicates of training images",
    )
    parser.add_argument(
        "--table",
        metavar="FILE",
        help="as --labels, with labels from a CSV or TSV table with the columns path (below PATH)"
        " and class, and optionally patient",
    )
    parser.add_argument(
        "--by-patient", action="store_true", help="predict the class of each patient"
    )
    parser.add_argument(
        "--patient",
        type=patient_pattern,
        metavar="REGEX",
        help="regular expression whose one group matches the patient in the path of a file, below"
        " PATH if that is a folder",
    )
    parser.add_argument(
        "--error",
        type=error_rate,
        metavar="RATE",
        help="error rate of the prediction sets, such as 0.05; default: decide.error of the run"
        " that exported the ensemble",
    )
    parser.add_argument(
        "--explain",
        metavar="DIR",
        help="write each image, with the evidence for a finding beside it, to this folder",
    )
    parser.add_argument(
        "--model",
        default=str(ENSEMBLE),
        metavar="FILE",
        help="the exported ensemble; default: %(default)s",
    )
    options = parser.parse_args()
    if options.patient and not (options.by_patient or options.labels or options.table):
        parser.error("--patient needs --by-patient, --labels or --table")
    return options


def run(options: argparse.Namespace) -> None:
    """Predict, print, and exit with an error if a file has no prediction."""
    files = list_files(options.paths)
    if not files:
        raise UserError(
            f"no file in {', '.join(options.paths)}; expected images, or folders of images"
        )
    start_tensorflow()
    from brainmri.models.ensemble import load_ensemble
    from brainmri.predict.inference import predict_images

    model, about = load_ensemble(options.model)
    if options.error:
        about["decision"]["error"] = options.error
    if reason := why_no_sets(about["decision"], options.by_patient):
        print(reason, file=sys.stderr)
    labels: dict[Path, int] = {}
    patients: dict[Path, str | None] = {}
    if options.table:
        labels, patients = read_table(Path(options.table), files, about["classes"])
        files = {file: given for file, given in files.items() if file in labels}
    elif options.labels:
        labels = label_files(files, about["classes"])
        files = {file: given for file, given in files.items() if file in labels}
    if options.patient:
        patients = find_patients(files, options.patient)
        warn_of_several_folders(files, patients)
    images = read_images(list(files), about, show_progress=options.by_patient)
    needs_patients = options.by_patient or bool(patients)
    if needs_patients:
        images = with_patients(images, patients)
    predictions = predict_images(images, model, about, options.model)
    if options.explain:
        from brainmri.predict.overlays import write_overlays

        predictions = write_overlays(predictions, model, about, Path(options.explain))

    predicted: list[Prediction] = []
    print_predictions(collect(predictions, predicted), about, options)
    if labels and predicted:
        numbers = number_patients(predicted) if needs_patients else dicom_patients(predicted)
        metrics = evaluate_labeled(predicted, labels, about, numbers)
        for_programs = options.csv or options.json
        output = sys.stderr if for_programs else sys.stdout
        print(format_json(metrics), *describe_metrics(metrics), sep="\n", file=output)
    if skipped := len(files) - len(predicted):
        reason = "could not be read" + (" or have no patient" if needs_patients else "")
        sys.exit(f"{skipped} of {len(files)} files {reason}")


def print_predictions(
    predictions: Iterable[Prediction], about: About, options: argparse.Namespace
) -> None:
    """Print the predictions for images, each as soon as it is there, or those for patients."""
    classes = about["classes"]
    if options.by_patient:
        predictions = predict_patients(list(predictions), about)
    if options.csv or options.json:
        to_record = patient_record if options.by_patient else record_of
        print_records = print_csv if options.csv else print_json_lines
        print_records(to_record(prediction, classes) for prediction in predictions)
    elif options.by_patient:
        print_patient_table(predictions, classes)
    else:
        print_table(predictions, classes)


def read_images(
    files: list[Path], about: About, show_progress: bool = False
) -> Iterator[tuple[Path, DecodedImage]]:
    """Decode image files, and print an error for each that can't be read.

    Progress is shown if predictions are, on a terminal, not printed one by one.
    """
    decoded = decode_all(files, about["size"], about["crop"], usable_cores())
    if show_progress or not sys.stdout.isatty():
        decoded = progress(decoded, len(files), "reading images")
    for path, image in decoded:
        if isinstance(image, ImageError):
            print(f"error: {printable(path)}: {printable(image)}", file=sys.stderr, flush=True)
        else:
            yield path, image


def collect(predictions: Iterable[Prediction], collected: list[Prediction]) -> Iterator[Prediction]:
    """Yield predictions without the pixels, and append each to a list."""
    for prediction in predictions:
        image = replace(prediction.image, pixels=None)
        collected.append(replace(prediction, image=image))
        yield collected[-1]


if __name__ == "__main__":
    run_command(main, needs_tensorflow=True)
