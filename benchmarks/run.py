"""Compares the pipeline with what people would use instead, and with what this machine can do: benchmarks/RESULTS.md.

    make bench            (or: python -m benchmarks.run --rounds 1, quicker and noisier)

Contestants take turns in one run, since machines are noisy: medians and ratios of the same run are comparable, seconds of
different runs are not. Whole programs are timed from start to end, with what they import.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import psutil

from benchmarks.concurrency import read_timings
from stages.shared.machine import MEMBER_MEMORY, usable_cores

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/RESULTS.md"
MEMBERS, EPOCHS, BATCH_SIZE, SIZE = 6, 20, 16, 128
PLAIN = {  # the training that every contestant can do
    "members": MEMBERS,
    "ingest.image_size": SIZE,
    "ingest.crop": "false",
    "network.name": "residual",
    "train.epochs": EPOCHS,
    "train.batch_size": BATCH_SIZE,
    "train.precision": "float32",
    "train.views": "plain",
    "train.mixup": 0.0,
    **{f"train.augment.{key}": 0.0 for key in ("rotation", "shift", "zoom", "contrast", "brightness", "erase")},
    "train.augment.flip": "false",
}


@dataclass(frozen=True)
class Row:
    """A line of the table: two figures, and their ratio, which the goal is about."""

    what: str
    here: str
    against: str
    ratio: float
    goal: float
    at_most: bool = False

    def __str__(self) -> str:
        reached = self.ratio <= self.goal if self.at_most else self.ratio >= self.goal
        goal = f"{'≤' if self.at_most else '≥'} {self.goal}"
        return " | ".join(
            ["", self.what, self.here, self.against, f"{self.ratio:.2f}", goal, "reached" if reached else "not reached", ""]
        ).strip()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=3, help="how often each contestant has its turn")
    rounds = arguments.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        rows = [*bench.ensembles(rounds), *bench.rates(rounds), *bench.store(rounds), *bench.dvc_commands(rounds), bench.memory()]
    text = report(rows, rounds)
    print("\n" + text)
    RESULTS.write_text(text, "utf-8")


class Bench:
    """The contests, in a scratch folder; the built-in images are drawn once, for all."""

    def __init__(self, folder: Path):
        self.folder = folder
        drawn = checkout(folder / "drawn")
        python(drawn, "-m", "stages.phantom")
        self.images = drawn / "data/phantom"
        self.project = drawn  # where the pipeline ran last
        self.peaks: list[int] = []

    def repro(self, project: Path | None = None, **wanted: int) -> float:
        """Seconds of `dvc repro`, in a new checkout if none is given."""
        if not project:
            project = checkout(Path(tempfile.mkdtemp(dir=self.folder)))
            (project / "dvc.lock").unlink(missing_ok=True)
        self.project = project
        compose(self.project, {**PLAIN, "data.source": self.images, **wanted})
        return timed(lambda: dvc(self.project, "repro", "evaluate"))

    def ensembles(self, rounds: int) -> list[Row]:
        """Whole ensembles, trained by the pipeline and by what people would use instead."""
        cores = usable_cores()
        contestants = {"threads": ("one_process", cores), "sequential": ("one_process", 1), "torch": ("torchensemble", cores)}
        walls: dict[str, list[float]] = {name: [] for name in ("pipeline", *contestants)}
        work, room = [], []
        for turn in range(rounds):
            walls["pipeline"].append(self.repro())
            timings = {timing.stage: timing for timing in read_timings(self.project / ".dvc/tmp/timings.jsonl")}
            self.peaks += [timing.peak_memory for name, timing in timings.items() if name.startswith("member-")]
            work.append(statistics.mean(cpu_alone(self.project, name) for name in ("member-00", "member-01")) * MEMBERS)
            room.append(cores * timings["fan-out"].wall)
            for name, (module, jobs) in contestants.items():
                options = [jobs, MEMBERS, EPOCHS, BATCH_SIZE, self.images, self.project / "data/split.json"]
                command = ["-m", f"benchmarks.contestants.{module}", *map(str, options)]
                walls[name].append(timed(partial(python, ROOT, *command)))
            tell(f"round {turn + 1}: " + ", ".join(f"{name} {times[-1]:.1f} s" for name, times in walls.items()))
        what = f"{MEMBERS} members, `dvc repro evaluate`"
        used, had = statistics.median(work), statistics.median(room)
        efficiency = statistics.median(one / other for one, other in zip(work, room, strict=True))
        return [
            compare(what, walls["pipeline"], f"ThreadPoolExecutor of {cores} in one TensorFlow process", walls["threads"], 1.5),
            compare(what, walls["pipeline"], f"TorchEnsemble's BaggingClassifier, n_jobs={cores}", walls["torch"], 1.5),
            compare(what, walls["pipeline"], "one Keras model after the other, all cores each", walls["sequential"], 1.4),
            Row("efficiency of the fan-out", f"{used:.0f} s of CPU alone", f"{had:.0f} s: cores × wall time", efficiency, 0.85),
        ]

    def rates(self, rounds: int) -> list[Row]:
        """Single parts of the pipeline, against what the machine or a plain loop does."""
        rows = []
        dvc(self.project, "repro", "export")
        for what, unit, module, against, goal in (
            ("training on one core", "GFLOP/s", "training", "matrix product of 1024³", 0.5),
            ("`ingest`", "images/s", "ingest", "Pillow in one loop", 1.8),
            ("prediction by five members", "images/s", "prediction", "five `model.predict` calls in turn", 2.0),
            ("one image through the exported file", "images/s", "single", "five members called in turn", 2.0),
        ):
            told = [json.loads(python(self.project, "-m", f"benchmarks.rates.{module}").splitlines()[-1]) for _ in range(rounds)]
            here, other = (statistics.median(one[key] for one in told) for key in ("here", "against"))
            ratio = statistics.median(one["here"] / one["against"] for one in told)
            rows.append(Row(what, f"{here:.0f} {unit}", f"{other:.0f} {unit}: {against}", ratio, goal))
            tell(f"{what}: {ratio:.2f}")
        return rows

    def store(self, rounds: int) -> list[Row]:
        """The store that grows: what changing a hundredth of 20,000 images costs, and what reading them does."""
        found = [json.loads(python(self.project, "-m", "benchmarks.rates.store").splitlines()[-1]) for _ in range(rounds)]

        def row(what: str, here: str, against: str, goal: float, unit: str, of: str, **options: bool) -> Row:
            mine, theirs = (statistics.median(one[key] for one in found) for key in (here, against))
            ratio = statistics.median(one[here] / one[against] for one in found)
            tell(f"{what}: {ratio:.3f}")
            per, digits = {"MiB": (2**20, 1), "s": (1, 2)}.get(unit, (1, 0))
            return Row(what, f"{mine / per:.{digits}f} {unit}", f"{theirs / per:.{digits}f} {unit}: {of}", ratio, goal, **options)

        peaks = [statistics.median(one[key] for one in found) for key in ("peak", "peak of a tenth")]
        differing = max(one["differing"] for one in found)
        once, changed = "all 20,000 from nothing", {"added": "adding", "relabelled": "relabelling", "removed": "removing"}
        rows = []
        for name, word in changed.items():
            rows.append(row(f"{word} 200 images, `ingest`", name, "full", 0.1, "s", once, at_most=True))
            rows.append(row(f"{word} 200 images, new bytes", f"bytes {name}", "bytes", 0.05, "MiB", "the store", at_most=True))
        what = "200 images with names all over the folder"
        return [
            *rows,
            row(f"adding {what}, `ingest`", "scattered", "full", 0.1, "s", once, at_most=True),
            row(f"adding {what}, new bytes", "bytes scattered", "bytes", 0.05, "MiB", "the store", at_most=True),
            row("adding 200 images, `dvc repro ingest`", "dvc, added", "dvc, full", 0.1, "s", once, at_most=True),
            row("adding 200 images, new bytes in DVC's cache", "cache added", "cache", 0.05, "MiB", "the cache", at_most=True),
            row("`ingest` with nothing new", "nothing new", "full", 0.1, "s", once, at_most=True),
            Row("files that differ after these from a fresh store's", str(differing), "none", differing, 0, at_most=True),
            Row("peak memory of `ingest`", f"{peaks[0]:.0f} MiB", "400 MiB", peaks[0] / 400, 1, at_most=True),
            Row("the same", f"{peaks[0]:.0f} MiB", f"{peaks[1]:.0f} MiB: 2,000 images", peaks[0] / peaks[1], 1.1, at_most=True),
            row("`ingest` of 40,000 images", "full, twice the images", "full", 2.2, "s", "20,000", at_most=True),
            row("random batches of 32, two processes", "random", "memory map", 0.5, "images/s", "NumPy memory map"),
            row("gzip: the same", "random, gzip", "random", 0, "images/s", "without compression"),
            row("gzip: `ingest`", "full, gzip", "full", 9, "s", "without compression", at_most=True),
            row("gzip: the store", "bytes, gzip", "bytes", 1, "MiB", "without compression", at_most=True),
        ]

    def dvc_commands(self, rounds: int) -> list[Row]:
        """What DVC's commands cost where little or nothing is to be done."""
        repro, status = [], []
        for _ in range(3 * rounds):
            repro.append(timed(lambda: dvc(self.project, "repro")))
            status.append(timed(lambda: dvc(self.project, "status")))
        grown, whole = [], []
        for turn in range(max(1, rounds - 1)):
            self.repro(members=5)
            grown.append(self.repro(self.project, members=9))
            whole.append(self.repro(members=9))
            tell(f"round {turn + 1}: growing 5 to 9 {grown[-1]:.1f} s, 9 from nothing {whole[-1]:.1f} s")
        return [
            compare("`dvc repro` with nothing to do", repro, "`dvc status`", status, 1.3, at_most=True),
            compare("growing 5 members to 9", grown, "9 from nothing", whole, 0.5, at_most=True),
        ]

    def memory(self) -> Row:
        """The most that a member's process held, against what the fan-out counts with."""
        code = "import tensorflow, resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
        tensorflow = python(ROOT, "-c", code).splitlines()[-1]
        peak, most = max(self.peaks), MEMBER_MEMORY // 2**20
        against = f"{most} MiB allowed; `import tensorflow` alone: {tensorflow} MiB"
        return Row("peak memory of a member", f"{peak} MiB", against, peak / most, 1, at_most=True)


def compare(what: str, ours: list[float], against: str, theirs: list[float], goal: float, at_most: bool = False) -> Row:
    """Seconds of both: how many times theirs is ours, or where the goal is a limit, how many times ours is theirs."""
    pairs = zip(ours, theirs, strict=True)
    ratio = statistics.median(mine / their if at_most else their / mine for mine, their in pairs)
    digits = 2 if at_most else 1
    mine, their = (f"{statistics.median(seconds):.{digits}f} s" for seconds in (ours, theirs))
    return Row(what, mine, f"{their}: {against}", ratio, goal, at_most)


def report(rows: list[Row], rounds: int) -> str:
    """The table in Markdown, with what was compared and on what machine."""
    model = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    packages = ", ".join(f"{name} {version(name)}" for name in ("tensorflow", "dvc", "torch", "torchensemble", "pillow"))
    lines = [
        "# What `make bench` printed",
        "",
        f"{usable_cores()} cores of {model.partition(': ')[2]}, {psutil.virtual_memory().total / 2**30:.0f} GiB; Python"
        f" {platform.python_version()}, {packages}; medians of {rounds} round(s).",
        "",
        f"Where members train: the same 202 of 253 images at {SIZE}×{SIZE}×1, the network `residual`, {MEMBERS} members,"
        f" {EPOCHS} epochs, batches of {BATCH_SIZE}, float32, a cosine schedule, no augmentation, no early stopping. The pipeline"
        " and the Keras contestants also predict the out-of-bag images after each epoch; TorchEnsemble does not.",
        "",
        "| what | here | against | ratio | goal | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += map(str, rows)
    return "\n".join(lines) + "\n"


def checkout(folder: Path) -> Path:
    """The project's files as they are now, in a Git repository of their own."""
    listed = subprocess.check_output(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    run(folder, "git", "init", "-q", "-b", "main")
    return folder


def compose(project: Path, wanted: dict) -> None:
    """Set parameters, and derive the others from them, as `dvc exp run -S` does."""
    settings = [f"{key}={value}" for key, value in wanted.items()]
    code = "import sys; from pathlib import Path; from dvc.utils.hydra import compose_and_dump as compose\n"
    code += "root = Path.cwd(); compose('params.yaml', str(root / 'conf'), None, 'compose', str(root / 'conf'), sys.argv[1:])"
    python(project, "-c", code, *settings)


def cpu_alone(project: Path, member: str) -> float:
    """CPU seconds of a member's training with the machine to itself; without the import of TensorFlow, which members share."""
    code = "import shutil, time; from stages.shared.scratch import scratch; from stages.shared.training import train_member\n"
    code += f"folder, start = scratch({member!r}), time.process_time(); train_member({member!r}, folder)\n"
    code += "print(time.process_time() - start); shutil.rmtree(folder)"
    return float(python(project, "-c", code).splitlines()[-1])


def dvc(project: Path, *arguments: str) -> str:
    return python(project, "-m", "dvc", *arguments)


def python(folder: Path, *arguments: str) -> str:
    return run(folder, sys.executable, *arguments)


def run(folder: Path, *command: str) -> str:
    """Run a command there, and return what it printed; its errors are shown."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, cwd=folder, env={**os.environ, "PATH": path}, text=True, capture_output=True)
    if done.returncode != 0:
        sys.exit(f"error: {' '.join(command[:6])} failed in {folder}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.stdout


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
