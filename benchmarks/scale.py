"""Measure what driver and workers need for a member, and simulate larger clusters.

    python -m benchmarks.scale          (writes benchmarks/SCALE.md)

Measured with a scheduler and two workers, all on this machine, on the small images of the tests.
"""

import heapq
import json
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.commands import compose, dvc, python, wall_time
from benchmarks.timings import read_timings
from brainmri.common.paths import TIMINGS
from brainmri.common.resources import usable_cores
from tests.support.checkout import ROOT, checkout
from tests.support.cluster import Cluster

RESULTS = ROOT / "benchmarks/SCALE.md"
SETTINGS = {
    "preset": "scratch",
    "ingest.image_size": 32,
    "phantom.classes.no": 24,
    "phantom.classes.yes": 24,
}
WORKERS = ("a", "b")
LONG_MEMBERS, LONG_EPOCHS = 4, 42
SHORT_MEMBERS, SHORT_EPOCHS = 12, 2
CHECK_MEMBERS = 64  # of `SHORT_EPOCHS`, in the run that checks the simulation
MEMBER_S = 600.0  # training time of a simulated member
BANDWIDTH = 100e6  # bytes per second that the driver's network carries
DRIVER_GOAL_S, WORKER_GOAL_S, EFFICIENCY_GOAL = 0.1, 5.0, 0.95
SIMULATED = [
    (members, workers)
    for members in (8, 64, 256, 1024)
    for workers in (2, 8, 64, 256)
    if workers <= members
]
BUNDLE = """
from pathlib import Path
from brainmri.common.params import load_params
from brainmri.parallel.bundle import make_bundle
bundle = make_bundle(load_params(), [])
print(len(bundle.code), sum(Path(path).stat().st_size for path in bundle.files))
"""


@dataclass(frozen=True)
class Costs:
    """Measured costs, in seconds and bytes.

    Attributes
    ----------
    worker_start : float
        From the start of a worker until it has joined.
    driver_start : float
        From the start of `fan-out` until members are handed out, with all workers there.
    driver_member : float
        CPU time of the driver for each member: hand it out, follow its log, take its result.
    publish : float
        From the end of `fan-out`, for each member: its own stage, which publishes the result.
    worker_member : float
        Of a worker for each member, besides training.
    code, inputs, result : int
        Bytes: the package's code and what members read, once for each worker; a member's result.
    """

    worker_start: float
    driver_start: float
    driver_member: float
    publish: float
    worker_member: float
    code: int
    inputs: int
    result: int


@dataclass
class Run:
    """A run of `dvc repro weigh`.

    Attributes
    ----------
    handed_out : float
        Seconds from the start of `fan-out` until members are handed out.
    fan_out : float
        Seconds of `fan-out`.
    publish : float
        Seconds from the end of `fan-out` to the start of `weigh`.
    members : list of float
        Seconds of each member on its worker.
    cpu : float
        CPU time of `fan-out` on the driver, seconds.
    """

    handed_out: float = 0.0
    fan_out: float = 0.0
    publish: float = 0.0
    members: list[float] = field(default_factory=list)
    cpu: float = 0.0


def simulate(
    members: int, workers: int, training: float, costs: Costs, bandwidth: float = BANDWIDTH
) -> float:
    """Compute the wall time of `fan-out`, in seconds, for which the workers are needed.

    Workers take members in turn. The driver's network carries one transfer at a time, and the
    driver takes one result at a time, in the order in which they come.
    """
    network, driver, waiting = 0.0, costs.driver_start, members
    events = [(costs.driver_start, worker, "joins") for worker in range(min(workers, members))]
    while events:
        now, worker, event = heapq.heappop(events)
        if event == "joins":
            network = max(network, now) + (costs.code + costs.inputs) / bandwidth
            heapq.heappush(events, (network, worker, "is free"))
        elif event == "is free" and waiting:
            waiting -= 1
            end = now + costs.worker_member + training
            heapq.heappush(events, (end, worker, "has trained"))
        elif event == "has trained":
            network = max(network, now) + costs.result / bandwidth
            driver = max(driver, network) + costs.driver_member
            heapq.heappush(events, (now, worker, "is free"))
    return driver


def efficiency(members: int, workers: int, costs: Costs) -> float:
    """Compute the members' training time over the time for which the workers are needed."""
    return members * MEMBER_S / (workers * simulate(members, workers, MEMBER_S, costs))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        costs, measured, predicted = measure(Path(folder))
    text = report(costs, measured, predicted)
    print("\n" + text)
    RESULTS.write_text(text, "utf-8")


def measure(folder: Path) -> tuple[Costs, float, float]:
    """Measure the costs, and compare `fan-out` with its simulation.

    Returns
    -------
    costs : Costs
    measured, predicted : float
        Seconds of `fan-out` of `CHECK_MEMBERS` members: measured, and simulated with these costs.
    """
    cluster = Cluster(folder / "cluster")
    try:
        starts = [wall_time(partial(cluster.worker, name)) for name in WORKERS]
        project = checkout(folder / "driver")
        engine = {"fan_out.engine": "dask", "fan_out.scheduler": cluster.address()}
        settings = SETTINGS | engine
        long_settings = {"members": LONG_MEMBERS, "train.epochs": LONG_EPOCHS}
        long_run = run_pipeline(project, settings | long_settings)
        short_settings = {"members": SHORT_MEMBERS, "train.epochs": SHORT_EPOCHS}
        short_run = run_pipeline(project, settings | short_settings)
        code, inputs = map(int, python(project, "-c", BUNDLE).split()[-2:])
        check_settings = {**short_settings, "members": CHECK_MEMBERS, "seed": 1}
        check_run = run_pipeline(project, settings | check_settings)
        results = sum(
            file.stat().st_size
            for name in ("models", "metrics")
            for file in (project / name / "members").rglob("*")
            if file.is_file()
        )
    finally:
        cluster.end()
    long_member = statistics.mean(long_run.members)
    short_member = statistics.mean(short_run.members)
    epoch = (long_member - short_member) / (LONG_EPOCHS - SHORT_EPOCHS)
    costs = Costs(
        worker_start=statistics.mean(starts),
        driver_start=short_run.handed_out,
        driver_member=(check_run.cpu - short_run.cpu) / (CHECK_MEMBERS - SHORT_MEMBERS),
        publish=check_run.publish / CHECK_MEMBERS,
        worker_member=short_member - SHORT_EPOCHS * epoch,
        code=code,
        inputs=inputs,
        result=results // CHECK_MEMBERS,
    )
    predicted = simulate(CHECK_MEMBERS, len(WORKERS), SHORT_EPOCHS * epoch, costs)
    return costs, check_run.fan_out, predicted


def run_pipeline(project: Path, settings: dict) -> Run:
    """Run the pipeline up to `weigh` with these parameters, and time its parts."""
    members, epochs = settings["members"], settings["train.epochs"]
    print(f"{members} members of {epochs} epochs on {len(WORKERS)} workers", flush=True)
    compose(project, settings)
    dvc(project, "repro", "bootstrap-sample")
    process = subprocess.Popen(
        ["dvc", "repro", "weigh"], cwd=project, stdout=subprocess.PIPE, text=True
    )
    run, marks = Run(), {}
    for line in process.stdout:
        for mark in ("Running stage 'fan-out'", "dashboard:", "Running stage 'train", "'weigh'"):
            if mark in line:
                marks.setdefault(mark, time.monotonic())
        run.members += [float(seconds) for seconds in re.findall(r"done in (\d+) s", line)]
    if process.wait():
        sys.exit("error: `dvc repro weigh` failed")
    start, handed_out, published, weigh = marks.values()
    run.handed_out = handed_out - start
    run.fan_out = published - start
    run.publish = weigh - published
    timings = read_timings(project / TIMINGS)
    run.cpu = {timing.stage: timing.cpu for timing in timings}["fan-out"]
    return run


def report(costs: Costs, measured: float, predicted: float) -> str:
    """Return the content of benchmarks/SCALE.md.

    Parameters
    ----------
    costs : Costs
    measured, predicted : float
        Seconds of `fan-out` of the run that checks the simulation, and those that it predicts.
    """
    rows = []
    for members, workers in SIMULATED:
        fan_out = simulate(members, workers, MEMBER_S, costs)
        published = fan_out + members * costs.publish
        cells = [
            str(members),
            str(workers),
            f"{fan_out / 60:.1f} min",
            f"{efficiency(members, workers, costs):.2f}",
            f"{published / 60:.1f} min",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    reached = {True: "reached", False: "not reached"}
    at_256 = efficiency(256, 256, costs)
    driver = reached[costs.driver_member <= DRIVER_GOAL_S]
    worker = reached[costs.worker_member <= WORKER_GOAL_S]
    machine = f"{usable_cores()} cores, {platform.processor() or platform.machine()}"
    costs_json = json.dumps({key: round(value, 4) for key, value in asdict(costs).items()})
    return f"""# How far a cluster scales

What `python -m benchmarks.scale` printed. {machine}; scheduler, {len(WORKERS)} workers and driver
on one machine, so that they share its cores. Goals: {DRIVER_GOAL_S} s of the driver and
{WORKER_GOAL_S:.0f} s of a worker for each member, or less.

## Measured
| what | | goal |
| --- | --- | --- |
| a worker, from its start until it has joined | {costs.worker_start:.1f} s | |
| driver, until it hands out members | {costs.driver_start:.1f} s | |
| driver, for each member (CPU time) | {costs.driver_member:.3f} s | {driver} |
| driver, after `fan-out`, for each member: publish it | {costs.publish:.2f} s | |
| worker, for each member, besides training | {costs.worker_member:.1f} s | {worker} |
| to each worker once: the package's code | {costs.code / 1e6:.2f} MB | |
| to each worker once: parameters, split and store | {costs.inputs / 1e6:.2f} MB | |
| from a worker for each member: its result | {costs.result / 1e6:.2f} MB | |

Check: `fan-out` of {CHECK_MEMBERS} members of {SHORT_EPOCHS} epochs on {len(WORKERS)} workers took
{measured:.0f} s; simulated: {predicted:.0f} s (ratio {predicted / measured:.2f}).

## Simulated
Members that train for {MEMBER_S / 60:.0f} minutes, with the costs above; the workers have joined,
and the driver's network carries {BANDWIDTH / 1e6:.0f} MB/s. Efficiency: the members' training time
over the workers' time, which ends with `fan-out`.

| members | workers | `fan-out` | efficiency | until all are published |
| --- | --- | --- | --- | --- |
{chr(10).join(rows)}

At 256 workers, one member each: {at_256:.2f} (goal {EFFICIENCY_GOAL} or more:
{reached[at_256 >= EFFICIENCY_GOAL]}).

```json
{costs_json}
```
"""


if __name__ == "__main__":
    main()
