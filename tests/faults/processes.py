"""The processes that work in a project's folder."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from tests.faults.reference import check
from tests.support.project import Project
from tests.support.waiting import wait_for


def processes_of(project: Project) -> dict[int, str]:
    """Return the command lines of the processes in the project's folder, by PID."""
    command_lines = {}
    for process in psutil.process_iter():
        try:
            is_ours = process.cwd().startswith(str(project.path))
            if is_ours and process.status() != psutil.STATUS_ZOMBIE:
                command_lines[process.pid] = " ".join(process.cmdline())
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue
    return command_lines


def check_no_process(project: Project) -> None:
    """Wait until no process works in the project's folder."""
    has_none = wait_for(lambda: not processes_of(project))
    check(has_none, f"processes remain: {processes_of(project)}")


@contextmanager
def no_process_remains(project: Project) -> Iterator[None]:
    """Kill the processes that work in the project's folder at the end."""
    try:
        yield
    finally:
        for pid in processes_of(project):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
