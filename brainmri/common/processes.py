"""Processes that work for each other, and end with each other."""

import os
import time
from pathlib import Path
from typing import NamedTuple

STAGE_COMMAND = "-m stages "
POLL_S = 0.5
ProcessIds = list[tuple[int, int]]  # as (pid, start time)


class ProcessStat(NamedTuple):
    """What the system reports of a process.

    Attributes
    ----------
    state : bytes
        One letter; Z is a zombie, which has ended but has not been waited for.
    parent : int
        PID of the process that started it.
    start : int
        Clock ticks from boot to its start. With the PID it identifies a process. It stays the same
        when the clock is set, unlike a time since the epoch, as of psutil.Process.create_time.
    """

    state: bytes
    parent: int
    start: int


def processes_to_watch() -> ProcessIds:
    """Return what a child of this process must watch: this process, and what it watches itself."""
    return [(os.getpid(), process_stat(os.getpid()).start), *parent_processes()]


def parent_processes() -> ProcessIds:
    """Return the processes that a stage works for: its shell, and DVC.

    Above DVC is the user's shell, which may end before it.
    """
    parents = []
    pid = os.getppid() if "DVC_STAGE" in os.environ else 0
    while stat := process_stat(pid):
        parents.append((pid, stat.start))
        if STAGE_COMMAND not in _command_line(pid):
            break
        pid = stat.parent
    return parents


def exit_with(watched: ProcessIds) -> None:
    """Wait for the first of these processes to end, then end this one."""
    while all(is_alive(*process) for process in watched):
        time.sleep(POLL_S)
    os._exit(1)


def is_alive(pid: int, start: int) -> bool:
    """Return whether a process still runs."""
    stat = process_stat(pid)
    return stat is not None and stat.start == start and stat.state != b"Z"


def process_stat(pid: int) -> ProcessStat | None:
    """Read what the system reports of a process; None if it does not exist."""
    try:
        content = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # After the name, in parentheses, which may hold anything
    _, _, fields = content.rpartition(b")")
    state, parent, *others = fields.split()
    return ProcessStat(state, int(parent), int(others[17]))


def _command_line(pid: int) -> str:
    try:
        content = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ""
    return content.replace(b"\0", b" ").decode(errors="replace")
