"""Measure how time, memory and bytes grow with the number of images, and extrapolate further.

    python -m benchmarks.size          (writes the tables of docs/scale.md)

The images are synthetic slices of 64 pixels, each a few drawn ones mixed, shifted and with noise of
its own, five to a patient. Stages run as DVC runs them; the slopes are fitted to the two largest
sets.
"""

import platform
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.commands import compose, dvc, wall_time
from benchmarks.timings import read_timings
from brainmri.common.paths import DECODE_CACHE, METADATA, SPLIT, STORE, TIMINGS
from brainmri.common.resources import usable_cores
from brainmri.images.phantoms import draw, to_png
from tests.support.checkout import ROOT, checkout

RESULTS = ROOT / "docs/scale.md"
START, END = "<!-- measured -->", "<!-- end -->"
SIZES = (20_000, 40_000, 100_000)
FAR = (1_000_000, 100_000_000)
SIDE, SLICES = 64, 5  # pixels; slices of a patient
DRAWN = 40  # slices of each class from which all are mixed
SETTINGS = {
    "preset": "scratch",
    "data.source": "data/raw",
    "data.patient": r"'(p\d+)_'",
    "members": 1,
    "ingest.image_size": 32,
    "network.name": "notebook-1",
    "train.epochs": 1,
    "train.views": "plain",
    "evaluate.resamples": 100,
}
STAGES = {
    "ingest": "ingest",
    "split": "split",
    "bootstrap-sample": "bootstrap-sample",
    "train@member-00": "one epoch of a member",
}


@dataclass(frozen=True)
class Cost:
    """Cost of a step: wall time in seconds, peak memory in MiB."""

    wall: float
    memory: float | None


def write_images(folder: Path, start: int, stop: int) -> None:
    """Write images of these numbers into class folders, named by patient."""
    originals = {
        name: np.stack(
            [
                draw(name, np.random.default_rng([7, index])).image[20:148, 20:148][::2, ::2]
                for index in range(DRAWN)
            ]
        ).astype(np.float32)
        for name in ("no", "yes")
    }
    for number in range(start, stop):
        rng = np.random.default_rng([1, number])
        patient = number // SLICES
        name = "yes" if patient % 2 else "no"
        first, second = originals[name][rng.integers(0, DRAWN, 2)]
        shift = tuple(rng.integers(-8, 9, 2))
        mixed = 0.6 * np.roll(first, shift, (0, 1)) + 0.4 * second[:, ::-1]
        noisy = np.clip(mixed + rng.normal(0, 12, mixed.shape), 0, 255).astype(np.uint8)
        file = folder / name / f"p{patient:06d}_{number:06d}.png"
        file.write_bytes(to_png(noisy))


def measure(project: Path) -> tuple[dict[str, Cost], dict[str, int]]:
    """Run the pipeline up to `train`, and again with nothing to do.

    Returns
    -------
    costs : dict of str to Cost
        By step.
    sizes : dict of str to int
        Bytes of what is written.
    """
    (project / TIMINGS).unlink(missing_ok=True)
    repro = wall_time(lambda: dvc(project, "repro", "train@member-00"))
    timings = {timing.stage: timing for timing in read_timings(project / TIMINGS)}
    costs = {
        step: Cost(timings[stage].wall, timings[stage].peak_memory)
        for stage, step in STAGES.items()
    }
    costs["`dvc repro` up to here, with DVC's own work"] = Cost(repro, None)
    nothing = wall_time(lambda: dvc(project, "repro", "train@member-00"))
    costs["`dvc repro` with nothing to do"] = Cost(nothing, None)
    files = {"the store": STORE, "metadata.json": METADATA, "split.json": SPLIT}
    sizes = {name: count_bytes(project / path) for name, path in files.items()}
    sizes["source"] = count_bytes(project / "data/raw")
    return costs, sizes


def count_bytes(path: Path) -> int:
    """Count the bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def slope(first: float, second: float) -> float:
    """Compute the growth for each image between the two largest sets."""
    return (second - first) / (SIZES[-1] - SIZES[-2])


def exponent(first: float, second: float) -> float:
    """Compute the power of the number of images with which a cost grows between these sets."""
    return float(np.log(second / first) / np.log(SIZES[-1] / SIZES[-2]))


def extrapolate(images: int, first: float, second: float) -> float:
    """Extrapolate a cost by its slope, or, where it grows faster, by its exponent."""
    power = exponent(first, second)
    if power > 1.2:
        return second * (images / SIZES[-1]) ** power
    return second + slope(first, second) * (images - SIZES[-1])


def duration(seconds: float) -> str:
    """Format a duration in the unit that suits it."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.1f} s"


def format_bytes(amount: float) -> str:
    """Format a number of bytes in the unit that suits it."""
    for unit, length in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if amount >= length:
            return f"{amount / length:,.1f} {unit}"
    return f"{amount / 1e3:.0f} kB"


def table(title: str, values: dict[str, list[float]], form: Callable[[float], str]) -> str:
    """Return a Markdown table of values at `SIZES`, their power, and what follows for `FAR`."""
    counts = " | ".join(f"{count:,} images" for count in SIZES)
    far = " | ".join(f"{count:,}, extrapolated" for count in FAR)
    lines = [f"| {title} | {counts} | power | {far} |", "| --- " * (len(SIZES) + 4) + "|"]
    for name, measured in values.items():
        last = measured[-2:]
        cells = [name, *map(form, measured), f"{exponent(*last):.2f}"]
        cells += [form(extrapolate(count, *last)) for count in FAR]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    wall: dict[str, list[float]] = defaultdict(list)
    memory: dict[str, list[float]] = defaultdict(list)
    disk: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        project = checkout(Path(folder) / "project")
        source = project / "data/raw"
        for name in ("no", "yes"):
            (source / name).mkdir(parents=True)
        compose(project, SETTINGS)
        for start, stop in pairwise((0, *SIZES)):
            write_images(source, start, stop)
            shutil.rmtree(project / DECODE_CACHE, ignore_errors=True)  # all decode all images
            costs, sizes = measure(project)
            for step, cost in costs.items():
                wall[step].append(cost.wall)
                if cost.memory:
                    memory[step].append(cost.memory * 2**20)
            for name, amount in sizes.items():
                disk[name].append(amount)
            print(f"{stop:,} images:", {step: round(cost.wall, 1) for step, cost in costs.items()})
    parts = [table("wall time", wall, duration), table("peak memory", memory, format_bytes)]
    measured = "\n\n".join([*parts, table("on the disk", disk, format_bytes)])
    machine = f"{usable_cores()} cores, {platform.processor() or platform.machine()}"
    head, _, rest = RESULTS.read_text("utf-8").partition(START)
    _, _, tail = rest.partition(END)
    RESULTS.write_text(f"{head}{START}\n{machine}.\n\n{measured}\n{END}{tail}", "utf-8")


if __name__ == "__main__":
    main()
