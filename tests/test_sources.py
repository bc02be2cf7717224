"""Which files of a source are images of which class: layouts of archives, files of other systems, links, names, spellings."""

import hashlib
import json
import os
import re
import shutil
import sys
import unicodedata
from pathlib import Path

import h5py
import pytest
from conftest import Project, picture, put, ran
from test_ingest import ingest

from predict.__main__ import find_files as find_new_files
from predict.__main__ import label_of
from stages.shared import queued, sources
from stages.shared.errors import UserError
from stages.shared.params import Data
from stages.shared.sources import find_files, is_hidden, is_split_part, stored_paths

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "après") for form in ("NFC", "NFD"))
SHARED = Path(__file__).parents[1] / "../shared/data"
SYSTEM = [
    *("__MACOSX/._a.png", ".DS_Store", "._a.png", "Icon\r", ".Spotlight-V100/a.png", ".Trashes/a.png", ".fseventsd/a.png"),
    *("Thumbs.db", "THUMBS.DB", "ehthumbs.db", "desktop.ini", "Desktop.ini", "$RECYCLE.BIN/a.png", "RECYCLER/a.png"),
    *("System Volume Information/a.png", "FOUND.000/a.png", "lost+found/a.png", ".Trash-1000/files/a.png", ".directory"),
    *("@eaDir/a.png/SYNOFILE_THUMB_M.jpg", "#recycle/a.png", "#snapshot/a.png", "@Recycle/a.png", ".@__thumb/a.png"),
    *(".snapshot/a.png", "~snapshot/a.png", ".ipynb_checkpoints/a-checkpoint.png", ".dropbox", ".stversions/a.png"),
    *("LOST.DIR/a.png", "a.png@SynoEAStream", "Picasa.ini", ".picasa.ini"),
]


def tree(folder: Path, *paths: str) -> Path:
    """A folder with a small file at each path."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(picture(len(path)))
    return folder


def product(tops: str, names: str) -> list[str]:
    """A path for each top-level folder and each folder in it."""
    return [f"{top}/{name}/{index}.png" for top in tops.split() for name in names.split() for index in range(2)]


MISPLACED = {
    "split": (product("Training Testing", "no yes"), "'Testing' and 'Training', named as parts of a split", "Te"),
    "three parts": (product("train val test", "a b c"), "'test', 'train' and 'val', named as parts of a split", "test"),
    "words": (product("Train_set validation-images 2_test", "a b"), "named as parts of a split", "2_test"),
    "languages": (product("entrenamiento 测试集", "a b"), "named as parts of a split", "entrenamiento"),
    "tables": ([*product("train valid", "a b"), "train/_classes.csv", "valid/README"], "parts of a split", "train"),
    "unequal": ([*product("train", "a b c"), *product("test", "a b")], "parts of a split", "train"),
    "wrapped": (product("archive", "no yes"), "has 1 class folder, 'archive'; expected two or more", "archive"),
    "wrapped, with notes": ([*product("archive", "a b"), "LICENSE"], "has 1 class folder, 'archive'", "archive"),
    "wrapped, with an image": ([*product("archive", "a b"), "scan.png"], "has 1 class folder, 'archive'", "archive"),
    "wrapped twice, with notes": ([*product("x/y", "a b"), "x/README"], "has 1 class folder, 'x'", "x/y"),
    "wrapped twice": (product("archive/images", "no yes"), "has 1 class folder", "archive/images"),
    "wrapped split": (product("archive/Training archive/Testing", "no yes"), "parts of a split", "archive/Testing"),
    "twice": ([*product("set", "no yes"), "no/a.png", "yes/a.png"], "'no' and 'yes' twice, the second time in 'raw/set'", "set"),
    "twice, deeper": ([*product("a/b", "no yes"), "no/a.png", "yes/a.png"], "twice, the second time in 'raw/a/b'", "a/b"),
    "twice, wrapped": ([*product("a/set", "no yes"), "a/no/a.png", "a/yes/a.png"], "twice", "a/set"),
    "odd name": (product("archive(1)", "no yes"), "has 1 class folder", "archive(1)"),
    "collections": (product("here there", "no yes"), "'no' and 'yes' in 'raw/here' are named as classes", "here"),
    "collections, deeper": (product("here/x there/y", "no yes"), "are named as classes", "here/x"),
    "one collection": ([*product("set", "no yes"), "samples/1.png"], "are named as classes", "set"),
    "no known name": (product("here there", "ab cd"), "hold folders of the same names, 'ab' and 'cd'", "here"),
    "numbers": (product("fold1 fold2", "0 1"), "hold folders of the same names, '0' and '1'", "fold1"),
}


ONLY_SET = {"wrapped", "wrapped, with notes", "wrapped twice", "twice", "twice, deeper", "twice, wrapped", "odd name"}
ONLY_SET |= {
    "one collection",
    "wrapped, with an image",
    "wrapped twice, with notes",
}  # cases of a single set of class folders, which is joined with no other


@pytest.mark.parametrize("case", MISPLACED)
def test_misplaced_class_folders_are_one_line_with_what_to_type(tmp_path, monkeypatch, case):
    paths, message, source = MISPLACED[case]
    monkeypatch.chdir(tmp_path)
    tree(tmp_path / "raw", *paths)
    with pytest.raises(UserError) as raised:
        find_files(Path("raw"))
    line = str(raised.value)
    assert message in line
    assert "\n" not in line
    typed = re.search(r"`dvc exp run -S '?data\.source=\"?(raw/[^'\"`]*)", line)[1]
    assert typed.startswith(f"raw/{source}")
    classes, files, _ = find_files(Path(typed))
    assert len(classes) > 1
    assert {name for name, _ in files} == {*classes}
    assert all(f"/{name}/" in f"/{path}" for name, path in files)
    join = re.search("`(mkdir .*)` with data.source=(.*?)(;|$)", line)
    assert bool(join) == (case not in ONLY_SET)
    if join:  # no image is lost, whatever their names
        assert os.system(join[1]) == 0
        images = [path for path in paths if path.endswith(".png")]
        classes, files, rejected = find_files(Path(join[2]))
        assert (len(files), rejected) == (
            len(images),
            [{"path": file, "reason": "not in a class folder"} for file in tables(paths)],
        )


def tables(paths: list[str]) -> list[str]:
    return sorted(Path(path).name for path in paths if not path.endswith(".png"))


def test_folders_without_classes_beside_or_as_parts_of_a_split_are_refused(tmp_path):
    for index, (paths, message) in enumerate(
        [
            (["no/1.png", "yes/1.png", "test/1.png"], "holds 'test', named as a part of a split, beside 'no' and 'yes'"),
            (["no/1.png", "yes/1.png", "pred/1.png"], "holds 'pred', named as a part of a split"),
            (["train/1.png", "test/1.png"], "named as parts of a split, and no class folders"),
            (["no/1.png", "yes/1.png", "more/yes/1.png"], "more/yes' is in '.*more', but named as another class"),
            (["1/1.png", "a/1/1.png", "b/1.png"], "a/1' is in '.*a', but named as another class"),
        ]
    ):
        with pytest.raises(UserError, match=message):
            find_files(tree(tmp_path / str(index), *paths))


@pytest.mark.parametrize(
    "paths",
    [
        product("no yes", "patient1 patient2"),
        product("no yes", "1 2"),
        product("a b", " ".join(map(str, range(1, 15)))),
        product("a b", "axial sagittal"),
        product("no yes", "here there"),
        product("no yes", "train test"),
        product("a b", "train test"),
        product("no yes", "images"),
        [*product("no", "smith jones"), *product("yes", "lee")],
        ["no/a/b/c/1.png", "yes/1.png", "yes/d/2.png"],
        ["no/no/1.png", "yes/yes/1.png"],
        ["valid/1.png", "invalid/1.png"],
        ["1/2/1.png", "1/3/1.png", "2/1/1.png", "3/1.png"],
        ["positive/glioma/1.png", "positive/meningioma/1.png", "negative/1.png"],
        ["here/normal/1.png", "here/other/1.png", "there/1.png"],
    ],
)
def test_folders_in_a_class_are_parts_of_it(tmp_path, paths):
    classes, files, rejected = find_files(tree(tmp_path, *paths))
    assert classes == sorted({path.split("/")[0] for path in paths})
    assert sorted(files) == sorted((path.split("/")[0], path) for path in paths)
    assert not rejected


def test_folders_are_parts_of_classes_if_one_class_holds_none(tmp_path):
    (tmp_path / "e").mkdir()
    assert find_files(tree(tmp_path, *product("a b", "here there")))[0] == ["a", "b", "e"]


def test_names_of_parts_of_a_split():
    for name in (
        "train",
        "Training",
        "TEST",
        "test_set",
        "TrainingSet",
        "train2017",
        "1-val images",
        "Validation",
        "prueba",
        "images_test",
    ):
        assert is_split_part(name), name
    for name in ("yes", "set", "data", "trained", "contest", "tested", "images", "validity", "no test"):
        assert not is_split_part(name), name


def test_real_collections_are_recognized():
    if not SHARED.is_dir():
        pytest.skip("the real images are not here")
    with pytest.raises(UserError, match=r"'Testing' and 'Training', named as parts of a split.*data.source=.*/Training`"):
        find_files(SHARED / "four_class")
    classes, files, rejected = find_files(SHARED / "four_class/Training")
    assert (classes, len(files), rejected) == (["glioma", "meningioma", "notumor", "pituitary"], 1624, [])
    classes, files, rejected = find_files(SHARED / "brain_mri")
    assert (classes, len(files), rejected) == (["no", "yes"], 253, [])


def test_files_are_listed_by_class_and_then_by_path_in_composed_unicode(tmp_path):
    tree(tmp_path / "raw", *(f"yes/{name}.png" for name in ("z", "e\u0301", "a/b", "B", "10", "9")), "no/1.png")
    tree(tmp_path / "raw", f"{DECOMPOSED}/2.png", f"{COMPOSED}/1.png", f"{COMPOSED}/3.png", "z.txt", "a.csv", "yes/.hidden.png")
    (tmp_path / "raw/yes/gone.png").symlink_to("nowhere.png")
    (tmp_path / "raw/empty").mkdir()
    classes, files, rejected = find_files(tmp_path / "raw")
    assert classes == [COMPOSED, "empty", "no", "yes"]
    assert files == [
        *((COMPOSED, path) for path in (f"{COMPOSED}/1.png", f"{DECOMPOSED}/2.png", f"{COMPOSED}/3.png")),
        ("no", "no/1.png"),
        *(("yes", f"yes/{name}.png") for name in ("10", "9", "B", "a/b", "z", "e\u0301")),
    ]
    assert rejected == [
        {"path": "a.csv", "reason": "not in a class folder"},
        {"path": "yes/gone.png", "reason": "a symbolic link to nowhere"},
        {"path": "z.txt", "reason": "not in a class folder"},
    ]


def test_files_of_a_class_stand_together_whatever_the_names_of_classes(tmp_path):
    tree(tmp_path, "no/1.png", "no/2.png", "no, or not sure/1.png", "no-2/1.png")
    classes, files, _ = find_files(tmp_path)
    assert classes == ["no", "no, or not sure", "no-2"]
    assert [name for name, _ in files] == ["no", "no", "no, or not sure", "no-2"]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_source_has_two_class_folders_or_more(tmp_path, count):
    tree(tmp_path / "raw", *(f"{index}/1.png" for index in range(count)), "1.png")
    if count == 2:
        assert find_files(tmp_path / "raw")[0] == ["0", "1"]
    else:
        with pytest.raises(UserError, match=rf"has {count} class folder\(s\)"):
            find_files(tmp_path / "raw")


def test_a_source_that_is_no_folder_is_refused(tmp_path):
    tree(tmp_path, "raw")
    for name in ("raw", "missing"):
        with pytest.raises(UserError, match="is not a folder"):
            find_files(tmp_path / name)


OBJECT = "0123456789abcdef0123456789abcd"


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
def test_links_are_followed_to_files_of_the_source_and_objects_of_the_cache(tmp_path, monkeypatch, target, reason):
    monkeypatch.setattr(sources, "dvc_cache", lambda: tmp_path / "cache")
    tree(tmp_path, "raw/no/1.png", "raw/yes/1.png", "other/2.png")
    if target not in ("raw/missing", "raw/yes/link") and not (tmp_path / target).exists():
        tree(tmp_path, target)
    (tmp_path / "raw/yes/link").symlink_to(tmp_path / target)
    if reason is UserError:
        with pytest.raises(UserError, match=r"'.*yes/link' is a symbolic link out of data.source"):
            find_files(tmp_path / "raw")
        return
    _, files, rejected = find_files(tmp_path / "raw")
    assert rejected == ([{"path": "yes/link", "reason": reason}] if reason else [])
    assert files == [("no", "no/1.png"), ("yes", "yes/1.png"), *([] if reason else [("yes", "yes/link")])]


def test_names_that_are_not_utf8_are_rejected_with_all_that_is_in_them(tmp_path):
    tree(tmp_path / "raw", "no/1.png", "yes/1.png", "yes/a\udce9/1.png", "no/\udc80.png", "no/é.png")
    _, files, rejected = find_files(tmp_path / "raw")
    assert [path for _, path in files] == ["no/1.png", "no/é.png", "yes/1.png"]
    assert rejected == [{"path": path, "reason": "its name is not UTF-8; rename it"} for path in ("no/\udc80.png", "yes/a\udce9")]


def test_stored_paths_are_composed_unless_two_would_be_the_same():
    assert stored_paths([f"{DECOMPOSED}/1", f"{DECOMPOSED}/2", f"{COMPOSED}/2", "é", "a"]) == {
        f"{DECOMPOSED}/1": f"{COMPOSED}/1",
        f"{DECOMPOSED}/2": f"{DECOMPOSED}/2",
        f"{COMPOSED}/2": f"{COMPOSED}/2",
        "é": "é",
        "a": "a",
    }


def test_names_that_systems_give_are_hidden_and_no_other():
    for name in (
        *(name.split("/")[0] for name in SYSTEM),
        "found.123",
        ":2eDS_Store",
        "x@SynoResource",
        "~syncthing~a.png.tmp",
        "DESKTOP DB",
    ):
        assert is_hidden(name), name
    for name in ("found.12", "found.1234", "lost.found", "thumbs.db.png", "recycle", "a.:2e", "syncthing.tmp", "icon", "a.png"):
        assert not is_hidden(name), name


@pytest.mark.parametrize("folder", ["", "no/", "no/patient/"])
def test_hidden_files_and_folders_are_passed_over(tmp_path, folder):
    tree(tmp_path, "no/1.png", "yes/1.png", *(f"{folder}{name}" for name in SYSTEM))
    assert find_files(tmp_path) == (["no", "yes"], [("no", "no/1.png"), ("yes", "yes/1.png")], [])


@pytest.mark.parametrize(
    ("paths", "is_told"),
    [
        (product("a b", "axial sagittal"), True),
        (product("no yes", "here there"), True),
        (product("no yes", "here"), False),
        ([*product("no", "here there"), *product("yes", "here now")], False),
        ([*product("no yes", "here there"), "no/1.png"], False),
    ],
)
def test_folders_of_several_classes_are_told_if_they_could_be_classes(tmp_path, capsys, paths, is_told):
    find_files(tree(tmp_path, *paths))
    assert ("are taken as parts of each" in capsys.readouterr().out) == is_told


def test_files_without_a_known_ending_may_be_images_of_a_class(tmp_path):
    tree(tmp_path, *product("x/y", "a b"), "x/IM0001")
    with pytest.raises(UserError, match=r"has 1 class folder\(s\); expected two or more, one for each class$"):
        find_files(tmp_path)


def test_two_names_that_may_each_be_a_class_are_parts_of_a_split(tmp_path):
    assert find_files(tree(tmp_path / "a", "val/1.png", "no/1.png"))[0] == ["no", "val"]
    with pytest.raises(UserError, match="parts of a split"):
        find_files(tree(tmp_path / "b", "val/1.png", "dev/1.png"))


def test_the_largest_of_several_collections_is_named_first(tmp_path):
    paths = [*product("train", "a b"), *product("test", "a b"), "train/a/deeper/7.png", "test/c.png"]
    with pytest.raises(UserError, match=r"data.source=.*/train`, or use all"):
        find_files(tree(tmp_path, *paths, "train/a/deeper/8.png"))
    with pytest.raises(UserError, match=r"data.source=.*/test`, or use all"):
        find_files(tree(tmp_path, "test/b/8.png", "test/b/9.png"))


def test_system_files_are_passed_over_everywhere(project, monkeypatch):
    for folder in ("", "no/", "no/patient/"):
        put(project, {f"{folder}{name}": picture(len(name)) for name in SYSTEM})
    project.edit(ingest__strict=True)
    output, stored, reasons = ingest(project)
    assert stored == {f"{name}/{index}.png" for name in ("no", "yes") for index in range(4)}
    assert not reasons
    assert output.stdout.splitlines()[-1] == "8 images of 2 classes, 0 files left out"
    monkeypatch.chdir(project.path / "data/raw")
    images = sorted(Path(path) for path in stored)
    by_shell = [str(path) for path in [*Path().glob("*"), *Path().glob("no/*")] if not path.name.startswith(".")]
    for paths in (["."], ["no", "yes"], ["*"], ["*/*"], ["**"], [str(Path.cwd() / "*" / "*")]):
        found = sorted({path.absolute().relative_to(Path.cwd()) for path in find_new_files(paths)})
        assert found == images, paths
    assert {*map(str, find_new_files(by_shell))} == stored


@pytest.mark.parametrize(
    ("kind", "cache"),
    [*((kind, ".dvc/cache") for kind in ("reflink", "hardlink", "symlink", "copy")), ("symlink", "../shared cache")],
)
def test_each_link_type_of_dvc_gives_the_same_store_and_other_links_are_not_followed(project, kind, cache):
    project.run("dvc", "config", "--local", "cache.dir", cache)
    project.run("dvc", "config", "--local", "cache.type", f"{kind},copy")
    project.run("dvc", "add", "data/raw")
    shutil.rmtree(project.path / "data/raw")
    project.run("dvc", "checkout", "data/raw.dvc")
    assert (project.path / "data/raw/no/0.png").is_symlink() == (kind == "symlink")
    expected = {f"{name}/{index}.png" for name in ("no", "yes") for index in range(4)}
    _, stored, reasons = ingest(project, command=("dvc", "repro", "ingest"))
    assert (stored, reasons) == (expected, {})
    in_cache = project.path / cache / "outside.png"  # none of its objects
    in_cache.write_bytes(picture(9))
    (project.path / "data/raw/yes/cache.png").symlink_to(in_cache)
    output, _, _ = ingest(project, ok=False)
    assert "error: 'data/raw/yes/cache.png' is a symbolic link out of data.source" in output.stderr


def damaged(cache: Path) -> list[str]:
    """The objects of a cache that don't hold what their names say."""
    objects = [path for path in (cache / "files/md5").rglob("*") if path.is_file() and path.suffix != ".dir"]
    assert objects
    return [str(path) for path in objects if hashlib.md5(path.read_bytes()).hexdigest() != path.parent.name + path.name]


def test_nothing_writes_through_links_into_a_shared_cache(fresh, tmp_path):
    cache = tmp_path / "cache"
    for key, value in {"cache.type": "symlink", "cache.dir": str(cache)}.items():
        fresh.run("dvc", "config", "--local", key, value)
    small = {"members": 2, "ingest.image_size": 32, "train.epochs": 2, "phantom.classes.no": 24, "evaluate.resamples": 100}
    fresh.experiment(**small, **{"phantom.classes.yes": 24})
    assert (fresh.path / "data/phantom/no/no-000.png").is_symlink()
    assert (fresh.path / "models/ensemble.keras").is_symlink()
    assert json.loads(fresh.read("metrics/ingest.json"))["images"] == 48
    fresh.experiment(**{"phantom.classes.yes": 25, "weigh.scheme": "auc"})
    assert json.loads(fresh.read("metrics/ingest.json"))["images"] == 49
    assert not damaged(cache)
    assert "up to date" in fresh.run("dvc", "status")
    for stage in ("ingest", "train member-00", "export", "explain", "report"):  # by hand, DVC removes nothing before
        fresh.run("python", "-m", *f"stages.{stage}".split())
    assert not damaged(cache)
    with h5py.File(fresh.path / "data/rad/image_data.h5") as file:
        assert file["images"][:].mean() > 10


def test_a_name_in_composed_and_decomposed_unicode_is_one_name(project):
    put(project, {f"{COMPOSED}/a.png": picture(1), f"{COMPOSED}/b.png": picture(2), f"avant/{COMPOSED}.png": picture(3)})
    _, stored, _ = ingest(project)
    expected = {path: (project.path / path).read_bytes() for path in ("data/rad/metadata.json", "metrics/ingest.json")}
    assert {f"{COMPOSED}/a.png", f"avant/{COMPOSED}.png"} <= stored
    raw = project.path / "data/raw"
    (raw / COMPOSED).rename(raw / DECOMPOSED)
    (raw / f"avant/{COMPOSED}.png").rename(raw / f"avant/{DECOMPOSED}.png")
    ingest(project)  # the same files from a Mac
    assert {path: (project.path / path).read_bytes() for path in expected} == expected
    put(project, {f"{COMPOSED}/a.png": picture(4), f"{COMPOSED}/c.png": picture(5)})
    _, stored, _ = ingest(project)  # both forms, as one class
    metadata = json.loads(project.read("data/rad/metadata.json"))
    assert metadata["classes"] == ["après", "avant", "no", "yes"]
    assert sum(image["class"] == COMPOSED for image in metadata["images"]) == 4
    assert {f"{COMPOSED}/a.png", f"{DECOMPOSED}/a.png", f"{COMPOSED}/b.png", f"{COMPOSED}/c.png"} <= stored
    for name in ("no", "yes", "avant"):
        shutil.rmtree(raw / name)
    output, _, _ = ingest(project, ok=False)
    assert "has 1 class folder(s); expected two or more" in output.stderr


def test_labels_are_the_same_in_both_forms_of_unicode():
    for classes in ([COMPOSED, "no"], [DECOMPOSED, "no"]):
        for folder in (COMPOSED, DECOMPOSED):
            assert label_of(Path(f"/x/{folder}/deeper/1.png"), classes) == 0


@pytest.mark.parametrize("spelling", ["data/phantom/", "./data/phantom", "data//phantom", "data/./phantom//", "{}/data/phantom/"])
def test_spellings_of_a_source_are_one(spelling, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert Data(source=spelling.format(tmp_path)).source == "data/phantom"


def test_other_paths_stay_what_they_are(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    beside = str(tmp_path.parent / "raw")
    for path, expected in {
        beside: beside,
        "../raw/": "../raw",
        "/data//raw/": "/data/raw",
        "//data": "/data",
        "a b": "a b",
    }.items():
        assert Data(source=path).source == expected


def test_another_spelling_of_the_source_runs_nothing(done):
    lock, params = done.read("dvc.lock"), done.read("params.yaml")
    assert not ran(done.experiment(**{"data.source": "./data//phantom/"}))
    assert (done.read("dvc.lock"), done.read("params.yaml")) == (lock, params)
    card, page = done.read("docs/model-card.md"), done.read("plots/report.html")
    assert "synthetic slices, drawn by the pipeline" in card
    done.edit(data__source="./data/phantom/")
    assert ran(done.run("dvc", "repro")) == ["ingest", "report"]
    assert (done.read("docs/model-card.md"), done.read("plots/report.html")) == (card, page)


def queue(project: Project, source: str, *options: str, ok: bool = False) -> str:
    """What queueing an experiment on a source prints; it is one line, and nothing is queued, if that fails."""
    output = project.run("dvc", "exp", "run", "--queue", "ingest", "-S", f"data.source={source}", *options, ok=ok)
    if not ok:
        assert [line for line in output.splitlines() if line.strip()] == [output.strip()], output
        assert output.stderr.startswith("error: ")
    queued = project.run("dvc", "queue", "status").stdout
    assert ("Queued" in queued) == ok
    assert ("No experiment tasks in the queue" in queued) != ok
    return output


@pytest.mark.parametrize(
    ("arguments", "paths"),
    [
        ("exp run --queue", []),
        ("exp run --temp", []),
        ("experiments run --queue --copy-paths a --copy-paths b/c", ["a", "b/c"]),
        ("exp run", None),
        ("exp run --copy-paths a", None),
        ("repro", None),
        ("exp run --no-such-option", None),
    ],
)
def test_experiments_in_folders_of_their_own_are_told_from_others(arguments, paths, capsys):
    assert queued.copied_paths(arguments.split()) == paths


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/elsewhere/raw", None),
        ("data/copied/deeper", None),
        ("data/tracked", None),
        ("data/tracked/deeper", None),
        ("data/tracked2", "'data/tracked2/a' is neither in DVC nor in Git"),
        ("data/lost", "tracked by data/lost.dvc, .*it is not in Git"),
        ("data/plain", None),
        ("data/link/deeper", "'data/link' is a symbolic link, .*the path that it leads to: data/plain/deeper"),
        ("../raw", "relative path out of the project, .*absolute path: .*/raw"),
        ("data/unknown", "'data/unknown/a' is neither in DVC nor in Git"),
        ("data/hidden", None),
    ],
)
def test_a_path_is_reachable_if_git_or_dvc_or_the_command_brings_it(tmp_path, monkeypatch, path, message):
    (tmp_path / "project/data/plain").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    Path("data/link").symlink_to(Path("data/plain").absolute())
    tracked = {str(Path(f"data/{name}").absolute()): f"data/{name}.dvc" for name in ("tracked", "lost")}
    monkeypatch.setattr(queued, "tracked_by_dvc", lambda: tracked)
    listed = {
        ("--", "data/tracked.dvc"): ["data/tracked.dvc"],
        ("--others", "--", "data/unknown"): ["data/unknown/.DS_Store", "data/unknown/a", "data/unknown/b"],
        ("--others", "--", "data/tracked2"): ["data/tracked2/a"],
        ("--others", "--", "data/copied/deeper"): ["data/copied/deeper/a"],
        ("--others", "--", "data/hidden"): ["data/hidden/.git/a", "data/hidden/Thumbs.db"],
    }
    monkeypatch.setattr(queued, "git_files", lambda *options: listed.get(options, []))
    monkeypatch.setattr(sys, "argv", ["dvc", "exp", "run", "--queue", "--copy-paths", "./data/raw/../copied/"])
    if message:
        with pytest.raises(UserError, match=f"^data.source: .*{message}"):
            queued.check_reachable("data.source", path)
    else:
        queued.check_reachable("data.source", path)
    monkeypatch.setattr(sys, "argv", ["dvc", "repro"])
    queued.check_reachable("data.source", path)


def test_git_lists_names_of_any_kind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tree(tmp_path, "a b.png", "é\n.png", "new.png")
    os.system("git init -q . && git add -- 'a b.png' é*")
    assert {*queued.git_files()} == {"a b.png", "é\n.png"}
    assert queued.git_files("--others") == ["new.png"]


def test_an_experiment_in_a_folder_of_its_own_is_refused_if_it_would_lack_its_files(project):
    shutil.copytree(project.path / "data/raw", project.path.parent / "images")
    (project.path / "data/link").symlink_to(project.path.parent / "images")
    project.run("git", "commit", "-qam", "Parameters")
    absolute = project.path.parent / "images"
    assert "relative path out of the project" in (line := queue(project, "../images"))
    assert line.strip().endswith(f"give the absolute path: {absolute}")
    assert "'data/link' is a symbolic link" in (line := queue(project, "data/link/", "-S", "split.fold=0,1"))
    assert line.strip().endswith(f"give the path that it leads to: {absolute}")
    assert "data/raw/no/0.png' is neither in DVC nor in Git" in queue(project, "data/raw")
    output = project.run("dvc", "exp", "run", "--temp", "ingest", ok=False)
    assert "run `dvc add data/raw` and `git add data/raw.dvc`" in output.stderr
    assert not ran(output)
    for typed in ("ingest --temp --copy-paths data/raw", f"ingest --temp -S data.source={absolute}"):
        assert "8 images" in project.run("dvc", "exp", "run", *typed.split())
    project.run("dvc", "add", "data/raw")
    assert "data/raw.dvc, which" in (line := queue(project, "data/raw"))
    assert line.strip().endswith("it is not in Git; run `git add data/raw.dvc`")
    project.run("git", "add", "data/raw.dvc")
    assert "8 images" in project.run("dvc", "exp", "run", "--temp", "ingest", "-S", "ingest.image_size=33")
    queue(project, "./data/phantom/", ok=True)


def test_a_folder_in_one_that_dvc_tracks_is_a_source_before_it_is_there(project):
    raw = project.path / "data/raw"
    raw.rename(project.path / "set")
    raw.mkdir()
    (project.path / "set").rename(raw / "set")
    project.run("dvc", "add", "data/raw")
    shutil.rmtree(raw)
    assert "8 images" in project.experiment("ingest", **{"data.source": "data/raw/set/"})


def test_images_that_git_knows_only_in_part_are_refused(project):
    project.run("git", "add", "-f", "data/raw/no", "data/raw/yes/0.png")
    project.run("git", "commit", "-qam", "Images")
    (project.path / "data/raw/yes/.DS_Store").write_text("x")
    assert "'data/raw/yes/1.png' is neither in DVC nor in Git" in queue(project, "data/raw")
    project.run("git", "add", "-f", *(f"data/raw/yes/{index}.png" for index in range(4)))
    queue(project, "data/raw", ok=True)
