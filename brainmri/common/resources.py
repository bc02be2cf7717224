"""Cores and memory that this process may use. They decide no result."""

from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Count the cores that CPU affinity and the container's quota leave to this process."""
    import joblib  # here, since a stage that takes less than a second would notice its import

    return joblib.cpu_count()


def free_memory() -> int:
    """Return the bytes of memory that are available on the machine, or in the container if less."""
    available = psutil.virtual_memory().available
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        used = (CGROUP / "memory.current").read_text()
    except OSError:
        return available
    if limit == "max":
        return available
    return min(available, max(0, int(limit) - int(used)))
