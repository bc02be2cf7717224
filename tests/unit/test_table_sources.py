"""Sources with a table of labels, and with a given test set."""

import unicodedata
from pathlib import Path

import pytest

from brainmri.common.errors import UserError
from brainmri.images.sources import Source, SourceFile, list_images
from tests.support.trees import data_of, make_tree, product

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "après") for form in ("NFC", "NFD"))
NOT_LISTED = "not in data.labels"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> None:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)


def list_table(table: str, *paths: str, labels: str = "table.csv") -> Source:
    """Write a table, and images at these paths below `raw`; list them."""
    make_tree(Path("raw"), *paths)
    Path(labels).write_text(table, "utf-8")
    return list_images(data_of("raw", labels=labels))


def test_table_names_the_images():
    table = "path,class,patient,split\n"
    table += "b/3.png,yes,P1,test\n1.png,no,P2,training\nb/2.png,no,P1,training\n"
    raw = Path("raw")
    assert list_table(table, "1.png", "b/2.png", "b/3.png") == Source(
        ["no", "yes"],
        [
            SourceFile("1.png", raw, "1.png", "no", "P2", "training"),
            SourceFile("b/2.png", raw, "b/2.png", "no", "P1", "training"),
            SourceFile("b/3.png", raw, "b/3.png", "yes", "P1", "test"),
        ],
        [],
    )


def test_folders_mean_nothing_with_a_table():
    """Neither parts of a split nor class folders: the table has the classes."""
    table = "path,class\ntrain/no/1.png,yes\ntrain/yes/2.png,no\ntest/no/3.png,yes\n"
    classes, files, rejected = list_table(
        table, "train/no/1.png", "train/yes/2.png", "test/no/3.png"
    )
    assert classes == ["no", "yes"]
    assert [(file.class_name, file.path) for file in files] == [
        ("no", "train/yes/2.png"),
        ("yes", "test/no/3.png"),
        ("yes", "train/no/1.png"),
    ]
    assert rejected == []


def test_files_that_the_table_lacks_are_rejected():
    table = "path,class\n1.png,no\n2.png,yes\n"
    paths = ("1.png", "2.png", "no/1.png", "3.png", ".hidden.png", "Thumbs.db")
    make_tree(Path("raw"), "other.csv")
    Path("raw/2.link").symlink_to("nowhere")
    _, files, rejected = list_table(table, *paths, labels="raw/table.csv")
    assert [file.path for file in files] == ["1.png", "2.png"]
    assert rejected == [
        {"path": "2.link", "reason": "a symbolic link to nowhere"},
        {"path": "3.png", "reason": NOT_LISTED},
        {"path": "no/1.png", "reason": NOT_LISTED},
        {"path": "other.csv", "reason": NOT_LISTED},
    ]


def test_missing_files_are_counted_with_an_example():
    table = "path,class\n1.png,no\n\nb/2.png,yes\n1.PNG,yes\n"
    with pytest.raises(UserError) as raised:
        list_table(table, "1.png", "2.png")
    assert str(raised.value) == (
        "table.csv: 2 of 3 paths are missing, such as 'b/2.png' in line 4; expected files below"
        " 'raw': correct data.source, or the table"
    )


@pytest.mark.parametrize("path", ["raw", "no"])
def test_paths_of_folders_are_missing(path):
    with pytest.raises(UserError, match="1 of 2 paths are missing"):
        list_table(f"path,class\nno/1.png,no\n{path},yes\n", "no/1.png", "raw/1.png")


def test_source_of_a_table_must_be_a_folder():
    Path("table.csv").write_text("path,class\n1.png,no\n2.png,yes\n")
    message = r"data.source: 'raw' is not a folder; expected the folder of the images that"
    with pytest.raises(UserError, match=message):
        list_images(data_of("raw", labels="table.csv"))


@pytest.mark.parametrize("in_table", [COMPOSED, DECOMPOSED])
@pytest.mark.parametrize("on_disk", [COMPOSED, DECOMPOSED])
def test_paths_are_compared_in_composed_unicode(in_table, on_disk):
    _, files, rejected = list_table(
        f"path,class\n{in_table}/1.png,no\n2.png,yes\n", f"{on_disk}/1.png", "2.png"
    )
    assert files[0].path == f"{COMPOSED}/1.png"
    assert files[0].below == f"{on_disk}/1.png"
    assert files[0].file.is_file()
    assert rejected == []


def test_images_of_the_test_folder_follow():
    make_tree(Path("mri/Training"), *product("no yes", "P1"), "notes.txt")
    make_tree(Path("mri/Testing"), "yes/1.png", f"no/{DECOMPOSED}.png", "README")
    classes, files, rejected = list_images(data_of("mri/Training", test="mri/Testing"))
    assert classes == ["no", "yes"]
    training, testing = Path("mri/Training"), Path("mri/Testing")
    assert files == [
        *(
            SourceFile(path, training, path, path.partition("/")[0], None, "training")
            for path in ("no/P1/0.png", "no/P1/1.png", "yes/P1/0.png", "yes/P1/1.png")
        ),
        SourceFile(
            f"Testing/no/{COMPOSED}.png", testing, f"no/{DECOMPOSED}.png", "no", None, "test"
        ),
        SourceFile("Testing/yes/1.png", testing, "yes/1.png", "yes", None, "test"),
    ]
    assert all(file.file.is_file() for file in files)
    reason = "not in a class folder"
    assert rejected == [
        {"path": "notes.txt", "reason": reason},
        {"path": "Testing/README", "reason": reason},
    ]


def test_names_in_the_store_differ():
    """Even if a class has the name of the test folder."""
    make_tree(Path("raw"), "a/1.png", "b/1.png")
    make_tree(Path("a"), "b/1.png", "a/1.png")
    _, files, _ = list_images(data_of("raw", test="a"))
    assert [file.path for file in files] == [
        "a/1.png",
        "b/1.png",
        "a-test/a/1.png",
        "a-test/b/1.png",
    ]


def test_test_folder_has_no_other_classes():
    make_tree(Path("raw"), "no/1.png", "yes/1.png")
    make_tree(Path("held"), "no/1.png", "positive/1.png")
    with pytest.raises(UserError) as raised:
        list_images(data_of("raw", test="held"))
    assert str(raised.value) == (
        "data.test: 'held' has the classes 'no' and 'positive', data.source 'no' and 'yes';"
        " expected no others, such as 'positive'"
    )


def test_class_without_test_images_is_named(capsys):
    make_tree(Path("raw"), "a/1.png", "b/1.png", "c/1.png")
    make_tree(Path("held"), "a/1.png", "b/1.png")
    classes, files, _ = list_images(data_of("raw", test="held"))
    assert classes == ["a", "b", "c"]
    assert [file.class_name for file in files if file.split == "test"] == ["a", "b"]
    assert capsys.readouterr().out == "warning: data.test: 'held' has no folder 'c'\n"
    Path("held/c").mkdir()
    list_images(data_of("raw", test="held"))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ("missing", "data.test: 'missing' is not a folder; expected a folder of class folders"),
        ("empty", r"data.test: 'empty' has 0 class folder\(s\)"),
        ("held", "data.test: 'held' has 1 class folder, 'x'"),
    ],
)
def test_mistakes_in_the_test_folder_name_it(test, message):
    make_tree(Path("raw"), "no/1.png", "yes/1.png")
    make_tree(Path("held"), "x/no/1.png", "x/yes/1.png")
    Path("empty").mkdir()
    with pytest.raises(UserError, match=message):
        list_images(data_of("raw", test=test))


@pytest.mark.parametrize(
    ("names", "is_named"),
    [
        (("Glioma", "glioma"), True),
        (("no tumor", "no_tumor"), True),
        (("1", "1.0"), True),
        (("no-tumor", "notumor"), True),
        (("no", "no."), True),
        (("1-2", "1_2"), True),
        (("1-2", "12"), False),
        (("IDH+", "IDH-"), False),
        (("-1", "1"), False),
        (("a", "b"), False),
    ],
)
def test_classes_that_may_be_one_are_named(capsys, names, is_named):
    make_tree(Path("raw"), *(f"{name}/1.png" for name in names))
    list_images(data_of("raw"))
    first, second = sorted(names)
    line = f"warning: {first!r} and {second!r} are 2 classes; are they meant to be one?\n"
    assert capsys.readouterr().out == line * is_named


def test_all_classes_that_may_be_one_are_named(capsys):
    names = ["No Tumor", "no-tumor", "no_tumor", "notumor"]
    make_tree(Path("raw"), *(f"{name}/1.png" for name in (*names, "glioma")))
    list_images(data_of("raw"))
    line = "warning: 'No Tumor', 'no-tumor', 'no_tumor' and 'notumor' are 4 classes; are they"
    assert capsys.readouterr().out.startswith(line)
