"""Files between stages that are damaged, or of another data set: one clear line, and `dvc repro` puts them right."""

import json
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from conftest import SMALL

from stages.shared.rad import USER_BLOCK, sealed

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
