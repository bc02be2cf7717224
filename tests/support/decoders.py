"""Functions that take the place of decoders, in a process of `brainmri.images.workers`."""

import os
import time

from brainmri.images.limits import MAX_PIXELS, check_size


def large() -> None:
    """Do what every decoder does first, with the size of a large image."""
    check_size(MAX_PIXELS // 10_000, 10_000)


def loop_forever() -> None:
    large()
    while True:
        pass


def crash() -> None:
    large()
    os.abort()


def allocate(size: int) -> int:
    large()
    return len(bytearray(size))


def wait_and_return_interval(seconds: float) -> tuple[float, float]:
    large()
    start = time.monotonic()
    time.sleep(seconds)
    return start, time.monotonic()
