"""Work, depth and speed-up come from the timings of the last run."""

import json
from dataclasses import asdict, replace

import pytest

from brainmri.common.errors import UserError
from brainmri.parallel.concurrency import Timing, last_run, measure_concurrency, read_timings
from brainmri.parallel.resources import OWN_NETWORK_MEMORY

RUN = [
    Timing("ingest", 0, 10, 10),
    Timing("member-00", 10, 30, 30),
    Timing("member-01", 10, 30, 28),
    Timing("fan-out", 10, 31, 1),
    Timing("weigh", 41, 4, 4),
]
DEPENDENCIES = {
    "fan-out": {"ingest"},
    "member-00": {"fan-out"},
    "member-01": {"fan-out"},
    "weigh": {"member-00", "member-01"},
}


def test_work_depth_and_elapsed_time():
    metrics = measure_concurrency(RUN, DEPENDENCIES)
    assert metrics.work == 73
    assert metrics.depth == 10 + 1 + 30 + 4
    assert metrics.elapsed == 45
    assert (metrics.members_work, metrics.members_elapsed) == (58, 30)


def test_depth_of_stages_that_did_not_run():
    run = [RUN[0], RUN[-1]]
    metrics = measure_concurrency(run, DEPENDENCIES)
    assert (metrics.work, metrics.depth) == (14, 14)
    assert (metrics.members_work, metrics.members_elapsed) == (0, 0)


def test_only_the_last_run_counts():
    earlier = [replace(timing, start=timing.start - 500, cpu=99) for timing in RUN]
    assert last_run(earlier + RUN) == RUN


def test_truncated_lines_are_skipped(tmp_path):
    log = tmp_path / "timings.jsonl"
    lines = [json.dumps(asdict(timing)) for timing in RUN]
    log.write_text("\n".join(lines) + '\n{"stage": "cut sh')
    assert read_timings(log) == RUN
    for content in ("", "[]\n", '{"stage": "ingest"}\n'):
        log.write_text(content)
        with pytest.raises(UserError, match=r"holds no timings; run `dvc repro` first"):
            read_timings(log)
    with pytest.raises(UserError, match=r"is missing; run `dvc repro` first"):
        read_timings(tmp_path / "none")


def test_stages_leave_their_timings(done):
    done.reproduce("evaluate", **{"weigh.scheme": "uniform"})
    timings = read_timings(done.path / ".dvc/tmp/timings.jsonl")
    stages = {timing.stage for timing in timings}
    assert {"data/dvc.yaml:phantom", "ingest", "fan-out"} <= stages
    assert {"member-00", "train@member-00", "weigh", "evaluate"} <= stages
    peaks = [timing.peak_memory for timing in timings if timing.stage.startswith("member-")]
    assert 0 < max(peaks) < OWN_NETWORK_MEMORY / 2**20
    output = done.run("python", "-m", "benchmarks.concurrency")
    assert "average parallelism W/D" in output
    assert (done.path / "dvc_plots/concurrency.png").is_file()
    status = done.run("git", "status", "--porcelain", "--untracked-files=all")
    assert "??" not in status.stdout
