"""Raise cross-validated votes to powers: is the calibrated vote confident enough?

    python -m benchmarks.sharpness                                        (the run in this folder)
    python -m benchmarks.sharpness --seeds 4 -S data.source=FOLDER

With seeds, all folds are tested, as DVC experiments like those of `python -m brainmri.crossval`;
those that are complete are not run again. Power 1 is the calibrated vote, and powers above 1
sharpen it. If the log loss is lowest at a power far from 1, `NOISE` in
`brainmri/evaluation/weighting.py` does not fit.

Prints  for each power: the mean confidence, the log loss and the calibration error of the votes
"""

import argparse

import numpy as np

from brainmri.common.command import run_command
from brainmri.common.paths import PLOT_DATA
from brainmri.crossval.__main__ import check_overrides, parse_numbers
from brainmri.crossval.experiments import compose_params, run_folds
from brainmri.crossval.votes import parse_votes, pool_votes
from brainmri.evaluation.calibration import calibrate
from brainmri.evaluation.log_loss import log_loss
from brainmri.evaluation.metrics import calibration_error
from brainmri.evaluation.results import read_ensemble_metrics
from brainmri.evaluation.voting import ENSEMBLE

POWERS = (0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", help="such as 4,5; default: the run in this folder")
    parser.add_argument("-S", "--set-param", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    if options.set_param and not options.seeds:
        parser.error("-S is of folds to run; expected --seeds with it")
    check_overrides(options)
    params = compose_params(options.set_param)
    if seeds := parse_numbers(options.seeds, "--seeds"):
        folds = list(range(params["split"]["folds"]))
        votes = pool_votes(list(run_folds(params, seeds, folds, options.set_param).values()))
    else:
        tables = [
            (PLOT_DATA / name).read_text("utf-8") for name in ("votes.csv", "predictions.csv")
        ]
        votes = parse_votes(*tables, read_ensemble_metrics(), params["evaluate"]["positive"])
    probabilities = votes.probabilities[ENSEMBLE]
    is_right = probabilities.argmax(axis=1) == votes.labels
    print(f"{len(is_right)} tests of images, accuracy {is_right.mean():.4f}")
    for power in POWERS:
        raised = calibrate(probabilities, 1 / power, np.zeros(len(votes.classes)))
        error = calibration_error(votes.labels, raised, params["evaluate"]["bins"])
        print(
            f"power {power:.2f}: mean confidence {raised.max(axis=1).mean():.4f},"
            f" log loss {log_loss(votes.labels, raised):.4f}, calibration error {error:.4f}"
        )


if __name__ == "__main__":
    run_command(main)
