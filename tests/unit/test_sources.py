"""The listing of a source: which files are images of which class, and which links are followed."""

import os
import unicodedata
from pathlib import Path

import pytest

from brainmri.common.errors import UserError
from brainmri.images import folder_tree
from brainmri.predict.files import GivenPath, label_files, list_files
from tests.support.trees import SYSTEM_FILES, data_of, list_folder, make_tree

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "après") for form in ("NFC", "NFD"))
OBJECT = "0123456789abcdef0123456789abcd"


def test_files_are_sorted_in_composed_unicode(tmp_path):
    source = tmp_path / "raw"
    names = ("z", "e\u0301", "a/b", "B", "10", "9")
    make_tree(source, *(f"yes/{name}.png" for name in names), "no/1.png")
    make_tree(source, f"{DECOMPOSED}/2.png", f"{COMPOSED}/1.png", f"{COMPOSED}/3.png")
    make_tree(source, "z.txt", "a.csv", "yes/.hidden.png")
    (source / "yes/gone.png").symlink_to("nowhere.png")
    (source / "empty").mkdir()
    classes, files, rejected = list_folder(source)
    assert classes == [COMPOSED, "empty", "no", "yes"]
    assert files == [
        (COMPOSED, f"{COMPOSED}/1.png"),
        (COMPOSED, f"{DECOMPOSED}/2.png"),
        (COMPOSED, f"{COMPOSED}/3.png"),
        ("no", "no/1.png"),
        *(("yes", f"yes/{name}.png") for name in ("10", "9", "B", "a/b", "z", "e\u0301")),
    ]
    assert rejected == [
        {"path": "a.csv", "reason": "not in a class folder"},
        {"path": "yes/gone.png", "reason": "a symbolic link to nowhere"},
        {"path": "z.txt", "reason": "not in a class folder"},
    ]


def test_files_of_a_class_are_adjacent(tmp_path):
    make_tree(tmp_path, "no/1.png", "no/2.png", "no, or not sure/1.png", "no-2/1.png")
    classes, files, _ = list_folder(tmp_path)
    assert classes == ["no", "no, or not sure", "no-2"]
    assert [name for name, _ in files] == ["no", "no", "no, or not sure", "no-2"]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_two_class_folders_are_needed(tmp_path, count):
    make_tree(tmp_path / "raw", *(f"{index}/1.png" for index in range(count)), "1.png")
    if count == 2:
        assert list_folder(tmp_path / "raw")[0] == ["0", "1"]
    else:
        with pytest.raises(UserError, match=rf"has {count} class folder\(s\)"):
            list_folder(tmp_path / "raw")


@pytest.mark.parametrize(
    ("names", "is_warned"),
    [
        (("Tumor", "tumor"), True),
        (("no tumor", "no\u00a0 tumor"), True),
        (("1", "1.0"), True),
        (("no", "no tumor"), False),
        (("1", "10"), False),
    ],
)
def test_names_of_probably_the_same_class(tmp_path, capsys, names, is_warned):
    folder = make_tree(tmp_path / "raw", *[f"{name}/a.png" for name in names])
    classes, *_ = list_folder(folder)
    assert classes == sorted(names)
    assert ("warning: " in capsys.readouterr().out) == is_warned


@pytest.mark.parametrize("name", ["raw", "missing"])
def test_source_must_be_a_folder(tmp_path, name):
    make_tree(tmp_path, "raw")
    with pytest.raises(UserError, match="is not a folder"):
        list_folder(tmp_path / name)


@pytest.mark.parametrize("folder", ["", "no/", "no/patient/"])
def test_hidden_and_system_files_are_skipped(tmp_path, folder):
    make_tree(tmp_path, "no/1.png", "yes/1.png", *(f"{folder}{name}" for name in SYSTEM_FILES))
    assert list_folder(tmp_path) == (["no", "yes"], [("no", "no/1.png"), ("yes", "yes/1.png")], [])


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("raw/no/1.png", None),
        (f"cache/files/md5/ab/{OBJECT}", None),
        (f"cache/ab/{OBJECT}", None),
        ("raw/no", "a symbolic link to a folder"),
        ("other", "a symbolic link out of data.source"),
        ("raw/missing", "a symbolic link to nowhere"),
        ("raw/yes/link", "a symbolic link to nowhere"),
        ("other/1.png", UserError),
        (f"cache/files/md5/ab/{OBJECT[1:]}", UserError),
        (f"cache/files/md5/ab/{OBJECT}/0", UserError),
        (f"cache/files/sha/ab/{OBJECT}", UserError),
        (f"other/files/md5/ab/{OBJECT}", UserError),
        ("raw2/1.png", UserError),
    ],
)
def test_links_are_followed_in_the_source_and_to_the_cache(tmp_path, monkeypatch, target, reason):
    monkeypatch.setattr(folder_tree, "dvc_cache", lambda: tmp_path / "cache")
    make_tree(tmp_path, "raw/no/1.png", "raw/yes/1.png", "other/2.png")
    if target not in ("raw/missing", "raw/yes/link") and not (tmp_path / target).exists():
        make_tree(tmp_path, target)
    (tmp_path / "raw/yes/link").symlink_to(tmp_path / target)
    if reason is UserError:
        message = r"'.*yes/link' is a symbolic link out of data.source"
        with pytest.raises(UserError, match=message):
            list_folder(tmp_path / "raw")
        return
    _, files, rejected = list_folder(tmp_path / "raw")
    expected = [("no", "no/1.png"), ("yes", "yes/1.png")]
    if reason:
        assert (files, rejected) == (expected, [{"path": "yes/link", "reason": reason}])
    else:
        assert (files, rejected) == ([*expected, ("yes", "yes/link")], [])


def test_names_other_than_utf8_are_rejected(tmp_path):
    names = ("no/1.png", "yes/1.png", "yes/a\udce9/1.png", "no/\udc80.png", "no/é.png")
    _, files, rejected = list_folder(make_tree(tmp_path / "raw", *names))
    assert [path for _, path in files] == ["no/1.png", "no/é.png", "yes/1.png"]
    reason = "its name is not UTF-8; rename it"
    rejected_paths = ("no/\udc80.png", "yes/a\udce9")
    assert rejected == [{"path": path, "reason": reason} for path in rejected_paths]


@pytest.mark.parametrize("folder", [COMPOSED, DECOMPOSED])
@pytest.mark.parametrize("name", [COMPOSED, DECOMPOSED])
def test_labels_are_equal_in_both_forms_of_unicode(name, folder):
    file = Path(f"/x/{folder}/deeper/1.png")
    assert label_files({file: GivenPath(f"{folder}/deeper/1.png")}, [name, "no"]) == {file: 0}


@pytest.mark.parametrize(
    "spelling",
    ["data/phantom/", "./data/phantom", "data//phantom", "data/./phantom//", "{}/data/phantom/"],
)
def test_spellings_of_a_source_are_equal(spelling, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert data_of(spelling.format(tmp_path)).source == "data/phantom"


def test_other_paths_are_kept(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    beside = str(tmp_path.parent / "raw")
    for path, expected in {
        beside: beside,
        "../raw/": "../raw",
        "/data//raw/": "/data/raw",
        "//data": "/data",
        "a b": "a b",
    }.items():
        assert data_of(path).source == expected


def test_patterns_skip_hidden_and_system_files(tmp_path, monkeypatch):
    images = [f"{name}/{index}.png" for name in ("no", "yes") for index in range(4)]
    make_tree(tmp_path, *images)
    for folder in ("", "no/", "no/patient/"):
        make_tree(tmp_path, *(f"{folder}{name}" for name in SYSTEM_FILES))
    monkeypatch.chdir(tmp_path)
    for paths in (["."], ["no", "yes"], ["*"], ["*/*"], ["**"], [str(tmp_path / "*" / "*")]):
        files = {os.path.relpath(path) for path in list_files(paths)}
        assert sorted(files) == images, paths
    in_shell = [path for path in (*Path().glob("*"), *Path().glob("no/*")) if path.name[0] != "."]
    assert {*map(str, list_files(map(str, in_shell)))} == {*images}
