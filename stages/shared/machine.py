"""What this machine has, for deciding how many members train at a time. It decides no result."""

from dataclasses import dataclass
from pathlib import Path

import joblib
import psutil

MEMBER_MEMORY = 2**30  # bytes that a member's process needs at most on the default configuration
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Jobs:
    """How many members train at a time, and why not more."""

    number: int
    limit: str


def number_of_jobs(wanted: int | str, stale: int, threads: int, cores: int, memory: int) -> Jobs:
    """How many members to train at a time.

    Parameters
    ----------
    wanted : int or "auto"
        The user's wish; memory may cut it short. "auto" is one for each core, and as many more as make the last round
        of members as full as the others: five members on two cores go as three and two, not as two, two and one.
    stale : int
        Members that are to be trained.
    threads : int
        CPU threads of each.
    cores : int
        Cores that this process may use.
    memory : int
        Bytes that are free.

    Returns
    -------
    Jobs
        At least one.
    """
    rounds = max(1, stale // max(1, cores // threads))
    limits = {
        "members to train": stale,
        "free memory": memory // MEMBER_MEMORY,
        "fan_out.jobs": wanted if wanted != "auto" else stale,
        "cores": -(-stale // rounds) if wanted == "auto" else stale,
    }
    limit = min(limits, key=limits.get)
    return Jobs(max(1, limits[limit]), limit)


def usable_cores() -> int:
    """Cores that this process may use: affinity and the container's quota are heeded."""
    return joblib.cpu_count()


def free_memory() -> int:
    """Bytes of memory that processes may still take, here or in this container, whichever is less."""
    free = psutil.virtual_memory().available
    try:
        limit, used = (CGROUP / "memory.max").read_text().strip(), (CGROUP / "memory.current").read_text()
    except OSError:
        return free
    return free if limit == "max" else min(free, max(0, int(limit) - int(used)))
