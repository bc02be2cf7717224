"""A Dask cluster of separate processes on this machine."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

LIMIT_S = 3600  # ends what hangs; nothing that works comes near it, on whatever machine
POLL_S = 0.05


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
        options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
        self.start("scheduler", "scheduler", *options)
        self.wait_for(self.address, "scheduler")

    def address(self) -> str:
        """Return the scheduler's address; empty before it has one."""
        addresses = re.findall(r"Scheduler at: +(tcp://\S+)", self.log("scheduler"))
        return addresses[-1] if addresses else ""

    def start_worker(self, name: str) -> None:
        """Start a worker, and wait until it has joined."""
        local_directory = str(self.folder / name / "scratch")
        options = ["--nthreads", "1", "--name", name, "--no-dashboard"]
        options += ["--local-directory", local_directory]
        self.start(name, "worker", self.address(), *options)
        self.wait_for(lambda: "Registered to:" in self.log(name), name)

    def start(self, name: str, *command: str) -> None:
        """Start a command of Dask's."""
        home = self.folder / name
        home.mkdir(exist_ok=True)
        homes = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
        with open(home / "log", "wb") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "dask", *command],
                cwd=home,
                env={**os.environ, **homes},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def log(self, name: str) -> str:
        """Return what a process has printed."""
        return (self.folder / name / "log").read_text()

    def wait_for(self, condition: Callable[[], object], name: str) -> None:
        """Wait until a condition of a process holds; exit with its log if the limit is reached."""
        end = time.monotonic() + LIMIT_S
        while not condition():
            if time.monotonic() > end:
                sys.exit(f"error: {name} has not started in {LIMIT_S} s:\n{self.log(name)}")
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Kill all processes."""
        for process in self.processes.values():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.processes.clear()
