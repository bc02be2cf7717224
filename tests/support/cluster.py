"""A Dask cluster of separate processes on this machine."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.support.waiting import wait_for

# Hides the file by which a worker recognizes the driver's disk.
OTHER_DISK = """
import pathlib
is_file = pathlib.Path.is_file
pathlib.Path.is_file = lambda path: not path.name.startswith("shared-") and is_file(path)
"""


class Cluster:
    """A Dask scheduler and workers on this machine, each in a folder of its own.

    Parameters
    ----------
    folder : Path
        Has a subfolder for each process, with its log, home and cache.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.processes: dict[str, subprocess.Popen] = {}
        self.start("scheduler", "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        assert wait_for(self.address), self.log("scheduler")

    def address(self) -> str:
        """Return the scheduler's address; empty before it has one."""
        addresses = re.findall(r"Scheduler at: +(tcp://\S+)", self.log("scheduler"))
        return addresses[-1] if addresses else ""

    def worker(self, name: str, *options: str, **environment: str) -> None:
        """Start a worker, with further options of `dask worker`, and wait until it has joined.

        It shares the driver's disk, and uses the project's folder in place.
        """
        local_directory = str(self.folder / name / "scratch")
        arguments = [self.address(), "--nthreads", "1", "--name", name, "--no-dashboard"]
        arguments += ["--local-directory", local_directory, *options]
        self.start(name, "worker", *arguments, **environment)
        assert wait_for(lambda: "Registered to:" in self.log(name)), self.log(name)

    def remote_worker(self, name: str, *options: str) -> None:
        """Start a worker that takes the driver's disk for another machine's."""
        folder = self.folder / name / "code"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "sitecustomize.py").write_text(OTHER_DISK)
        self.worker(name, *options, PYTHONPATH=str(folder))

    def start(self, name: str, *command: str, **environment: str) -> None:
        """Start a command of Dask's, with further environment variables."""
        home = self.folder / name
        home.mkdir(parents=True, exist_ok=True)
        homes = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
        with open(home / "log", "wb") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "dask", *command],
                cwd=home,
                env={**os.environ, **homes, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def log(self, name: str) -> str:
        return (self.folder / name / "log").read_text()

    def kill(self, name: str) -> None:
        """Kill all processes of a worker at once, but not those in sessions of their own."""
        process = self.processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def training(self, name: str = "") -> list[str]:
        """Return which members train now, on this worker or on all."""
        members = []
        for process in psutil.process_iter():
            try:
                folder = process.cwd()
                is_zombie = process.status() == psutil.STATUS_ZOMBIE
            except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
                continue
            member = re.search(r"/(member-\d+)", folder)
            if member and f"{self.folder / name}" in folder and not is_zombie:
                members.append(member[1])
        return members

    def member_folders(self) -> list[Path]:
        """Return the folders in which members train."""
        return [*self.folder.glob("*/scratch/dask-scratch-space/*/member-*")]

    def cached_files(self, name: str) -> dict[str, int]:
        """Return the inodes of the files that a worker keeps for later runs, by their hash."""
        files = (self.folder / name / "cache/brain-mri-ensemble/objects").glob("??/*")
        return {file.parent.name + file.name: file.stat().st_ino for file in files}

    def is_clean(self) -> bool:
        """Wait until no process and no folder of a member is left on any worker."""
        return wait_for(lambda: not self.training() and not self.member_folders())

    def end(self) -> None:
        """Kill all processes."""
        for name in [*self.processes]:
            self.kill(name)
