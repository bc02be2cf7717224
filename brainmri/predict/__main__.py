"""Predict the classes of new images.

    python -m brainmri.predict PATH…

PATH is a file, a folder, a pattern such as 'scans/*.png', or - for a list on standard input.

Prints for each image the predicted class, the probability of each class, and how far the members
disagree: the entropy of their mean vote and the mutual information of vote and member, in nats,
both before calibration; and a warning where the image is unlike the training images: a `novelty`
above 1, which is the error of its reconstruction from their principal components over a limit. How
often test images get this warning is in metrics/export.json.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from brainmri.common.errors import UserError
from brainmri.common.paths import ENSEMBLE
from brainmri.common.progress import progress
from brainmri.common.resources import usable_cores
from brainmri.images.decoding import DecodedImage, ImageError, decode_all
from brainmri.models.about import About
from brainmri.models.runtime import start_tensorflow
from brainmri.predict.files import expand_paths, label_of
from brainmri.predict.labeled import evaluate_labeled
from brainmri.predict.output import print_csv, print_json_lines, print_table, printable
from brainmri.predict.prediction import Prediction


def main() -> None:
    options = parse_arguments()
    try:
        run(options)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of the output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m brainmri.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="+", metavar="PATH")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print CSV")
    form.add_argument("--json", action="store_true", help="print a JSON object a line")
    parser.add_argument(
        "--labels",
        action="store_true",
        help="the images are in class folders: also print the metrics of the predictions",
    )
    parser.add_argument(
        "--explain",
        metavar="DIR",
        help="write each image, beside the evidence for a finding in it, to this folder",
    )
    parser.add_argument(
        "--model",
        default=str(ENSEMBLE),
        metavar="FILE",
        help="the exported ensemble; default: %(default)s",
    )
    return parser.parse_args()


def run(options: argparse.Namespace) -> None:
    """Predict, print, and exit with an error if a file could not be read."""
    files = list(dict.fromkeys(expand_paths(options.paths)))
    if not files:
        raise UserError(
            f"no file in {', '.join(options.paths)}; expected images, or folders of images"
        )
    start_tensorflow()
    from brainmri.models.ensemble import load_ensemble
    from brainmri.predict.inference import predict_images

    model, about = load_ensemble(options.model)
    labels = {path: label_of(path, about["classes"]) for path in files} if options.labels else {}
    predictions = predict_images(read_images(files, about), model, about)
    if options.explain:
        from brainmri.predict.overlays import write_overlays

        predictions = write_overlays(predictions, model, about, Path(options.explain))

    printed: list[Prediction] = []
    classes = [printable(name) for name in about["classes"]]
    predictions = collect(predictions, printed)
    if options.csv:
        print_csv(predictions, classes)
    elif options.json:
        print_json_lines(predictions, classes)
    else:
        print_table(predictions, classes)
    if labels and printed:
        metrics = evaluate_labeled(printed, labels, about)
        for_programs = options.csv or options.json
        output = sys.stderr if for_programs else sys.stdout
        print(json.dumps(metrics, indent=2), file=output)
    if unreadable := len(files) - len(printed):
        sys.exit(f"{unreadable} of {len(files)} files could not be read")


def read_images(files: list[Path], about: About) -> Iterator[tuple[Path, DecodedImage]]:
    """Decode image files, and print an error for each that can't be read."""
    decoded = decode_all(files, about["size"], about["crop"], usable_cores())
    if not sys.stdout.isatty():
        decoded = progress(decoded, len(files), "reading images")
    for path, image in decoded:
        if isinstance(image, ImageError):
            print(f"error: {printable(path)}: {image}", file=sys.stderr, flush=True)
        else:
            yield path, image


def collect(predictions: Iterable[Prediction], collected: list[Prediction]) -> Iterator[Prediction]:
    """Yield predictions, and append each to a list, without its pixels."""
    for prediction in predictions:
        image = replace(prediction.image, pixels=None)
        collected.append(replace(prediction, image=image))
        yield prediction


if __name__ == "__main__":
    main()
