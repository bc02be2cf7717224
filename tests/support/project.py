"""A small copy of the project, in which tests run the real DVC and train real networks."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.support.checkout import ROOT, checkout
from tests.support.composition import COMPOSE
from tests.support.waiting import LIMIT_S

SMALL = {
    "preset": "scratch",
    "members": 3,
    "ingest.image_size": 32,
    "network.name": "notebook-1",  # the fastest to start
    "train.epochs": 2,
    "train.views": "mirrored",  # a third of the tracing of `zoomed`
    "phantom.classes.no": 24,
    "phantom.classes.yes": 24,
    "evaluate.resamples": 100,
    "evaluate.gallery": 4,
    "explain.images": 6,
}
NOT_INHERITED = ("DVC", "PIPELINE", "GIT", "TF_")  # beginnings of names of variables


class Output(str):
    """What a command printed: standard output, then standard error; also each alone."""

    stdout: str
    stderr: str

    def __new__(cls, stdout: str, stderr: str):
        output = super().__new__(cls, stdout + stderr)
        output.stdout = stdout
        output.stderr = stderr
        return output


@dataclass
class Project:
    """A checkout of the project; the folder beside it named `home` is its home folder."""

    path: Path

    def run(self, *command: str, ok: bool = True) -> Output:
        """Run a command there; check that it succeeds, or that it fails; return its output."""
        output, status = self.try_to_run(*command)
        expected = "status 0" if ok else "a failure"
        assert (status == 0) == ok, (
            f"{' '.join(command)} exited with {status}; expected {expected}:\n{output}"
        )
        return output

    def try_to_run(self, *command: str, **environment: str) -> tuple[Output, int]:
        """Run a command there, with further environment variables; return its output and status."""
        result = subprocess.run(
            command,
            cwd=self.path,
            env={**self.environment, **environment},
            text=True,
            capture_output=True,
            timeout=LIMIT_S,
        )
        return Output(result.stdout, result.stderr), result.returncode

    def start(self, *command: str, stdout: int = subprocess.DEVNULL) -> subprocess.Popen:
        """Start a command there as a terminal does: in its own session, and stopped by Ctrl-C."""
        return subprocess.Popen(
            command,
            cwd=self.path,
            env=self.environment,
            stdout=stdout,
            text=True,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            # Or it would ignore them where the tests themselves do, as under `nohup`.
            preexec_fn=heed_signals,  # noqa: PLW1509
        )

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment, with its Python first on the path, and another home."""
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)
        }
        home = self.path.parent / "home"
        home.mkdir(exist_ok=True)
        return {
            **inherited,
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / ".config"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        }

    def experiment(self, *targets: str, **overrides) -> Output:
        """Run the pipeline, or no further than the targets, with other parameters."""
        settings = []
        for name, value in overrides.items():
            settings += ["-S", f"{name}={value}"]
        return self.run("dvc", "exp", "run", *targets, *settings)

    def reproduce(self, *targets: str, **overrides) -> Output:
        """Compose the parameters as `experiment` does, and run the pipeline, without Git.

        It takes a second or two less.
        """
        settings = [f"{name}={value}" for name, value in overrides.items()]
        self.run("python", "-c", COMPOSE, *settings)
        return self.run("dvc", "repro", *targets)

    def edit(self, **values) -> None:
        """Change keys of params.yaml by hand; `a__b` stands for `a.b`."""
        params = self.params
        assign(params, values)
        (self.path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))

    @property
    def params(self) -> dict:
        """The content of params.yaml."""
        return yaml.safe_load(self.read("params.yaml"))

    @property
    def locked_stages(self) -> dict:
        """The entries of dvc.lock, by stage."""
        return yaml.safe_load(self.read("dvc.lock"))["stages"]

    def read(self, path: str) -> str:
        return (self.path / path).read_text()

    def commit(self, message: str) -> None:
        """Commit all changes."""
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "-m", message)

    def copy(self, folder: Path) -> "Project":
        """Copy the project into a folder; paths in DVC's local configuration are adapted."""
        target = folder / "project"
        shutil.copytree(self.path, target, symlinks=True, ignore=_files_of_site_cache)
        config = target / ".dvc/config.local"
        if config.exists():
            text = config.read_text()
            config.write_text(text.replace(str(self.path.resolve()), str(target.resolve())))
        return Project(target)


def heed_signals() -> None:
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _files_of_site_cache(folder: str, names: list[str]) -> list[str]:
    """Return what is not copied: DVC's records of files, which are useless for their copies."""
    return names if folder.endswith(".dvc/site-cache") else []


def make_project(folder: Path) -> Project:
    """Check the project's files out, configured as by `make`, and commit them; nothing has run."""
    project = Project(checkout(folder / "project"))
    project.run("python", "-m", "brainmri.configure")
    project.run("git", "config", "user.name", "Tester")
    project.run("git", "config", "user.email", "tester@example.org")
    project.commit("Sources")
    return project


def scratch_params() -> dict:
    """Return params.yaml with the recipes of the preset `scratch`, bootstrap samples of as many
    images as there are, and no derived members.
    """
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    preset = yaml.safe_load((ROOT / "conf/preset/scratch.yaml").read_text())
    recipes = {name: {**recipe, "fraction": 1.0} for name, recipe in preset["recipes"].items()}
    bootstrap = {"scheme": "bootstrap"}
    return {**params, "bootstrap": bootstrap, "recipes": recipes, "ensemble": {}}


def assign(params: dict, values: dict) -> None:
    """Set keys of nested parameters; `a__b` stands for `a.b`."""
    for key, value in values.items():
        *sections, last = key.split("__")
        block = params
        for section in sections:
            block = block[section]
        block[last] = value


def ran(output: Output) -> list[str]:
    """Return the stages whose commands ran, in order, as DVC names them."""
    lines = output.stdout.splitlines()
    return [line.split("'")[1] for line in lines if line.startswith("Running stage")]


def skipped(output: Output) -> list[str]:
    """Return the stages that DVC neither ran nor restored, since nothing had changed."""
    lines = output.stdout.splitlines()
    return [line.split("'")[1] for line in lines if line.endswith("didn't change, skipping")]


def error_lines(output: Output) -> list[str]:
    """Return the errors that the project's own code reported, a line each."""
    return [line for line in output.stderr.splitlines() if line.startswith("error: ")]


def check_trained_in_parallel(project: Project) -> None:
    """Run the pipeline; check that `fan-out` trains all three members, and no stage is left."""
    output = project.run("dvc", "repro", "weigh")
    assert "3 of 3 members to train" in output
    assert output.count("was trained by fan-out") == 3
    assert "up to date" in project.run("dvc", "status", "weigh")
