"""A small copy of the project, in which the tests run the real DVC and train real networks."""

import fcntl
import io
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, settings
from PIL import Image

from benchmarks.local_cluster import LIMIT_S
from benchmarks.run import checkout

ROOT = Path(__file__).parents[1]
ANY_SPEED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("repeatable", derandomize=True, **ANY_SPEED)
settings.register_profile("searching", derandomize=False, **ANY_SPEED)  # pytest --hypothesis-profile searching
settings.load_profile("repeatable")
SMALL = {
    "members": 3,
    "ingest.image_size": 32,
    "train.epochs": 2,
    "phantom.classes.no": 24,
    "phantom.classes.yes": 24,
    "evaluate.resamples": 100,
}


class Output(str):
    """What a command printed: standard output, then standard error; and each alone, for what is parsed or compared."""

    stdout: str
    stderr: str

    def __new__(cls, stdout: str, stderr: str):
        output = super().__new__(cls, stdout + stderr)
        output.stdout, output.stderr = stdout, stderr
        return output


@dataclass
class Project:
    """A checkout of the project with a home of its own."""

    path: Path

    def run(self, *command: str, ok: bool = True) -> Output:
        """Run a command there, and check that it ends well, or that it does not; return what it printed."""
        done = subprocess.run(command, cwd=self.path, env=self.environment, text=True, capture_output=True, timeout=LIMIT_S)
        output = Output(done.stdout, done.stderr)
        assert (done.returncode == 0) == ok, f"{' '.join(command)} exited with {done.returncode}:\n{output}"
        return output

    def start(self, *command: str, stdout: int = subprocess.DEVNULL) -> subprocess.Popen:
        """Start a command there as a terminal does: in a session of its own, and heeding Ctrl-C even if the tests do not."""
        return subprocess.Popen(
            command,
            cwd=self.path,
            env=self.environment,
            stdout=stdout,
            text=True,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )

    @property
    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC", "PIPELINE", "GIT", "TF_"))}
        home = self.path.parent / "home"
        home.mkdir(exist_ok=True)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        home = {"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")}
        return {**kept, **home, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}

    def experiment(self, *targets: str, **overrides) -> Output:
        """Run the pipeline, or no further than the targets, with other parameters."""
        return self.run("dvc", "exp", "run", *targets, *self.settings(overrides))

    @staticmethod
    def settings(overrides: dict) -> list[str]:
        return [part for key, value in overrides.items() for part in ("-S", f"{key}={value}")]

    def edit(self, **values) -> None:
        """Change keys of params.yaml by hand; `a__b` stands for `a.b`."""
        params = self.params
        assign(params, values)
        (self.path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))

    @property
    def params(self) -> dict:
        return yaml.safe_load((self.path / "params.yaml").read_text())

    def read(self, path: str) -> str:
        return (self.path / path).read_text()

    def copy(self, folder: Path) -> "Project":
        shutil.copytree(self.path, folder / "project", symlinks=True)
        return Project(folder / "project")


def assign(params: dict, values: dict) -> None:
    """Set keys of nested parameters; `a__b` stands for `a.b`."""
    for key, value in values.items():
        *sections, last = key.split("__")
        block = params
        for section in sections:
            block = block[section]
        block[last] = value


def ran(output: Output) -> list[str]:
    """The stages whose commands ran, in order, as DVC tells them."""
    return [line.split("'")[1] for line in output.stdout.splitlines() if line.startswith("Running stage")]


def skipped(output: Output) -> list[str]:
    """The stages that DVC did not need to run or restore."""
    return [line.split("'")[1] for line in output.stdout.splitlines() if line.endswith("didn't change, skipping")]


def check_trained_in_parallel(project: Project) -> None:
    """Run the pipeline, and check that `fan-out` trains all three members and leaves nothing to do."""
    output = project.run("dvc", "repro", "evaluate")
    assert "3 of 3 members to train" in output
    assert output.count("was trained beside the others") == 3
    assert "up to date" in project.run("dvc", "status", "evaluate")


@pytest.fixture(scope="session")
def sources(tmp_path_factory) -> Project:
    """The project's files as they are now, in a Git repository of their own; nothing has run."""
    project = Project(checkout(tmp_path_factory.mktemp("sources") / "project"))
    project.run("git", "config", "user.name", "Tester")
    project.run("git", "config", "user.email", "tester@example.org")
    project.run("git", "add", "-A")
    project.run("git", "commit", "-q", "-m", "Sources")
    return project


@pytest.fixture
def fresh(sources, tmp_path) -> Project:
    """A clone in which nothing has run."""
    return sources.copy(tmp_path)


@pytest.fixture(scope="session")
def small(sources, tmp_path_factory) -> Project:
    """A clone in which the pipeline has run with small settings, committed. Tests copy it; all their processes share it."""
    own = tmp_path_factory.getbasetemp()
    folder = own.parent / "small" if "PYTEST_XDIST_WORKER" in os.environ else own / "small"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / "done").exists():
            return Project(folder / "project")
        shutil.rmtree(folder / "project", ignore_errors=True)
        project = sources.copy(folder)
        project.experiment(**SMALL)
        project.run("git", "add", "-A")
        project.run("git", "commit", "-q", "-m", "Small run")
        (folder / "done").touch()
    return project


@pytest.fixture
def done(small, tmp_path) -> Project:
    """A copy of the small project to change at will."""
    return small.copy(tmp_path)


def picture(seed: int, form: str = "PNG", mode: str = "L", **options) -> bytes:
    """A file of a picture that differs from those of other seeds."""
    noise = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(content, form, **options)
    return content.getvalue()


def put(project: Project, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = project.path / "data/raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.fixture
def project(fresh) -> Project:
    """A project whose source holds four pictures in each of two classes; nothing has run."""
    for start, name in enumerate(("no", "yes")):
        put(fresh, {f"{name}/{index}.png": picture(100 + 10 * start + index) for index in range(4)})
    fresh.edit(data__source="data/raw", ingest__image_size=32)
    return fresh
