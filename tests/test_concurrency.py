"""Work, depth and speed-up are told from the timings of the last run."""

import json

import networkx as nx
import pytest

from benchmarks.concurrency import Timing, last_run, measure, read_timings
from stages.shared.errors import UserError
from stages.shared.machine import MEMBER_MEMORY

RUN = [
    Timing("ingest", 0, 10, 10),
    Timing("member-00", 10, 30, 30),
    Timing("member-01", 10, 30, 28),
    Timing("fan-out", 10, 31, 1),
    Timing("weigh", 41, 4, 4),
]


def graph():
    edges = [("fan-out", "ingest"), ("member-00", "fan-out"), ("member-01", "fan-out")]
    return nx.DiGraph([*edges, ("weigh", "member-00"), ("weigh", "member-01")])


def test_work_is_a_sum_and_depth_the_longest_chain():
    told = measure(RUN, graph())
    assert told.work == 73
    assert told.depth == 10 + 1 + 30 + 4
    assert told.elapsed == 45
    assert (told.members_work, told.members_elapsed) == (58, 30)


def test_only_the_last_run_counts(tmp_path):
    earlier = [Timing(one.stage, one.start - 500, one.wall, 99) for one in RUN]
    assert last_run(earlier + RUN) == RUN
    log = tmp_path / "timings.jsonl"
    log.write_text("".join(json.dumps(vars(one)) + "\n" for one in RUN) + '{"stage": "cut sh')
    assert read_timings(log) == RUN
    with pytest.raises(UserError, match="run `dvc repro` first"):
        read_timings(tmp_path / "none")


def test_stages_leave_their_timings(done):
    done.experiment(**{"weigh.scheme": "uniform"})
    timings = read_timings(done.path / ".dvc/tmp/timings.jsonl")
    stages = {timing.stage for timing in timings}
    assert {"data/dvc.yaml:phantom", "ingest", "fan-out", "member-00", "train@member-00", "weigh", "evaluate"} <= stages
    assert 0 < max(timing.peak_memory for timing in timings if timing.stage.startswith("member-")) < MEMBER_MEMORY / 2**20
    told = done.run("python", "-m", "benchmarks.concurrency")
    assert "average parallelism W/D" in told
    assert done.run("git", "status", "--porcelain", "--untracked-files=all").stdout.count("??") == 0
