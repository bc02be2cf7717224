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
import time
from pathlib import Path

from benchmarks.watching import PeakMemory
from brainmri.common.files import write_json
from tests.support.checkout import ROOT

RESULT = ROOT / "docs/results/start.json"
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


if __name__ == "__main__":
    main()
