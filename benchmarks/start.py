"""Measure what a newcomer waits for: `make repro` in a new clone, with an empty home.

    python -m benchmarks.start

Writes  docs/results/start.json: the machine; seconds; the most memory that all processes had at a
        time, and what is on the disk afterwards, in GB
"""

import json
import os
import platform
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import psutil

from brainmri.common.files import write_json
from tests.support.checkout import ROOT

RESULT = ROOT / "docs/results/start.json"
INTERVAL_S = 0.5
GB = 1e9


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home, clone = Path(folder) / "home", Path(folder) / "clone"
        home.mkdir()
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        packages = {key: value for key, value in os.environ.items() if key.startswith("PIP_")}
        environment = {"HOME": str(home), "PATH": "/usr/local/bin:/usr/bin:/bin", **packages}
        started = time.monotonic()
        with PeakMemory() as memory:
            subprocess.run(["make", "repro"], cwd=clone, env=environment, check=True)
        result = {
            "machine": f"{os.cpu_count()} cores of an {processor()}",
            "python": platform.python_version(),
            "seconds": round(time.monotonic() - started),
            "memory": round(memory.peak / GB, 1),
            "environment": round(used(clone / ".venv") / GB, 1),
            "clone": round((used(clone) - used(clone / ".venv")) / GB, 2),
        }
    write_json(RESULT, result)
    print(json.dumps(result))


def processor() -> str:
    """Return the name of the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))


def used(folder: Path) -> int:
    """Return the bytes that a folder takes on the disk."""
    output = subprocess.run(["du", "-s", "-B1", folder], capture_output=True, check=True).stdout
    return int(output.split()[0])


class PeakMemory:
    """The most memory that the processes that this one starts have at a time, in bytes.

    Memory that processes share is counted once.
    """

    def __enter__(self) -> "PeakMemory":
        self.peak = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        this = psutil.Process()
        while not self._is_over.wait(INTERVAL_S):
            total = 0
            for process in this.children(recursive=True):
                try:
                    total += process.memory_full_info().pss
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
            self.peak = max(self.peak, total)


if __name__ == "__main__":
    main()
