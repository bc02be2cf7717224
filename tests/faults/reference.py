"""A run of the pipeline without faults, with which its state after a fault is compared."""

import hashlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import yaml

from brainmri.common.paths import LOCK_FILES, TIMINGS
from brainmri.repair.cache import HALF_COPY
from tests.support.project import SMALL, Project, make_project

OUTPUTS = ("data", "models", "metrics", "plots", "docs/model-card.md")
NOT_OUTPUTS = ("dvc.yaml", "dvc.lock", "README.md", ".gitignore")  # that are in these folders
OBJECTS = ".dvc/cache/files/md5"
RUNS = ".dvc/cache/runs"


class NotRecovered(Exception):
    """The pipeline did not recover from a fault."""


def check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise NotRecovered(otherwise)


@dataclass
class ReferenceRun:
    """A run without faults, with the project as it was before each of its stages.

    Attributes
    ----------
    durations : dict of str to float
        Of each stage, in seconds, in the order in which they ran.
    files : dict of str to str
        SHA-256 of each file that the pipeline made, by path.
    final : Project
        The project at the end.
    restores_training : bool
        Whether a copy can restore the members too, if they train after its stage.
    last : str
        The stage with which it ends; empty for the last of the pipeline.
    later_outputs : list of str
        What the stages after it write.
    """

    folder: Path
    restores_training: bool = False
    last: str = ""
    later_outputs: list[str] = field(default_factory=list)
    durations: dict[str, float] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    final: Project | None = None
    _start: Project | None = None
    _before: dict[str, Project] = field(default_factory=dict)

    @property
    def stages(self) -> list[str]:
        return list(self.durations)

    def run(self) -> "ReferenceRun":
        """Run the pipeline, and keep what came of it."""
        self._start = self._make_start()
        project = self._start.copy(self.folder / "final")
        process = start_repro(project)
        starts = [(stage, time.monotonic()) for stage in started_stages(process)]
        ends = [start for _, start in starts[1:]] + [time.monotonic()]
        check(process.wait() == 0, "the reference run failed")
        for (stage, start), end in zip(starts, ends, strict=True):
            self.durations[stage] = end - start
        return self._compare_with(project)

    def take(self, sources: Project, final: Project) -> "ReferenceRun":
        """Take what came of a run of these sources that another made, without faults."""
        self._start = sources.copy(self.folder / "start")
        (self._start.path / "params.yaml").write_text(final.read("params.yaml"))
        self._start.commit("Small settings")
        timings = map(json.loads, final.read(str(TIMINGS)).splitlines())
        walls = {timing["stage"]: timing["wall"] for timing in timings}
        names = [stage.rpartition(":")[2] for stage in walls]
        stages = lock_entries(final, names)
        self.durations = {
            stage: wall
            for (stage, wall), name in zip(walls.items(), names, strict=True)
            if name in stages
        }
        return self._compare_with(final)

    def until(self, last: str) -> "ReferenceRun":
        """Return the part that ends with a stage."""
        number = self.stages.index(last) + 1
        later = lock_entries(self.final, self.stages[number:]).values()
        return replace(
            self,
            last=last,
            durations=dict(islice(self.durations.items(), number)),
            later_outputs=[out["path"] for entry in later for out in entry["outs"]],
        )._compare_with(self.final)

    def files_of(self, project: Project) -> dict[str, str]:
        """Return the SHA-256 of each file that the run makes, by path."""
        return {
            path: digest
            for path, digest in output_files(project).items()
            if not any(path == out or path.startswith(f"{out}/") for out in self.later_outputs)
        }

    @property
    def targets(self) -> list[str]:
        """What to name in `dvc repro`."""
        return [self.last] if self.last else []

    def _compare_with(self, final: Project) -> "ReferenceRun":
        self.files = self.files_of(final)
        result = "models/weights.json" if self.last else "models/ensemble.keras"
        is_complete = result in self.files and "weigh" in self.durations
        check(is_complete, "the reference run made nothing to compare with")
        self.final = final
        return self

    def _make_start(self) -> Project:
        """Make a project with small settings, committed, in which nothing has run."""
        project = make_project(self.folder / "start")
        project.reproduce("data/dvc.yaml:phantom", **SMALL)
        project.commit("Small settings")
        for name in ("data/phantom", ".dvc/cache", ".dvc/tmp"):
            shutil.rmtree(project.path / name)
        return project

    def copy_before(self, stage: str, folder: Path) -> Project:
        """Copy the project as it was before a stage.

        Results of the stages after it, and after the training, are in the copy's run cache: DVC
        restores them if their inputs are the same.
        """
        project = self._project_before(stage).copy(folder)
        first, training = self.stages.index(stage) + 1, self.stages.index("fan-out")
        if first > training or not self.restores_training:
            first = max(first, self.stages.index("weigh"))
        self._copy_results(self.stages[first:], project)
        return project

    def _project_before(self, stage: str) -> Project:
        """Return the project as it was before a stage; restore the results of those before it the
        first time.
        """
        former = self.stages[: self.stages.index(stage)]
        if not former:
            return self._start
        if stage not in self._before:
            project = self._start.copy(self.folder / f"before-{len(former)}")
            self._copy_results(former, project)
            project.run("dvc", "repro", *former)
            self._before[stage] = project
        return self._before[stage]

    def _copy_results(self, stages: list[str], project: Project) -> None:
        """Copy the entries of the run cache that these stages have, with their objects."""
        commands = {entry["cmd"] for entry in lock_entries(self.final, stages).values()}
        for run in (self.final.path / RUNS).glob("*/*/*"):
            entry = yaml.safe_load(run.read_text())
            if entry["cmd"] not in commands:
                continue
            files = [run]
            for out in entry["outs"]:
                files += self._objects_of(out["md5"])
            for file in files:
                target = project.path / file.relative_to(self.final.path)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, target)

    def _objects_of(self, md5: str) -> Iterator[Path]:
        """Yield the objects of an output: its own, and those of the files in a folder."""
        file = self.final.path / OBJECTS / md5[:2] / md5[2:]
        yield file
        if md5.endswith(".dir"):
            for entry in json.loads(file.read_text()):
                yield from self._objects_of(entry["md5"])


def start_repro(project: Project) -> subprocess.Popen:
    return project.start("dvc", "repro", stdout=subprocess.PIPE)


def started_stages(process: subprocess.Popen) -> Iterator[str]:
    """Yield the stages of a run, each when it starts."""
    for line in process.stdout:
        if line.startswith("Running stage"):
            yield line.split("'")[1]


def output_files(project: Project) -> dict[str, str]:
    """Return the SHA-256 of each file that the pipeline made, by path; half copies do not count."""
    files = []
    for path in (project.path / name for name in OUTPUTS):
        files += [path] if path.is_file() else sorted(path.rglob("*"))
    return {
        file.relative_to(project.path).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.is_file() and file.name not in NOT_OUTPUTS and not HALF_COPY.fullmatch(file.name)
    }


def cached_objects(project: Project) -> list[Path]:
    """Return the objects of DVC's cache; half copies do not count."""
    files = sorted((project.path / OBJECTS).glob("*/*"))
    return [file for file in files if not HALF_COPY.fullmatch(file.name)]


def half_copies(project: Project) -> list[Path]:
    """Return copies that DVC did not finish, in its cache and among the outputs."""
    folders = [project.path / name for name in (".dvc/cache", *OUTPUTS)]
    files = [file for folder in folders for file in folder.rglob("*.tmp")]
    return [file for file in files if HALF_COPY.fullmatch(file.name)]


def lock_entries(project: Project, stages: list[str]) -> dict[str, dict]:
    """Return the entries that the lock files have of these stages."""
    entries = {}
    for path in LOCK_FILES:
        entries |= yaml.safe_load(project.read(str(path)))["stages"]
    names = [stage.rpartition(":")[2] for stage in stages]
    return {name: entries[name] for name in names if name in entries}
