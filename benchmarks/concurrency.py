"""What running side by side bought: work, depth and speed-up of the pipeline's last run, from its timings.

    python -m benchmarks.concurrency       (after a `dvc repro` or `dvc exp run`; a picture goes to dvc_plots/)

Every stage appends its wall time and CPU time to .dvc/tmp/timings.jsonl, which DVC does not track. The words are those of
M. Besta, T. Hoefler, "Parallel and Distributed Graph Neural Networks: An In-Depth Concurrency Analysis", 2022: work W is
all that is computed, depth D the longest chain of stages that wait for each other, and W/D the average parallelism, the
speed-up that no number of cores can exceed.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import networkx as nx
from dvc.repo import Repo
from matplotlib.figure import Figure

from stages.shared.errors import UserError
from stages.shared.machine import usable_cores
from stages.shared.running import TIMINGS

PICTURE = Path("dvc_plots/concurrency.png")


@dataclass(frozen=True)
class Timing:
    """One run of a stage; seconds, the start since the epoch; MiB."""

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
    """Figures of a run; seconds.

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


def main() -> None:
    run = last_run(read_timings(TIMINGS))
    told = measure(run, stage_graph())
    cores = usable_cores()
    print(f"{len(run)} stages ran, on {cores} cores\n")
    lines = [
        ("work W", f"{told.work:.1f} s", "CPU time of all stages"),
        ("depth D", f"{told.depth:.1f} s", "CPU time of the longest chain of stages"),
        ("average parallelism W/D", f"{told.work / told.depth:.2f}", "no speed-up can be higher"),
        ("elapsed", f"{told.elapsed:.1f} s", "from the first start to the last end"),
        ("speed-up W/elapsed", f"{told.work / told.elapsed:.2f}", ""),
        ("efficiency, all", f"{told.work / told.elapsed / cores:.2f}", "speed-up over cores"),
    ]
    if told.members_elapsed:
        efficiency = told.members_work / told.members_elapsed / cores
        lines.append(
            ("efficiency, members", f"{efficiency:.2f}", f"{told.members_work:.1f} s of training in {told.members_elapsed:.1f} s")
        )
    for ingest in [timing for timing in run if timing.stage == "ingest"]:
        lines.append(("efficiency, images", f"{ingest.cpu / ingest.wall / cores:.2f}", "of ingest, its start included"))
    for name, value, meaning in lines:
        print(f"{name:<26}{value:>9}   {meaning}")
    draw(run, PICTURE)
    print(f"\npicture: {PICTURE}")


def read_timings(path: Path) -> list[Timing]:
    """The log, in the order in which the stages ended; lines cut short by a crash are passed over."""
    if not path.is_file():
        raise UserError(f"{path} is missing; run `dvc repro` first")
    timings = []
    for line in path.read_text("utf-8").splitlines():
        try:
            entry = json.loads(line)
            timings.append(Timing(entry["stage"], entry["start"], entry["wall"], entry["cpu"], entry["peak_memory"]))
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    if not timings:
        raise UserError(f"{path} holds no timings; run `dvc repro` first")
    return timings


def last_run(timings: list[Timing], pause: float = 20.0) -> list[Timing]:
    """The stages of the last run: those after the last pause of so many seconds in which no stage ran, each once."""
    timings = sorted(timings, key=lambda timing: timing.start)
    first, end = 0, timings[0].end
    for index, timing in enumerate(timings):
        if timing.start > end + pause:
            first = index
        end = max(end, timing.end)
    return list({timing.stage: timing for timing in timings[first:]}.values())


def stage_graph() -> nx.DiGraph:
    """The stages by name, each pointing to those it depends on, with the members that `fan-out` trains."""
    with Repo() as repo:
        graph = nx.relabel_nodes(repo.index.graph, lambda stage: stage.addressing)
    for name in [name for name in graph if name.startswith("train@")]:
        member = name.removeprefix("train@")
        graph.add_edges_from([(member, "fan-out"), (name, member)])
    return graph


def measure(run: list[Timing], graph: nx.DiGraph) -> Concurrency:
    """Work, depth and elapsed time of a run."""
    cpu = {timing.stage: timing.cpu for timing in run}
    depth: dict[str, float] = {}
    for stage in reversed(list(nx.topological_sort(graph))):
        depth[stage] = cpu.get(stage, 0.0) + max((depth[below] for below in graph.successors(stage)), default=0.0)
    members = [timing for timing in run if timing.stage.startswith("member-")]
    return Concurrency(
        work=sum(cpu.values()),
        depth=max(depth.values()),
        elapsed=max(timing.end for timing in run) - min(timing.start for timing in run),
        members_work=sum(timing.cpu for timing in members),
        members_elapsed=max(timing.end for timing in members) - min(timing.start for timing in members) if members else 0.0,
    )


def draw(run: list[Timing], path: Path) -> None:
    """When each stage ran, as bars along the time."""
    figure = Figure((9, 1.2 + 0.32 * len(run)), 110, layout="constrained")
    axes = figure.subplots()
    zero = min(timing.start for timing in run)
    for timing in run:
        colour = "#1b5e8c" if timing.stage.startswith("member-") else "#9db8c9"
        axes.barh(timing.stage, timing.wall, left=timing.start - zero, color=colour)
        axes.text(timing.end - zero, timing.stage, f" {timing.wall:.0f} s", va="center", fontsize="small")
    axes.invert_yaxis()
    axes.margins(x=0.08)
    axes.set(title="When each stage ran", xlabel="seconds")
    axes.grid(axis="x", alpha=0.3)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
