"""How far a cluster scales: what driver, worker and remote need for a member is measured, larger clusters are simulated.

    python -m benchmarks.scale          (writes benchmarks/SCALE.md)

Measured with a scheduler, two workers and a folder as DVC remote, all on this machine, on the small images of the tests.
"""

import heapq
import json
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.concurrency import read_timings
from benchmarks.local_cluster import Cluster
from benchmarks.run import ROOT, checkout, compose, dvc, python, tell, timed
from stages.shared.machine import usable_cores

RESULTS = ROOT / "benchmarks/SCALE.md"
SETTINGS = {"ingest.image_size": 32, "phantom.classes.no": 24, "phantom.classes.yes": 24}
MANY, FEW, WORKERS = 12, 4, ("a", "b")
SHORT, LONG = 2, 42  # epochs
MEMBER_S, BANDWIDTH = 600.0, 100e6  # of what is simulated: a member's training, seconds; the remote's bytes per second
SIMULATED = [(members, workers) for members in (8, 64, 256, 1024) for workers in (2, 8, 64, 256) if workers <= members]

SNAPSHOT = """
from stages.engines.cluster import snapshot
from stages.shared.params import load_params
print(sum(map(len, snapshot(load_params()).values())))
"""


@dataclass(frozen=True)
class Costs:
    """What was measured: seconds, and bytes.

    Attributes
    ----------
    worker_start : float
        From the start of a worker until it has joined.
    driver_start : float
        Of `fan-out`, until it hands out members.
    driver_follows : float
        CPU time of the driver for each member that trains.
    driver_takes : float
        Of the driver for each member, after the last one has ended: take its result from the remote, restore its stage.
    worker_member : float
        Of a worker for each member, besides training: clone, pull, TensorFlow's import, push.
    files, inputs, result : int
        Bytes: of the project's files, from the scheduler, and of what members read, from the remote, both once for each worker;
        of what a member gave.
    """

    worker_start: float
    driver_start: float
    driver_follows: float
    driver_takes: float
    worker_member: float
    files: int
    inputs: int
    result: int


def simulate(members: int, workers: int, training: float, costs: Costs, bandwidth: float = BANDWIDTH) -> float:
    """Wall time of `dvc repro weigh` from `fan-out` on, in seconds, with all workers there.

    Workers take members in turn; the remote serves one transfer at a time, in the order in which they are asked for.
    """
    remote, waiting, last = 0.0, members, 0.0
    events = [(costs.driver_start, worker, "joins") for worker in range(min(workers, members))]
    while events:
        now, worker, what = heapq.heappop(events)
        if what == "joins":
            remote = max(remote, now) + (costs.files + costs.inputs) / bandwidth
            heapq.heappush(events, (remote, worker, "is free"))
        elif what == "is free" and waiting:
            waiting -= 1
            heapq.heappush(events, (now + costs.worker_member + training, worker, "has trained"))
        elif what == "has trained":
            remote = last = max(remote, now) + costs.result / bandwidth
            heapq.heappush(events, (remote, worker, "is free"))
    return max(last, members * costs.driver_follows) + members * costs.driver_takes


def efficiency(members: int, workers: int, costs: Costs) -> float:
    """The members' training alone, over the workers' time."""
    return members * MEMBER_S / (workers * simulate(members, workers, MEMBER_S, costs))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        costs, real, predicted = measure(Path(folder))
    text = report(costs, real, predicted)
    print("\n" + text)
    RESULTS.write_text(text, "utf-8")


def measure(folder: Path) -> tuple[Costs, float, float]:
    """What things cost, and for the run with two workers, how long it took and how long the simulation says."""
    cluster = Cluster(folder / "cluster")
    try:
        starts = [timed(lambda name=name: cluster.worker(name)) for name in WORKERS]
        project = checkout(folder / "driver")
        subprocess.run(["git", "add", "-A"], cwd=project, check=True)
        dvc(project, "remote", "add", "-d", "lab", str(cluster.remote))
        settings = SETTINGS | {"fan_out.engine": "dask", "fan_out.scheduler": cluster.address(), "members": MANY}
        compose(project, settings | {"train.epochs": SHORT})
        dvc(project, "repro", "bootstrap-sample")
        dvc(project, "push", "data/rad", "data/split.json", "data/bootstrap")
        inputs = size(cluster.remote)
        files = int(python(project, "-c", SNAPSHOT).split()[-1])

        tell(f"{MANY} members of {SHORT} epochs on {len(WORKERS)} workers")
        began, real, short = follow(project)
        result = (size(cluster.remote) - inputs) // MANY
        cpu = {timing.stage: timing for timing in read_timings(project / ".dvc/tmp/timings.jsonl")}["fan-out"].cpu
        tell(f"{FEW} members of {LONG} epochs")
        compose(project, settings | {"train.epochs": LONG, "members": FEW})
        *_, long = follow(project)
        cpu_few = {timing.stage: timing for timing in read_timings(project / ".dvc/tmp/timings.jsonl")}["fan-out"].cpu

        tell("all from the remote")
        takes = {}
        for members in (FEW, MANY):
            compose(project, settings | {"train.epochs": SHORT, "members": members})
            again = folder / f"again-{members}"
            shutil.copytree(project, again, symlinks=True, ignore=shutil.ignore_patterns("cache", "members", "fan-out.json"))
            dvc(again, "repro", "bootstrap-sample")
            takes[members] = timed(lambda again=again: dvc(again, "repro", "weigh"))
    finally:
        cluster.end()
    epoch = (statistics.mean(long) - statistics.mean(short)) / (LONG - SHORT)
    costs = Costs(
        worker_start=statistics.mean(starts),
        driver_start=began,
        driver_follows=max(0.0, (cpu - cpu_few) / (MANY - FEW)),
        driver_takes=(takes[MANY] - takes[FEW]) / (MANY - FEW),
        worker_member=statistics.mean(short) - SHORT * epoch,
        files=files,
        inputs=inputs,
        result=result,
    )
    return costs, real, simulate(MANY, len(WORKERS), SHORT * epoch, costs)


def follow(project: Path) -> tuple[float, float, list[float]]:
    """Run it to `weigh`: seconds until members are handed out, and until their stages are restored, and how long each took."""
    process = subprocess.Popen(["dvc", "repro", "weigh"], cwd=project, stdout=subprocess.PIPE, text=True)
    marks, took = {}, []
    for line in process.stdout:
        for mark in ("Running stage 'fan-out'", "dashboard:", "Running stage 'weigh'"):
            if mark in line:
                marks[mark] = time.monotonic()
        took += [float(seconds) for seconds in re.findall(r"done in (\d+) s", line)]
    if process.wait():
        sys.exit("the run failed")
    start, handed, end = marks.values()
    return handed - start, end - start, took


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def report(costs: Costs, real: float, predicted: float) -> str:
    rows = []
    for members, workers in SIMULATED:
        minutes = simulate(members, workers, MEMBER_S, costs) / 60
        rows.append(f"| {members} | {workers} | {minutes:.1f} min | {efficiency(members, workers, costs):.2f} |")
    driver, at_64 = costs.driver_follows + costs.driver_takes, [efficiency(n * 64, 64, costs) for n in (1, 4, 16)]
    limits = {"the driver": 0.1 * MEMBER_S / costs.driver_takes, "the remote": MEMBER_S * BANDWIDTH / costs.result}
    (first, at), (second, later) = sorted(limits.items(), key=lambda limit: limit[1])
    moved = {
        "the driver": "it takes results once the last member has ended; taking them while others train would move that",
        "the remote": "a faster network, or smaller models, would move that",
    }
    reached = {True: "reached", False: "not reached"}
    machine = f"{usable_cores()} cores, {platform.processor() or platform.machine()}"
    return f"""# How far a cluster scales

What `python -m benchmarks.scale` printed. {machine}; scheduler, {len(WORKERS)} workers and a folder
as DVC remote on one machine, so that workers and driver share its cores.

## Measured
| what | |
| --- | --- |
| a worker, from its start until it has joined | {costs.worker_start:.1f} s |
| driver, until it hands out members | {costs.driver_start:.1f} s |
| driver, for each member that trains (CPU time) | {costs.driver_follows:.3f} s |
| driver, for each member: take its result, restore its stage | {costs.driver_takes:.2f} s |
| **driver, for each member, in all** | {driver:.2f} s (goal 1 s or less: {reached[driver <= 1]}) |
| worker, for each member, besides training: clone, pull, TensorFlow's import, push | {costs.worker_member:.1f} s |
| to each worker once, from the scheduler: the project's files | {costs.files / 1e6:.2f} MB |
| to each worker once, from the remote: RAD, split, samples | {costs.inputs / 1e6:.2f} MB |
| to the remote for each member: its outputs and entry of the run cache | {costs.result / 1e6:.2f} MB |

Check: {MANY} members of {SHORT} epochs on {len(WORKERS)} workers took {real:.0f} s from the start of `fan-out` to
that of `weigh`; the simulation, with these figures, says {predicted:.0f} s ({predicted / real:.2f} of it).

## Simulated
Members that train for {MEMBER_S / 60:.0f} minutes, with the costs above; the workers have joined, and the remote carries
{BANDWIDTH / 1e6:.0f} MB/s and serves one transfer at a time. Efficiency: the members' training alone over the workers' time.

| members | workers | wall time | efficiency |
| --- | --- | --- | --- |
{chr(10).join(rows)}

At 64 workers, with one, four and sixteen members for each: {", ".join(f"{value:.2f}" for value in at_64)} (goal 0.9 or more:
{reached[min(at_64) >= 0.9]}).

The first limit, with many members for each worker, is {first}, at about {at:.0f} workers:
{moved[first]}.
{second[0].upper() + second[1:]} comes at about {later:.0f} workers: {moved[second]}.
(The driver counts as the limit where it takes a tenth of the time, the remote where its network carries no more.)

```json
{json.dumps({key: round(value, 4) for key, value in asdict(costs).items()})}
```
"""


if __name__ == "__main__":
    main()
