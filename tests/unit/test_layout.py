"""The layout of a source: misplaced class folders are refused with a command that fixes them."""

import os
import re
import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from brainmri.common.errors import UserError
from brainmri.common.params import Data
from brainmri.images.folder_words import is_class, split_part
from brainmri.images.sources import list_images
from tests.support.checkout import ROOT
from tests.support.trees import data_of, list_folder, make_tree, product

REAL_DATA = ROOT.parent / "shared/data"
MISPLACED = {  # by case: paths, a part of the message, and the source that it suggests
    "unequal": ([*product("train", "a b c"), *product("test", "a d")], "parts of a split", "train"),
    "wrapped": (
        product("archive", "no yes"),
        "has 1 class folder, 'archive'; expected two or more",
        "archive",
    ),
    "wrapped, with notes": (
        [*product("archive", "a b"), "LICENSE"],
        "has 1 class folder, 'archive'",
        "archive",
    ),
    "wrapped, with an image": (
        [*product("archive", "a b"), "scan.png"],
        "has 1 class folder, 'archive'",
        "archive",
    ),
    "wrapped twice, with notes": (
        [*product("x/y", "a b"), "x/README"],
        "has 1 class folder, 'x'",
        "x/y",
    ),
    "wrapped twice": (product("archive/images", "no yes"), "has 1 class folder", "archive/images"),
    "twice": (
        [*product("set", "no yes"), "no/a.png", "yes/a.png"],
        "'no' and 'yes' twice, the second time in 'raw/set'",
        "set",
    ),
    "twice, deeper": (
        [*product("a/b", "no yes"), "no/a.png", "yes/a.png"],
        "twice, the second time in 'raw/a/b'",
        "a/b",
    ),
    "twice, wrapped": (
        [*product("a/set", "no yes"), "a/no/a.png", "a/yes/a.png"],
        "twice",
        "a/set",
    ),
    "odd name": (product("archive(1)", "no yes"), "has 1 class folder", "archive(1)"),
    "collections": (
        product("here there", "no yes"),
        "'no' and 'yes' in 'raw/here' are named as classes",
        "here",
    ),
    "collections, deeper": (product("here/x there/y", "no yes"), "are named as classes", "here/x"),
    "one collection": ([*product("set", "no yes"), "samples/1.png"], "are named as classes", "set"),
    "unusual classes": (
        product("here there", "ab cd"),
        "hold folders of the same names, 'ab' and 'cd'",
        "here",
    ),
    "as many numbered ones as outer ones": (
        product("A B", "stage1 stage2"),
        "hold folders of the same names, 'stage1' and 'stage2'",
        "A",
    ),
    "numbers": (
        product("fold1 fold2", "0 1"),
        "hold folders of the same names, '0' and '1'",
        "fold1",
    ),
}
GIVEN_SPLITS = {  # by case: paths, the folders named in the message, and those suggested
    "test images of fewer classes": (
        [*product("train", "a b c"), *product("test", "a b")],
        "'test' and 'train'",
        "train",
        "test",
    ),
    "test images of one class": (
        [*product("train", "a b"), *product("test", "a")],
        "'test' and 'train'",
        "train",
        "test",
    ),
    "wrapped test images of one class": (
        [*product("train", "a b"), *product("test/images", "a")],
        "'test' and 'train'",
        "train",
        "test/images",
    ),
    "two parts": (
        product("Training Testing", "no yes"),
        "'Testing' and 'Training'",
        "Training",
        "Testing",
    ),
    "capitals": (product("TRAIN TEST", "no yes"), "'TEST' and 'TRAIN'", "TRAIN", "TEST"),
    "words": (
        product("Train_set 2_test", "a b"),
        "'2_test' and 'Train_set'",
        "Train_set",
        "2_test",
    ),
    "Spanish and Chinese": (
        product("entrenamiento 测试集", "a b"),
        "'entrenamiento' and '测试集'",
        "entrenamiento",
        "测试集",
    ),
    "Portuguese": (product("treino teste", "a b"), "'teste' and 'treino'", "treino", "teste"),
    "Russian": (
        product("обучение тест", "a b"),
        "'обучение' and 'тест'",
        "обучение",
        "тест",
    ),
    "validation images only": (
        [*product("train valid", "a b"), "train/_classes.csv", "valid/README"],
        "'train' and 'valid'",
        "train",
        "valid",
    ),
    "wrapped": (
        product("archive/Training archive/Testing", "no yes"),
        "'Testing' and 'Training'",
        "archive/Training",
        "archive/Testing",
    ),
    "wrapped parts": (
        product("train/images test/images", "no yes"),
        "'test' and 'train'",
        "train/images",
        "test/images",
    ),
    "without labels": (
        product("train test unlabel" + "ed", "no yes"),
        "'test', 'train' and 'unlabel" + "ed'",
        "train",
        "test",
    ),
    "hard to quote": (
        [f"{part}/{name}/1.png" for part in ("train (1)", "test '\"=") for name in ("no", "yes")],
        "'test",
        "train (1)",
        "test '\"=",
    ),
}
VALIDATION = {  # by case: folders of training, validation and test images
    "lower case": ("train", "val", "test"),
    "capitals": ("Train", "Validation", "Test"),
    "words": ("Training_set", "validation-images", "Testing_set"),
    "Spanish": ("entrenamiento", "validación", "prueba"),
    "wrapped": ("set/train", "set/val", "set/test"),
    "hard to quote": ("train '1", "val 2", 'test "3"'),
}
SINGLE_COLLECTION = {  # cases in which there is nothing to join
    "wrapped",
    "wrapped, with notes",
    "wrapped, with an image",
    "wrapped twice",
    "wrapped twice, with notes",
    "twice",
    "twice, deeper",
    "twice, wrapped",
    "odd name",
    "one collection",
}


@pytest.mark.parametrize("case", MISPLACED)
def test_misplaced_classes_are_refused_with_a_command(tmp_path, monkeypatch, case):
    paths, message, source = MISPLACED[case]
    monkeypatch.chdir(tmp_path)
    make_tree(tmp_path / "raw", *paths)
    with pytest.raises(UserError) as raised:
        list_folder(Path("raw"))
    line = str(raised.value)
    assert message in line
    assert "\n" not in line

    suggested = re.search(r"`dvc exp run -S '?data\.source=\"?(raw/[^'\"`]*)", line)[1]
    assert suggested.startswith(f"raw/{source}")
    classes, files, _ = list_folder(Path(suggested))
    assert len(classes) > 1
    assert {name for name, _ in files} == {*classes}
    assert all(f"/{name}/" in f"/{path}" for name, path in files)

    join = re.search("`(mkdir .*)` with data.source=(.*?)(;|$)", line)
    assert bool(join) == (case not in SINGLE_COLLECTION)
    if join:
        check_joined(paths, join[1], Path(join[2]))


@pytest.mark.parametrize("case", GIVEN_SPLITS)
def test_splits_are_refused_with_a_command(tmp_path, monkeypatch, case):
    paths, names, training, test = GIVEN_SPLITS[case]
    monkeypatch.chdir(tmp_path)
    make_tree(tmp_path / "raw", *paths)
    with pytest.raises(UserError) as raised:
        list_folder("raw")
    line = str(raised.value)
    assert f"holds {names}" in line
    assert "named as parts of a split" in line
    assert "\n" not in line

    copying, data = suggested_data(line)
    assert copying is None
    assert data == data_of(f"raw/{training}", test=f"raw/{test}")
    images = [f"raw/{path}" for path in paths if path.endswith(".png")]
    for folder, part in ((training, "training"), (test, "test")):
        expected = {path for path in images if path.startswith(f"raw/{folder}/")}
        assert files_of(data, part) == expected


@pytest.mark.parametrize("case", VALIDATION)
def test_validation_images_join_the_training_images(tmp_path, monkeypatch, case):
    """With a command for the shell, which loses no image, whatever the names."""
    training, validation, test = VALIDATION[case]
    monkeypatch.chdir(tmp_path)
    folders = (training, validation, test)
    paths = [
        f"{folder}/{name}/{index}.png" for folder in folders for name in "ab" for index in "12"
    ]
    make_tree(tmp_path / "raw", *paths, f"{validation}/b/3.png")
    with pytest.raises(UserError, match="named as parts of a split") as raised:
        list_folder("raw")

    copying, data = suggested_data(str(raised.value))
    assert data == data_of("raw-training", test=f"raw/{test}")
    assert os.system(copying) == 0
    assert len(files_of(data, "training")) == 9
    assert Path("raw-training/b/3.png").is_file()
    expected = {f"raw/{path}" for path in paths if path.startswith(f"{test}/")}
    assert files_of(data, "test") == expected


def test_validation_images_of_one_class(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_tree(Path("raw"), *product("train test", "a b"), *product("val", "b"))
    with pytest.raises(UserError, match="named as parts of a split") as raised:
        list_folder("raw")
    copying, data = suggested_data(str(raised.value))
    assert os.system(copying) == 0
    assert len(files_of(data, "training")) == 6
    assert len(files_of(data, "test")) == 4


@pytest.mark.parametrize(
    "parts", ["train train2 test", "train test test_2", "train", "test", "test validation"]
)
def test_other_parts_are_no_split(tmp_path, monkeypatch, parts):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw/no").mkdir(parents=True)
    make_tree(tmp_path / "raw", *product(parts, "a b"))
    with pytest.raises(UserError, match="part") as raised:
        list_folder("raw")
    assert "data.test" not in str(raised.value)


def test_split_in_the_test_folder(tmp_path, monkeypatch):
    """The suggestion keeps the parameter, of which the folder is."""
    monkeypatch.chdir(tmp_path)
    make_tree(tmp_path, *product("raw other/train other/test", "a b"), "other/test/a/7.png")
    with pytest.raises(UserError, match=r"^data\.test: 'other' holds") as raised:
        list_images(data_of("raw", test="other"))
    assert "run `dvc exp run -S data.test=other/test`, or use all" in str(raised.value)
    assert "data.source" not in str(raised.value)


def test_split_in_the_test_folder_of_one_class(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_tree(tmp_path, *product("raw other/train", "a b"), *product("other/test", "a"))
    with pytest.raises(UserError, match=r"run `dvc exp run -S data\.test=other/test`, or use all"):
        list_images(data_of("raw", test="other"))


def suggested_data(line: str) -> tuple[str | None, Data]:
    """Return what a message suggests: a command that copies, or None, and the parameters."""
    [command] = re.findall("run `(.*)`$", line)
    *copying, run = command.rsplit(" && ", 1)
    dvc, exp, subcommand, *settings = shlex.split(run)
    assert (dvc, exp, subcommand) == ("dvc", "exp", "run")
    assert settings[::2] == ["-S"] * (len(settings) // 2)
    values = {}
    for override in OverridesParser.create().parse_overrides(settings[1::2]):
        section, name = override.key_or_group.split(".")
        assert section == "data"
        values[name] = override.value()
    return (copying[0] if copying else None), data_of(**values)


def files_of(data: Data, part: str) -> set[str]:
    """Return the files of a part of the split; check that classes are the folders' names."""
    classes, files, _ = list_images(data)
    assert {file.class_name for file in files} == {*classes}
    assert all(f"/{file.class_name}/" in str(file.file) for file in files)
    return {str(file.file) for file in files if file.split == part}


def check_joined(paths: list[str], command: str, source: Path) -> None:
    """Run the command that joins collections; check that no image is lost, whatever the names."""
    assert os.system(command) == 0
    images = [path for path in paths if path.endswith(".png")]
    tables = sorted(Path(path).name for path in paths if not path.endswith(".png"))
    _, files, rejected = list_folder(source)
    assert len(files) == len(images)
    assert rejected == [{"path": name, "reason": "not in a class folder"} for name in tables]


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (
            ["no/1.png", "yes/1.png", "test/1.png"],
            "holds 'test', named as a part of a split, beside 'no' and 'yes'",
        ),
        (["no/1.png", "yes/1.png", "pred/1.png"], "holds 'pred', named as a part of a split"),
        (["train/1.png", "test/1.png"], "named as parts of a split, and no class folders"),
        (["no/1.png", "yes/1.png", "External_Test/1.png"], "named as a part of a split, beside"),
        (
            ["no/1.png", "yes/1.png", "masks/1.png"],
            "holds 'masks', named as masks or annotations; expected one folder for each class",
        ),
        (["images/1.png", "Ground_Truth/1.png"], "holds 'Ground_Truth', named as masks"),
        (["labels/1.png", "masks/1.png"], "holds 'labels' and 'masks', named as masks"),
        (
            [f"{name}/1.png" for name in ("glioma", "glioma_mask", "no", "T1-Segmentations")],
            "holds 'T1-Segmentations' and 'glioma_mask', named as masks",
        ),
        (product("train test", "images labels"), "/test' holds 'labels', named as masks"),
        (
            ["no/1.png", "yes/1.png", "boxes/TRAIN/1.png", "boxes/TEST/1.png"],
            "boxes' holds 'TEST' and 'TRAIN', named as parts of a split, but other class",
        ),
        (product("T1 T2", "stage0 stage1 stage2"), "so that either may be the classes"),
        (
            ["no/1.png", "yes/1.png", "more/yes/1.png"],
            "more/yes' is in '.*more', but named as another class",
        ),
        (["1/1.png", "a/1/1.png", "b/1.png"], "a/1' is in '.*a', but named as another class"),
    ],
)
def test_folders_with_misleading_names_are_refused(tmp_path, paths, message):
    with pytest.raises(UserError, match=message):
        list_folder(make_tree(tmp_path, *paths))


@pytest.mark.parametrize(
    ("folders", "parts"),
    [
        (["no_test", "no_train", "yes_test", "yes_train"], 4),
        (["test no", "test yes", "train no", "train yes"], 4),
        (["AD", "CN-Train-Set", "CN_val"], 2),
        (["grade_2", "grade_3_test", "grade_3_train"], 2),
        (["No Tumor train", "notumor_test", "tumor"], 2),
        (["no", "yes", "yes_augmented"], 2),
        (["Augmented-Yes", "no", "yes"], 2),
        (["AD", "AD - Copy", "CN"], 2),
        (["mask_no", "no", "yes"], 2),
    ],
)
def test_parts_of_one_class_are_refused(tmp_path, folders, parts):
    make_tree(tmp_path, *[f"{folder}/1.png" for folder in folders])
    with pytest.raises(UserError, match="named as parts or copies of the same classes") as raised:
        list_folder(tmp_path)
    names = re.search("holds (.*), named", str(raised.value))[1]
    assert len(re.split(", | and ", names)) == parts


@pytest.mark.parametrize(
    "folders",
    [
        ["no_train", "yes_train"],
        ["augmented_no", "augmented_yes"],
        ["no_train", "yes_test"],
        ["grade_2_train", "grade_3_train"],
        ["label_0", "label_1"],
        ["valid", "invalid"],
        ["no test", "test done"],
        ["No Tumor", "notumor"],
        ["old stroke", "stroke"],
        ["no", "no_mask"],
        ["with_mask", "without_mask"],
        ["copy_number_gain", "copy_number_loss"],
    ],
)
def test_words_of_a_split_in_names_of_classes(tmp_path, folders):
    classes, *_ = list_folder(make_tree(tmp_path, *[f"{folder}/1.png" for folder in folders]))
    assert classes == sorted(folders)


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
        [*product("a b", "p1 p2 p3"), "a/p4/1.png"],
        ["label_0/1.png", "label_1/1.png"],
        product("a b c", "p1 p2 p3 p4 p5 p6 p7"),
    ],
)
def test_folders_in_a_class_are_parts_of_it(tmp_path, paths):
    classes, files, rejected = list_folder(make_tree(tmp_path, *paths))
    assert classes == sorted({path.split("/")[0] for path in paths})
    assert sorted(files) == sorted((path.split("/")[0], path) for path in paths)
    assert not rejected


def test_folders_are_parts_of_classes_if_a_class_has_none(tmp_path):
    (tmp_path / "e").mkdir()
    classes, _, _ = list_folder(make_tree(tmp_path, *product("a b", "here there")))
    assert classes == ["a", "b", "e"]


@pytest.mark.parametrize(
    ("paths", "is_explained"),
    [
        (product("a b", "axial sagittal"), True),
        (product("no yes", "here there"), True),
        (product("no yes", "here"), False),
        ([*product("no", "here there"), *product("yes", "here now")], False),
        ([*product("no yes", "here there"), "no/1.png"], True),
        ([*product("no yes", "here there"), "maybe/1.png"], False),
    ],
)
def test_shared_subfolders_are_explained(tmp_path, capsys, paths, is_explained):
    list_folder(make_tree(tmp_path, *paths))
    assert ("are taken as parts of each" in capsys.readouterr().out) == is_explained


@pytest.mark.parametrize(
    ("folders", "suggested"),
    [
        ("fold_0/train fold_0/val fold_1/train fold_1/val", ("fold_0/train", "fold_0/val")),
        ("Augmented/train Augmented/test Raw/train Raw/test", ("Raw/train", "Raw/test")),
        ("sets/Training sets/Testing more", ("sets/Training", "sets/Testing")),
        ("main test", ("main", "test")),
    ],
)
def test_splits_within_folders_are_refused_with_a_command(
    tmp_path, monkeypatch, folders, suggested
):
    monkeypatch.chdir(tmp_path)
    make_tree(Path("raw"), *product(folders, "AD CN"))
    with pytest.raises(UserError, match="with the class folders in them; run") as raised:
        list_folder("raw")
    _, data = suggested_data(str(raised.value))
    assert (data.source, data.test) == tuple(f"raw/{folder}" for folder in suggested)
    assert len(files_of(data, "training")) == len(files_of(data, "test")) == 4


def test_test_images_without_class_folders_are_not_suggested(tmp_path):
    make_tree(tmp_path, *product("set/train", "a b"), "set/test/1.png", *product("more", "c d"))
    with pytest.raises(UserError, match=r"class folders in them; run .*/set/train`$"):
        list_folder(tmp_path)


def test_test_folder_beside_the_classes_is_moved_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_tree(Path("raw"), *product("test", "no yes"), "no/1.png", "yes/1.png")
    with pytest.raises(UserError, match="part") as raised:
        list_folder("raw")
    move, data = suggested_data(str(raised.value))
    assert os.system(move) == 0
    assert files_of(data, "training") == {"raw/no/1.png", "raw/yes/1.png"}
    assert len(files_of(data, "test")) == 4


def test_test_folder_of_a_single_class(tmp_path, capsys):
    make_tree(tmp_path, *product("raw", "no yes"), *product("test", "yes"))
    data = data_of(tmp_path / "raw", test=str(tmp_path / "test"))
    classes, files, _ = list_images(data)
    assert classes == ["no", "yes"]
    assert [file.class_name for file in files if file.split == "test"] == ["yes", "yes"]
    assert "has no folder 'no'" in capsys.readouterr().out


def test_split_of_each_class_is_joined_with_a_warning(tmp_path, capsys):
    classes, files, _ = list_folder(make_tree(tmp_path, *product("glioma no", "train test")))
    assert (classes, len(files)) == (["glioma", "no"], 8)
    assert "this split is not used, all images are taken" in capsys.readouterr().out


def test_augmented_copies_are_not_suggested(tmp_path):
    make_tree(tmp_path, *product("AugmentedSet OriginalSet", "ab cd"), "AugmentedSet/ab/7.png")
    with pytest.raises(UserError, match=r"data.source=\S*/OriginalSet`; leave augmented") as raised:
        list_folder(tmp_path)
    assert "use all" not in str(raised.value)


@pytest.mark.parametrize("copies", ["augmented", "Augmented Data/set", "backup/old", "Copy of set"])
def test_copies_beside_the_classes_are_not_suggested(tmp_path, copies):
    paths = [
        f"{folder}/{name}/1.png" for folder in (".", copies) for name in ("no", "other", "yes")
    ]
    with pytest.raises(UserError, match=r"twice, the second time in .*; move these, named as cop"):
        list_folder(make_tree(tmp_path, *paths))


@pytest.mark.parametrize("patient", [None, "/([^/.-]+)[^/]*$"])
def test_augmented_copies_are_named(tmp_path, capsys, patient):
    source = make_tree(tmp_path / "raw", "no/1.png", "yes/Augmented/1.png", "yes/2.png")
    list_images(data_of(source, **({"patient": patient} if patient else {})))
    warning = "warning: 1 of 3 images are augmented copies by their names, such as 'yes/Augmented"
    assert (warning in capsys.readouterr().out) == (patient is None)


def test_masks_of_images_are_skipped(tmp_path):
    paths = ["no/1.png", "no/1_mask.png", "no/Masks/1.png", "no/b_mask.png", "yes/mask.png"]
    _, files, rejected = list_folder(make_tree(tmp_path, *paths))
    assert [path for _, path in files] == ["no/1.png", "no/b_mask.png", "yes/mask.png"]
    assert rejected == [
        {"path": path, "reason": "a mask, by its name"} for path in ("no/1_mask.png", paths[2])
    ]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("7.jpg", "mask_7.jpg"),
        ("7.jpg", "7_mask_1.jpg"),
        ("benign (1).png", "benign (1)_mask.png"),
        ("benign (1).png", "benign (1)_mask_1.png"),
        ("P1.png", "P1_seg(2).tif"),
        ("7.png", "máscaras/7.png"),
        ("7.png", "mascaras/7.png"),
        ("7.png", "Masques/7.png"),
        ("7.png", "Masken/7.png"),
        ("7.png", "maschere/7.png"),
        ("7.png", "tumor_masks/7.png"),
        ("7.png", "Tumor Segmentation/7.png"),
    ],
)
def test_masks_by_other_names(tmp_path, image, mask):
    make_tree(tmp_path, "no/1.png", f"yes/{image}", f"yes/{mask}")
    _, files, rejected = list_folder(tmp_path)
    assert [path for _, path in files] == ["no/1.png", f"yes/{image}"]
    assert rejected == [{"path": f"yes/{mask}", "reason": "a mask, by its name"}]


@pytest.mark.parametrize(
    "name",
    [
        "mask_8.png",
        "8_mask_1.png",
        "7_1.png",
        "no_masks/7.png",
        "without segmentation/7.png",
        "with_mask/7.png",
        "pre_segmentation/7.png",
        "damask/7.png",
    ],
)
def test_names_that_are_not_of_masks(tmp_path, name):
    _, files, rejected = list_folder(make_tree(tmp_path, "no/1.png", "yes/7.png", f"yes/{name}"))
    assert len(files) == 3
    assert not rejected


@pytest.mark.parametrize(("count", "is_named"), [(9, False), (10, True)])
def test_classes_that_may_be_patients_are_named(tmp_path, capsys, count, is_named):
    list_folder(make_tree(tmp_path, *[f"TCGA_{index}/1.png" for index in range(count)]))
    warning = f"warning: {count} classes, such as 'TCGA_0' and 'TCGA_1', differ only in numbers"
    assert (warning in capsys.readouterr().out) == is_named


def test_patients_of_one_class_each_are_not_the_classes(tmp_path):
    """None of them can be the source."""
    make_tree(tmp_path, *product("P1 P2", "no"), *product("P3 P4", "yes"))
    with pytest.raises(UserError) as raised:
        list_folder(tmp_path)
    message = str(raised.value)
    assert "'P1', 'P2', 'P3' and 'P4' hold folders of the same names, 'no' and 'yes'" in message
    assert "for the inner ones, use all after `mkdir " in message
    assert "if the outer ones are patients, keep them apart by a table" in message
    assert "dvc exp run" not in message


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (
            "siteA/yes siteB/no siteC/yes",
            "several of 'siteA', 'siteB' and 'siteC' hold .* name, 'yes'",
        ),
        ("siteA/AD siteA/CN siteB/AD siteB/MCI", "'siteA' and 'siteB' hold .* same name, 'AD'"),
        ("Charite/meningioma Mayo/glioma Paz/glioma", "hold folders of the same name, 'glioma'"),
        ("A/yes/P1 B/no/P2 C/yes/P3 D/no/P4", "hold folders of the same names, 'no' and 'yes'"),
        ("A/set/AD B/set/CN C/set/AD", "hold folders of the same name, 'AD'"),
    ],
)
def test_sites_that_lack_classes_are_refused(tmp_path, monkeypatch, folders, names):
    monkeypatch.chdir(tmp_path)
    paths = [f"{folder}/{index}.png" for folder in folders.split() for index in range(2)]
    make_tree(Path("raw"), *paths)
    with pytest.raises(UserError, match=f"{names}, so that either may be the classes") as raised:
        list_folder("raw")
    join = re.search("use all after `(mkdir .*)` with data.source=(.*?);", str(raised.value))
    check_joined(paths, join[1], Path(join[2]))
    assert {*list_folder(join[2])[0]} < {name for path in paths for name in path.split("/")}


@pytest.mark.parametrize(
    ("folders", "is_explained"),
    [
        ("AD/P01 AD/P02 CN/P01 CN/P03", True),
        ("AD/extra AD/P02 CN/extra CN/P03", True),
        ("AD/a AD/b AD/c AD/d CN/a CN/e CN/g CN/h", True),
        ("AD AD/a AD/b CN/a CN/c", True),
        ("AD/a AD/b CN/a CN/c MCI", True),
        ("AD/images CN/images MCI/imgs", False),
        ("AD/train CN/test MCI/train", False),
        ("AD/axial AD/other CN/axial CN/more", False),
        ("AD/a AD/augmented CN/a CN/masks", False),
        ("AD/S1/anat CN/S2/anat MCI/S3/anat MCI/S4/anat", False),
        ("AD/slices CN/slices MCI/png", False),
        ("AD/anat CN/anat CN/func", True),
        ("Autism/NYU Autism/UCLA TC/NYU TC/USM", True),
        ("AD/a CN/a MCI/a", False),
        ("AD/a CN/b", False),
        ("normal/GE normal/Siemens AD/GE AD/Philips", False),
    ],
)
def test_folders_of_some_classes_are_parts_of_them(tmp_path, capsys, folders, is_explained):
    paths = [f"{folder}/{index}.png" for folder in folders.split() for index in range(2)]
    classes, *_ = list_folder(make_tree(tmp_path, *paths))
    assert classes == sorted({path.split("/")[0] for path in paths})
    assert ("are taken as parts of each" in capsys.readouterr().out) == is_explained


def test_an_image_beside_the_classes_does_not_hide_them(tmp_path):
    make_tree(tmp_path, *product("A B", "ab cd"), "A/overview.png")
    with pytest.raises(
        UserError, match="'A' and 'B' hold folders of the same names, 'ab' and 'cd'"
    ):
        list_folder(tmp_path)


def test_files_of_unknown_type_may_be_images(tmp_path):
    make_tree(tmp_path, *product("x/y", "a b"), "x/IM0001")
    message = r"has 1 class folder\(s\); expected two or more, one for each class, or a table"
    with pytest.raises(UserError, match=message):
        list_folder(tmp_path)


def test_two_ambiguous_names_are_parts_of_a_split(tmp_path):
    assert list_folder(make_tree(tmp_path / "a", "val/1.png", "no/1.png"))[0] == ["no", "val"]
    with pytest.raises(UserError, match="parts of a split"):
        list_folder(make_tree(tmp_path / "b", "val/1.png", "dev/1.png"))


def test_largest_collection_is_suggested(tmp_path):
    paths = [*product("train1 train2", "a b"), "train1/a/deeper/7.png", "train2/c.png"]
    with pytest.raises(UserError, match=r"data.source=.*/train1`, or use all"):
        list_folder(make_tree(tmp_path, *paths, "train1/a/deeper/8.png"))
    with pytest.raises(UserError, match=r"data.source=.*/train2`, or use all"):
        list_folder(make_tree(tmp_path, "train2/b/8.png", "train2/b/9.png"))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("train", "training"),
        ("Training", "training"),
        ("TEST", "test"),
        ("test_set", "test"),
        ("TrainingSet", "training"),
        ("train2017", "training"),
        ("1-val images", "validation"),
        ("Validation", "validation"),
        ("prueba", "test"),
        ("images_test", "test"),
        ("unlabel" + "ed", "no labels"),
        ("unlabel" + "led", "no labels"),  # British
    ],
)
def test_names_of_parts_of_a_split(name, part):
    assert split_part(name) == part


@pytest.mark.parametrize(
    "name",
    ["yes", "set", "data", "trained", "contest", "tested", "images", "validity", "no test"],
)
def test_names_of_other_folders(name):
    assert not split_part(name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("tumo" + "r", True), ("No_tumo" + "ur", True), ("glioma", True), ("tumors", False)],
)
def test_names_of_classes(name, expected):
    assert is_class(name) == expected


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason=f"{REAL_DATA} is missing")
def test_real_collections_are_listed():
    message = r"'Testing' and 'Training', named as parts of a split"
    with pytest.raises(UserError, match=message) as raised:
        list_folder(REAL_DATA / "four_class")
    _, data = suggested_data(str(raised.value))
    assert len(files_of(data, "training")) == 1624
    assert len(files_of(data, "test")) == 458
    classes, files, rejected = list_folder(REAL_DATA / "four_class/Training")
    assert classes == ["glioma", "meningioma", "notumor", "pituitary"]
    assert (len(files), rejected) == (1624, [])
    classes, files, rejected = list_folder(REAL_DATA / "brain_mri")
    assert classes == ["no", "yes"]
    assert (len(files), rejected) == (253, [])
