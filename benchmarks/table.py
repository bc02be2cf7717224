"""The table of results, in Markdown."""

import platform
import statistics
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil

from brainmri.common.resources import usable_cores

PACKAGES = ("tensorflow", "dvc", "torch", "torchensemble", "pillow")


@dataclass(frozen=True)
class Row:
    """A benchmark's result, that of its baseline, and their ratio.

    Attributes
    ----------
    name : str
    measured, baseline : str
        Results with their units.
    ratio, goal : float
    at_most : bool
        Whether the goal is the highest ratio that reaches it, not the lowest.
    """

    name: str
    measured: str
    baseline: str
    ratio: float
    goal: float
    at_most: bool = False

    def __str__(self) -> str:
        is_reached = self.ratio <= self.goal if self.at_most else self.ratio >= self.goal
        cells = [
            self.name,
            self.measured,
            self.baseline,
            f"{self.ratio:.2f}",
            f"{'≤' if self.at_most else '≥'} {self.goal}",
            "reached" if is_reached else "not reached",
        ]
        return f"| {' | '.join(cells)} |"


def compare_times(
    name: str,
    times: list[float],
    baseline: str,
    baseline_times: list[float],
    goal: float,
    at_most: bool = False,
) -> Row:
    """Compare wall times with those of a baseline in the same rounds.

    Parameters
    ----------
    name, baseline : str
    times, baseline_times : list of float
        Seconds, by round.
    goal : float
        Of the speed-up over the baseline; with `at_most`, of the time relative to the baseline's.
    at_most : bool
        See `Row`.

    Returns
    -------
    Row
        With the medians of the times and of the ratios.
    """
    ratios = []
    for seconds, baseline_seconds in zip(times, baseline_times, strict=True):
        ratios.append(seconds / baseline_seconds if at_most else baseline_seconds / seconds)
    digits = 2 if at_most else 1
    measured = f"{statistics.median(times):.{digits}f} s"
    baseline = f"{statistics.median(baseline_times):.{digits}f} s: {baseline}"
    return Row(name, measured, baseline, statistics.median(ratios), goal, at_most)


def format_results(rows: list[Row], rounds: int, training: str) -> str:
    """Format the table, with the machine and versions that the results are from.

    Parameters
    ----------
    rows : list of Row
    rounds : int
        Number of measurements of which each result is the median.
    training : str
        Describes how members are trained.
    """
    memory = psutil.virtual_memory().total / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    lines = [
        "# Results of `make bench`",
        "",
        f"{usable_cores()} cores of {cpu_model()}, {memory:.0f} GiB;"
        f" Python {platform.python_version()}, {packages}; medians of {rounds} round(s).",
        "",
        training,
        "",
        "| benchmark | measured | baseline | ratio | goal | |",
        "| --- | --- | --- | --- | --- | --- |",
        *map(str, rows),
    ]
    return "\n".join(lines) + "\n"


def cpu_model() -> str:
    """Return the name of the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    line = next(line for line in lines if line.startswith("model name"))
    return line.partition(": ")[2]
