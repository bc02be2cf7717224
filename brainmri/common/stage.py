"""How a stage starts and ends: one line for a user's mistake, no process left behind, its time
recorded.
"""

import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from brainmri.common.dependencies import StageInputs
from brainmri.common.errors import UserError, error_line
from brainmri.common.files import to_json
from brainmri.common.paths import TIMINGS
from brainmri.common.processes import ProcessIds, exit_with, parent_processes, process_stat


def run_stage(main: Callable[[], None], name: str) -> None:
    """Run a stage's `main`; exit with status 1 and one line on standard error if it raises
    `UserError`.

    It also exits so if an input of the stage changed meanwhile, since DVC would record it as if the
    stage had read it. The stage ends by itself when the DVC process that started it is gone
    (killed, say): nothing would use its work.

    Parameters
    ----------
    main : callable
    name : str
        Of the stage, where DVC does not run it.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    stage = os.environ.get("DVC_STAGE")

    def run_and_check_inputs() -> None:
        inputs = StageInputs(stage)
        try:
            main()
        except UserError:
            inputs.check()
            raise
        inputs.check()

    # Typed by hand, nothing is recorded, and the inputs need no check.
    _run(run_and_check_inputs if stage else main, stage or name, parent_processes())


def run_child(main: Callable[[], None], name: str, log: Path, watched: ProcessIds) -> None:
    """Run a part of a stage in this process, a child of the stage's, in the same way.

    Parameters
    ----------
    main : callable
    name : str
        Under which its time is recorded.
    log : Path
        Receives standard output and standard error.
    watched : list of (pid, start time)
        Processes that it works for; see `processes_to_watch`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    _run(main, name, watched)


def _run(main: Callable[[], None], name: str, watched: ProcessIds) -> None:
    threading.Thread(target=exit_with, args=(watched,), daemon=True).start()
    try:
        main()
        _record_time(name)
    except UserError as error:
        sys.exit(error_line(error))
    except OSError as error:
        if error.errno is None:  # not the system's: a programming error
            raise
        path = str(error.filename or Path.cwd())
        sys.exit(
            f"error: {path!r}: {error.strerror}; fix that and run the command again:"
            " finished work is kept"
        )
    except KeyboardInterrupt:
        sys.exit(130)


def _record_time(name: str) -> None:
    """Append start, wall and CPU time, in seconds, and peak memory, in MiB, to a log."""
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    wall = since_boot - process_stat(os.getpid()).start / os.sysconf("SC_CLK_TCK")
    timing = {
        "stage": name,
        "start": round(time.time() - wall, 3),
        "wall": round(wall, 3),
        "cpu": round(time.process_time(), 3),
        "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    TIMINGS.parent.mkdir(parents=True, exist_ok=True)
    with open(TIMINGS, "a", encoding="utf-8") as log:
        log.write(to_json(timing) + "\n")
