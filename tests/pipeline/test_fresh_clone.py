"""A whole run in a fresh clone whose files are links into DVC's cache, with one job at a time."""

import hashlib
import json
from pathlib import Path

import h5py
import pytest

from tests.support.project import Output, Project


@pytest.fixture(scope="module")
def clone(sources, small, tmp_path_factory) -> tuple[Project, Output]:
    """A clone in which the pipeline has run as in the small project, and what DVC printed."""
    folder = tmp_path_factory.mktemp("clone")
    project = sources.copy(folder)
    project.run("dvc", "config", "--local", "cache.type", "symlink")
    project.run("dvc", "config", "--local", "cache.dir", str(folder / "cache"))
    (project.path / "params.yaml").write_text(small.read("params.yaml"))
    project.edit(fan_out__jobs=1)
    return project, project.run("dvc", "repro")


def test_bytes_are_those_of_another_run_with_any_jobs(clone, small):
    project, output = clone
    assert "1 at a time" in output
    assert project.read("dvc.lock") == small.read("dvc.lock")
    assert "up to date" in project.run("dvc", "status")
    lines = project.run("git", "status", "--porcelain").stdout.splitlines()
    assert " M params.yaml" in lines
    assert not [line for line in lines if line.startswith("??")]


def damaged_objects(cache: Path) -> list[str]:
    """Return the objects of a cache whose content does not fit their names."""
    files = [path for path in (cache / "files/md5").rglob("*") if path.is_file()]
    objects = [path for path in files if path.suffix != ".dir"]
    assert objects
    return [
        str(path)
        for path in objects
        if hashlib.md5(path.read_bytes()).hexdigest() != path.parent.name + path.name
    ]


def test_nothing_writes_through_links_into_the_cache(clone, tmp_path):
    project = clone[0].copy(tmp_path)
    cache = clone[0].path.parent / "cache"
    assert (project.path / "data/phantom/no/no-000.png").is_symlink()
    assert (project.path / "models/ensemble.keras").is_symlink()
    assert json.loads(project.read("metrics/ingest.json"))["images"] == 48
    changes = {"phantom.classes.yes": 25, "members": 1, "weigh.scheme": "auc"}
    project.reproduce("evaluate", **changes)
    assert json.loads(project.read("metrics/ingest.json"))["images"] == 49
    assert not damaged_objects(cache)
    assert "up to date" in project.run("dvc", "status", "evaluate")
    # By hand, when DVC has not removed the outputs before
    for command in ("ingest", "train member-00", "export", "explain", "report"):
        project.run("python", "-m", "stages", *command.split())
    assert not damaged_objects(cache)
    with h5py.File(project.path / "data/rad/image_data.h5") as file:
        assert file["images"][:].mean() > 10
