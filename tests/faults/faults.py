"""Faults done to the real pipeline, and whether it comes through: each ends with plain `dvc repro` and the same bytes."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import yaml

from benchmarks.local_cluster import LIMIT_S, wait_for
from benchmarks.run import checkout
from tests.conftest import SMALL, Project

OUTPUTS = ("data", "models", "metrics", "plots", "dvc.lock")
SOURCES = ("dvc.yaml", "README.md", ".gitignore")  # that lie among the outputs
CACHE = ".dvc/cache/files/md5"
RUNS = ".dvc/cache/runs"
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
BUSY = "Unable to acquire lock", "is busy, it is being blocked by"  # as DVC reports that another command runs
INJECTED = """
import multiprocessing.process as processes
run = processes.BaseProcess.run
def fail(name, folder):
    raise RuntimeError("an injected error")
def failing(process):
    if process.name == "train@member-01":
        from stages.shared import training
        training.train_member = fail
    run(process)
processes.BaseProcess.run = failing
"""


class Lost(Exception):
    """The pipeline did not come through a fault."""


@dataclass
class Undisturbed:
    """A run of the pipeline without faults, kept as it was before each of its stages.

    Attributes
    ----------
    seconds : dict of str to float
        The stages in the order in which they ran, and how long each took.
    before : dict of str to Project
        The project as it was before each stage.
    end : dict of str to str
        The SHA-256 of each file that the pipeline makes.
    whole : Project
        The project at the end.
    """

    folder: Path
    seconds: dict[str, float] = field(default_factory=dict)
    before: dict[str, Project] = field(default_factory=dict)
    end: dict[str, str] = field(default_factory=dict)
    whole: Project | None = None

    def run(self) -> "Undisturbed":
        project = Project(checkout(self.folder / "start" / "project"))
        project.run("git", "config", "user.name", "Tester")
        project.run("git", "config", "user.email", "tester@example.org")
        project.run("git", "add", "-A")
        project.run("git", "commit", "-q", "-m", "Sources")
        project.experiment("data/dvc.yaml:phantom", **SMALL)
        project.run("git", "commit", "-q", "-a", "-m", "Small settings")
        for name in ("dvc.lock", "data/dvc.lock"):
            (project.path / name).unlink()
        for name in ("data/phantom", ".dvc/cache", ".dvc/tmp"):
            shutil.rmtree(project.path / name)
        self.before["(start)"] = project
        project = project.copy(self.folder / "whole")
        marks = []
        process = start(project)
        for stage in stages_of(process):
            marks.append((stage, time.monotonic()))
        ended = time.monotonic()
        check(process.wait() == 0, "the undisturbed run failed")
        for (stage, began), (_, after) in zip(marks, [*marks[1:], ("", ended)], strict=True):
            self.seconds[stage] = after - began
        self.end = files_of(project)
        check({"dvc.lock", "models/ensemble.keras"} <= self.end.keys(), "the undisturbed run made nothing to compare with")
        self.whole = project
        return self

    def at(self, stage: str, folder: Path) -> Project:
        """A copy of the project as it was before a stage.

        What the stages after it and after the training gave is in its run cache, from which DVC takes it if what they read is
        the same.
        """
        project = self._before(stage).copy(folder)
        stages = list(self.seconds)
        self._make_known(project, stages[max(stages.index(stage) + 1, stages.index("weigh")) :])
        return project

    def _before(self, stage: str) -> Project:
        stages = list(self.seconds)
        if stage not in self.before:
            place = stages.index(stage)
            if place == 0:
                self.before[stage] = self.before["(start)"]
            else:
                project = self._before(stages[place - 1]).copy(self.folder / f"before-{place}")
                project.run("dvc", "repro", "--single-item", stages[place - 1])
                self.before[stage] = project
        return self.before[stage]

    def _make_known(self, project: Project, stages: list[str]) -> None:
        lock = yaml.safe_load(self.whole.read("dvc.lock"))["stages"]
        commands = {lock[stage]["cmd"] for stage in stages}
        for run in (self.whole.path / RUNS).glob("*/*/*"):
            entry = yaml.safe_load(run.read_text())
            if entry["cmd"] in commands:
                files = [run, *(file for out in entry["outs"] for file in self._objects(out["md5"]))]
                for file in files:
                    target = project.path / file.relative_to(self.whole.path)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(file, target)

    def _objects(self, md5: str) -> Iterator[Path]:
        file = self.whole.path / CACHE / md5[:2] / md5[2:]
        yield file
        for entry in json.loads(file.read_text()) if md5.endswith(".dir") else []:
            yield from self._objects(entry["md5"])


def start(project: Project) -> subprocess.Popen:
    return project.start("dvc", "repro", stdout=subprocess.PIPE)


def stages_of(process: subprocess.Popen) -> Iterator[str]:
    """The stages of a run, each when it begins."""
    for line in process.stdout:
        if line.startswith("Running stage"):
            yield line.split("'")[1]


def reach(process: subprocess.Popen, wanted: str) -> None:
    if wanted not in stages_of(process):
        raise Lost(f"the run ended before {wanted}")


def check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Lost(otherwise)


def files_of(project: Project) -> dict[str, str]:
    """The SHA-256 of each file that the pipeline makes, by its path."""
    among = [project.path / name for name in OUTPUTS]
    files = [file for path in among for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]
    made = {str(file.relative_to(project.path)): file for file in sorted(files) if file.name not in SOURCES}
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in made.items()}


def cached_in(project: Project) -> list[Path]:
    """The files of DVC's cache."""
    return sorted(file for file in (project.path / CACHE).glob("*/*") if not file.name.startswith("."))


def comes_through(project: Project, undisturbed: Undisturbed) -> str:
    """Run `dvc repro`, and see that nothing differs from an undisturbed run; return what it printed."""
    process = subprocess.run(["dvc", "repro"], cwd=project.path, env=project.environment, capture_output=True, text=True)
    told = process.stdout + process.stderr
    check(process.returncode == 0, f"dvc repro failed: {told[-600:]}")
    is_as_undisturbed(project, undisturbed)
    return told


def is_as_undisturbed(project: Project, undisturbed: Undisturbed) -> None:
    end = files_of(project)
    differing = sorted(name for name in end.keys() | undisturbed.end.keys() if end.get(name) != undisturbed.end.get(name))
    check(not differing, f"files differ from the undisturbed run: {', '.join(differing[:5])}")
    cached = cached_in(project)
    check(bool(cached), "the cache is empty")
    for file in cached:
        whole = hashlib.md5(file.read_bytes()).hexdigest() == (file.parent.name + file.name)[:32]
        check(whole, f"{file.name} in the cache is damaged")
    check("up to date" in project.run("dvc", "status"), "dvc status is not clean")


def processes_of(project: Project, command: str = "") -> dict[int, str]:
    """Every process that works in the project's folder and whose command line holds the given words, by its number."""
    found = {}
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
            if process.status() != psutil.STATUS_ZOMBIE and process.cwd().startswith(str(project.path)) and command in line:
                found[process.pid] = line
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue
    return found


@contextmanager
def nothing_left(project: Project) -> Iterator[None]:
    """Whatever happens, no process is left in the project."""
    try:
        yield
    finally:
        for pid in processes_of(project):
            os.kill(pid, signal.SIGKILL)


def killed(undisturbed: Undisturbed, folder: Path, stage: str, seed: int) -> None:
    """SIGKILL to the whole process group at a random moment of a stage."""
    project = undisturbed.at(stage, folder)
    moment = random.Random(f"{stage} {seed}").uniform(0, undisturbed.seconds[stage])
    with nothing_left(project):
        process = start(project)
        reach(process, stage)
        time.sleep(moment)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        check(wait_for(lambda: not processes_of(project)), f"processes are left: {processes_of(project)}")
    comes_through(project, undisturbed)


def stopped(undisturbed: Undisturbed, folder: Path, stage: str, how: signal.Signals) -> None:
    """Ctrl-C, which a terminal sends to the whole foreground group, or a signal to DVC alone, in the middle of a stage."""
    moment, status = undisturbed.seconds[stage], 0
    for attempt in range(6):
        moment /= 2
        project = undisturbed.at(stage, folder / str(attempt))
        with nothing_left(project):
            process = start(project)
            reach(process, stage)
            time.sleep(moment)
            os.killpg(process.pid, how) if how == signal.SIGINT else process.send_signal(how)
            check(wait_for(lambda project=project: not processes_of(project)), f"processes are left: {processes_of(project)}")
            status = process.wait()
        if status != 0:
            break  # else the run may have ended before its moment came, where the machine has become faster
    check(status != 0, "the run that was stopped ended as if it had not been")
    comes_through(project, undisturbed)


def member_killed(undisturbed: Undisturbed, folder: Path) -> None:
    """SIGKILL to one member's process while it trains; the others' work is kept."""
    project = undisturbed.at("fan-out", folder)
    log = project.path / ".dvc/tmp/fan-out/member-01.log"

    def kill_member() -> bool:
        for pid in processes_of(project):
            with suppress(OSError):  # it has ended meanwhile
                if Path(f"/proc/{pid}/fd/1").readlink() == log:
                    os.kill(pid, signal.SIGKILL)
                    return True
        return False

    with nothing_left(project):
        process = start(project)
        check(wait_for(kill_member), "member-01 did not start")
        told, _ = process.communicate(timeout=LIMIT_S)
    others_are_kept(process.returncode, told, project, undisturbed)


def member_fails(undisturbed: Undisturbed, folder: Path) -> None:
    """An error raised inside one member's process; the others' work is kept."""
    project = undisturbed.at("fan-out", folder)
    injected = folder / "injected"
    injected.mkdir()
    (injected / "sitecustomize.py").write_text(INJECTED)
    environment = {**project.environment, "PYTHONPATH": str(injected)}
    done = subprocess.run(["dvc", "repro"], cwd=project.path, env=environment, capture_output=True, text=True)
    check("an injected error" in done.stdout, f"the error is not told: {done.stdout[-600:]}")
    others_are_kept(done.returncode, done.stdout + done.stderr, project, undisturbed)


def others_are_kept(status: int, told: str, project: Project, undisturbed: Undisturbed) -> None:
    check(status != 0 and "member-01 failed" in told, f"the member that failed is not named: {told[-600:]}")
    check("1 of 3 members to train" in comes_through(project, undisturbed), "more members than the failed one were trained again")


def disk_full(undisturbed: Undisturbed, folder: Path, stage: str, left: int) -> None:
    """A disk with so many KiB left when the stage begins; it continues when there is room."""
    disk = folder / "disk"
    with small_disk(disk, "256m"):
        project = undisturbed.at(stage, disk)
        (project.path.parent / "home").mkdir(exist_ok=True)
        filler = disk / "filler"
        free = shutil.disk_usage(disk).free - left * 1024
        with open(filler, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, free)
        done = subprocess.run(["dvc", "repro"], cwd=project.path, env=project.environment, capture_output=True, text=True)
        told = done.stdout + done.stderr
        check(done.returncode != 0, f"there was room with {left} KiB")
        check("No space left on device" in told or "disk is full" in told, f"a full disk is not told: {told[-900:]}")
        check("Traceback" not in told, f"a traceback is told: {told[-1500:]}")
        filler.unlink()
        comes_through(project, undisturbed)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A disk of that size; the test is skipped where none can be mounted."""
    if not can_mount():
        pytest.skip("no disk can be mounted here")
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def can_mount() -> bool:
    """Whether this process may make a disk of its own."""
    point = Path(os.environ.get("TMPDIR", "/tmp")) / f"mount-{os.getpid()}"
    point.mkdir()
    try:
        command = f"mount -t tmpfs -o size=1m none {point} && umount {point}"
        return subprocess.run(["sh", "-c", command], capture_output=True).returncode == 0
    finally:
        point.rmdir()


def two_at_once(undisturbed: Undisturbed, folder: Path, stage: str) -> None:
    """Two `dvc repro` in one clone, begun before a stage."""
    project = undisturbed.at(stage, folder)
    runs = [subprocess.Popen(["dvc", "repro"], cwd=project.path, env=project.environment, **PIPES) for _ in range(2)]
    for run in runs:
        output, errors = run.communicate(timeout=LIMIT_S)
        is_clear = run.returncode == 0 or any(words in errors for words in BUSY)
        check(is_clear, f"it does not say why it can't go on: {errors[-900:]}")
        check("Traceback" not in output + errors, f"a traceback is told: {(output + errors)[-1500:]}")
    comes_through(project, undisturbed)


def queue_beside(undisturbed: Undisturbed, folder: Path) -> None:
    """`dvc exp run --queue` twice, two workers, and `dvc repro` beside them."""
    project = undisturbed.at("ingest", folder)
    project.run("git", "add", "-A")
    project.run("git", "commit", "-q", "--allow-empty", "-m", "Before")
    for seed in (5, 6):
        project.run("dvc", "exp", "run", "--queue", "--name", f"seed-{seed}", "-S", f"seed={seed}")
    project.run("git", "checkout", "-q", "--", ".")
    with nothing_left(project):
        project.run("dvc", "queue", "start", "--jobs", "2")
        beside = comes_through(project, undisturbed)
        check("Running stage" in beside, "dvc repro had nothing to do beside the queue")
        waiting = ("Queued", "Running")
        check(wait_for(lambda: not any(word in project.run("dvc", "queue", "status") for word in waiting)), "the queue hangs")
        told = project.run("dvc", "queue", "status")
        check(told.count("Success") == 2, f"experiments failed: {told}")
        is_as_undisturbed(project, undisturbed)
        project.run("dvc", "queue", "stop", "--kill")


def lost(file: Path) -> None:
    file.unlink()


def cut(file: Path) -> None:
    """Half of it is left."""
    content = file.read_bytes()
    mode = file.stat().st_mode
    file.chmod(0o644)
    file.write_bytes(content[: len(content) // 2])
    file.chmod(mode)


def changed(file: Path) -> None:
    """One bit of it is another."""
    content = bytearray(file.read_bytes() or b"\0")
    content[len(content) // 2] ^= 1
    mode = file.stat().st_mode
    file.chmod(0o644)
    file.write_bytes(content)
    file.chmod(mode)


def cache_damaged(undisturbed: Undisturbed, folder: Path, damage: Callable[[Path], None], number: int) -> None:
    """A file of DVC's cache is damaged, and the workspace's copies are gone."""
    project = undisturbed.whole.copy(folder)
    damage(cached_in(project)[number])
    for name in ("data/rad", "data/bootstrap", "models"):
        shutil.rmtree(project.path / name)
    comes_through(project, undisturbed)


def all_lost(undisturbed: Undisturbed, folder: Path) -> None:
    """DVC's cache, and all that it cached, are gone; dvc.lock is there."""
    project = undisturbed.whole.copy(folder)
    for name in (".dvc/cache", "data/rad", "data/bootstrap", "data/phantom", "models"):
        shutil.rmtree(project.path / name)
    comes_through(project, undisturbed)


def workspace_damaged(undisturbed: Undisturbed, folder: Path, damage: Callable[[Path], None], number: int) -> None:
    """A file that the pipeline made, other than dvc.lock, is damaged."""
    project = undisturbed.whole.copy(folder)
    damage(project.path / workspace_files(undisturbed)[number])
    comes_through(project, undisturbed)


def workspace_files(undisturbed: Undisturbed) -> list[str]:
    """What Git does not restore."""
    return [name for name in undisturbed.end if not name.endswith("dvc.lock")]
