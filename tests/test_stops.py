"""Stopped, killed or interrupted: no process is left behind, and the next run goes on."""

import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest
from conftest import SMALL, Project
from dvc.utils.serialize import load_yaml

WRITING = """
from pathlib import Path
from dvc.utils.serialize import modify_yaml
Path("ready").touch()
while True:
    with modify_yaml("dvc.lock") as lock:
        lock["stages"] = {str(number): {"md5": "0" * 32} for number in range(500)}
"""


def processes_of(project: Project, command: str = "") -> dict[int, str]:
    """Every process that works in the project's folder and whose command line holds the given words, by its number."""
    found = {}
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
            if process.status() != psutil.STATUS_ZOMBIE and process.cwd().startswith(str(project.path)) and command in line:
                found[process.pid] = line
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue
    return found


def wait_for(condition, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.2)
    return condition()


@pytest.mark.parametrize("how", ["ctrl-c", "kill", "terminate"])
def test_nothing_is_left_running_and_the_next_run_works(done, how):
    done.edit(train__epochs=9999)
    repro = done.start("dvc", "repro")
    try:
        logs = done.path / ".dvc/tmp/fan-out"
        assert wait_for(lambda: len([log for log in logs.glob("*.log") if "epoch 3 of" in log.read_text()]) >= 2, 120)
        if how == "ctrl-c":  # a terminal signals the whole foreground group
            os.killpg(repro.pid, signal.SIGINT)
        else:
            repro.send_signal(signal.SIGKILL if how == "kill" else signal.SIGTERM)
        assert wait_for(lambda: not processes_of(done), 15), processes_of(done)
        assert repro.wait() != 0
    finally:
        for pid in processes_of(done):
            os.kill(pid, signal.SIGKILL)
    done.edit(train__epochs=SMALL["train.epochs"])
    output = done.run("dvc", "repro")
    assert "all 3 members are trained already" in output or "fan-out' didn't change" in output
    assert "up to date" in done.run("dvc", "status")


def test_dvc_killed_while_it_writes_its_lock_file_leaves_a_whole_one(tmp_path):
    for attempt in range(8):
        (tmp_path / "ready").unlink(missing_ok=True)
        writer = subprocess.Popen([sys.executable, "-c", WRITING], cwd=tmp_path)
        assert wait_for(lambda: (tmp_path / "ready").exists() and (tmp_path / "dvc.lock").exists(), 30)
        time.sleep(random.Random(attempt).uniform(0, 0.3))
        writer.kill()
        writer.wait()
        assert len(load_yaml(tmp_path / "dvc.lock")["stages"]) == 500
