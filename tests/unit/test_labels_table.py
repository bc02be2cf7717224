"""Tables of labels: the forms that are read, and one line on each mistake."""

import os
import unicodedata
import zipfile
from pathlib import Path

import pytest

from brainmri.common.errors import UserError
from brainmri.images import labels_table
from brainmri.images.labels_table import read_labels_table

ROWS = [("no/1.png", "no"), ("a b.png", "yes")]
PATIENTS = "path,class,patient,split\na.png,no,P1,training\nb.png,yes,P2,test\n"


def read(path: Path, content: str | bytes) -> labels_table.LabelsTable:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_labels_table(path)


@pytest.mark.parametrize(
    "content",
    [
        "path,class\nno/1.png,no\na b.png,yes\n",
        "path,class\nno/1.png,no\na b.png,yes",
        "path\tclass\nno/1.png\tno\na b.png\tyes\n",
        "path;class\nno/1.png;no\na b.png;yes\n",
        "path,class\r\nno/1.png,no\r\na b.png,yes\r\n",
        "\ufeffpath,class\nno/1.png,no\na b.png,yes\n",
        '"path","class"\n"no/1.png","no"\n"a b.png","yes"\n',
        "class,path\nno,no/1.png\nyes,a b.png\n",
        "Path, CLASS \n no/1.png , no\na b.png,yes \n",
        "path,class\n\nno/1.png,no\n\n , \na b.png,yes\n\n",
        "\n \npath,class\nno/1.png,no\na b.png,yes\n",
        "path,class\n./no//1.png,no\na b.png,yes\n",
        "path,class\nno/1.png,no\na b.png,yes\nno/1.png,no\n./a b.png,yes\n",
        "sep=;\npath;class\nno/1.png;no\na b.png;yes\n",
        '\ufeff"SEP=,"\r\npath,class\r\nno/1.png,no\r\na b.png,yes\r\n',
    ],
    ids=[
        "commas",
        "no last line break",
        "tabs",
        "semicolons",
        "Windows",
        "byte-order mark",
        "quotes",
        "order of columns",
        "case and spaces",
        "blank lines",
        "blank lines first",
        "spellings of paths",
        "equal rows",
        "separator of Excel",
        "separator of Excel in quotes",
    ],
)
def test_forms_of_tables(tmp_path, content):
    table = read(tmp_path / "table.csv", content)
    assert table.path == tmp_path / "table.csv"
    assert [(row.path, row.class_name) for row in table.rows] == ROWS
    assert {(row.patient, row.split) for row in table.rows} == {(None, None)}


def test_quoted_cells_hold_separators(tmp_path):
    content = 'path;class\n"a;b, ""c"".png";"no; not yes"\nd.png;yes\n'
    first, second = read(tmp_path / "table.csv", content).rows
    assert (first.path, first.class_name) == ('a;b, "c".png', "no; not yes")
    assert (second.path, second.class_name) == ("d.png", "yes")


def test_lines_are_counted_from_1(tmp_path):
    content = 'path,class\n\n"a\nb.png",no\nc.png,yes\n'
    assert [row.line for row in read(tmp_path / "table.csv", content).rows] == [4, 5]
    content = f"sep=,\n{content}"
    assert [row.line for row in read(tmp_path / "table.csv", content).rows] == [5, 6]


@pytest.mark.parametrize(
    ("written", "split"),
    [("training", "training"), ("Train", "training"), ("TEST", "test"), ("testing", "test")],
)
def test_optional_columns(tmp_path, written, split):
    content = PATIENTS.replace("training", written)
    first, second = read(tmp_path / "table.csv", content).rows
    assert (first.patient, first.split) == ("P1", split)
    assert (second.patient, second.split) == ("P2", "test")


def test_classes_and_patients_are_in_composed_unicode(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "après") for form in ("NFC", "NFD"))
    content = f"path,class,patient\na.png,{decomposed},{decomposed}\nb.png,no,P2\n"
    [first, _] = read(tmp_path / "table.csv", content).rows
    assert (first.class_name, first.patient) == (composed, composed)


LINE_3 = "path,class\na.png,no\n"
MISTAKES = {  # by case: content, and the message; {} stands for the file
    "empty": ("", "data.labels: '{}' is empty; expected a header with path, class"),
    "spaces": (" \n\n", "data.labels: '{}' is empty"),
    "old spreadsheet": (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504),
        "data.labels: '{}' is a spreadsheet; save it as CSV (UTF-8) and give that",
    ),
    "UTF-16": (
        PATIENTS.encode("utf-16"),
        "data.labels: '{}' is not UTF-8 text; save it as CSV (UTF-8)",
    ),
    "UTF-16 without a mark": (PATIENTS.encode("utf-16-le"), "has null bytes; save it as CSV"),
    "Latin-1": ("path,class\né.png,no\n".encode("latin-1"), "is not UTF-8 text"),
    "null bytes": (f"{PATIENTS}\0", "data.labels: '{}' is not text, since it has null bytes"),
    "JSON lines": (
        '{"file_name": "a.png", "label": 0}\n{"file_name": "b.png", "label": 1}\n',
        "data.labels: '{}' starts with '{{', as JSON does; expected a CSV or TSV table with the"
        " columns path, class$",
    ),
    "JSON list": (' [\n{"path": "a.png"}]', "data.labels: '{}' starts with '[', as JSON does"),
    "separator only": ("sep=;\n", "{}: no column 'path'"),
    "header only": ("path,class\n", "{} has 0 class(es); expected two or more"),
    "no path": (
        "image,class\na.png,no\n",
        "{}: no column 'path' among 'image', 'class'; expected a header with path, class, and"
        " optionally patient, split",
    ),
    "no class": ("path,label\na.png,no\n", "{}: no column 'class' among 'path', 'label'"),
    "no header": ("a.png,no\nb.png,yes\n", "{}: no column 'path' among 'a.png', 'no'"),
    "separators only": (",,\n", "{}: no column 'path'"),
    "misspelled column": (
        "path,class,patients\na.png,no,1\n",
        "{}: unknown column(s) 'patients'; expected path, class, patient, split: rename it to"
        " patient, or remove it",
    ),
    "other column": (
        "path,class,age\na.png,no,1\n",
        "{}: unknown column(s) 'age'; expected path, class, patient, split: remove it",
    ),
    "index column": (",path,class\n0,a.png,no\n", "{}: unknown column(s) ''; expected path"),
    "doubled column": (
        "path,class,Class\na.png,no,no\n",
        "{}: a column is there twice; expected path, class, patient, split once each",
    ),
    "short row": (f"{LINE_3}b.png\n", "{}, line 3: 1 cells; expected 2, as in the header"),
    "long row": (f"{LINE_3}b.png,yes,\n", "{}, line 3: 3 cells; expected 2"),
    "no class in a row": (
        f"{LINE_3}b.png, \n",
        "{}, line 3: no class; expected a value in every row",
    ),
    "no path in a row": (f"{LINE_3},yes\n", "{}, line 3: no path; expected a value"),
    "no patient in a row": (PATIENTS.replace("P2", ""), "{}, line 3: no patient; expected"),
    "missing class": (
        f"{LINE_3}b.png,NA\n",
        "{}, line 3: class is 'NA', as programs write a missing value; expected a value in every",
    ),
    "missing class of a spreadsheet": (
        PATIENTS.replace("yes", "#N/A"),
        "{}, line 3: class is '#N/A'",
    ),
    "missing patient": (PATIENTS.replace("P2", "nan"), "{}, line 3: patient is 'nan', as"),
    "no split in a row": (PATIENTS.replace("test", ""), "{}, line 3: no split; expected"),
    "absolute path": (
        f"{LINE_3}/b.png,yes\n",
        "{}, line 3: '/b.png' is not below the images' folder; expected a relative path",
    ),
    "path out of the source": (
        f"{LINE_3}no/../../b.png,yes\n",
        "{}, line 3: 'no/../../b.png' is not below the images' folder",
    ),
    "split": (
        PATIENTS.replace("test", "left"),
        "{}, line 3: split is 'left'; expected training or test$",
    ),
    "validation split": (
        PATIENTS.replace("test", "Val"),
        "{}, line 3: split is 'Val'; expected training or test; validation images belong to"
        " training: members hold out some of their own$",
    ),
    "split in another word": (
        PATIENTS.replace("test", "holdout"),
        "{}, line 3: split is 'holdout'; expected training or test$",
    ),
    "one class": (
        f"{LINE_3}b.png,no\n",
        "{} has 1 class(es): 'no'; expected two or more",
    ),
    "classes disagree": (
        f"{LINE_3}b.png,yes\n./a.png,yes\n",
        "{}: lines 2 and 4 disagree on 'a.png'; expected one row for each image",
    ),
    "patients disagree": (
        PATIENTS + "a.png,no,P2,training\n",
        "{}: lines 2 and 4 disagree on 'a.png'",
    ),
    "splits disagree": (
        PATIENTS + "b.png,yes,P2,training\n",
        "{}: lines 3 and 4 disagree on 'b.png'",
    ),
    "forms of Unicode disagree": (
        "path,class\n\u00e9.png,no\ne\u0301.png,yes\n",
        "{}: lines 2 and 3 disagree",
    ),
    "unclosed quote": (
        f'{LINE_3}"b.png,yes\nc.png,no\n',
        "line 4: unexpected end of data; expected a CSV or TSV table",
    ),
    "text after a quote": (f'{LINE_3}"b".png,yes\n', "{}, line 3: "),
    "long cell": (
        f"{LINE_3}{'b' * 200_000},yes\n",
        "{}, line 3: field larger than field limit (131072); expected a CSV or TSV table",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_reported_in_one_line(tmp_path, case):
    content, expected = MISTAKES[case]
    path = tmp_path / "table.csv"
    with pytest.raises(UserError) as raised:
        read(path, content)
    message = str(raised.value)
    assert "\n" not in message
    assert len(message) < 400
    assert str(path) in message
    whole = expected.removesuffix("$").format(path)
    assert message.endswith(whole) if expected.endswith("$") else whole in message


def test_a_path_in_several_folders_is_refused(tmp_path):
    table = read(tmp_path / "a.csv", "path,class\n1.png,no\n2.png,yes\n")
    files = {name: name.partition("/")[2] for name in ("a/1.png", "a/2.png", "b/2.png")}
    with pytest.raises(UserError, match=r"line 3: '2\.png' stands for 2 files; expected one"):
        table.find(files, "the folders that are given")
    del files["b/2.png"]
    assert list(table.find(files, "the folders that are given")) == ["a/1.png", "a/2.png"]


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("no/a.PNG", "no/a.png"),
        ("no/a", "no/a.png"),
        ("No/A.b", "no/a.b.PNG"),
        ("a.png", None),
        ("no/a.jpg", None),
    ],
)
def test_near_name_of_a_missing_path(tmp_path, path, near):
    table = read(tmp_path / "a.csv", f"path,class\n{path},no\nyes.png,yes\n")
    names = ["yes.png", "no/ab.png", "no/a.png", "no/a.b.PNG"]
    with pytest.raises(UserError, match="1 of 2 paths are missing") as raised:
        table.find(dict(enumerate(names)), "'raw'")
    hint = f"; {near!r} is there" if near else ""
    assert str(raised.value).endswith(f"; expected files below 'raw'{hint}")


def test_missing_tables_and_folders(tmp_path):
    for path, reason in (("table.csv", "No such file or directory"), (".", "Is a directory")):
        with pytest.raises(UserError) as raised:
            read_labels_table(tmp_path / path)
        assert str(raised.value) == (
            f"data.labels: {str(tmp_path / path)!r} can't be read ({reason}); expected a CSV or TSV"
            " table"
        )


def test_pipes_and_devices_are_not_read(tmp_path):
    """Reading them may never end."""
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "zeros.csv").symlink_to("/dev/zero")
    for name in ("pipe.csv", "zeros.csv"):
        with pytest.raises(UserError, match="is a pipe or a device; expected a file"):
            read_labels_table(tmp_path / name)


def test_spreadsheets_of_today(tmp_path):
    with zipfile.ZipFile(tmp_path / "table.csv", "w") as file:
        file.writestr("xl/workbook.xml", PATIENTS)
    with pytest.raises(UserError, match="is a spreadsheet; save it as CSV"):
        read_labels_table(tmp_path / "table.csv")


def test_huge_tables_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(labels_table, "MAX_BYTES", len(PATIENTS))
    assert len(read(tmp_path / "table.csv", PATIENTS).rows) == 2
    with pytest.raises(UserError, match=f"has more than {len(PATIENTS)} bytes"):
        read(tmp_path / "table.csv", f"{PATIENTS}\n")
