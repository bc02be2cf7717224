"""A stage ends when the process that started it is gone, and not when the clock is set."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from benchmarks.local_cluster import LIMIT_S
from tests.faults.faults import can_mount

ENDLESS = """
import time
from stages.shared import running

def main():
    print("working", flush=True)
    time.sleep(1e9)

running._run(main, "stage", running._parents())
"""
SET_CLOCK = """
from pathlib import Path
from stages.shared import running

watched, stat = running.watch_me(), Path("stat")
print(len(watched), "watched")
for year in (31_536_000, -63_072_000):
    text = stat.read_text()
    before = int(text.partition("btime ")[2].split()[0])
    stat.write_text(text.replace(f"btime {before}", f"btime {before + year}"))
    assert f"btime {before + year}" in Path("/proc/stat").read_text()
    print(all(running._is_alive(*process) for process in watched))
    running._record_time("set_clock")
"""


def start(folder: Path, code: str, command: str) -> subprocess.Popen:
    """Start the code as the module `stage`, as DVC starts a stage; the command is the shell's."""
    (folder / "stage.py").write_text(code)
    environment = {**os.environ, "DVC_STAGE": "stage", "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    command = command.format(stage=f"{sys.executable} -m stage")
    return subprocess.Popen(["sh", "-c", command], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)


def test_a_stage_ends_with_the_shell_that_started_it(tmp_path):
    shell = start(tmp_path, ENDLESS, "{stage} & wait")
    assert shell.stdout.readline() == "working\n"
    shell.kill()
    shell.communicate(timeout=LIMIT_S)  # to the end of its output, which the stage holds open


@pytest.mark.skipif(not can_mount(), reason="no disk can be mounted here, and so no file laid over /proc/stat")
def test_a_stage_goes_on_when_the_clock_is_set(tmp_path):
    """The system computes its time of boot from the clock; start times of processes since the epoch move with it."""
    (tmp_path / "stat").write_text(Path("/proc/stat").read_text())
    process = start(tmp_path, SET_CLOCK, "unshare --mount sh -c 'mount --bind stat /proc/stat && {stage}'")
    output, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    watched, *alive = output.splitlines()
    assert int(watched.split()[0]) >= 3  # itself, and the shells above it
    assert alive == ["True", "True"]
    timings = [json.loads(line) for line in (tmp_path / ".dvc/tmp/timings.jsonl").read_text().splitlines()]
    assert [0 <= timing["wall"] < LIMIT_S for timing in timings] == [True, True]
