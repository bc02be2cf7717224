"""Stages leave their timings, from which the speed-up of a run is computed."""

import json

from brainmri.parallel.resources import OWN_NETWORK_MEMORY


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
