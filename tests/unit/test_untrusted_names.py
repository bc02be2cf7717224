"""Names of files and classes are no formulas for a spreadsheet, and no commands for a terminal."""

import csv
import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brainmri.audit import tables as audit_tables
from brainmri.common.command import run_command
from brainmri.common.errors import UserError, error_line, printable
from brainmri.common.tables import format_csv, guard, parse_csv, unguard
from brainmri.crossval.votes import parse_votes
from brainmri.evaluation import plots
from brainmri.evaluation.decision_rule import ARGMAX
from brainmri.evaluation.predictions import read_predictions, write_predictions
from brainmri.evaluation.summary import Evaluation
from brainmri.evaluation.voting import ENSEMBLE
from brainmri.images.labels_table import read_labels_table
from brainmri.predict import __main__ as command
from brainmri.predict.output import print_csv, print_json_lines, print_table, record_of
from tests.support.predictions import prediction_of

FORMULAS = ["=1+1", "+a", "-a", "@a", "\ta", "\ra", "=HYPERLINK(\"http://x\",'y')", "-2+3", "'=1"]
ORDINARY = ["a", "a=b", "'tis", "", "ü,ä", 'quo"te', "-0.5", "+3", "1e-07", "-1E+5", "a\nb"]
ESCAPE = "\x1b]0;x\x07\x9b2J\u202e"


@pytest.mark.parametrize("name", FORMULAS)
def test_formulas_get_an_apostrophe_and_come_back(name):
    assert guard(name) == "'" + name
    assert unguard(guard(name)) == name
    assert parse_csv(format_csv([[name, 1.5], ["x", name]]).decode()) == [
        [name, "1.5"],
        ["x", name],
    ]


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_names_and_numbers_are_written_as_they_are(name):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([name, -0.5, 3, "x"])
    content = format_csv([[name, -0.5, 3, "x"]]).decode()
    assert content == text.getvalue()
    assert parse_csv(content) == [[name, "-0.5", "3", "x"]]


def cells_of(content: str) -> set[str]:
    return {cell for row in csv.reader(io.StringIO(content, newline="")) for cell in row}


CLASSES = ["=no", "\ryes"]


def test_tables_of_an_evaluation(tmp_path, monkeypatch):
    """Cross-validation reads the votes again."""
    monkeypatch.setattr(plots, "PLOT_DATA", tmp_path)
    votes = np.array([[0.25, 0.75], [0.5, 0.5]])
    evaluation = Evaluation(
        classes=CLASSES,
        rows=[0, 1],
        labels=np.array([1, 0]),
        groups=np.array([0, 1]),
        votes={ENSEMBLE: votes, "member-00": votes},
        best="member-00",
        predictions=votes[np.newaxis],
        voting={
            "members": {"member-00": {"score": 1.0, "weight": 1.0}},
            "decision": {
                "positive": None,
                "rule": ARGMAX,
                "patient_rule": None,
                "prevalence": None,
                "error": 0.1,
                "images": {name: [] for name in CLASSES},
                "patients": None,
            },
        },
    )
    plots.write_tables(evaluation, ["@a.png", "-b.png"])
    plots.write_points("roc.csv", ["x", "y"], {"=no": np.array([[-0.5, 1]])})
    table = (tmp_path / "predictions.csv").read_bytes().decode()
    assert {"'@a.png", "'-b.png", "'=no", "'\ryes", "0.25"} <= cells_of(table)
    assert (tmp_path / "roc.csv").read_text() == "curve,x,y\n'=no,-0.5,1\n"
    metrics = {"decision_rule": {"name": "argmax"}, "calibration_groups": dict.fromkeys(CLASSES, 0)}
    read = parse_votes((tmp_path / "votes.csv").read_bytes().decode(), table, metrics, None)
    assert read.decisions.labels.tolist() == [1, 0]
    assert read.classes == CLASSES
    assert read.labels.tolist() == [1, 0]
    np.testing.assert_array_equal(read.probabilities[ENSEMBLE], votes)


def test_other_tables(tmp_path):
    """Of an audit and of a member, and a table of labels whose names come from one of them."""
    audit_tables.write_table(tmp_path / "a.csv", [["path", "class"], ["=a.png", "+b"]])
    assert (tmp_path / "a.csv").read_text() == "path,class\n'=a.png,'+b\n"
    votes = np.array([[0.25, 0.75]], np.float32)
    write_predictions(tmp_path / "b.csv", [3], votes, CLASSES)
    assert {"'=no", "'\ryes"} < cells_of((tmp_path / "b.csv").read_bytes().decode())
    np.testing.assert_array_equal(read_predictions(tmp_path / "b.csv", [3], CLASSES), votes)
    rows = [["path", "class"], ["=a.png", "+b"], ["c.png", "d"]]
    (tmp_path / "c.csv").write_bytes(format_csv(rows))
    table = read_labels_table(tmp_path / "c.csv")
    assert [list(row[1:3]) for row in table.rows] == rows[1:]


def test_predictions_as_csv(capsys, monkeypatch):
    prediction = prediction_of("=a.png", 0.7)
    print_csv([record_of(prediction, CLASSES)])
    header, row = csv.reader(io.StringIO(capsys.readouterr().out, newline=""))
    assert row[:2] == ["'=a.png", "'\ryes"]
    assert header[3] == "probability of \ryes"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    named = replace(prediction, path=Path(f"a{ESCAPE}.png"))
    print_csv([record_of(named, ["no", f"yes{ESCAPE}"])])
    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize("print_records", [print_csv, print_json_lines])
def test_names_for_programs_are_exact(capsys, print_records):
    classes = ["no", f"yes{ESCAPE}"]
    print_records([record_of(prediction_of(f"a{ESCAPE}.png", 0.7), classes)])
    output = capsys.readouterr().out
    if print_records is print_json_lines:
        assert output.strip().isprintable()
        record = json.loads(output)
    else:
        (record,) = csv.DictReader(io.StringIO(output, newline=""))
    assert record["file"] == f"a{ESCAPE}.png"
    assert record["class"] == classes[1]
    assert f"probability of yes{ESCAPE}" in record


def test_names_in_tables_and_errors_are_escaped(capsys):
    print_table([prediction_of(f"a{ESCAPE}.png", 0.7)], ["no", f"yes{ESCAPE}"])
    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())
    line = error_line(UserError(f"{ESCAPE}.png\nis missing \udc80"))
    assert line.isprintable()
    assert line == r"error: \x1b]0;x\x07\x9b2J\u202e.png is missing \udc80"
    assert printable("ü 脑") == "ü 脑"


@pytest.mark.parametrize(
    "arguments",
    [
        [f"none{ESCAPE}.png"],
        ["x", f"--{ESCAPE}"],
        ["x", "--patient", ESCAPE],
        ["x", "--model", ESCAPE],
    ],
)
def test_errors_of_predict_are_printable(capsys, monkeypatch, tmp_path, arguments):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "start_tensorflow", lambda: None)
    monkeypatch.setattr(sys, "argv", ["predict", *arguments])
    with pytest.raises(SystemExit) as ended:
        run_command(command.main)
    output = capsys.readouterr()
    printed = f"{output.out}\n{output.err}\n{ended.value.code}"
    assert all(line.isprintable() for line in printed.splitlines())
