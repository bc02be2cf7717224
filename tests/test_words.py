"""Every command that README and docs show is run here, as it is written there."""

import csv
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from conftest import Project

from benchmarks.local_cluster import LIMIT_S, wait_for

ROOT = Path(__file__).parents[1]
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_RUN = {
    "make test": "these are the tests",
    "make crossval": "tests/test_crossval.py runs what it calls, on images in data/raw",
    "make bench": "takes ten minutes and the machine to itself; tests/test_concurrency.py has its parts",
    "source .venv/bin/activate": "the tests run in an environment already",
    "dvc import https://github.com/A-PachecoT/brain-mri-classification data/raw -o data/raw": "needs a network;"
    " tests/test_pipeline.py imports from a repository on this machine",
    "python -m crossval --seeds 1 -S preset=original -S data.source=…/brain_mri": "needs the real images;"
    " tests/test_pipeline.py trains and queues presets, tests/test_params.py composes them as this does",
    "python -m crossval --seeds 1,2,3 -S data.source=…/brain_mri": "needs the real images; tests/test_crossval.py has repeats",
}


def commands_of(path: Path) -> list[str]:
    """The lines of the blocks marked as bash."""
    blocks = re.findall(r"```bash\n(.*?)```", path.read_text("utf-8"), re.DOTALL)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def project(small, tmp_path_factory) -> Project:
    """A copy of the small project, with images of one's own in data/raw."""
    copy = small.copy(tmp_path_factory.mktemp("words"))
    for name in ("no", "yes"):
        shutil.copytree(copy.path / "data/phantom" / name, copy.path / "data/raw" / name)
    return copy


SHOWN = [(path, command) for path in TEXTS for command in commands_of(path) if command not in NOT_RUN]


@pytest.mark.parametrize("command", [pytest.param(command, id=f"{path.name}: {command}") for path, command in SHOWN])
def test_command_works_as_written(project, command):
    make = ["make", *(part for name in ("", "-dev", "-app") for part in ("-o", f".venv/ready{name}"))]
    typed = " ".join(make) + command.removeprefix("make") if command.startswith("make ") else command
    if command == "make app":
        return starts(project, typed)
    project.run("bash", "-c", typed)
    if command.startswith("dvc queue start"):
        assert wait_for(lambda: not re.search(r"Running|Queued", project.run("dvc", "queue", "status")))
        status = project.run("dvc", "queue", "status").stdout
        assert status.count("Success") == 2, status
        table = project.run("dvc", "exp", "show", "--csv")
        assert {"3", "5"} <= {row["members"] for row in csv.DictReader(table.stdout.splitlines())}


def starts(project: Project, command: str) -> None:
    """The page comes up; Ctrl-C ends it."""
    server = project.start("bash", "-c", command, stdout=subprocess.PIPE)
    assert any("http://127.0.0.1:" in line for line in server.stdout)
    os.killpg(server.pid, signal.SIGINT)
    server.communicate(timeout=LIMIT_S)


def test_commands_that_are_not_run_are_still_shown():
    assert set(NOT_RUN) <= {command for path in TEXTS for command in commands_of(path)}


def test_the_spanish_readme_shows_the_same_commands_and_pictures():
    english, spanish = ROOT / "README.md", ROOT / "README.es.md"
    assert commands_of(spanish) == commands_of(english) != []
    pictures = re.compile(r"!\[.*?\]\((.*?)\)")
    assert pictures.findall(spanish.read_text("utf-8")) == pictures.findall(english.read_text("utf-8")) != []


@pytest.mark.parametrize("path", [*TEXTS, ROOT / "README.es.md"], ids=lambda path: path.name)
def test_links_lead_to_files(path):
    targets = re.findall(r"\]\((?!http)(.*?)\)", path.read_text("utf-8"))
    assert targets or path.parent != ROOT
    for target in targets:
        assert (path.parent / target.split("#")[0]).exists(), target
