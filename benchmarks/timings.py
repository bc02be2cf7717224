"""What running stages in parallel gained: work, depth and speed-up of a run, from its timings.

Every stage, and every member's process, appends a timing to a log that DVC does not track.

References
----------
M. Besta, T. Hoefler, "Parallel and Distributed Graph Neural Networks: An In-Depth Concurrency
Analysis", 2022: work W is all that is computed, depth D the longest chain of stages that wait for
each other, and W/D the average parallelism, the speed-up that no number of cores can exceed.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

from brainmri.common.errors import UserError

PAUSE_S = 20.0  # in which no stage runs, between two runs


@dataclass(frozen=True)
class Timing:
    """When a stage ran, in seconds, the start since the epoch; and its peak memory, in MiB."""

    stage: str
    start: float
    wall: float
    cpu: float
    peak_memory: int = 0

    @property
    def end(self) -> float:
        return self.start + self.wall


@dataclass(frozen=True)
class Concurrency:
    """Metrics of a run, in seconds.

    Attributes
    ----------
    work : float
        CPU time of all stages.
    depth : float
        CPU time of the most expensive chain of stages that depend on each other.
    elapsed : float
        From the first start to the last end.
    members_work, members_elapsed : float
        The same for the members' training alone; 0 where none was trained.
    """

    work: float
    depth: float
    elapsed: float
    members_work: float
    members_elapsed: float


def read_timings(path: Path) -> list[Timing]:
    """Read the log, in the order in which the stages ended; skip lines that a crash has cut short.

    Raises
    ------
    UserError
        If the log is missing, or has no timings.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; run `dvc repro` first")
    timings = []
    for line in path.read_text("utf-8").splitlines():
        try:
            entry = json.loads(line)
            timing = Timing(
                stage=entry["stage"],
                start=entry["start"],
                wall=entry["wall"],
                cpu=entry["cpu"],
                peak_memory=entry["peak_memory"],
            )
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
        timings.append(timing)
    if not timings:
        raise UserError(f"{path} holds no timings; run `dvc repro` first")
    return timings


def last_run(timings: list[Timing], pause: float = PAUSE_S) -> list[Timing]:
    """Return the timings after the last pause, in seconds, in which no stage ran.

    Each stage is in them once.
    """
    timings = sorted(timings, key=lambda timing: timing.start)
    first, end = 0, timings[0].end
    for index, timing in enumerate(timings):
        if timing.start > end + pause:
            first = index
        end = max(end, timing.end)
    return list({timing.stage: timing for timing in timings[first:]}.values())


def measure_concurrency(
    run: list[Timing], dependencies: Mapping[str, Collection[str]]
) -> Concurrency:
    """Compute the work, depth and elapsed time of a run.

    Parameters
    ----------
    run : list of Timing
        Each stage once.
    dependencies : mapping of str to collections of str
        The stages on which each stage depends; stages that did not run count as 0.
    """
    cpu = {timing.stage: timing.cpu for timing in run}
    members = [timing for timing in run if timing.stage.startswith("member-")]
    return Concurrency(
        work=sum(cpu.values()),
        depth=_longest_chain(cpu, dependencies),
        elapsed=_elapsed(run),
        members_work=sum(timing.cpu for timing in members),
        members_elapsed=_elapsed(members),
    )


def _longest_chain(cpu: dict[str, float], dependencies: Mapping[str, Collection[str]]) -> float:
    depth: dict[str, float] = {}
    for stage in TopologicalSorter(dependencies).static_order():
        before = max((depth[name] for name in dependencies.get(stage, ())), default=0.0)
        depth[stage] = cpu.get(stage, 0.0) + before
    return max(depth.values())


def _elapsed(timings: list[Timing]) -> float:
    if not timings:
        return 0.0
    return max(timing.end for timing in timings) - min(timing.start for timing in timings)
