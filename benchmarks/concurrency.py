"""Print what parallelism gained in the pipeline's last run, and draw when each stage ran.

    python -m benchmarks.concurrency       (after a `dvc repro` or `dvc exp run`)

Reads   .dvc/tmp/timings.jsonl
Writes  dvc_plots/concurrency.png
"""

import sys
from pathlib import Path

from dvc.repo import Repo
from matplotlib.figure import Figure

from benchmarks.timings import (
    Concurrency,
    Timing,
    last_run,
    measure_concurrency,
    read_timings,
)
from brainmri.common.errors import UserError
from brainmri.common.paths import TIMINGS
from brainmri.common.resources import usable_cores

PLOT = Path("dvc_plots/concurrency.png")
MEMBER_COLOR, STAGE_COLOR = "#1b5e8c", "#9db8c9"


def main() -> None:
    run = last_run(read_timings(TIMINGS))
    metrics = measure_concurrency(run, stage_dependencies())
    cores = usable_cores()
    print(f"{len(run)} stages ran, on {cores} cores\n")
    for name, value, meaning in table(run, metrics, cores):
        print(f"{name:<26}{value:>9}   {meaning}")
    draw(run, PLOT)
    print(f"\nplot: {PLOT}")


def table(run: list[Timing], metrics: Concurrency, cores: int) -> list[tuple[str, str, str]]:
    """Return rows of name, value and meaning."""
    work, depth, elapsed = metrics.work, metrics.depth, metrics.elapsed
    rows = [
        ("work W", f"{work:.1f} s", "CPU time of all stages"),
        ("depth D", f"{depth:.1f} s", "CPU time of the longest chain of stages"),
        ("average parallelism W/D", f"{work / depth:.2f}", "no speed-up can be higher"),
        ("elapsed", f"{elapsed:.1f} s", "from the first start to the last end"),
        ("speed-up W/elapsed", f"{work / elapsed:.2f}", ""),
        ("efficiency, all", f"{work / elapsed / cores:.2f}", "speed-up over cores"),
    ]
    if metrics.members_elapsed:
        efficiency = metrics.members_work / metrics.members_elapsed / cores
        seconds = f"{metrics.members_work:.1f} s of training in {metrics.members_elapsed:.1f} s"
        rows.append(("efficiency, members", f"{efficiency:.2f}", seconds))
    for timing in run:
        if timing.stage == "ingest":
            efficiency = timing.cpu / timing.wall / cores
            rows.append(("efficiency, images", f"{efficiency:.2f}", "of ingest, with its start"))
    return rows


def stage_dependencies() -> dict[str, set[str]]:
    """Return the stages on which each stage depends, with the members that `fan-out` trains."""
    with Repo() as repo:
        graph = repo.index.graph
        dependencies = {
            stage.addressing: {other.addressing for other in graph.successors(stage)}
            for stage in graph
        }
    for name in list(dependencies):
        if name.startswith("train@"):
            member = name.removeprefix("train@")
            dependencies[member] = {"fan-out"}
            dependencies[name].add(member)
    return dependencies


def draw(run: list[Timing], path: Path) -> None:
    """Draw when each stage ran, as bars along the time."""
    figure = Figure((9, 1.2 + 0.32 * len(run)), 110, layout="constrained")
    axes = figure.subplots()
    zero = min(timing.start for timing in run)
    for timing in run:
        color = MEMBER_COLOR if timing.stage.startswith("member-") else STAGE_COLOR
        axes.barh(timing.stage, timing.wall, left=timing.start - zero, color=color)
        seconds = f" {timing.wall:.0f} s"
        axes.text(timing.end - zero, timing.stage, seconds, va="center", fontsize="small")
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
