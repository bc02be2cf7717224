"""Functions that take the place of decoders, in a process of `brainmri.images.workers`."""

import os
import time
from pathlib import Path

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


def meet_another(folder: str, seconds: float) -> bool:
    """Return whether another process of this function begins before this one has waited so long."""
    large()
    place, end = Path(folder), time.monotonic() + seconds
    (place / str(os.getpid())).touch()
    has_met = False
    while not has_met and time.monotonic() < end:
        has_met = len(list(place.iterdir())) > 1
        time.sleep(0.02)
    if not has_met:
        (place / str(os.getpid())).unlink()
    return has_met
