"""Files between stages that are damaged, or of another data set: one clear line, and `dvc repro` puts them right."""

import json
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from conftest import SMALL

from stages.shared.errors import UserError
from stages.shared.rad import USER_BLOCK, sealed
from stages.shared.results import read_figures, read_out_of_bag, read_vote

RAD, METADATA, SPLIT = "data/rad/image_data.h5", "data/rad/metadata.json", "data/split.json"
SHARDS, SAMPLE, MODEL = "data/rad/shards", "data/bootstrap/member-00.json", "models/members/member-00/model.keras"
IMAGES = SMALL["phantom.classes.no"] + SMALL["phantom.classes.yes"]


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def written(content: str):
    return lambda path: path.write_text(content)


def changed(change):
    """A JSON file with something changed in it."""

    def damage(path: Path) -> None:
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return damage


def of_fewer_images(path: Path) -> None:
    with h5py.File(path, "w", userblock_size=USER_BLOCK) as file:
        file["images"], file["labels"] = np.zeros((9, 32, 32, 1), np.uint8), np.zeros(9, np.uint8)
        file["shards"], file["shard_sizes"] = np.array(["0" * 32], "S32"), np.array([9], np.uint32)
    path.write_bytes(sealed(path.read_bytes()))


def of_objects(path: Path) -> None:
    with h5py.File(path, "w", userblock_size=USER_BLOCK) as file:
        file.create_dataset("images", (9, 32, 32, 1), h5py.vlen_dtype(np.uint8))
        file["labels"] = np.zeros(9, np.uint8)
    path.write_bytes(sealed(path.read_bytes()))


def each_shard(damage):
    """The same damage to every file in a folder."""

    def damage_all(folder: Path) -> None:
        for file in folder.iterdir():
            damage(file)

    return damage_all


def with_code(path: Path) -> None:
    images = keras.Input((32, 32, 1))
    doubled = keras.layers.Lambda(lambda image: image * 2)(images)
    keras.Model(images, doubled).save(path)


@pytest.mark.parametrize(
    ("stage", "name", "damage", "told"),
    [
        ("split", METADATA, halved, "metadata.json is not valid JSON"),
        (
            "split",
            METADATA,
            written("[1]"),
            "metadata.json is not what it should be (all of it: Input should be a valid dictionary)",
        ),
        ("split", METADATA, written("{}"), "metadata.json is not what it should be (classes: Field required)"),
        ("split", METADATA, changed(lambda told: told["images"][3].pop("sha256")), "(images.3.sha256: Field required)"),
        (
            "split",
            METADATA,
            changed(lambda told: told["classes"].pop(0) and told["classes"].append("x")),
            "does not list the class 'no'",
        ),
        ("split", METADATA, changed(lambda told: told["images"][3].update({"path": "no/../../a"})), "leads out of data.source"),
        ("split", METADATA, changed(lambda told: told["images"].clear()), "(images: List should have at least 2 items"),
        ("bootstrap_sample", SPLIT, changed(lambda split: split["groups"].pop()), f"not a split of the {IMAGES} images"),
        ("bootstrap_sample", SPLIT, changed(lambda split: split["test"].append("1")), "test.10: Input should be a valid integer"),
        ("train member-00", SAMPLE, changed(lambda sample: sample["in_bag"].append(IMAGES)), "was not drawn from these images"),
        ("train member-00", SAMPLE, changed(lambda one: one["in_bag"].extend(one["out_of_bag"])), "was not drawn from these"),
        ("weigh", SAMPLE, written('{"in_bag": [], "out_of_bag": []}'), "(in_bag: List should have at least 1 item"),
        ("train member-00", RAD, of_fewer_images, "not a split of the 9 images"),
        ("train member-00", RAD, of_objects, "lacks `images` (uint8"),
        ("train member-00", SHARDS, each_shard(halved), ".h5 is damaged"),
        ("train member-00", SHARDS, each_shard(Path.unlink), ".h5 is missing; run `dvc repro --force ingest`"),
        ("export", RAD, halved, "image_data.h5 is damaged"),
        ("export", MODEL, written("no model"), "not a model that loads in safe mode"),
        ("export", MODEL, with_code, "not a model that loads in safe mode"),
        ("evaluate", "models/members/member-01/test.csv", halved, "member-01/test.csv"),
        ("evaluate", "models/members/member-01/test.csv", written('"' + "x" * 200_000), "member-01/test.csv"),
        ("evaluate", "models/weights.json", written("{"), "weights.json is not valid JSON"),
        ("evaluate", "models/weights.json", changed(lambda vote: vote["members"].pop("member-01")), "is not of these members"),
        ("evaluate", "metrics/members/member-01.json", written("{}"), "member-01.json is not what it should be (out_of_bag:"),
        ("export", "models/weights.json", changed(lambda vote: vote["calibrations"]["ensemble"].clear()), "temperature: Field"),
        ("report", "metrics/ensemble.json", changed(lambda told: told.update({"accuracy": "high"})), "(accuracy: Input should"),
        ("report", "metrics/export.json", written("null"), "export.json is not what it should be"),
    ],
)
def test_a_damaged_file_is_named_in_one_line(done, stage, name, damage, told):
    damage(done.path / name)
    output = done.run("python", "-m", *f"stages.{stage}".split(), ok=False)
    assert told in output.stderr.splitlines()[-1]
    assert output.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in output


def test_dvc_repro_puts_damaged_files_right(done):
    shards = [f"{SHARDS}/{file.name}" for file in (done.path / SHARDS).iterdir()]
    assert shards
    names = (RAD, METADATA, SPLIT, SAMPLE, MODEL, "models/weights.json", *shards)
    before = {name: (done.path / name).read_bytes() for name in names}
    for name in before:
        halved(done.path / name)
    done.run("dvc", "repro")
    assert before == {name: (done.path / name).read_bytes() for name in before}
    assert "up to date" in done.run("dvc", "status")


MEMBERS, CLASSES = ["member-00", "member-01"], ["a", "b", "c"]


def vote() -> dict:
    """The content of models/weights.json."""
    calibration = {"temperature": 0.8, "biases": [0.0, 0.5, -0.5]}
    voters = ["ensemble", "uniform vote", *MEMBERS]
    members = {name: {"score": 0.5, "weight": 0.5} for name in MEMBERS}
    return {"scheme": "auc", "calibrations": {name: dict(calibration) for name in voters}, "members": members}


@pytest.mark.parametrize(
    "change",
    [
        lambda vote: vote["members"].pop("member-01"),
        lambda vote: vote["members"].update({"member-02": {"score": 0.5, "weight": 0.0}}),
        lambda vote: vote.update(members=dict(reversed(vote["members"].items()))),
        lambda vote: vote["calibrations"].pop("ensemble"),
        lambda vote: vote["calibrations"].pop("uniform vote"),
        lambda vote: vote["calibrations"].pop("member-01"),
        lambda vote: vote["calibrations"].update(other=vote["calibrations"]["ensemble"]),
        lambda vote: vote["calibrations"]["member-00"].update(biases=[0.0, 0.5]),
        lambda vote: vote["calibrations"]["ensemble"].update(temperature=0.0),
        lambda vote: vote["calibrations"]["ensemble"].update(temperature=float("inf")),
        lambda vote: vote["calibrations"]["ensemble"].update(biases=[0.0, float("nan"), 0.0]),
        lambda vote: vote["members"]["member-00"].update(weight=-0.1),
        lambda vote: vote["members"]["member-00"].update(weight=1.1),
    ],
)
def test_a_vote_of_other_members_classes_or_values_is_refused(tmp_path, monkeypatch, change):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    content = vote()
    (tmp_path / "models/weights.json").write_text(json.dumps(content))
    assert read_vote(MEMBERS, CLASSES) == content
    change(content)
    (tmp_path / "models/weights.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"models/weights\.json"):
        read_vote(MEMBERS, CLASSES)


def test_each_members_own_out_of_bag_figures_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "metrics/members").mkdir(parents=True)
    for number, name in enumerate(MEMBERS):
        content = {"out_of_bag": {"accuracy": number / 2, "log_loss": 9.5, "images": number}, "epochs": 2}
        (tmp_path / f"metrics/members/{name}.json").write_text(json.dumps(content))
    assert read_out_of_bag("member-01") == {"accuracy": 0.5, "log_loss": 9.5, "images": 1}
    for key, value in {"accuracy": 1.5, "log_loss": None, "images": -1}.items():
        content = {"out_of_bag": {"accuracy": 0.5, "log_loss": 9.5, "images": 1, key: value}}
        (tmp_path / "metrics/members/member-00.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match=key):
            read_out_of_bag("member-00")


@pytest.mark.parametrize(
    "change",
    [
        {"accuracy": 1.1},
        {"accuracy": None},
        {"log_loss": None},
        {"expected_calibration_error": -0.1},
        {"interval": {"accuracy": [0.1, 0.5, 0.9], "balanced_accuracy": None, "roc_auc": None}},
        {"interval": {"accuracy": [0.1], "balanced_accuracy": None, "roc_auc": None}},
        {"independent_groups": {"a": 3}},
        {"best_member": {"accuracy": 0.5, "balanced_accuracy": 0.5, "roc_auc": None, "log_loss": 0.5}},
        {"at_threshold": {"threshold": 0.5, "sensitivity": 1.5, "specificity": None}},
    ],
    ids=str,
)
def test_figures_that_can_not_be_are_refused(tmp_path, monkeypatch, change):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "metrics").mkdir()
    headlines = {"accuracy": 0.5, "balanced_accuracy": None, "roc_auc": None, "log_loss": 0.5}
    content = {
        **headlines,
        **dict.fromkeys(("average_precision", "f1")),
        **dict.fromkeys(("brier_score", "expected_calibration_error"), 0.2),
        "recall": {"a": 1.0, "b": None},
        "interval": {"accuracy": [0.1, 0.9], "balanced_accuracy": None, "roc_auc": None},
        "independent_groups": {"a": 3, "b": 0},
        "test_images": 3,
        "best_member": {"name": "member-00", **headlines},
        "mean_member": headlines,
        "uniform_vote": headlines,
    }
    (tmp_path / "metrics/ensemble.json").write_text(json.dumps(content))
    assert read_figures() == content
    (tmp_path / "metrics/ensemble.json").write_text(json.dumps({**content, **change}))
    with pytest.raises(UserError, match=next(iter(change))):
        read_figures()
