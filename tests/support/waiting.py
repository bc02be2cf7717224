"""Waiting for something that another process does."""

import time
from collections.abc import Callable

LIMIT_S = 1200  # ends what hangs; nothing that works comes near it, on whatever machine
POLL_S = 0.1


def wait_for(condition: Callable[[], object], poll_s: float = POLL_S) -> bool:
    """Wait until a condition holds, or the limit is reached; return whether it holds.

    A condition that takes time itself is asked less often, since it takes the time from what it
    waits for.
    """
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(poll_s)
    return bool(condition())
