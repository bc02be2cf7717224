"""Patients of image files, and the votes on them."""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from brainmri.common.errors import printable
from brainmri.common.params import check_pattern
from brainmri.evaluation.decisions import decide_votes
from brainmri.evaluation.patients import mean_by_patient
from brainmri.evaluation.prediction_sets import list_sets
from brainmri.images.decoding import DecodedImage
from brainmri.images.patients import (
    identify_dicom_patients,
    number_identifiers,
    search_patients,
    study_warning,
)
from brainmri.models.about import About
from brainmri.predict.files import GivenPath
from brainmri.predict.prediction import PatientPrediction, Prediction


def patient_pattern(text: str) -> str:
    """Return a regular expression that was given as an argument of a command.

    Raises
    ------
    ArgumentTypeError
        If it is none, or has not exactly one group.
    """
    try:
        return check_pattern(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def find_patients(files: dict[Path, GivenPath], pattern: str) -> dict[Path, str | None]:
    """Find the patients in the paths of files; None or "" where there is none.

    Parameters
    ----------
    files : dict of Path to GivenPath
        See `files.list_files`.
    pattern : str
        Regular expression whose one group is the patient in a path below the folder that was given.
    """
    patients = search_patients([given.below for given in files.values()], pattern)
    return dict(zip(files, patients, strict=True))


def warn_of_several_folders(files: dict[Path, GivenPath], patients: dict[Path, str | None]) -> None:
    """Warn of patients who have files in several of the folders that were given.

    Parameters
    ----------
    files : dict of Path to GivenPath
        See `files.list_files`.
    patients : dict of Path to str or None
    """
    folders_of: dict[str | None, set[Path | None]] = defaultdict(set)
    for file, given in files.items():
        folders_of[patients[file]].add(given.folder)
    if several := sum(len(folders) > 1 for patient, folders in folders_of.items() if patient):
        print(
            f"warning: {several} patients have files in several of the given folders, and count as"
            " one each; give the folder above them if their names repeat",
            file=sys.stderr,
        )


def with_patients(
    images: Iterable[tuple[Path, DecodedImage]], patients: dict[Path, str | None]
) -> Iterator[tuple[Path, DecodedImage]]:
    """Yield the images whose patient is known; print an error for each of the others.

    Parameters
    ----------
    images, patients : see `identify_patients`
    """
    for path, image in identify_patients(images, patients):
        if is_identified(image):
            yield path, image
        else:
            reason = why_unidentified(patients)
            print(f"error: {printable(path)}: {reason}", file=sys.stderr, flush=True)


def identify_patients(
    images: Iterable[tuple[Path, DecodedImage]], patients: dict[Path, str | None]
) -> Iterator[tuple[Path, DecodedImage]]:
    """Yield each image with the identifier of its patient; None or "" where there is none.

    Parameters
    ----------
    images : iterable of (path, DecodedImage)
        Read as they are needed.
    patients : dict of Path to str or None
        Identifiers; see `find_patients`. If it is empty, DICOM's PatientIDs are the patients.
    """
    for path, image in images:
        yield path, replace(image, patient=patients[path], study=None) if patients else image


def is_identified(image: DecodedImage) -> bool:
    """Return whether the patient of an image, or at least the study, is known."""
    return bool(image.patient or image.study)


def why_unidentified(patients: dict[Path, str | None]) -> str:
    """Return why an image has no patient; see `identify_patients`."""
    if patients:
        return "--patient finds no patient in its path; expected one in each: correct it"
    return "no PatientID and no study; --patient can find the patient in the path"


def number_patients(predictions: list[Prediction]) -> np.ndarray:
    """Number the patients of images from 0, in order of first appearance: int, shape (n,).

    An image whose patient is unknown counts as a patient of its own.
    """
    return _number(identify_dicom_patients(prediction.image for prediction in predictions))


def dicom_patients(predictions: list[Prediction]) -> np.ndarray | None:
    """Number the patients as `number_patients` does; None if PatientIDs do not distinguish them."""
    patients = _identify(predictions)
    count = len({*patients} - {None})
    if count == 1 < len(predictions):
        print(
            "warning: all DICOM files have the same PatientID or, without one, are of one study, so"
            " patients are unknown; --patient can find them in the paths",
            file=sys.stderr,
        )
    return _number(patients) if count > 1 else None


def predict_patients(predictions: list[Prediction], about: About) -> list[PatientPrediction]:
    """Combine the predictions for the slices of each patient."""
    if not predictions:
        return []
    patients = _number(_identify(predictions))
    _, first, slices = np.unique(patients, return_index=True, return_counts=True)
    novel = np.bincount(patients, [prediction.is_novel for prediction in predictions])
    means = mean_by_patient(
        np.stack([prediction.probabilities for prediction in predictions]), patients
    )
    slice_members = np.stack([prediction.members for prediction in predictions], axis=1)
    members = np.stack([mean_by_patient(predicted, patients) for predicted in slice_members])
    weights, decision = np.array(list(about["weights"].values())), about["decision"]
    decided = decide_votes(means, members, weights, decision, by_patient=True)
    sets = list_sets(decided.p_values, decided.labels, decision["patients"], decision["error"])
    return [
        PatientPrediction(
            number=number,
            first=predictions[first[number]].path,
            slices=int(slices[number]),
            probabilities=probabilities,
            novel=int(novel[number]),
            label=int(decided.labels[number]),
            prediction_set=sets[number],
        )
        for number, probabilities in enumerate(means)
    ]


def _identify(predictions: list[Prediction]) -> list[str | None]:
    """Identify the patients of images, with a warning if studies stand for them."""
    images = [prediction.image for prediction in predictions]
    patients = identify_dicom_patients(images)
    if warning := study_warning(images, patients):
        print(f"{warning}: --patient can find them in the paths", file=sys.stderr)
    return patients


def _number(patients: list[str | None]) -> np.ndarray:
    identifiers = [patient or row for row, patient in enumerate(patients)]
    return np.array(number_identifiers(identifiers), int)
