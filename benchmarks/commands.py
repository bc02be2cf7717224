"""Run commands in copies of the project, and time them."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.composition import COMPOSE


def compose(project: Path, params: dict[str, object]) -> None:
    """Set parameters, and derive the block `ensemble` from them, as `dvc exp run -S` does."""
    overrides = [f"{key}={value}" for key, value in params.items()]
    python(project, "-c", COMPOSE, *overrides)


def dvc(project: Path, *arguments: str) -> str:
    """Run a command of DVC; return its standard output."""
    return python(project, "-m", "dvc", *arguments)


def python(folder: Path, *arguments: str) -> str:
    """Run this Python with the given arguments; return its standard output."""
    return run(folder, sys.executable, *arguments)


def run(folder: Path, *command: str) -> str:
    """Run a command in a folder, with this Python first in PATH; return its standard output.

    If the command fails, print the end of its output and exit.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    result = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True)
    if result.returncode != 0:
        sys.exit(
            f"error: {' '.join(command[:6])} failed in {folder}:\n"
            f"{result.stdout[-2000:]}\n{result.stderr[-2000:]}"
        )
    return result.stdout


def wall_time(work: Callable[[], object]) -> float:
    """Measure the wall time of a call, in seconds."""
    return _measure(time.perf_counter, work)


def cpu_time(work: Callable[[], object]) -> float:
    """Measure the CPU time of this process during a call, of all its threads, in seconds."""
    return _measure(time.process_time, work)


def _measure(clock: Callable[[], float], work: Callable[[], object]) -> float:
    start = clock()
    work()
    return clock() - start
