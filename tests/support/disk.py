"""Disks of a chosen size."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Mount a disk of that size; the test is skipped where none can be mounted."""
    if not can_mount():
        pytest.skip("no disk can be mounted here")
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def can_mount() -> bool:
    """Return whether this process may mount a disk."""
    point = Path(os.environ.get("TMPDIR", "/tmp")) / f"mount-{os.getpid()}"
    point.mkdir()
    try:
        command = f"mount -t tmpfs -o size=1m none {point} && umount {point}"
        return subprocess.run(["sh", "-c", command], capture_output=True).returncode == 0
    finally:
        point.rmdir()


def fill(file: Path, left: int) -> None:
    """Write a file that leaves so many KiB of its disk."""
    size = shutil.disk_usage(file.parent).free - left * 1024
    with open(file, "wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, size)
