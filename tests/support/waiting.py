"""Waiting for something that another process does."""

import time
from collections.abc import Callable

LIMIT_S = 3600  # ends what hangs; nothing that works comes near it, on whatever machine
POLL_S = 0.05


def wait_for(condition: Callable[[], object]) -> bool:
    """Wait until a condition holds, or the limit is reached; return whether it holds."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(POLL_S)
    return bool(condition())
