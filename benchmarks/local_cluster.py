"""A Dask cluster of separate processes on this machine, for the tests and for `benchmarks.scale`."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

LIMIT_S = 3600  # ends what hangs; nothing that works comes near it, on whatever machine


def wait_for(condition: Callable) -> bool:
    """Wait until the condition holds; return whether it came to hold before a limit that only what hangs reaches."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return bool(condition())


class Cluster:
    """A Dask scheduler and workers on this machine, each in a folder of its own, and a DVC remote in another."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.remote = folder / "remote"
        self.remote.mkdir(parents=True)
        self.processes: dict[str, subprocess.Popen] = {}
        self.start("scheduler", "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        assert wait_for(self.address), self.log("scheduler")

    def address(self) -> str:
        found = re.findall(r"Scheduler at: +(tcp://\S+)", self.log("scheduler"))
        return found[-1] if found else ""

    def worker(self, name: str, *options: str, **environment: str) -> None:
        """Start a worker, with further options of `dask worker`; returns when it has joined."""
        scratch = str(self.folder / name / "scratch")
        self.start(
            name,
            "worker",
            self.address(),
            "--nthreads",
            "1",
            "--name",
            name,
            "--local-directory",
            scratch,
            "--no-dashboard",
            *options,
            **environment,
        )
        assert wait_for(lambda: "Registered to:" in self.log(name)), self.log(name)

    def start(self, name: str, *command: str, **environment: str) -> None:
        home = self.folder / name
        home.mkdir(exist_ok=True)
        with open(home / "log", "wb") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "dask", *command],
                cwd=home,
                env={**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def log(self, name: str) -> str:
        return (self.folder / name / "log").read_text()

    def kill(self, name: str) -> None:
        """As a machine that loses its power: all of its own processes at once, but not what they started."""
        process = self.processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def training(self, name: str = "") -> list[str]:
        """The command lines of processes that work in scratch folders of the workers."""
        found = []
        for process in psutil.process_iter():
            try:
                if (
                    process.status() != psutil.STATUS_ZOMBIE
                    and f"{self.folder / name}" in process.cwd()
                    and "member-" in process.cwd()
                ):
                    found.append(" ".join(process.cmdline()))
            except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
                continue
        return found

    def scratch_folders(self) -> list[Path]:
        return [*self.folder.glob("*/scratch/dask-scratch-space/*/member-*")]

    def is_clean(self) -> bool:
        """No process and no folder of a member is left on any worker."""
        return wait_for(lambda: not self.training() and not self.scratch_folders())

    def end(self) -> None:
        for name in [*self.processes]:
            self.kill(name)
