"""Damaged files between stages are reported in one line, and `dvc repro` makes them again."""

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from brainmri.common.errors import UserError
from brainmri.parallel import staging
from brainmri.store.format import USER_BLOCK, with_checksum
from brainmri.training.devices import Devices
from tests.support.project import SMALL

INDEX = "data/rad/image_data.h5"
SHARDS = "data/rad/shards"
METADATA = "data/rad/metadata.json"
SPLIT = "data/split.json"
SAMPLE = "data/bootstrap/member-00.json"
MODEL = "models/members/member-00/model.keras"
PREDICTIONS = "models/members/member-01/test.csv"
WEIGHTS = "models/weights.json"
IMAGES = SMALL["phantom.classes.no"] + SMALL["phantom.classes.yes"]
Damage = Callable[[Path], None]


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def replace(content: str) -> Damage:
    """Return a function that replaces the content of a file."""
    return lambda path: path.write_text(content)


def change(change_content: Callable[[dict], object]) -> Damage:
    """Return a function that changes the content of a JSON file."""

    def damage(path: Path) -> None:
        content = json.loads(path.read_text())
        change_content(content)
        path.write_text(json.dumps(content))

    return damage


def each_shard(damage: Damage) -> Damage:
    """Return a function that damages every file in a folder."""

    def damage_all(folder: Path) -> None:
        for file in folder.iterdir():
            damage(file)

    return damage_all


def write_index_of_9(path: Path) -> None:
    with h5py.File(path, "w", userblock_size=USER_BLOCK) as file:
        file["images"] = np.zeros((9, 32, 32, 1), np.uint8)
        file["labels"] = np.zeros(9, np.uint8)
        file["shards"] = np.array(["0" * 32], "S32")
        file["shard_sizes"] = np.array([9], np.uint32)
    path.write_bytes(with_checksum(path.read_bytes()))


def write_index_of_objects(path: Path) -> None:
    with h5py.File(path, "w", userblock_size=USER_BLOCK) as file:
        file.create_dataset("images", (9, 32, 32, 1), h5py.vlen_dtype(np.uint8))
        file["labels"] = np.zeros(9, np.uint8)
    path.write_bytes(with_checksum(path.read_bytes()))


def write_model_with_code(path: Path) -> None:
    images = keras.Input((32, 32, 1))
    doubled = keras.layers.Lambda(lambda image: image * 2)(images)
    keras.Model(images, doubled).save(path)


def remove_class(metadata: dict) -> None:
    metadata["classes"].pop(0)
    metadata["classes"].append("x")


@pytest.mark.parametrize(
    ("stage", "name", "damage", "message"),
    [
        ("split", METADATA, halve, "metadata.json is not valid JSON"),
        (
            "split",
            METADATA,
            replace("[1]"),
            "metadata.json has unexpected content"
            " (the whole file: Input should be a valid dictionary)",
        ),
        (
            "split",
            METADATA,
            replace("{}"),
            "metadata.json has unexpected content (classes: Field required)",
        ),
        (
            "split",
            METADATA,
            change(lambda metadata: metadata["images"][3].pop("sha256")),
            "(images.3.sha256: Field required)",
        ),
        ("split", METADATA, change(remove_class), "does not list the class 'no'"),
        (
            "split",
            METADATA,
            change(lambda metadata: metadata["images"][3].update({"path": "no/../../a"})),
            "leads out of data.source",
        ),
        (
            "split",
            METADATA,
            change(lambda metadata: metadata["images"].clear()),
            "(images: List should have at least 2 items",
        ),
        (
            "bootstrap-sample",
            SPLIT,
            change(lambda split: split["groups"].pop()),
            f"not a split of the {IMAGES} images",
        ),
        (
            "bootstrap-sample",
            SPLIT,
            change(lambda split: split["test"].append("1")),
            "test.10: Input should be a valid integer",
        ),
        (
            "train member-00",
            SAMPLE,
            change(lambda sample: sample["in_bag"].append(IMAGES)),
            "was not drawn from these images",
        ),
        (
            "train member-00",
            SAMPLE,
            change(lambda sample: sample["in_bag"].extend(sample["out_of_bag"])),
            "was not drawn from these",
        ),
        (
            "weigh",
            SAMPLE,
            replace('{"in_bag": [], "out_of_bag": []}'),
            "(in_bag: List should have at least 1 item",
        ),
        ("train member-00", INDEX, write_index_of_9, "not a split of the 9 images"),
        ("train member-00", INDEX, write_index_of_objects, "lacks `images` (uint8"),
        ("train member-00", SHARDS, each_shard(halve), ".h5 is damaged"),
        (
            "train member-00",
            SHARDS,
            each_shard(Path.unlink),
            ".h5 is missing; run `dvc repro --force ingest`",
        ),
        ("export", INDEX, halve, "image_data.h5 is damaged"),
        ("export", MODEL, replace("no model"), "not a model that loads in safe mode"),
        ("export", MODEL, write_model_with_code, "not a model that loads in safe mode"),
        ("evaluate", PREDICTIONS, halve, "member-01/test.csv"),
        ("evaluate", PREDICTIONS, replace('"' + "x" * 200_000), "member-01/test.csv"),
        ("evaluate", WEIGHTS, replace("{"), "weights.json is not valid JSON"),
        (
            "evaluate",
            WEIGHTS,
            change(lambda vote: vote["members"].pop("member-01")),
            "is of other members or classes",
        ),
        (
            "evaluate",
            "metrics/members/member-01.json",
            replace("{}"),
            "member-01.json has unexpected content (out_of_bag:",
        ),
        (
            "export",
            WEIGHTS,
            change(lambda vote: vote["calibrations"]["ensemble"].clear()),
            "temperature: Field",
        ),
        (
            "report",
            "metrics/ensemble.json",
            change(lambda metrics: metrics.update({"accuracy": "high"})),
            "(accuracy: Input should",
        ),
        ("report", "metrics/export.json", replace("null"), "export.json has unexpected content"),
    ],
)
def test_damaged_file_is_named(done, monkeypatch, stage, name, damage, message):
    """In this process, which has imported what takes a process of its own seconds."""
    monkeypatch.chdir(done.path)
    # TensorFlow takes settings of devices only before its first operation
    plain = Devices("float32", None)
    for module in ("training.devices", "training.member"):
        monkeypatch.setattr(f"brainmri.{module}.configure_devices", lambda *_, **__: plain)
    damage(done.path / name)
    name, *arguments = stage.split()
    staging._hash.cache_clear()
    with pytest.raises(UserError) as raised:
        import_module(f"stages.{name.replace('-', '_')}").main(*arguments)
    assert message in " ".join(str(raised.value).split())


@pytest.mark.parametrize(
    ("stage", "name", "damage", "message"),
    [
        ("split", METADATA, halve, "metadata.json is not valid JSON"),
        ("train member-00", SAMPLE, halve, "member-00.json is not valid JSON"),
        ("evaluate", PREDICTIONS, halve, "member-01/test.csv"),
        ("export", MODEL, write_model_with_code, "not a model that loads in safe mode"),
        ("report", "metrics/export.json", replace("null"), "export.json has unexpected content"),
    ],
)
def test_damaged_file_is_printed_in_one_line(done, stage, name, damage, message):
    damage(done.path / name)
    output = done.run("python", "-m", "stages", *stage.split(), ok=False)
    last_line = output.stderr.splitlines()[-1]
    assert message in last_line
    assert last_line.startswith("error: ")
    assert "Traceback" not in output


def test_dvc_repro_repairs_damaged_files(done):
    shards = [f"{SHARDS}/{file.name}" for file in (done.path / SHARDS).iterdir()]
    assert shards
    names = (INDEX, METADATA, SPLIT, SAMPLE, MODEL, WEIGHTS, *shards)
    before = {name: (done.path / name).read_bytes() for name in names}
    for name in names:
        halve(done.path / name)
    done.run("dvc", "repro")
    assert {name: (done.path / name).read_bytes() for name in names} == before
    assert "up to date" in done.run("dvc", "status")
