"""Show a web page that predicts the classes of images: drop them there, or click an example.

    make app              (or: python -m brainmri.app --port 7860)

Where patients are known, the page also has a prediction for each, the mean of those for the images,
as `python -m brainmri.predict --by-patient` has: --patient finds the patient in the name of a file;
else a patient is DICOM's PatientID. The page calls patients by numbers.

The page is on the loopback interface only, answers no other web site, and loads nothing from other
machines. Uploaded images are deleted when the app ends, or after a day; if it is killed, when the
next one starts.
"""

import argparse
import os
import tempfile
from pathlib import Path

from brainmri.app.folder import temporary_folder
from brainmri.common.command import run_command
from brainmri.common.errors import UserError
from brainmri.common.paths import ENSEMBLE
from brainmri.networks.runtime import start_tensorflow
from brainmri.predict.patients import patient_pattern

MAX_PORT = 2**16 - 1


def main() -> None:
    run(parse_arguments())


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m brainmri.app", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--port", type=port, help="of the page; default: the first free one from 7860"
    )
    parser.add_argument(
        "--patient",
        type=patient_pattern,
        metavar="REGEX",
        help="regular expression whose one group matches the patient in the name of a file;"
        " default: DICOM's PatientID",
    )
    parser.add_argument(
        "--model",
        default=str(ENSEMBLE),
        metavar="FILE",
        help="the exported ensemble; default: %(default)s",
    )
    return parser.parse_args()


def port(text: str) -> int:
    """Return a port that was given as an argument.

    Raises
    ------
    ArgumentTypeError
        If it is no number from 1 to 65535.
    """
    if text.isdecimal() and 1 <= int(text) <= MAX_PORT:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r}; expected a number from 1 to {MAX_PORT}")


def run(options: argparse.Namespace) -> None:
    """Load the ensemble, and serve the page until the app is interrupted."""
    with temporary_folder() as folder:
        uploads = folder / "uploads"
        set_environment(folder, uploads)
        start_tensorflow()  # before Gradio, after which its import takes longer
        from brainmri.app.examples import write_examples
        from brainmri.app.page import build_page, serve
        from brainmri.app.predictions import Gallery, Table, predict_files
        from brainmri.models.ensemble import load_ensemble

        model, about = load_ensemble(options.model)

        def predict(files: list[str] | None) -> tuple[Table, Table, Gallery]:
            return predict_files(files, model, about, options.model, options.patient)

        examples = folder / "examples"
        page = build_page(predict, write_examples(examples))
        try:
            serve(page, options.port, examples, uploads)
        except OSError as error:
            if error.errno is None:  # Gradio's, if the port is taken
                raise UserError(str(error)) from None
            raise


def set_environment(folder: Path, uploads: Path) -> None:
    """Set the variables that Gradio and Keras's optional imports read when they are imported, and
    put all temporary files into the folder.
    """
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None  # to be read from the variable
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)
    os.environ["HF_HUB_OFFLINE"] = "1"


if __name__ == "__main__":
    run_command(main, needs_tensorflow=True)
