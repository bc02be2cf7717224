"""What a worker of a cluster does: it trains a member in a clone of its own, and pushes the result to the DVC remote.

The driver sends this module's functions to the workers, which have no checkout; so it imports nothing of the project.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from distributed import Worker, get_worker

LOOK_EVERY_S = 0.5


def versions(packages: list[str]) -> dict[str, str]:
    """The versions of Python and of these packages here; "none" where one is missing."""
    found = {"Python": ".".join(map(str, sys.version_info[:3]))}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


def about(packages: list[str], dask_worker: Worker) -> dict:
    """What the driver wants to know of a worker before it gives it work: its versions, name, and number of cores."""
    return {"versions": versions(packages), "name": str(dask_worker.name), "cores": len(os.sched_getaffinity(0))}


def unlike(expected: dict[str, str], found: dict[str, str]) -> str | None:
    """In which versions a worker differs from the driver, if it does."""
    wrong = [f"{name} {found[name]}, the driver {expected[name]}" for name in expected if found[name] != expected[name]]
    return "has " + "; ".join(wrong) if wrong else None


def train(name: str, files: dict[str, bytes], remote: dict, topic: str, expected: dict[str, str]) -> str | None:
    """Train a member in a scratch clone, which is removed however this ends.

    Parameters
    ----------
    name : str
        Of the member.
    files : dict of str to bytes
        The project's files by their relative paths.
    remote : dict
        The DVC remote's settings.
    topic : str
        Under which its log is told to the driver, as events with `member`, `where` and `text`.
    expected : dict
        The driver's `versions`.

    Returns
    -------
    str or None
        What went wrong here, if something did.
    """
    worker = get_worker()
    if wrong := unlike(expected, versions([name for name in expected if name != "Python"])):
        return wrong
    worker.log_event(topic, {"member": name, "where": str(worker.name), "text": ""})
    try:
        with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=worker.local_directory) as folder:
            clone = Path(folder)
            for path, content in files.items():
                (clone / path).parent.mkdir(parents=True, exist_ok=True)
                (clone / path).write_bytes(content)
            set_up(clone, remote)
            return train_in(clone, worker, name, topic)
    except OSError as error:
        return f"{error.filename or worker.local_directory}: {error.strerror}"


def set_up(clone: Path, remote: dict) -> None:
    """Let the clone use the DVC remote and this machine's cache of files; what it runs is on record in the clone alone.

    So it pushes no other run than its own, and what is cached once is not pulled again.
    """
    from dvc.config import Config

    files = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "brain-mri-ensemble" / "files"
    files.mkdir(parents=True, exist_ok=True)
    (clone / ".dvc/cache").mkdir(parents=True)
    (clone / ".dvc/cache/files").symlink_to(files)
    with Config(str(clone / ".dvc")).edit("local") as config:
        config["core"] = {"remote": "cluster", "no_scm": True}
        config["cache"] = {"type": "reflink,hardlink,symlink,copy"}
        config["remote"] = {"cluster": remote}


def train_in(clone: Path, worker: Worker, name: str, topic: str) -> str | None:
    """Train there, and tell the driver what is printed; return what went wrong, if something did."""
    log, task = clone / ".dvc/tmp/cluster.log", worker.get_current_task()
    log.parent.mkdir(parents=True, exist_ok=True)
    python = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{python}{os.pathsep}{os.environ['PATH']}",
        "DVC_SITE_CACHE_DIR": str(clone / ".dvc/site"),
        "DVC_NO_ANALYTICS": "1",
        "PYTHONUNBUFFERED": "1",
    }
    dies_with_us = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [*dies_with_us, sys.executable, "-m", "stages.engines.clone", name],
            cwd=clone,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    with whole_group_ended(process), open(log, encoding="utf-8", errors="replace") as told:
        while True:
            ended = process.poll() is not None
            if text := told.read():
                worker.log_event(topic, {"member": name, "where": str(worker.name), "text": text})
            if ended:
                break
            if not is_wanted(worker, task):
                return "not wanted any more"
            time.sleep(LOOK_EVERY_S)
    return reason(log, process.returncode) if process.returncode else None


@contextmanager
def whole_group_ended(process: subprocess.Popen) -> Iterator[None]:
    """Whatever happens, no process that this one started is left."""
    try:
        yield
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def is_wanted(worker: Worker, task: str) -> bool:
    """Whether anybody still waits for the task: not if the driver gave it up or is gone, or if this worker closes."""
    state = worker.state.tasks.get(task)
    return state is not None and state.state == "executing" and worker.status.name in ("running", "paused")


def reason(log: Path, code: int) -> str:
    """The last line that tells of an error; where there is none, the last of all."""
    lines = log.read_text("utf-8", "replace").splitlines() or [""]
    if found := [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]:
        return found[-1]
    return f"ended with {code}: {lines[-1]}" if code > 0 else f"ended by {signal.Signals(-code).name}"
