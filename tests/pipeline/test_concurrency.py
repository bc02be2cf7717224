"""Stages leave their timings, from which `python -m benchmarks.concurrency` prints the speed-up."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.repo import Repo

from brainmri.parallel.resources import OWN_NETWORK_MEMORY
from tests.support.checkout import ROOT

PIPELINE = """
stages:
  ingest: {cmd: "true", outs: [store]}
  fan-out: {cmd: "true", deps: [store], outs: [members]}
  train:
    foreach: [member-00, member-01]
    do: {cmd: "true", deps: [members], outs: ["${item}"]}
  weigh: {cmd: "true", deps: [member-00, member-01], outs: [weights]}
"""
RUN = {  # start, wall and CPU time of each stage, in seconds
    "ingest": (0, 10, 10),
    "member-00": (10, 30, 30),
    "member-01": (10, 30, 28),
    "fan-out": (10, 31, 1),
    "weigh": (41, 4, 4),
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a pipeline of DVC, without Git."""
    monkeypatch.chdir(tmp_path)
    Repo.init(no_scm=True).close()
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    (tmp_path / ".dvc/tmp").mkdir(exist_ok=True)
    return tmp_path


def log_lines(run: dict[str, tuple], earlier: float = 0) -> str:
    """Format timings as stages log them, as if they were earlier by some seconds."""
    entries = [
        {"stage": stage, "start": start - earlier, "wall": wall, "cpu": cpu, "peak_memory": 9}
        for stage, (start, wall, cpu) in run.items()
    ]
    return "".join(json.dumps(entry) + "\n" for entry in entries)


def print_concurrency(project: Path, log: str | None) -> subprocess.CompletedProcess:
    """Run the command where the stages' log has this content."""
    if log is not None:
        (project / ".dvc/tmp/timings.jsonl").write_text(log)
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.concurrency"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def metrics_of(process: subprocess.CompletedProcess) -> dict[str, str]:
    """Return the printed values by their names."""
    assert process.returncode == 0, process.stderr
    return dict(re.findall(r"^(\S.*?)  +([\d.]+)", process.stdout, re.MULTILINE))


def test_work_depth_and_elapsed_time_of_the_last_run(project):
    """A line that a crash has cut short does not count."""
    earlier = {**RUN, "evaluate": (45, 5, 99)}
    log = log_lines(earlier, earlier=500) + log_lines(RUN) + '{"stage": "cut sh'
    process = print_concurrency(project, log)
    metrics = metrics_of(process)
    assert process.stdout.startswith("5 stages ran, on ")
    assert metrics["work W"] == "73.0"
    assert metrics["depth D"] == f"{10 + 1 + 30 + 4:.1f}"
    assert metrics["average parallelism W/D"] == f"{73 / 45:.2f}"
    assert metrics["elapsed"] == "45.0"
    assert "58.0 s of training in 30.0 s" in process.stdout
    assert (project / "dvc_plots/concurrency.png").is_file()


def test_stages_that_did_not_run_count_as_nothing(project):
    run = {"ingest": RUN["ingest"], "weigh": (20, 4, 4)}
    metrics = metrics_of(print_concurrency(project, log_lines(run)))
    assert (metrics["work W"], metrics["depth D"], metrics["elapsed"]) == ("14.0", "14.0", "24.0")
    assert "efficiency, members" not in metrics


@pytest.mark.parametrize(
    ("log", "problem"),
    [
        (None, "is missing"),
        ("", "holds no timings"),
        ('[]\n{"stage": "ingest"}\n', "holds no timings"),
    ],
)
def test_logs_without_timings_are_refused(project, log, problem):
    process = print_concurrency(project, log)
    assert process.returncode == 1
    assert process.stderr == (
        f"error: {Path('.dvc/tmp/timings.jsonl')} {problem}; run `dvc repro` first\n"
    )


def test_stages_leave_their_timings(done):
    done.reproduce("evaluate", **{"weigh.scheme": "uniform"})
    log = (done.path / ".dvc/tmp/timings.jsonl").read_text()
    timings = [json.loads(line) for line in log.splitlines()]
    stages = {timing["stage"] for timing in timings}
    assert {"data/dvc.yaml:phantom", "ingest", "fan-out"} <= stages
    assert {"member-00", "train@member-00", "weigh", "evaluate"} <= stages
    peaks = [timing["peak_memory"] for timing in timings if timing["stage"].startswith("member-")]
    assert 0 < max(peaks) < OWN_NETWORK_MEMORY / 2**20
    output = done.run("python", "-m", "benchmarks.concurrency")
    assert "average parallelism W/D" in output
    assert (done.path / "dvc_plots/concurrency.png").is_file()
    status = done.run("git", "status", "--porcelain", "--untracked-files=all")
    assert "??" not in status.stdout
