"""README and docs: their commands are run as they are written; their links and paths exist."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from docs import make_results
from docs.make_dag import READMES, mermaid
from docs.make_results import SENTENCES, draw, format_headline, format_parts, read_results
from tests.support.project import Output, Project, ran, skipped
from tests.support.waiting import LIMIT_S, wait_for

ROOT = Path(__file__).parents[2]
ENGLISH, SPANISH = ROOT / "README.md", ROOT / "README.es.md"
TEXTS = [ENGLISH, *sorted((ROOT / "docs").glob("*.md"))]
OTHER_TEXTS = [SPANISH, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
CODE_FOLDERS = "benchmarks|brainmri|conf|docs|requirements|stages|tests"
OWN_DATA = "needs data of one's own; tests/pipeline/test_given_data.py has such"
NOT_RUN = {
    "make test": "these are the tests",
    "make crossval": "tests/pipeline/test_crossval.py runs what it calls, on images in data/raw",
    "dvc exp run -S preset=original": "tests/pipeline/test_pipeline.py trains it in two epochs",
    "source .venv/bin/activate": "the tests run in an environment already",
    "dvc import https://github.com/A-PachecoT/brain-mri-classification data/raw -o data/raw": (
        "needs a network; tests/pipeline/test_pipeline.py imports from a repository on this machine"
    ),
    """dvc exp run -S data.source=data/raw -S "data.patient='(P[0-9]+)_'\"""": OWN_DATA,
    "dvc exp run -S data.source=data/raw -S data.labels=data/labels.csv": OWN_DATA,
    "dvc exp run -S data.source=data/archive/Training -S data.test=data/archive/Testing": OWN_DATA,
    "python -m brainmri.crossval --seeds 1 -S preset=original -S data.source=…/brain_mri": (
        "needs the real images; tests/pipeline/test_pipeline.py trains and queues presets,"
        " tests/unit/test_params.py composes them as this does"
    ),
    "python -m brainmri.crossval --seeds 1,2,3 -S preset=scratch -S data.source=…/brain_mri": (
        "needs the real images; tests/pipeline/test_crossval.py has repeats"
    ),
}
# The numbers of the benchmark are of 40 patients, and of 60 epochs of another network.
QUICK_BENCHMARK = {
    "members": 1,
    "train.epochs": 1,
    "train.views": "mirrored",
    "network.name": "notebook-1",
    "evaluate.resamples": 100,
}


def commands_of(path: Path) -> list[str]:
    """Return the lines of the blocks marked as bash."""
    blocks = re.findall(r"```bash\n(.*?)```", path.read_text("utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line.split("  #")[0].strip() for line in lines if line.strip()]


def images_of(path: Path) -> list[str]:
    """Return the targets of the embedded images."""
    return re.findall(r"!\[.*?\]\((.*?)\)", path.read_text("utf-8"))


@pytest.fixture(scope="module")
def project(small, tmp_path_factory) -> Project:
    """Return a copy of the small project, with images of one's own in data/raw."""
    copy = small.copy(tmp_path_factory.mktemp("words"))
    for name in ("no", "yes"):
        shutil.copytree(copy.path / "data/phantom" / name, copy.path / "data/raw" / name)
    return copy


TYPED = [path for path in TEXTS if path.name != "tutorial.md"]  # which test_tutorial.py types
# Each once, at its first place
SHOWN = list(dict.fromkeys(command for path in TYPED for command in commands_of(path)))


@pytest.mark.parametrize("command", [command for command in SHOWN if command not in NOT_RUN])
def test_command_works_as_written(project, command):
    script = command
    if command.startswith("make "):
        # The environment is there; make must not install it again.
        ready = [f"-o .venv/ready{name}" for name in ("", "-dev", "-app")]
        script = " ".join(["make", *ready]) + command.removeprefix("make")
    if command == "python -m benchmarks.patients":
        script += " --patients 10 "
        script += " ".join(f"-S {name}={value}" for name, value in QUICK_BENCHMARK.items())
    if command == "make app":
        check_page(project, script)
        return
    if command == "dvc exp run -S weigh.scheme=auc":
        restore_commit(project)
    output = project.run("bash", "-c", script)
    if command == "dvc exp run -S members=9":
        check_growth(project, output)
    if command.startswith("dvc queue start"):
        check_queue(project)


def restore_commit(project: Project) -> None:
    """Go back to three members, which are evaluated and exported sooner than nine."""
    for folder in ("models/members", "metrics/members"):
        shutil.rmtree(project.path / folder)
    project.run("git", "checkout", "--", ".")
    project.run("dvc", "checkout", "--force")
    assert "up to date" in project.run("dvc", "status")


def check_growth(project: Project, output: Output) -> None:
    """Check that the six new members are trained, and no others."""
    members = [f"train@member-{index:02d}" for index in range(9)]
    assert [stage for stage in skipped(output) if stage in members] == members[:3]
    assert "6 of 9 members to train" in output
    assert [stage for stage in ran(output) if stage in members] == members[3:]
    assert len(json.loads(project.read("models/weights.json"))["members"]) == 9


def check_page(project: Project, script: str) -> None:
    """Check that the page comes up, and that Ctrl-C ends it."""
    server = project.start("bash", "-c", script, stdout=subprocess.PIPE)
    assert any("http://127.0.0.1:" in line for line in server.stdout)
    os.killpg(server.pid, signal.SIGINT)
    server.communicate(timeout=LIMIT_S)


def check_queue(project: Project) -> None:
    """Check that the two queued experiments succeed, and that the table has both."""

    def is_empty() -> bool:
        return not re.search(r"Running|Queued", project.run("dvc", "queue", "status"))

    assert wait_for(is_empty, poll_s=3)
    status = project.run("dvc", "queue", "status").stdout
    assert status.count("Success") == 2, status
    table = project.run("dvc", "exp", "show", "--csv")
    assert {"3", "5"} <= {row["members"] for row in csv.DictReader(table.stdout.splitlines())}


def test_skipped_commands_are_shown():
    assert set(NOT_RUN) <= {command for path in TEXTS for command in commands_of(path)}


def test_graph_of_the_stages_is_that_of_dvc(monkeypatch):
    monkeypatch.chdir(ROOT)
    block = f"```mermaid\n{mermaid()}```\n"
    for path in READMES:
        assert block in path.read_text("utf-8")


def test_results_are_those_of_the_committed_files(monkeypatch, tmp_path):
    """Tables, headline, printed metrics and costs; and the pages show the figure.

    metrics/ itself may be of a run on this machine, which rounds differently.
    """
    files = ["ls-files", "-z", "docs/results", "metrics"]
    listed = subprocess.run(["git", *files], cwd=ROOT, capture_output=True, check=True).stdout
    copy = ["git", "checkout-index", "-z", "--stdin", f"--prefix={tmp_path}/"]
    subprocess.run(copy, cwd=ROOT, input=listed, check=True)
    monkeypatch.chdir(tmp_path)
    for path, parts in format_parts(read_results()).items():
        text = (ROOT / path).read_text("utf-8")
        for name, content in parts.items():
            part = f"<!-- {name} -->\n{content}<!-- end of {name} -->"
            assert part in text, f"{path}, {name}: run `make docs`, and add metrics/ to Git"
        assert "results/accuracy.png" in text


def test_results_without_an_interval(monkeypatch, tmp_path):
    """`evaluate` writes none where the accuracy is the same in all draws."""
    result = json.loads((ROOT / "docs/results/seeds-0.1.json").read_bytes())
    result["interval"]["accuracy"] = None
    (tmp_path / "seeds-0.1.json").write_text(json.dumps(result))
    monkeypatch.setattr(make_results, "RESULTS", tmp_path)
    english, spanish = map(format_headline, SENTENCES.values())
    assert "** (no 95 % interval), ROC AUC " in english
    assert "** (sin intervalo del 95 %), ROC AUC " in spanish
    result["cpu_minutes"] = 1.0
    assert draw({"default": result}).startswith(b"\x89PNG")


@pytest.mark.parametrize("path", [ENGLISH, SPANISH], ids=lambda path: path.name)
def test_results_are_in_generated_parts_alone(path):
    """A number with three decimals is a result, which a committed file holds."""
    text = re.sub(
        r"<!-- ([^>]+) -->.*?<!-- end of \1 -->", "", path.read_text("utf-8"), flags=re.DOTALL
    )
    assert re.findall(r"\b[01]\.\d{3}\b", text) == []


def test_spanish_readme_matches_the_english():
    assert commands_of(SPANISH) == commands_of(ENGLISH) != []
    assert images_of(SPANISH) == images_of(ENGLISH) != []


@pytest.mark.parametrize("path", [*TEXTS, *OTHER_TEXTS], ids=lambda path: path.name)
def test_links_lead_to_files(path):
    targets = re.findall(r"\]\((?!http|#)(.*?)\)", path.read_text("utf-8"))
    assert targets or path.parent != ROOT or path.name == "CHANGELOG.md"
    for target in targets:
        assert (path.parent / target.split("#")[0]).exists(), target


@pytest.mark.parametrize("path", [*TEXTS, SPANISH, ROOT / "CONTRIBUTING.md"], ids=lambda p: p.name)
def test_named_files_exist(path):
    """A file of the project, in backticks, may not have moved."""
    names = re.findall(rf"`((?:{CODE_FOLDERS})/[\w./-]+)`", path.read_text("utf-8"))
    assert names or path.parent != ROOT
    missing = [name for name in names if "NAME" not in name and not (ROOT / name).exists()]
    assert missing == []
