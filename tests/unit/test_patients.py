"""Patients of images: how they are identified, numbered, and reported."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from brainmri.common.errors import UserError
from brainmri.images.patients import match_patients, number_patients
from brainmri.images.sources import SourceFile


def files_of(*paths: str, patients: Sequence[str] | None = None) -> list[SourceFile]:
    """Return files of class folders, of these patients by the table."""
    return [
        SourceFile(path, Path("raw"), path, path.partition("/")[0], patients and patients[row])
        for row, path in enumerate(paths)
    ]


def dicom(*patients: str | None, studies: Sequence[str | None] | None = None) -> list:
    """Return what identifies images of these PatientIDs."""
    studies = studies or [None] * len(patients)
    return [
        SimpleNamespace(patient=patient, study=study)
        for patient, study in zip(patients, studies, strict=True)
    ]


FILES = files_of("no/P7_1.png", "no/P3_1.png", "yes/P3_2.png", "yes/P7_2.png", "yes/P1_1.png")
UNKNOWN = dicom(*[None] * len(FILES))


def test_pattern_finds_patients(capsys):
    assert number_patients(FILES, UNKNOWN, "P([0-9]+)_") == [0, 1, 1, 0, 2]
    assert capsys.readouterr().out == (
        "3 patients; 2 of them have images of several classes, such as 'no/P7_1.png' and"
        " 'yes/P7_2.png'\n"
    )


@pytest.mark.parametrize(
    ("paths", "patient"),
    [
        ("{label}/OAS1_{number:04}_MR1_{slice}.jpg", "OAS1_0000_MR1"),
        ("{label}/{number:03}_S_0296/deep {slice}.png", "000_S_0296"),
        ("{label}/p{number} ({slice}).png", "p0"),
        ("{label}/N_{number}_{copy}_.jpg", "N_0"),
        ("{label}/image({number}) {copy}.jpg", "image(0"),
        ("{label}/sub-{number:02}_{copy}w.png", "sub-00"),
        ("{label}/002_S_{number:04}/MPRAGE/I{slice}.jpg", "002_S_0000"),
        ("{label}/BraTS20_{number:03}_slice_{slice}_flair.jpg", "BraTS20_000"),
        ("{label}/P{number:02}_slice{slice}.png", "P00"),
        ("{label}/IM-{number:04}-{slice}-anon.jpg", "IM-0000"),
        ("{label}/abcdefghij{number}x_L{slice}.jpg", "abcdefghij0x"),
        ("{label}/Tr-gl_{number:04}_jpg.rf.{copy}00000000000000000000000000000.jpg", "Tr-gl_0000"),
        ("{label}{number}/{label}{number}_{slice}.jpg", None),  # ten classes
        ("{copy}/{number}_v2.jpg", None),  # in each class from 0 on
        ("{label}/Tr-gl_{number:03}{slice}.jpg", None),
        ("{label}/Y{number}{slice}_yes.jpg", None),
        ("{label}/{slice}/{number}.png", None),
        ("{label}/axial/{number}{slice}.png", None),
        ("{label}/{number}{slice}.png", None),
    ],
)
def test_probable_patients_are_named(capsys, paths, patient):
    files = files_of(
        *[
            paths.format(label="ab"[number % 2], number=number, slice=index, copy=copy)
            for number in range(10)
            for index, copy in enumerate(("BR", "HF", "RO"))
        ]
    )
    assert number_patients(files, dicom(*[None] * len(files)), None) is None
    out = capsys.readouterr().out
    if patient is None:
        assert not out
    else:
        assert (
            f"warning: patients are unknown; {patient!r} in {files[0].path!r} may name one" in out
        )


def test_placeholders_of_patient_ids_are_counted(capsys):
    files = files_of(*[f"no/{row}.dcm" for row in range(22)])
    for count, is_doubtful in ((11, True), (10, False)):
        studies = [str(row % (2 * count)) for row in range(22)]
        images = dicom(*["ANON", "Anonymous"] * 11, studies=studies)
        assert len({*number_patients(files, images, None)}) == 2
        message = f"warning: 2 of 2 PatientIDs have up to {count} DICOM studies each"
        assert (message in capsys.readouterr().out) == is_doubtful


def test_pattern_that_finds_a_patient_in_each_image(capsys):
    assert number_patients(FILES, UNKNOWN, "(.*)") == [0, 1, 2, 3, 4]
    assert "gives each image a patient of its own" in capsys.readouterr().out


def test_patients_of_one_class_each(capsys):
    files = files_of("no/a1.png", "no/a2.png", "yes/b1.png")
    assert number_patients(files, dicom(None, None, None), "/(.)") == [0, 0, 1]
    assert capsys.readouterr().out == "2 patients\n"


@pytest.mark.parametrize(
    ("pattern", "patients"),
    [
        ("(P[0-9])", ["P1", "P2"]),
        ("^no|yes/(P.)", None),
        ("^(P[0-9])_", ["P1", "P2"]),
        ("/(P[0-9])_", ["P1", "P2"]),
        ("^([^/]+)/", ["no", "yes"]),
        ("^([^_/]+)_", ["P1", "P2"]),
        ("(Q)", None),
        ("_1.png|(P2)", None),
        ("(Q?)", None),
        ("(P1)", None),
        ("x|(Q)", None),
    ],
)
def test_patterns_are_searched_in_the_path_or_below_the_class(pattern, patients):
    paths = ["no/P1_1.png", "yes/P2_1.png"]
    if patients:
        assert match_patients(paths, pattern) == patients
    else:
        with pytest.raises(UserError, match=r"^data.patient: '.*' finds no patient in"):
            match_patients(paths, pattern)


def test_paths_without_a_patient_are_counted():
    paths = ["no/P1_1.png", "yes/scan.png", "yes/P2.png", "yes/P3_1.png"]
    with pytest.raises(UserError) as raised:
        match_patients(paths, "(P[0-9]+)_")
    assert str(raised.value) == (
        "data.patient: '(P[0-9]+)_' finds no patient in 2 of 4 paths, such as 'yes/scan.png';"
        " expected one in each: correct the pattern"
    )


def test_patients_in_two_forms_of_unicode_are_equal():
    assert match_patients(["no/\u00e9_1.png", "yes/e\u0301_2.png"], "/(.+)_") == ["\u00e9"] * 2


def test_pattern_that_finds_one_patient_is_refused():
    with pytest.raises(UserError) as raised:
        number_patients(FILES, UNKNOWN, "(P)")
    assert str(raised.value) == (
        "data.patient: '(P)' gives all 5 images the same patient; expected several, since a patient"
        " stays on one side of the split: correct it"
    )


def test_patients_of_the_table(capsys):
    files = files_of("no/1.png", "no/2.png", "yes/3.png", "yes/4.png", patients="BABC")
    dicom_patients = dicom("x", "x", "x", "y")
    assert number_patients(files, dicom_patients, None) == [0, 1, 0, 2]
    assert "1 of them" in capsys.readouterr().out
    assert number_patients(files, dicom_patients, "([1-4]).png") == [0, 1, 2, 3]
    assert "warning: data.patient is set, so that the column patient" in capsys.readouterr().out
    same = files_of("no/1.png", "yes/2.png", patients="AA")
    with pytest.raises(UserError, match=r"^data\.labels: the column patient gives all 2 images"):
        number_patients(same, dicom(None, None), None)


def test_patients_that_divide_a_patient_id_are_reported(capsys):
    """Slices of a patient would be on both sides; a PatientID that all files have says nothing."""
    divided = files_of("no/1", "no/2", "yes/3", "yes/4", patients="abcd")
    number_patients(divided, dicom("P1", "P1", "P2", "P3"), None)
    number_patients(divided, dicom("P1", "P1", "P2", None), "/(.)")
    lines = capsys.readouterr().out.splitlines()
    first, second, _, third = [line for line in lines if "warning" in line]
    assert first.startswith(
        "warning: data.labels: the column patient divides the images of 1 of 3 DICOM patients"
    )
    assert second.startswith("warning: data.patient: '/(.)' divides the images of 1 of 2")
    assert third.startswith("warning: data.patient is set, so that the column patient")
    number_patients(divided, dicom("P1", "P1", "P1", "P1"), None)
    assert "divides" not in capsys.readouterr().out
    number_patients(
        files_of("no/1", "no/2", "yes/3", patients="aab"), dicom("P1", "P2", "P3"), None
    )
    assert "warning" not in capsys.readouterr().out


def test_patients_that_the_class_folder_divides_are_counted(capsys):
    assert number_patients(FILES, UNKNOWN, "^(.+)_") == [0, 1, 2, 3, 4]
    message = "takes the class folder as a part of the patient, so that 2 patients with images in"
    assert message in capsys.readouterr().out
    same = files_of("no/P1/a.png", "no/P1/b.png", "yes/P2/a.png")
    assert number_patients(same, dicom(None, None, None), "^(.+)/") == [0, 0, 1]
    assert "warning" not in capsys.readouterr().out


def test_studies_of_several_patient_ids_are_counted(capsys):
    """As of an anonymization that gives each file a PatientID."""
    images = dicom(*"abcde", studies="12231")
    assert number_patients(FILES, images, None) == [0, 1, 2, 3, 4]
    assert (
        "warning: the files of 2 DICOM studies have several PatientIDs" in capsys.readouterr().out
    )
    number_patients(FILES, dicom(*"abbca", studies="12231"), None)
    assert "warning" not in capsys.readouterr().out


def test_patients_of_dicom_files(capsys):
    assert number_patients(FILES, dicom("b", "a", "a", "b", "c"), None) == [0, 1, 1, 0, 2]
    assert "warning" not in capsys.readouterr().out


def test_images_without_a_patient_id_are_patients_of_their_own(capsys):
    assert number_patients(FILES, dicom("b", None, "a", None, "b"), None) == [0, 1, 2, 3, 0]
    first, second = capsys.readouterr().out.splitlines()
    assert first == (
        "warning: 2 of 5 images have no PatientID and no study, such as 'no/P3_1.png'; each counts"
        " as a patient of its own"
    )
    assert second.startswith("4 patients; 1 of them have images of several classes")


def test_slices_of_a_study_are_of_one_patient(capsys):
    images = dicom(None, None, "P1", None, None, studies="xxzyx")
    assert number_patients(FILES, images, None) == [0, 0, 1, 2, 0]
    [line, _] = capsys.readouterr().out.splitlines()
    assert line.startswith(
        "warning: 5 of 5 images have no PatientID, or one that all share; they are"
    )


def test_slices_of_a_study_are_of_the_patient_of_one_of_them(capsys):
    images = dicom("P1", None, "P2", None, "P1", studies="xxyyz")
    assert number_patients(FILES, images, None) == [0, 0, 1, 1, 0]
    assert "warning" not in capsys.readouterr().out


@pytest.mark.parametrize("patients", ["PPPPP", ["P", None, "P", "P", None]])
def test_studies_stand_for_patients_of_a_common_patient_id(capsys, patients):
    """Anonymization may leave one PatientID for all."""
    images = dicom(*patients, studies="xyxzy")
    assert number_patients(FILES, images, None) == [0, 1, 0, 2, 1]
    assert "warning: 5 of 5 images have no PatientID, or one that" in capsys.readouterr().out


def test_patient_ids_that_begin_as_studies_are_no_studies(capsys):
    images = dicom("study 1", "study 2", "study 1", None, "study 2", studies="xyxyz")
    assert number_patients(FILES, images, None) == [0, 1, 0, 1, 1]
    assert "no PatientID" not in capsys.readouterr().out


def test_patients_that_may_be_the_same_are_counted(capsys):
    """Their identifiers are not printed."""
    patients = ["AB12", "ab12", "9", "009", "C", "P-7", "P007", "P70"]
    files = files_of(*[f"no/{row}" for row in range(8)], patients=patients)
    assert number_patients(files, dicom(*[None] * 8), None) == [*range(8)]
    printed = capsys.readouterr().out
    assert "warning: 3 patients are spelled in several ways" in printed
    assert "AB12" not in printed


@pytest.mark.parametrize("studies", ["xxxxx", None])
@pytest.mark.parametrize("patients", [["a"] * 5, ["a", None, None, "a", "a"], [None] * 5])
def test_a_single_patient_means_unknown_patients(capsys, patients, studies):
    """The PatientID may be a placeholder of an anonymization."""
    assert number_patients(FILES, dicom(*patients, studies=studies), None) is None
    lines = capsys.readouterr().out.splitlines()
    count = 5 if studies else 5 - patients.count(None)
    message = (
        f"warning: all {count} DICOM files have the same PatientID or, without one, are of one"
    )
    assert [line.startswith(message) for line in lines] == [True] * bool(count)


def test_unknown_patients(capsys):
    assert number_patients(FILES, UNKNOWN, None) is None
    assert capsys.readouterr().out == ""
