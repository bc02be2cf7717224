"""Predictions for patients: the table, CSV and JSON of `brainmri.predict --by-patient`."""

import csv
import io
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brainmri.app import predictions as app
from brainmri.common.command import run_command
from brainmri.images.decoding import ImageError
from brainmri.predict import __main__ as command
from brainmri.predict import inference
from brainmri.predict.output import print_patient_table
from brainmri.predict.patients import dicom_patients, number_patients, predict_patients
from tests.support.predictions import (
    ABOUT,
    CALIBRATION_GROUPS,
    load_stand_in,
    outputs_of,
    prediction_of,
)

LEVELS = {
    "no/P7_1.png": 40,
    "no/P7_2.png": 120,
    "yes/P1_1.png": 180,
    "yes/P1_2.png": 60,
    "yes/P1_3.png": 200,
    "yes/P2_1.png": 110,
}
PATIENTS = [["no/P7_1.png", "no/P7_2.png"], list(LEVELS)[2:5], ["yes/P2_1.png"]]


@pytest.fixture
def scans(tmp_path, monkeypatch):
    """A folder of images of known mean levels, of three patients; the network is a stand-in."""
    monkeypatch.chdir(tmp_path)
    load_stand_in(monkeypatch, ABOUT)
    monkeypatch.setattr(
        inference,
        "batch_predictor",
        lambda model: lambda images: outputs_of(images.mean(axis=(1, 2, 3))),
    )
    for path, level in LEVELS.items():
        pixels = level + 0.5 + np.arange(-4, 4).repeat(32).reshape(16, 16)
        file = tmp_path / "scans" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(file)
    return tmp_path / "scans"


def run(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["predict", *arguments])
    command.main()


def rows_of(output: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(output)))


def test_prediction_for_a_patient_is_the_mean_of_the_slices(scans, monkeypatch, capsys):
    run(monkeypatch, "--csv", "--by-patient", "--patient", "(P[0-9]+)_", "scans")
    output = capsys.readouterr()
    assert "unknown; the threshold was chosen on images, and keeps no rate" in output.err
    rows = rows_of(output.out)
    assert [row["patient"] for row in rows] == ["0", "1", "2"]
    assert [row["slices"] for row in rows] == ["2", "3", "1"]
    assert [row["first_file"] for row in rows] == [f"scans/{files[0]}" for files in PATIENTS]
    for row, files in zip(rows, PATIENTS, strict=True):
        levels = np.array([LEVELS[file] - 0.5 for file in files])
        outputs = outputs_of(levels)
        mean = outputs["probabilities"][:, 1].mean()
        assert float(row["probability of yes"]) == pytest.approx(mean, abs=1e-5)
        assert float(row["probability of no"]) == pytest.approx(1 - mean, abs=1e-5)
        assert row["class"] == ("yes" if mean > 0.5 else "no")
        assert int(row["slices_unlike_training_images"]) == np.sum(outputs["novelty"] > 1)
    # A patient's only tumor may be in one slice of three
    assert [row["class"] for row in rows] == ["no", "yes", "yes"]


def test_patients_of_several_folders_are_counted(scans, monkeypatch, capsys):
    """Two hospitals may both have a patient P1."""
    shutil.copytree(scans / "yes", scans.parent / "other")
    run(monkeypatch, "--csv", "--by-patient", "--patient", "(P[0-9]+)_", "scans", "other")
    output = capsys.readouterr()
    assert [row["slices"] for row in rows_of(output.out)] == ["2", "6", "2"]
    assert "warning: 2 patients have files in several of the given folders" in output.err
    for given in (
        [f"./scans/{path}" for path in LEVELS],
        ["scans//yes/", "./scans/yes/P1_1.png"],
        ["."],
    ):
        run(monkeypatch, "--csv", "--by-patient", "--patient", "(P[0-9]+)_", *given)
        assert "several of the given folders" not in capsys.readouterr().err, given


def test_json_of_patients_has_the_values_of_the_csv(scans, monkeypatch, capsys):
    run(monkeypatch, "--csv", "--by-patient", "--patient", "(P[0-9]+)_", "scans")
    rows = rows_of(capsys.readouterr().out)
    run(monkeypatch, "--json", "--by-patient", "--patient", "(P[0-9]+)_", "scans")
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for record in records:
        assert record["prediction_set"] is None  # the training images' patients are unknown
        record |= {key: "" for key, value in record.items() if value is None}
    assert [{key: str(value) for key, value in record.items()} for record in records] == rows


def test_table_of_patients(capsys):
    slices = [("a.png", 0.7, 1.3), ("b.png", 0.4, 1.2), ("c.png", 0.1, 0.9)]
    predictions = [
        prediction_of(path, positive, novelty=novelty, patient="A" if path < "c" else "B")
        for path, positive, novelty in slices
    ]
    print_patient_table(predict_patients(predictions, ABOUT), ["no", "yes"])
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == [
        "patient",
        "slices",
        "first",
        "file",
        "class",
        "no",
        "yes",
        "decision",
    ]
    assert first.split()[:6] == ["0", "2", "a.png", "yes", "0.450", "0.550"]
    assert first.endswith("  2 of 2 unlike the training images")
    assert second.split() == ["1", "1", "c.png", "no", "0.900", "0.100"]


def test_identifiers_are_not_printed(scans, monkeypatch, capsys):
    """A path may hold one."""
    (scans / "no/P7_1.png").rename(scans / "no/a_P7_.png")
    run(monkeypatch, "--by-patient", "--patient", "_(P7)_", "scans/no/a_P7_.png")
    line = capsys.readouterr().out.splitlines()[1].replace("scans/no/a_P7_.png", "")
    assert line.split()[:2] == ["0", "1"]
    assert "P7" not in line


def test_pattern_is_searched_below_the_folder(scans, monkeypatch, capsys):
    """If it is in no path, below the class folders, too."""
    pattern = "(scans|P[0-9]+)"
    run(monkeypatch, "--csv", "--by-patient", "--patient", pattern, "scans/no", "scans/yes")
    assert len(rows_of(capsys.readouterr().out)) == 3
    run(monkeypatch, "--csv", "--by-patient", "--patient", "^(P[0-9]+)_", "scans")
    assert len(rows_of(capsys.readouterr().out)) == 3


def test_files_without_a_patient_are_errors(scans, monkeypatch, capsys):
    """The others are predicted; so it is for an unreadable file."""
    (scans / "no/P9_1.png").write_text("no image")
    monkeypatch.setattr(
        sys, "argv", ["predict", "--csv", "--by-patient", "--patient", "(P[17])_", "scans"]
    )
    with pytest.raises(SystemExit, match="2 of 7 files could not be read or have no patient"):
        run_command(command.main)
    output = capsys.readouterr()
    assert [row["slices"] for row in rows_of(output.out)] == ["2", "3"]
    errors = [line for line in output.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert errors[0].startswith("error: scans/no/P9_1.png: not an image")
    assert errors[1].startswith("error: scans/yes/P2_1.png: --patient finds no patient in its path")


def patients_in_headers(monkeypatch, patients: dict[str, str | None]) -> None:
    """Let decoded images have these patients, by the name of the file."""
    decode_all = command.decode_all

    def with_headers(*arguments):
        for path, image in decode_all(*arguments):
            assert not isinstance(image, ImageError)
            yield path, replace(image, patient=patients[path.name])

    monkeypatch.setattr(command, "decode_all", with_headers)


def test_patients_of_dicom_files(scans, monkeypatch, capsys):
    """The files' own, unless --patient finds another in the path."""
    headers = dict.fromkeys((Path(path).name for path in LEVELS), "x")
    patients_in_headers(monkeypatch, {**headers, "P7_2.png": "y", "P2_1.png": None})
    monkeypatch.setattr(sys, "argv", ["predict", "--csv", "--by-patient", "scans"])
    with pytest.raises(SystemExit, match="1 of 6 files could not be read or have no patient"):
        run_command(command.main)
    output = capsys.readouterr()
    assert [row["slices"] for row in rows_of(output.out)] == ["4", "1"]
    assert "error: scans/yes/P2_1.png: no PatientID and no study; --patient can find" in output.err
    run(monkeypatch, "--csv", "--by-patient", "--patient", "(P[0-9]+)_", "scans")
    assert [row["slices"] for row in rows_of(capsys.readouterr().out)] == ["2", "3", "1"]


def test_identifiers_that_begin_as_studies_are_no_studies(scans, monkeypatch, capsys):
    """Unlike DICOM's, without PatientID, they bring no warning."""
    for name in ("no", "yes"):
        (scans / name).rename(scans / f"study {name}")
    rows = [
        f"study {path},{path.partition('/')[0]},study {row % 3}" for row, path in enumerate(LEVELS)
    ]
    Path("labels.csv").write_text("\n".join(["path,class,patient", *rows]) + "\n")
    for option in (["--patient", "(study [a-z]+)/"], ["--table", "labels.csv"]):
        run(monkeypatch, "--csv", "--by-patient", *option, "scans")
        output = capsys.readouterr()
        assert len(rows_of(output.out)) == (2 if option[0] == "--patient" else 3)
        assert "no PatientID" not in output.err
    studies = [prediction_of(f"{row}.png", 0.5, study=study) for row, study in enumerate("xyx")]
    assert len(predict_patients(studies, ABOUT)) == 2
    assert "warning: 3 of 3 images have no PatientID" in capsys.readouterr().err


@pytest.mark.parametrize("groups", [None, CALIBRATION_GROUPS])
def test_app_has_the_patients_of_predict(scans, monkeypatch, capsys, groups):
    """Its CSV, and a row without prediction for an image of no patient."""
    about = {**ABOUT, "decision": {**ABOUT["decision"], "patients": groups}}
    load_stand_in(monkeypatch, about)
    monkeypatch.chdir(scans)
    monkeypatch.setattr(app, "draw_overlays", lambda predictions, model, about: predictions)
    run(monkeypatch, "--csv", "--by-patient", "--patient", "(P[0-9]+)_", *LEVELS)
    output = capsys.readouterr()
    other = shutil.copy("no/P7_1.png", "other.png")
    _, table, gallery = app.predict_files(
        [*LEVELS, other], "the stand-in", about, "m.keras", "(P[0-9]+)_"
    )
    assert len(gallery) == 7
    assert table.csv.decode() == output.out
    assert table.note == output.err.strip()
    assert table.header == [
        *("patient", "slices", "first file", "class", "no", "yes", "decision", "novel slices")
    ]
    patients = [[row[0], row[1], row[2], row[3], row[7]] for row in table.rows[:3]]
    assert patients == [
        [0, 2, "P7_1.png", "no", 1],
        [1, 3, "P1_1.png", "yes", 2],
        [2, 1, "P2_1.png", "yes", 1],
    ]
    decisions = [row["decision"] for row in rows_of(output.out)]
    assert [row[6] for row in table.rows[:3]] == decisions
    assert all(decisions) == bool(groups)
    assert table.rows[3][:6] == ["", "", "other.png", "", "", ""]
    assert str(table.rows[3][6]).startswith("--patient finds no patient in its path")


def test_labeled_patients(scans, monkeypatch, capsys):
    """The metrics are also those of the votes on patients, whether these are printed or not."""
    arguments = ["--labels", "--patient", "(P[0-9]+)_", "scans"]
    run(monkeypatch, "--csv", *arguments)
    output = capsys.readouterr()
    assert len(rows_of(output.out)) == 6
    metrics = json.loads(output.err[output.err.index("{") : output.err.rindex("}") + 1])
    by_patient = metrics["without_near_duplicates"]["by_patient"]
    assert (by_patient["patients"], by_patient["mixed_patients"]) == (3, 0)
    assert by_patient["accuracy"] == 1
    assert metrics["without_near_duplicates"]["accuracy"] == pytest.approx(4 / 6)
    run(monkeypatch, "--csv", "--by-patient", *arguments)
    output = capsys.readouterr()
    assert len(rows_of(output.out)) == 3
    assert json.loads(output.err[output.err.index("{") : output.err.rindex("}") + 1]) == metrics


def test_labels_and_patients_of_a_table(scans, monkeypatch, capsys):
    """In place of those that the folders are named as; it may be in the folder."""
    (scans / "extra.png").write_text("not read")
    lines = ["path;class;patient"]
    for number, files in enumerate(PATIENTS):
        lines += [f"{file};{'no' if number == 1 else 'yes'};id-{number}" for file in files]
    (scans / "labels.csv").write_text("\n".join(reversed(lines[1:] + lines[:1])))
    run(monkeypatch, "--csv", "--by-patient", "--table", "scans/labels.csv", "scans")
    output = capsys.readouterr()
    assert [row["slices"] for row in rows_of(output.out)] == ["2", "3", "1"]
    skipped = "skipped: 1 files that scans/labels.csv does not list, such as 'scans/extra.png'"
    assert skipped in output.err
    metrics = json.loads(output.err[output.err.index("{") : output.err.rindex("}") + 1])["all"]
    assert metrics["images"] == 6
    assert metrics["recall"] == pytest.approx({"no": 1 / 3, "yes": 2 / 3})
    assert metrics["by_patient"]["recall"] == {"no": 0, "yes": 0.5}
    # --patient goes first
    run(monkeypatch, "--csv", "--table", "scans/labels.csv", "--patient", "(yes|no)", "scans")
    output = capsys.readouterr()
    by_patient = json.loads(output.err[output.err.index("{") : output.err.rindex("}") + 1])["all"][
        "by_patient"
    ]
    assert (by_patient["patients"], by_patient["mixed_patients"]) == (1, 1)


def test_table_of_one_class(scans, monkeypatch, capsys):
    """As a folder of one class has metrics, too."""
    Path("labels.csv").write_text("path,class\nyes/P1_1.png,yes\n")
    run(monkeypatch, "--csv", "--table", "labels.csv", "scans")
    err = capsys.readouterr().err
    assert json.loads(err[err.index("{") : err.rindex("}") + 1])["all"]["images"] == 1


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("path,class\n", "labels.csv has 0 class(es); expected one or more"),
        ("path,class\nno/a.png,no\nyes/P1_1.png,yes\n", "1 of 2 paths are missing, such as 'no/a"),
        ("path,class\nno/P7_1.png,no\nyes/P1_1.png,si\n", "line 3: the class is 'si'; expected"),
        ("path,label\n", "no column 'class'"),
        ("path,class\n../a.png,no\n", "'../a.png' is not below the images' folder"),
        ("", "error: --table: 'labels.csv' is empty"),
    ],
)
def test_wrong_tables_are_refused(scans, monkeypatch, table, message):
    Path("labels.csv").write_text(table)
    monkeypatch.setattr(sys, "argv", ["predict", "--table", "labels.csv", "scans"])
    with pytest.raises(SystemExit, match=re.escape(message)):
        run_command(command.main)


def test_metrics_know_patients_by_several_patient_ids(capsys):
    """One for all files, as anonymization leaves it, is none; no PatientID is a patient more."""

    def patients_of(*identifiers: str | None) -> list[int] | None:
        predictions = [
            prediction_of(f"{row}.png", 0.5, patient=identifier)
            for row, identifier in enumerate(identifiers)
        ]
        patients = dicom_patients(predictions)
        return None if patients is None else patients.tolist()

    assert patients_of("b", None, "a", "b", None) == [0, 1, 2, 0, 3]
    assert patients_of(None, None) is None
    assert capsys.readouterr().err == ""
    assert patients_of("a", "a", None) is None
    assert (
        "the same PatientID or, without one, are of one study, so patients are unknown"
        in capsys.readouterr().err
    )


def test_patients_are_numbered_in_order_of_appearance():
    identifiers = ["P9", "P1", "P9", "P0"]
    predictions = [prediction_of("a.png", 0.5, patient=patient) for patient in identifiers]
    assert number_patients(predictions).tolist() == [0, 1, 0, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--by-patient", "--patient", "P[0-9]+"], "has 0 groups; expected one, the patient"),
        (["--by-patient", "--patient", "(P"], "is no regular expression"),
        (["--patient", "(P)"], "--patient needs --by-patient, --labels or --table"),
    ],
)
def test_wrong_use_of_patient_is_explained(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(sys, "argv", ["predict", *arguments, "scans"])
    with pytest.raises(SystemExit, match="2"):
        run_command(command.main)
    assert message in capsys.readouterr().err.replace("\n", " ")
