"""Train and test on every fold, each as a DVC experiment, and summarize all test images.

    make crossval               (or: python -m brainmri.crossval --seeds 1,2,3 -S members=9)

Folds run one after the other, each as `dvc exp run --temp -S split.fold=0 evaluate` runs it: in a
folder of its own. An experiment that exists, of the same code, parameters and images, is not run
again. For each seed, every image that is not of a given test set is a test image once, of an
ensemble trained on neither it nor a near duplicate of it.

Reads   params.yaml; votes.csv and predictions.csv in plots/data of each fold's experiment
Writes  metrics/crossval.json, plots/crossval.png
"""

import argparse

from brainmri.common.command import run_command
from brainmri.common.errors import UserError
from brainmri.common.files import write_json
from brainmri.common.params import load_params
from brainmri.common.paths import CROSSVAL_METRICS
from brainmri.crossval.experiments import compose_params, run_folds
from brainmri.crossval.report import print_summary, write_figure
from brainmri.crossval.summary import summarize
from brainmri.evaluation.prediction_sets import error_rate


def main() -> None:
    options = parse_arguments()
    load_params()  # checks params.yaml, with one clear line
    check_overrides(options)
    params = compose_params(options.set_param)
    seeds = parse_numbers(options.seeds, "--seeds") or [params["seed"]]
    folds = parse_numbers(options.folds, "--folds") or list(range(params["split"]["folds"]))
    votes = run_folds(params, seeds, folds, options.set_param)
    evaluate = params["evaluate"]
    decide = params["decide"]
    decide = {**decide, "error": options.error or decide["error"]}
    summary = summarize(votes, evaluate["resamples"], evaluate["bins"], decide)
    write_json(CROSSVAL_METRICS, summary)
    write_figure(summary, list(votes.values()))
    print_summary(summary)


def parse_arguments() -> argparse.Namespace:
    """Parse the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m brainmri.crossval", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--seeds", help="seeds to run, such as 1,2,3; default: that of params.yaml")
    parser.add_argument("--folds", help="folds to run, such as 0,1; default: all")
    parser.add_argument(
        "--error",
        type=error_rate,
        help="error rate of the prediction sets, for which nothing runs again; default:"
        " decide.error",
    )
    parser.add_argument(
        "-S",
        "--set-param",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="as in dvc exp run",
    )
    return parser.parse_args()


def check_overrides(options: argparse.Namespace) -> None:
    """Check that no override is of what the options choose.

    Raises
    ------
    UserError
    """
    for override in options.set_param:
        name = override.partition("=")[0].lstrip("+")
        if name == "split.fold":
            raise UserError(f"-S {override}: the folds to test on are chosen by --folds")
        if name == "seed" and options.seeds:
            raise UserError(f"-S {override}: the seeds are those of --seeds; give one of the two")


def parse_numbers(text: str | None, option: str) -> list[int]:
    """Parse a list of whole numbers such as "1,2,3".

    Parameters
    ----------
    text : str, optional
        None or empty: no numbers.
    option : str
        What the error calls the list.

    Raises
    ------
    UserError
        If a part is not a whole number.
    """
    if not text:
        return []
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(
            f"{option} is {text!r}; expected whole numbers with commas, such as 0,1,2"
        ) from None


if __name__ == "__main__":
    run_command(main)
