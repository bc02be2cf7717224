"""Tables of labels, patients and given test sets, from the command line on."""

import json
import re
from itertools import count

import pytest

from tests.pipeline.test_ingest import store_files
from tests.support.images import encode_noise
from tests.support.ingest import INGEST
from tests.support.project import Project, error_lines, ran

SPLIT = ("python", "-m", "stages", "split")
SEEDS = count()
PATHS = [f"{folder}/{number}.png" for folder in ("P1", "P2", "P3") for number in range(4)]


def write_images(project: Project, folder: str, paths: list[str]) -> None:
    """Write images, each of its own, below a folder of data."""
    for path in paths:
        file = project.path / "data" / folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode_noise(next(SEEDS)))


def write_table(project: Project, split_of: dict[str, str]) -> None:
    """Write a table with patients and a split, by patient; images alternate between classes."""
    lines = ["path;class;patient;split"]
    for number, path in enumerate(PATHS):
        patient = path.partition("/")[0]
        lines.append(f"{path};{('no', 'yes')[number % 2]};{patient};{split_of[patient]}")
    (project.path / "data/table.csv").write_text("\n".join(lines) + "\n")


def paths_of(project: Project, part: str) -> set[str]:
    """Return the paths of the test, training or excluded images."""
    images = json.loads(project.read("data/rad/metadata.json"))["images"]
    return {images[row]["path"] for row in json.loads(project.read("data/split.json"))[part]}


def paths_of_patients(*patients: str) -> set[str]:
    return {path for path in PATHS if path.startswith(patients)}


@pytest.fixture
def slices(fresh) -> Project:
    """A project with slices of three patients, who have both classes, and a table of them."""
    write_images(fresh, "slices", PATHS)
    write_table(fresh, {"P1": "training", "P2": "test", "P3": "training"})
    fresh.edit(ingest__image_size=32)
    return fresh


def test_table_and_its_changes(slices):
    settings = ("-S", "data.source=data/slices", "-S", "data.labels=data/table.csv")
    output = slices.run("dvc", "exp", "run", "split", *settings)
    assert ran(output) == ["ingest", "split"]
    assert "3 patients; 3 of them have images of several classes" in output
    assert slices.params["data"]["labels"] == slices.params["further_input"] == "data/table.csv"
    assert json.loads(slices.read("metrics/ingest.json"))["patients"] == 3
    assert paths_of(slices, "test") == paths_of_patients("P2")
    assert paths_of(slices, "training") == paths_of_patients("P1", "P3")

    write_table(slices, {"P1": "test", "P2": "training", "P3": "test"})
    assert ran(slices.run("dvc", "repro", "split")) == ["ingest", "split"]
    assert paths_of(slices, "test") == paths_of_patients("P1", "P3")


def test_suggested_test_folder_and_its_changes(fresh):
    """The message about `Training` and `Testing` has the command that works."""
    training, testing = (
        [f"{name}/{part} {number}.png" for name in ("no", "yes") for number in range(images)]
        for part, images in (("a", 4), ("b", 2))
    )
    write_images(fresh, "mri/Training", training)
    write_images(fresh, "mri/Testing", testing)
    fresh.edit(data__source="data/mri", ingest__image_size=32)
    [line] = error_lines(fresh.run(*INGEST, ok=False))
    [command] = re.findall("run `(dvc exp run .*)`", line)
    assert command == "dvc exp run -S data.source=data/mri/Training -S data.test=data/mri/Testing"

    output = fresh.run("sh", "-c", command.replace("run", "run split", 1))
    assert ran(output) == ["ingest", "split"]
    assert paths_of(fresh, "test") == {f"Testing/{path}" for path in testing}
    assert paths_of(fresh, "training") == {*training}

    copied = fresh.path / "data/mri/Testing/yes/c.png"
    copied.write_bytes((fresh.path / "data/mri/Training/yes/a 0.png").read_bytes())
    output = fresh.run("dvc", "repro", "split")
    assert ran(output) == ["ingest", "split"]
    assert "1 of 8 training images are near duplicates of given test images" in output
    assert paths_of(fresh, "excluded") == {"yes/a 0.png"}

    before = fresh.read("data/split.json")
    fresh.edit(split__overlap="error")
    [line] = error_lines(fresh.run(*SPLIT, ok=False))
    assert "such as 'yes/a 0.png' with 'Testing/yes/c.png'; expected none" in line
    assert fresh.read("data/split.json") == before


def test_mistakes_change_nothing(slices):
    slices.edit(
        data__source="data/slices", data__labels="data/table.csv", further_input="data/table.csv"
    )
    slices.run(*INGEST)
    before = store_files(slices), slices.read("metrics/ingest.json")
    table = slices.read("data/table.csv")
    for content, message in (
        (table.replace("path;", "file;"), "data/table.csv: no column 'path' among 'file'"),
        (table.replace("P3/0.png", "P3/9.png"), "1 of 12 paths are missing, such as 'P3/9.png'"),
        (table.replace(";test", ";val"), "data/table.csv, line 6: split is 'val'"),
        (re.sub(";P[12];", ";P3;", table), "data.labels: the column patient gives all 12 images"),
    ):
        (slices.path / "data/table.csv").write_text(content)
        output = slices.run(*INGEST, ok=False)
        [line] = error_lines(output)
        assert message in line
        assert "Traceback" not in output
        assert (store_files(slices), slices.read("metrics/ingest.json")) == before

    params = slices.read("params.yaml")
    settings = ("-S", "data.labels=data/tabel.csv")
    [line] = error_lines(slices.run("dvc", "exp", "run", "split", *settings, ok=False))
    assert "data.labels: 'data/tabel.csv' is missing" in line
    assert slices.read("params.yaml") == params
    slices.edit(data__labels=None)
    [line] = error_lines(slices.run(*INGEST, ok=False))
    assert "the derived key `further_input` (data/table.csv) does not fit" in line
    assert (store_files(slices), slices.read("metrics/ingest.json")) == before
