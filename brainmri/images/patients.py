"""Identify the patients of images by numbers; their identifiers stay in the source."""

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import Protocol

from brainmri.common.errors import UserError
from brainmri.common.file_names import to_nfc
from brainmri.images.sources import SourceFile, spelled_alike, spelling

DICOM = ("patient", "study")
STUDY = "study "
MAX_EXAMPLES = 2
MIN_PATIENTS = 10
LEADING_ZEROS = re.compile(r"(?<![\d.])0+(?=\d)")
MAX_STUDIES = 10  # that a patient probably has
# The image of which Roboflow made copies; the innermost and the outermost folder in a class folder;
# the beginning of a name before the number of a slice, as in BraTS20_000_slice_0_flair.png, or,
# with a digit, before the letters of a sequence or of an augmented copy, as in N_1_RO_.jpg
PROBABLE_PATIENTS = (
    r"([^/]+)[._](?:bmp|jpe?g|png|tiff?|webp)\.rf\.[^/.]+\.[^./]*$",
    r"/([^/]+)/[^/]*$",
    r"^[^/]+/([^/]+)/",
    r"(?:^|/)([^/]+?)[ _-]+[^\W\d_]*[ _-]*\(?\d+\)?[^/\d]*\.[^./]*$",
    r"([^/]*\d)\)?[ _-]*[^\W\d_][^/\d]*\.[^./]*$",
)


class DicomIdentifiers(Protocol):
    """What identifies the patient of a decoded image; see `DecodedImage`."""

    patient: str | None
    study: str | None


def number_patients(
    files: list[SourceFile], images: Sequence[DicomIdentifiers], pattern: str | None
) -> list[int] | None:
    """Number the patients of images from 0, in order of first appearance.

    Parameters
    ----------
    files : list of SourceFile, length n
    images : sequence of DicomIdentifiers, length n
    pattern : str or None
        `data.patient`.

    Returns
    -------
    list of int, length n, or None
        None where patients are unknown. An image whose DICOM file has neither PatientID nor study,
        where others have one, counts as a patient of its own.

    Raises
    ------
    UserError
        If the pattern finds no patient in a path, or if the pattern or the table gives all images
        the same one.
    """
    dicom_patients = identify_dicom_patients(images)
    if pattern:
        identifiers = match_patients([file.below for file in files], pattern)
        _check_identifiers(identifiers, dicom_patients, f"data.patient: {pattern!r}")
        if len(set(identifiers)) == len(files):
            print(
                f"warning: data.patient: {pattern!r} gives each image a patient of its own; if"
                " patients have several images, correct it"
            )
        _warn_of_classes_in_patients(files, identifiers, pattern)
        if any(file.patient for file in files):
            print(
                "warning: data.patient is set, so that the column patient of the table is ignored"
            )
    elif any(file.patient for file in files):
        identifiers = [file.patient for file in files]
        _check_identifiers(identifiers, dicom_patients, "data.labels: the column patient")
    else:
        _warn_of_doubtful_identifiers(images)
        identifiers = _dicom_identifiers(files, images, dicom_patients)
        if identifiers is None:
            _warn_of_unknown_patients(files)
            return None
    _warn_of_spellings(identifiers)
    numbers = number_identifiers(identifiers)
    _print_mixed_patients(files, numbers)
    return numbers


def identify_dicom_patients(images: Iterable[DicomIdentifiers]) -> list[str | None]:
    """Identify the patients of DICOM files, by PatientID and study.

    A file without PatientID is of the patient of its study. The study stands for the patient where
    none of its files has a PatientID, and everywhere if all files have the same one, as
    anonymization may leave it.

    Returns
    -------
    list of str or None
        Of each image; begins with `STUDY` for a study; None where there is neither.
    """
    images = list(images)
    patients, studies = ({getattr(image, name) for image in images} - {None} for name in DICOM)
    if len(patients) <= 1 < len(studies):
        return [image.study and STUDY + image.study for image in images]
    patient_of = {image.study: image.patient for image in images if image.patient}
    return [
        image.patient or (image.study and patient_of.get(image.study, STUDY + image.study))
        for image in images
    ]


def number_identifiers(identifiers: Iterable[Hashable]) -> list[int]:
    """Number identifiers from 0, in order of first appearance."""
    number_of: dict[Hashable, int] = {}
    return [number_of.setdefault(identifier, len(number_of)) for identifier in identifiers]


def match_patients(paths: list[str], pattern: str) -> list[str]:
    """Find the patient in each path.

    Raises
    ------
    UserError
        If it does not match every path, or its group is empty; see `search_patients`.
    """
    patients = search_patients(paths, pattern)
    unmatched = [path for path, patient in zip(paths, patients, strict=True) if not patient]
    if unmatched:
        raise UserError(
            f"data.patient: {pattern!r} finds no patient in {len(unmatched)} of {len(paths)}"
            f" paths, such as {unmatched[0]!r}; expected one in each: correct the pattern"
        )
    return patients


def search_patients(paths: list[str], pattern: str) -> list[str | None]:
    """Search each path, in composed Unicode, for the patient; None or "" where there is none.

    A pattern that matches none of the paths is searched in what follows their first folder, the
    class.
    """
    composed = [to_nfc(path) for path in paths]
    matches = [re.search(pattern, path) for path in composed]
    if not any(matches):
        matches = [re.search(pattern, path.partition("/")[2]) for path in composed]
    return [match and match[1] for match in matches]


def _check_identifiers(identifiers: list[str], dicom_patients: list[str | None], name: str) -> None:
    """Refuse a single patient; warn where several have a PatientID in common, unless all do."""
    if len(set(identifiers)) == 1:
        raise UserError(
            f"{name} gives all {len(identifiers)} images the same patient; expected several, since"
            " a patient stays on one side of the split: correct it"
        )
    given: dict[str, set[str]] = defaultdict(set)
    for identifier, patient in zip(identifiers, dicom_patients, strict=True):
        if patient:
            given[patient].add(identifier)
    divided = [patients for patients in given.values() if len(patients) > 1]
    if divided and len(given) > 1:
        print(
            f"warning: {name} divides the images of {len(divided)} of {len(given)} DICOM patients"
            " (PatientID, else study) among several patients, which may be on both sides of the"
            " split; correct it, or leave it out to take the PatientID"
        )


def _warn_of_classes_in_patients(
    files: list[SourceFile], identifiers: list[str], pattern: str
) -> None:
    """Warn where patients differ only in the class folder, which the pattern takes, too."""
    outer_of: dict[str, set[str]] = defaultdict(set)
    for file, identifier in zip(files, identifiers, strict=True):
        outer, _, inner = identifier.partition("/")
        if inner and outer == file.class_name == to_nfc(file.below).partition("/")[0]:
            outer_of[inner].add(outer)
    divided = [inner for inner, outer in outer_of.items() if len(outer) > 1]
    if divided:
        print(
            f"warning: data.patient: {pattern!r} takes the class folder as a part of the patient,"
            f" so that {len(divided)} patients with images in several class folders count as one"
            " patient for each folder; correct it: [^/] instead of . matches no folder"
        )


def _warn_of_doubtful_identifiers(images: Iterable[DicomIdentifiers]) -> None:
    """Warn of studies of several patients, and of patients of so many studies that the PatientID
    may be a placeholder, such as ANON.
    """
    patients_of, studies_of = defaultdict(set), defaultdict(set)
    for image in images:
        if image.study and image.patient:
            patients_of[image.study].add(image.patient)
            studies_of[image.patient].add(image.study)
    advice = "set data.patient, or give a table with a column patient"
    if divided := [patients for patients in patients_of.values() if len(patients) > 1]:
        print(
            f"warning: the files of {len(divided)} DICOM studies have several PatientIDs, though a"
            f" study is of one patient; {advice}"
        )
    numbers = [len(studies) for studies in studies_of.values()]
    joined = [number for number in numbers if number > MAX_STUDIES]
    if joined and len(numbers) > 1:  # a single PatientID is no patient's
        print(
            f"warning: {len(joined)} of {len(numbers)} PatientIDs have up to {max(joined)} DICOM"
            f" studies each, as placeholders of an anonymization do; if so, {advice}"
        )


def _dicom_identifiers(
    files: list[SourceFile],
    images: Sequence[DicomIdentifiers],
    dicom_patients: list[str | None],
) -> list[object] | None:
    identified = [patient for patient in dicom_patients if patient]
    if not identified:
        return None
    if len(set(identified)) == 1:
        print(
            f"warning: all {len(identified)} DICOM files have the same PatientID or, without one,"
            " are of one study, so patients are unknown; set data.patient, or give a table with a"
            " column patient"
        )
        return None
    if warning := study_warning(images, dicom_patients):
        print(f"{warning}: set data.patient, or give a table with a column patient")
    unknown = [
        file.path for file, patient in zip(files, dicom_patients, strict=True) if not patient
    ]
    if unknown:
        print(
            f"warning: {len(unknown)} of {len(files)} images have no PatientID and no study, such"
            f" as {unknown[0]!r}; each counts as a patient of its own"
        )
    return [patient or row for row, patient in enumerate(dicom_patients)]


def _warn_of_unknown_patients(files: list[SourceFile]) -> None:
    """Warn where folders or names look as if each were of several images of one origin.

    A name in several classes counts for each: numbers that start again in each are no patients.
    """
    classes = {file.class_name for file in files}
    for pattern in PROBABLE_PATIENTS:
        searched = [(file.class_name, re.search(pattern, file.below)) for file in files]
        matches = [(class_name, match) for class_name, match in searched if match]
        names = {match[1] for _, match in matches}
        count = len({(class_name, match[1]) for class_name, match in matches})
        is_enough = len(names) >= MIN_PATIENTS and len(names) > len(classes)
        if is_enough and len(matches) >= max(2 * count, len(files) / 2):
            _, first = matches[0]
            print(
                f"warning: patients are unknown; {first[1]!r} in {first.string!r} may name one, or"
                " an image with augmented copies, which may then be on both sides of the split: set"
                " data.patient to a pattern that finds it"
            )
            return


def study_warning(
    images: Iterable[DicomIdentifiers], dicom_patients: list[str | None]
) -> str | None:
    """Return a warning if studies stand for patients; see `identify_dicom_patients`."""
    count = sum(
        image.study is not None and patient == STUDY + image.study
        for image, patient in zip(images, dicom_patients, strict=True)
    )
    if not count:
        return None
    return (
        f"warning: {count} of {len(dicom_patients)} images have no PatientID, or one that all"
        " share; they are grouped by study, so a patient with several studies counts as several"
    )


def _warn_of_spellings(identifiers: Iterable[Hashable]) -> None:
    """Warn of patients that may be the same, such as P7 and P007; identifiers are not printed."""
    names = [identifier for identifier in identifiers if isinstance(identifier, str)]
    if several := spelled_alike(names, lambda name: spelling(LEADING_ZEROS.sub("", name))):
        print(
            f"warning: {len(several)} patients are spelled in several ways, such as P7 and p-007,"
            " and count as different; correct the table or the names if they are the same"
        )


def _print_mixed_patients(files: list[SourceFile], numbers: list[int]) -> None:
    """Print how many patients have images in several classes, with an example."""
    images: dict[int, dict[str, str]] = defaultdict(dict)  # by patient and class, a path
    for file, number in zip(files, numbers, strict=True):
        images[number].setdefault(file.class_name, file.path)
    mixed = [list(paths.values()) for paths in images.values() if len(paths) > 1]
    print(f"{len(images)} patients", end="")
    if mixed:
        examples = " and ".join(map(repr, mixed[0][:MAX_EXAMPLES]))
        print(f"; {len(mixed)} of them have images of several classes, such as {examples}", end="")
    print()
