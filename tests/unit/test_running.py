"""How stages are started, and when they end: with the process that started them."""

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from brainmri.parallel import pool
from brainmri.parallel.resources import Jobs
from tests.support.checkout import ROOT
from tests.support.disk import can_mount
from tests.support.waiting import LIMIT_S

ENDLESS = """
import time
from brainmri.common import processes, stage

def main():
    print("working", flush=True)
    time.sleep(1e9)

stage._run(main, "endless", processes.parent_processes())
"""
SET_CLOCK = """
from pathlib import Path
from brainmri.common import processes, stage

watched, stat = processes.processes_to_watch(), Path("stat")
print(len(watched), "watched")
for year in (31_536_000, -63_072_000):
    text = stat.read_text()
    before = int(text.partition("btime ")[2].split()[0])
    stat.write_text(text.replace(f"btime {before}", f"btime {before + year}"))
    assert f"btime {before + year}" in Path("/proc/stat").read_text()
    print(all(processes.is_alive(*process) for process in watched))
    stage._record_time("set-clock")
"""


def start(folder: Path, code: str, command: str) -> subprocess.Popen:
    """Start the code as DVC starts a stage; in the shell's command, {stage} stands for it."""
    package = folder / "stages"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(code)
    environment = {**os.environ, "DVC_STAGE": "test", "PYTHONPATH": str(ROOT)}
    command = command.format(stage=f"{sys.executable} -m stages test")
    return subprocess.Popen(
        ["sh", "-c", command], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )


def test_a_stage_ends_with_the_shell_that_started_it(tmp_path):
    shell = start(tmp_path, ENDLESS, "{stage} & wait")
    assert shell.stdout.readline() == "working\n"
    shell.kill()
    shell.communicate(timeout=LIMIT_S)  # to the end of its output, which the stage holds open


@pytest.mark.skipif(
    not can_mount(), reason="no disk can be mounted here, and so no file over /proc/stat"
)
def test_a_stage_goes_on_when_the_clock_is_set(tmp_path):
    """The time of boot is computed from the clock, and start times since the epoch with it."""
    (tmp_path / "stat").write_text(Path("/proc/stat").read_text())
    process = start(
        tmp_path, SET_CLOCK, "unshare --mount sh -c 'mount --bind stat /proc/stat && {stage}'"
    )
    output, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    watched, *alive = output.splitlines()
    assert int(watched.split()[0]) >= 3  # itself, and the shells above it
    assert alive == ["True", "True"]
    log = (tmp_path / ".dvc/tmp/timings.jsonl").read_text()
    walls = [json.loads(line)["wall"] for line in log.splitlines()]
    assert [0 <= wall < LIMIT_S for wall in walls] == [True, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no stage ''; expected one of bootstrap-sample, evaluate, explain, export, fan-out,"),
        (["splt"], "no stage 'splt'; expected one of bootstrap-sample,"),
        (["bootstrap_sample"], "no stage 'bootstrap_sample'; expected one of bootstrap-sample,"),
        (["train"], "stage train got 0 argument(s); expected: python -m stages train MEMBER"),
        (["split", "now"], "stage split got 1 argument(s); expected: python -m stages split"),
    ],
)
def test_wrong_commands_give_one_line(arguments, message):
    command = [sys.executable, "-m", "stages", *arguments]
    result = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=LIMIT_S)
    assert result.returncode == 1
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith(f"error: {message}")


def test_a_long_temporary_folder_gives_one_line(tmp_path):
    """Sockets must have short paths."""
    folder = tmp_path / ("long" * 25)
    folder.mkdir()
    code = (
        "from brainmri.common.command import run_command\n"
        "from brainmri.parallel.pool import training_processes\n"
        "run_command(lambda: training_processes(has_gpus=False))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
        timeout=LIMIT_S,
    )
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: no socket can be in {str(folder)!r} (AF_UNIX path too long);")


def test_a_python_without_packages_gives_one_line():
    command = [sys.executable, "-S", "-m", "stages", "split"]
    result = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=LIMIT_S)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {sys.executable} lacks h5py, jinja2, PIL, psutil, pydantic,")
    assert line.endswith("; activate the environment: source .venv/bin/activate")


def test_an_interrupt_before_a_member_has_started_ends_training():
    """As while the first process waits for the import of TensorFlow."""

    class Interrupted(pool.LocalRun):
        def start_process(self, processes, gpus):
            self.process = multiprocessing.Process(target=print)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pool.train_in_parallel([Interrupted("member-00")], Jobs(1, "cores", 1), [], None)
