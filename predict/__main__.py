"""What the ensemble tells of new images.

    python -m predict PATH…           (files, folders, patterns such as 'scans/*.png', or - for a list on standard input)

For each image the class, the probability of each class, and how far the members disagree: the entropy of their mean vote and the
mutual information of vote and member, in nats, both before the calibration; and a warning where it is unlike the training
images (`novelty` above 1: what their principal components leave unexplained of its thumbnail exceeds a limit). How often that
warns of test images stands in metrics/export.json.
"""

import stages.shared.start_tensorflow  # noqa: F401, isort: skip

import argparse
import csv
import glob
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from predict.prediction import BATCH, Prediction, overlays, predictions
from stages.shared import metrics
from stages.shared.errors import UserError
from stages.shared.files import write_bytes
from stages.shared.images import ImageError, Picture, decode_all
from stages.shared.machine import usable_cores
from stages.shared.models import KNOWN_BY, load_ensemble
from stages.shared.names import columns, pad, shorten_all
from stages.shared.progress import progress
from stages.shared.sampling import hash_array, near_duplicate_groups
from stages.shared.sources import composed, is_hidden, is_system_name

BINS, RESAMPLES, NEAR_DUPLICATE_BITS = 10, 2000, 20  # of the figures with --labels; the pipeline's defaults
MOST_COLUMNS, NAME_WIDTH = 8, 20  # of the table


def main() -> None:
    options = parse()
    files = list(dict.fromkeys(find_files(options.paths)))
    if not files:
        raise UserError(f"no file in {', '.join(options.paths)}; expected images, or folders of images")
    model, about = load_ensemble(options.model)
    labels = {path: label_of(path, about["classes"]) for path in files} if options.labels else {}
    read: list[Prediction] = []
    decoded = decode_all(files, about["size"], about["crop"], usable_cores())
    decoded = decoded if sys.stdout.isatty() else progress(decoded, len(files), "reading images")
    told = predictions(readable(decoded), model, about)
    if options.explain:
        told = explained(told, model, about, Path(options.explain))
    write = write_csv if options.csv else write_json_lines if options.json else write_table
    write(kept(told, read), [printable(name) for name in about["classes"]])
    if labels and read:
        figures = evaluated(read, labels, about)
        print(json.dumps(figures, indent=2), file=sys.stderr if options.csv or options.json else sys.stdout)
    if len(read) < len(files):
        sys.exit(f"{len(files) - len(read)} of {len(files)} files could not be read")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="+", metavar="PATH")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print a CSV table")
    form.add_argument("--json", action="store_true", help="print a JSON object for each image, a line each")
    parser.add_argument("--labels", action="store_true", help="images lie in class folders: print what the predictions are worth")
    parser.add_argument("--explain", metavar="DIR", help="write each image there, beside the evidence for a finding in it")
    parser.add_argument("--model", default="models/ensemble.keras", metavar="FILE", help="the ensemble; default: %(default)s")
    return parser.parse_args()


def find_files(paths: Iterable[str]) -> Iterator[Path]:
    """The files that arguments stand for: themselves, all in a folder, all of a pattern, those listed on standard input.

    Hidden and system files are passed over, but for hidden ones that are named.
    """
    for path in paths:
        if is_system_name(Path(path).name):  # a shell's pattern names those, too
            continue
        if path == "-":
            yield from find_files(os.fsdecode(line) for line in sys.stdin.buffer.read().splitlines() if line not in (b"", b"-"))
        elif Path(path).is_dir():
            below = (file for file in Path(path).rglob("*") if not file.is_dir())
            yield from sorted(file for file in below if not any(map(is_hidden, file.relative_to(path).parts)))
        elif not Path(path).exists() and glob.has_magic(path):
            matches = sorted(glob.glob(path, recursive=True))  # noqa: PTH207, Path.glob takes no absolute pattern
            named = Path(path).parts
            shown = (match for match in matches if not any(is_hidden(part) for part in Path(match).parts if part not in named))
            yield from find_files(shown) if matches else [Path(path)]
        else:
            yield Path(path)


def label_of(path: Path, classes: list[str]) -> int:
    """The class whose folder the file lies in, at any depth."""
    labels = {composed(name): label for label, name in enumerate(classes)}
    for folder in map(composed, reversed(path.absolute().parts[:-1])):
        if folder in labels:
            return labels[folder]
    raise UserError(f"{path} lies in no folder of a class; expected folders named {', '.join(classes)} with --labels")


def readable(decoded: Iterable[tuple[Path, Picture | ImageError]]) -> Iterator[tuple[Path, Picture]]:
    for path, picture in decoded:
        if isinstance(picture, ImageError):
            print(f"error: {printable(path)}: {picture}", file=sys.stderr, flush=True)
        else:
            yield path, picture


def kept(told: Iterable[Prediction], read: list[Prediction]) -> Iterator[Prediction]:
    """Pass predictions on; keep what the figures need of them, without pixels."""
    for one in told:
        read.append(replace(one, picture=replace(one.picture, pixels=None)))
        yield one


def printable(text: object) -> str:
    """Names may hold anything, also what a terminal takes for commands."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))


def fields(one: Prediction, classes: list[str]) -> dict[str, str | float | bool]:
    """A prediction for programs."""
    return {
        "file": str(one.path).encode("utf-8", "backslashreplace").decode(),
        "class": classes[one.probabilities.argmax()],
        **{f"probability of {name}": round(float(value), 6) for name, value in zip(classes, one.probabilities, strict=True)},
        "entropy": round(one.entropy, 6),
        "mutual_information": round(one.mutual_information, 6),
        "novelty": round(one.novelty, 4),
        "unlike_training_images": one.novelty > 1,
    }


def write_csv(told: Iterable[Prediction], classes: list[str]) -> None:
    table = None
    for one in told:
        row = fields(one, classes)
        if table is None:
            table = csv.DictWriter(sys.stdout, row, lineterminator="\n")
            table.writeheader()
        table.writerow(row)


def write_json_lines(told: Iterable[Prediction], classes: list[str]) -> None:
    for one in told:
        print(json.dumps(fields(one, classes)))


def write_table(told: Iterable[Prediction], classes: list[str]) -> None:
    """Lines as they come, so that nothing waits for the last of many images.

    Names are short, and of many classes only the two most probable are shown: --csv and --json print all.
    """
    names = shorten_all(classes, NAME_WIDTH)
    width = max(8, *map(columns, names))
    many = len(names) > MOST_COLUMNS
    heads = [" " * (width - columns(name)) + name for name in names]
    if many:
        heads = ["probability", pad("next", width), "probability"]
    print("  ".join([f"{'file':40}", pad("class", width), *heads, "entropy", "mutual inf."]))
    for one in told:
        name = printable(one.path)
        name = name if len(name) <= 40 else "…" + name[-39:]
        first, second, *_ = np.argsort(-one.probabilities, kind="stable")
        cells = [f"{value:{width}.3f}" for value in one.probabilities]
        if many:
            cells = [f"{one.probabilities[first]:11.3f}", pad(names[second], width), f"{one.probabilities[second]:11.3f}"]
        cells += [f"{one.entropy:7.3f}", f"{one.mutual_information:11.3f}"]
        line = "  ".join([f"{name:40}", pad(names[first], width), *cells])
        warning = f"  unlike the training images ({one.novelty:.1f})" if one.novelty > 1 else ""
        print(f"{line}{warning}", flush=True)


def explained(told: Iterator[Prediction], model: keras.Model, about: dict, folder: Path) -> Iterator[Prediction]:
    """Pass predictions on, and write each image beside the evidence in it."""
    number = 0
    while batch := list(islice(told, BATCH)):
        for one, drawn in zip(batch, overlays(batch, model, about), strict=True):
            number += 1
            file = io.BytesIO()
            Image.fromarray(drawn).save(file, "PNG")
            write_bytes(folder / f"{number:04d}-{printable(Path(one.path.stem))[:80]}.png", file.getvalue())
            yield one


def evaluated(read: list[Prediction], labels: dict[Path, int], about: dict) -> dict:
    """The metrics that `evaluate` reports of test images, of these."""
    true = np.array([labels[one.path] for one in read])
    probabilities = np.stack([one.probabilities for one in read])
    learned_from = set(about["training_images"]["sha256_prefixes"])
    known = sum(one.picture.sha256[:KNOWN_BY] in learned_from for one in read)
    if known:
        print(f"warning: {known} of {len(read)} images are among those that it learned from", file=sys.stderr)
    classes = about["classes"]
    hashes = hash_array((one.picture.perceptual_hash, one.picture.whole_hash) for one in read)
    groups = near_duplicate_groups(hashes, NEAR_DUPLICATE_BITS)
    summary = metrics.summarize(true, probabilities, groups, classes, about["threshold"], BINS, RESAMPLES, 0)
    if reason := metrics.missing_metrics(summary["independent_groups"]):
        print(f"warning: {reason}", file=sys.stderr)
    return {
        **summary,
        "images": len(read),
        "learned_from": known,
        "unlike_training_images": sum(one.novelty > 1 for one in read),
    }


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # whoever read it has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
