"""How a command that a user types ends: one line for a mistake or an unlucky machine, no traceback.

Stages have `brainmri.common.stage` for that.
"""

import os
import resource
import signal
import sys
from collections.abc import Callable

from brainmri.common.errors import UserError, error_line

MIB = 2**20
TENSORFLOW_MIB = 2048  # of addresses, which its libraries, threads and a small model take


def run_command(main: Callable[[], None], *, needs_tensorflow: bool = False) -> None:
    """Run a command's `main`; exit with a line on standard error if it can't do its work.

    The status is 1, 130 after Ctrl-C, and, without a line, 141 if the reader of the output, such as
    `head`, has ended: 128 and the signal's number, as a shell has it.

    Parameters
    ----------
    main : callable
        Raises UserError for a user's mistake, OSError for what the machine refuses.
    needs_tensorflow : bool
        Whether to refuse a limit of memory (`ulimit -v`) at which TensorFlow crashes.
    """
    try:
        check_standard_streams()
        if needs_tensorflow:
            check_memory_limit()
        try:
            main()
        finally:
            sys.stdout.flush()  # here, where an error still has its line
    except UserError as error:
        _exit(error_line(error))
    except KeyboardInterrupt:
        _exit(128 + signal.SIGINT)
    except BrokenPipeError:
        _exit(128 + signal.SIGPIPE)
    except MemoryError:
        _exit("error: there is not enough memory; close other programs, or raise `ulimit -v`")
    except OSError as error:
        if error.errno is None:  # not the system's: a programming error
            raise
        name = repr(str(error.filename)) if error.filename else "the output"
        _exit(error_line(f"{name}: {error.strerror}"))


def check_standard_streams() -> None:
    """Check that there is a standard output; a closed standard error is the null device from now.

    Else the next file that is opened would get its number, and what is printed.

    Raises
    ------
    UserError
        If standard output is closed.
    """
    closed = [number for number in range(3) if not _is_open(number)]
    for _ in closed:
        os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        raise UserError("standard output is closed")


def check_memory_limit() -> None:
    """Raise UserError if the limit of memory is one at which TensorFlow crashes."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < TENSORFLOW_MIB * MIB:
        raise UserError(
            f"the limit of memory (`ulimit -v`) is {limit // MIB} MiB; expected {TENSORFLOW_MIB}"
            " at least, which TensorFlow needs; raise it"
        )


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _exit(status: int | str) -> None:
    """Exit, without what standard output could not take: Python would try once more."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)
