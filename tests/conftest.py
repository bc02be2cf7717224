"""Fixtures: copies of the project, of which each test changes its own."""

import fcntl
import os
import shutil

import pytest
from hypothesis import HealthCheck, settings

from tests.support.images import encode_noise, write_raw_files
from tests.support.project import SMALL, Project, make_project

ANY_SPEED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("repeatable", derandomize=True, **ANY_SPEED)
# pytest --hypothesis-profile searching
settings.register_profile("searching", derandomize=False, **ANY_SPEED)
settings.load_profile("repeatable")
# Files that take a minute or more. The second needs no `small`, which the first makes meanwhile.
LONGEST = [
    "test_words",
    "test_training",
    "test_pipeline",
    "test_cluster",
    "test_faults",
    "test_stale",
    "test_learnable",
    "test_crossval",
    "test_fresh_clone",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest files first, or one process would run the last of them alone."""
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


@pytest.fixture(scope="session")
def sources(tmp_path_factory) -> Project:
    """The project's files as they are now, in a Git repository of their own; nothing has run."""
    return make_project(tmp_path_factory.mktemp("sources"))


@pytest.fixture
def fresh(sources, tmp_path) -> Project:
    """A clone in which nothing has run."""
    return sources.copy(tmp_path)


@pytest.fixture(scope="session")
def small(sources, tmp_path_factory) -> Project:
    """A clone in which the pipeline has run with small settings, committed; tests copy it.

    The processes of pytest-xdist share it: the first one makes it.
    """
    own = tmp_path_factory.getbasetemp()
    folder = own.parent / "small" if "PYTEST_XDIST_WORKER" in os.environ else own / "small"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / "done").exists():
            return Project(folder / "project")
        shutil.rmtree(folder / "project", ignore_errors=True)
        project = sources.copy(folder)
        project.reproduce(**SMALL)
        project.commit("Small run")
        (folder / "done").touch()
    return project


@pytest.fixture
def done(small, tmp_path) -> Project:
    """A copy of the small project to change at will."""
    return small.copy(tmp_path)


@pytest.fixture
def project(fresh) -> Project:
    """A project whose source has four images in each of two classes; nothing has run."""
    for label, name in enumerate(("no", "yes")):
        seeds = range(100 + 10 * label, 104 + 10 * label)
        files = {f"{name}/{index}.png": encode_noise(seed) for index, seed in enumerate(seeds)}
        write_raw_files(fresh, files)
    fresh.edit(data__source="data/raw", ingest__image_size=32)
    return fresh
