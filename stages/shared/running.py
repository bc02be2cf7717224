"""How a stage starts and how it ends: one clear line for a user's mistake, no process left behind, its time on record."""

import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from stages.shared.errors import UserError
from stages.shared.inputs import Inputs

TIMINGS = Path(".dvc/tmp/timings.jsonl")  # not tracked, and no stage reads it
Watched = list[tuple[int, int]]  # processes, as (pid, start time)


class ProcessStat(NamedTuple):
    """What the system reports of a process.

    Attributes
    ----------
    state : bytes
        One letter; Z is a zombie: it has ended, and nobody has asked for its status yet.
    parent : int
        The process that started it.
    start : int
        When it started, in clock ticks since boot. With its number it identifies a process, and it stays the same when the
        clock is set, where a time since the epoch, which psutil.Process.create_time gives, moves with the clock.
    """

    state: bytes
    parent: int
    start: int


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage's `main`, and exit with status 1 and one line on standard error if it raises `UserError`.

    It also exits so if an input of the stage changed meanwhile, since DVC would record it as if the stage had read it. The
    stage ends by itself when the DVC process that started it is gone (killed, say): nothing would use its work.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    stage = os.environ.get("DVC_STAGE")

    def checked() -> None:
        if not stage:  # typed by hand: nothing is recorded
            main()
            return
        inputs = Inputs(stage)
        try:
            main()
        except UserError:
            inputs.check()
            raise
        inputs.check()

    _run(checked, stage or sys.modules["__main__"].__spec__.name, _parents())


def run_part(main: Callable[[], None], name: str, log: Path, watched: Watched) -> None:
    """The same for a part of a stage, in a process of its own.

    Parameters
    ----------
    main : callable
        What to run.
    name : str
        Under which its time is on record.
    log : Path
        What it prints goes there.
    watched : list of (pid, start time)
        Processes without which its work has no use: see `watch_me`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    _run(main, name, watched)


def watch_me() -> Watched:
    """What a process that this one starts must watch: this one, and what it watches itself."""
    return [(os.getpid(), _process_stat(os.getpid()).start), *_parents()]


def _run(main: Callable[[], None], name: str, watched: Watched) -> None:
    threading.Thread(target=_end_with, args=(watched,), daemon=True).start()
    try:
        main()
        _record_time(name)
    except UserError as error:
        sys.exit("error: " + " ".join(str(error).split()))
    except OSError as error:
        if error.errno is None:  # not the system's word: a mistake of ours
            raise
        where = error.filename or Path.cwd()
        sys.exit(f"error: {str(where)!r}: {error.strerror}; put that right and run the command again: finished work is kept")
    except KeyboardInterrupt:
        sys.exit(130)


def _record_time(name: str) -> None:
    """Append wall time and CPU time, in seconds, with the start, and the peak of resident memory, in MiB, to a log."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    wall = since_boot - _process_stat(os.getpid()).start / os.sysconf("SC_CLK_TCK")
    line = {
        "stage": name,
        "start": round(time.time() - wall, 3),
        "wall": round(wall, 3),
        "cpu": round(time.process_time(), 3),
        "children_cpu": round(children.ru_utime + children.ru_stime, 3),
        "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    TIMINGS.parent.mkdir(parents=True, exist_ok=True)
    with open(TIMINGS, "a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")


def _parents() -> Watched:
    """The processes that a stage depends on: its shell, and DVC. Above DVC is the user's own shell, which may end before it."""
    watched = []
    command = f"-m {sys.modules['__main__'].__spec__.name}"
    pid = os.getppid() if "DVC_STAGE" in os.environ else 0
    while stat := _process_stat(pid):
        watched.append((pid, stat.start))
        if command not in _command_line(pid):
            break
        pid = stat.parent
    return watched


def _end_with(watched: Watched) -> None:
    while all(_is_alive(*process) for process in watched):
        time.sleep(0.5)
    os._exit(1)


def _is_alive(pid: int, start: int) -> bool:
    stat = _process_stat(pid)
    return stat is not None and stat.start == start and stat.state != b"Z"


def _process_stat(pid: int) -> ProcessStat | None:
    """Read what the system reports of a process; None if there is no such process."""
    try:
        content = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    state, parent, *others = content.rpartition(b")")[2].split()  # its name, in parentheses, may hold anything
    return ProcessStat(state, int(parent), int(others[17]))


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
