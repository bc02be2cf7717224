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

import psutil

from stages.shared.errors import UserError

TIMINGS = Path(".dvc/tmp/timings.jsonl")  # not tracked, and no stage reads it
WATCHED = "PIPELINE_WATCHED"  # environment variable: the processes above whose end must end this one too


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage's `main`, and exit with status 1 and one line on standard error if it raises `UserError`.

    The stage ends by itself when the DVC process that started it is gone (killed, say): nothing would use its work.
    """
    threading.Thread(target=_end_with_parents, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main()
        _record_time()
    except UserError as error:
        sys.exit("error: " + " ".join(str(error).split()))
    except KeyboardInterrupt:
        sys.exit(130)


def _record_time() -> None:
    """Append the stage's wall time and CPU time, in seconds, with its start, to a log."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = psutil.Process().create_time()
    line = {
        "stage": os.environ.get("DVC_STAGE", sys.modules["__main__"].__spec__.name),
        "start": round(start, 3),
        "wall": round(time.time() - start, 3),
        "cpu": round(time.process_time(), 3),
        "children_cpu": round(children.ru_utime + children.ru_stime, 3),
    }
    TIMINGS.parent.mkdir(parents=True, exist_ok=True)
    with open(TIMINGS, "a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")


def for_children() -> dict[str, str]:
    """Environment variables with which a process started from here ends when this one is gone, or what this one watches."""
    own = psutil.Process()
    return {WATCHED: json.dumps([(own.pid, own.create_time()), *_watched_processes()])}


def _watched_processes() -> list[tuple[int, float]]:
    """The processes that this one depends on, as (pid, start time): its shell, DVC, and those it was told of.

    A stage's command runs in a shell below DVC. Above DVC is the user's own shell, which may end without harm.
    """
    watched = [tuple(pair) for pair in json.loads(os.environ.get(WATCHED, "[]"))]
    command = f"-m {sys.modules['__main__'].__spec__.name}"
    for parent in psutil.Process().parents() if "DVC_STAGE" in os.environ else []:
        watched.append((parent.pid, parent.create_time()))
        if command not in " ".join(parent.cmdline()):
            break
    return watched


def _end_with_parents() -> None:
    watched = _watched_processes()
    while all(_is_alive(*process) for process in watched):
        time.sleep(0.5)
    os._exit(1)


def _is_alive(pid: int, start: float) -> bool:
    try:
        process = psutil.Process(pid)
        return process.create_time() == start and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
