"""Compare the pipeline with other ways to train an ensemble, and with what the machine can do.

    make bench            (or: python -m benchmarks.run --rounds 1, quicker and noisier)

Contestants take turns in one run, since machines are noisy: medians and ratios of the same run are
comparable, seconds of different runs are not. Whole programs are timed from start to end, with what
they import.

Writes  benchmarks/RESULTS.md
"""

import argparse
import json
import statistics
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.commands import compose, dvc, python, wall_time
from benchmarks.store_rows import store_rows
from benchmarks.table import Row, compare_times, format_results
from benchmarks.timings import Timing, read_timings
from brainmri.common.paths import PHANTOM, TIMINGS
from brainmri.common.resources import usable_cores
from brainmri.parallel.resources import OWN_NETWORK_MEMORY
from tests.support.checkout import ROOT, checkout

RESULTS = ROOT / "benchmarks/RESULTS.md"
MEMBERS = 6
EPOCHS = 20
BATCH_SIZE = 16
SIZE = 128  # height and width of the images, pixels
AUGMENTATIONS = ("rotation", "shift", "zoom", "contrast", "brightness", "erase")
PLAIN_TRAINING = {  # what every contestant can do
    "preset": "scratch",
    "members": MEMBERS,
    "ingest.image_size": SIZE,
    "ingest.crop": "false",
    "network.name": "residual",
    "train.epochs": EPOCHS,
    "train.batch_size": BATCH_SIZE,
    "train.precision": "float32",
    "train.views": "plain",
    "train.mixup": 0.0,
    **{f"train.augment.{name}": 0.0 for name in AUGMENTATIONS},
    "train.augment.flip": "false",
}
TRAINING = (
    f"Training: the same 202 of 253 images at {SIZE}×{SIZE}×1, network `residual`,"
    f" {MEMBERS} members, {EPOCHS} epochs, batch size {BATCH_SIZE}, float32, cosine learning rate"
    " schedule, no augmentation, no early stopping. The pipeline and the Keras contestants also"
    " predict the out-of-bag images after each epoch; TorchEnsemble does not."
)
# The import of TensorFlow does not count: members of the pipeline share it.
TRAIN_ALONE = """
import shutil, sys, time
from brainmri.networks.runtime import start_tensorflow
from brainmri.parallel.staging import staging_dir, train_into
start_tensorflow()
name = sys.argv[1]
folder = staging_dir(name)
start = time.process_time()
train_into(folder, name)
print(time.process_time() - start)
shutil.rmtree(folder)
"""
IMPORT_TENSORFLOW = """
import tensorflow, resource
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@dataclass(frozen=True)
class RateBenchmark:
    """A rate of a part of the pipeline, and the rate of a baseline.

    Attributes
    ----------
    name, unit : str
    module : str
        In `benchmarks.rates`, and its arguments; prints both rates as JSON.
    baseline : str
    goal : float
        Of the ratio of both.
    """

    name: str
    unit: str
    module: str
    baseline: str
    goal: float


RATES = [
    RateBenchmark("training on one core", "GFLOP/s", "training", "matrix product of 1024³", 0.5),
    RateBenchmark(
        "five members with a frozen MobileNetV2",
        "members/min of a core",
        "frozen",
        "features computed each epoch",
        20.0,
    ),
    RateBenchmark("`ingest`", "images/s", "ingest", "Pillow in one loop", 1.8),
    RateBenchmark(
        "prediction by five members",
        "images/s",
        "prediction",
        "five `model.predict` calls, sequential",
        2.0,
    ),
    RateBenchmark(
        "single-image prediction by the exported model",
        "images/s",
        "single",
        "five member calls, sequential",
        2.0,
    ),
    RateBenchmark(
        "single-image prediction by ONNX Runtime, one core",
        "images/s",
        "onnx_runtime",
        "`model.predict` of the Keras file, one core",
        2.0,
    ),
    RateBenchmark(
        "single-image prediction by ONNX Runtime, one core",
        "images/s",
        "onnx_runtime compiled",
        "the Keras file as one compiled function, one core",
        2.0,
    ),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rounds", type=int, default=3, help="number of times that each contestant is measured"
    )
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        benchmarks = Benchmarks(Path(folder), rounds)
        rows = [
            *benchmarks.compare_ensembles(),
            *benchmarks.compare_rates(),
            *benchmarks.compare_stores(),
            *benchmarks.compare_dvc_commands(),
            benchmarks.compare_member_memory(),
        ]
    results = format_results(rows, rounds, TRAINING)
    print("\n" + results)
    RESULTS.write_text(results, "utf-8")


class Benchmarks:
    """All benchmarks, in a temporary folder; the built-in images are drawn once, for all of them.

    Parameters
    ----------
    folder : Path
    rounds : int
        Number of times that each contestant is measured.

    Attributes
    ----------
    images : Path
        Folder of the built-in images.
    project : Path
        The checkout in which the pipeline ran last.
    member_peaks : list of int
        Peak memory of the members' processes, MiB.
    """

    def __init__(self, folder: Path, rounds: int):
        self.folder = folder
        self.rounds = rounds
        self.project = checkout(folder / "drawn")
        python(self.project, "-m", "stages", "phantom")
        self.images = self.project / PHANTOM
        self.member_peaks: list[int] = []

    def compare_ensembles(self) -> list[Row]:
        """Train whole ensembles with the pipeline and with what could be used instead."""
        cores = usable_cores()
        contestants = {
            "threads": ("one_process", cores),
            "sequential": ("one_process", 1),
            "torch": ("torchensemble", cores),
        }
        times: dict[str, list[float]] = {name: [] for name in ("pipeline", *contestants)}
        cpu_times = []
        core_times = []
        for turn in range(self.rounds):
            times["pipeline"].append(self.repro())
            timings = self.read_last_timings()
            self.member_peaks += [
                timing.peak_memory for name, timing in timings.items() if name.startswith("member-")
            ]
            cpu_times.append(self.measure_members_alone())
            core_times.append(cores * timings["fan-out"].wall)
            for name, (module, jobs) in contestants.items():
                times[name].append(wall_time(partial(self.run_contestant, module, jobs)))
            last_times = ", ".join(f"{name} {by_turn[-1]:.1f} s" for name, by_turn in times.items())
            print(f"round {turn + 1}: {last_times}", flush=True)
        return [*ensemble_rows(times, cores), efficiency_row(cpu_times, core_times)]

    def repro(self, project: Path | None = None, **params: int) -> float:
        """Measure the wall time of `dvc repro evaluate`, in seconds.

        Parameters
        ----------
        project : Path, optional
            Where it runs; a new checkout if it is not given.
        **params : int
            Parameters other than those of `PLAIN_TRAINING`.
        """
        if not project:
            project = checkout(Path(tempfile.mkdtemp(dir=self.folder)))
            (project / "dvc.lock").unlink(missing_ok=True)
        self.project = project
        compose(project, {**PLAIN_TRAINING, "data.source": self.images, **params})
        return wall_time(lambda: dvc(project, "repro", "evaluate"))

    def read_last_timings(self) -> dict[str, Timing]:
        """Read the timings of the last run, by stage or member."""
        timings = read_timings(self.project / TIMINGS)
        return {timing.stage: timing for timing in timings}

    def measure_members_alone(self) -> float:
        """Estimate the CPU time of all members, each with the machine to itself, in seconds.

        It is extrapolated from two of them.
        """
        outputs = [
            python(self.project, "-c", TRAIN_ALONE, name) for name in ("member-00", "member-01")
        ]
        return statistics.mean(float(output.splitlines()[-1]) for output in outputs) * MEMBERS

    def run_contestant(self, module: str, jobs: int) -> None:
        """Train an ensemble with a module of `benchmarks.contestants`, on the pipeline's split."""
        arguments = [jobs, MEMBERS, EPOCHS, BATCH_SIZE, self.images, self.project]
        python(ROOT, "-m", f"benchmarks.contestants.{module}", *map(str, arguments))

    def compare_rates(self) -> list[Row]:
        """Measure parts of the pipeline against the machine's limit or a plain loop."""
        dvc(self.project, "repro", "export")
        return [self.compare_rate(benchmark) for benchmark in RATES]

    def compare_rate(self, benchmark: RateBenchmark) -> Row:
        """Measure a rate and its baseline, and print their ratio."""
        rounds = self.run_rates(benchmark.module)
        rate = statistics.median(rates["here"] for rates in rounds)
        baseline_rate = statistics.median(rates["against"] for rates in rounds)
        ratio = statistics.median(rates["here"] / rates["against"] for rates in rounds)
        print(f"{benchmark.name}: {ratio:.2f}", flush=True)
        return Row(
            benchmark.name,
            f"{rate:.0f} {benchmark.unit}",
            f"{baseline_rate:.0f} {benchmark.unit}: {benchmark.baseline}",
            ratio,
            benchmark.goal,
        )

    def compare_stores(self) -> list[Row]:
        """Measure what changing a hundredth of 20,000 images costs, and how fast they are read."""
        return store_rows(self.run_rates("store"))

    def run_rates(self, module: str) -> list[dict[str, float]]:
        """Run a module of `benchmarks.rates` in each round; return what it measured."""
        name, *arguments = module.split()
        command = ("-m", f"benchmarks.rates.{name}", *arguments)
        outputs = [python(self.project, *command) for _ in range(self.rounds)]
        return [json.loads(output.splitlines()[-1]) for output in outputs]

    def compare_dvc_commands(self) -> list[Row]:
        """Measure DVC's commands where nothing or a part has changed."""
        repro_times = []
        status_times = []
        for _ in range(3 * self.rounds):
            repro_times.append(wall_time(lambda: dvc(self.project, "repro")))
            status_times.append(wall_time(lambda: dvc(self.project, "status")))
        growth_times = []
        scratch_times = []
        for turn in range(max(1, self.rounds - 1)):
            self.repro(members=5)
            growth_times.append(self.repro(self.project, members=9))
            scratch_times.append(self.repro(members=9))
            growth = f"growing 5 to 9 {growth_times[-1]:.1f} s"
            scratch = f"9 from scratch {scratch_times[-1]:.1f} s"
            print(f"round {turn + 1}: {growth}, {scratch}", flush=True)
        return [
            compare_times(
                "`dvc repro` without changes",
                repro_times,
                "`dvc status`",
                status_times,
                1.3,
                at_most=True,
            ),
            compare_times(
                "growing 5 members to 9",
                growth_times,
                "9 from scratch",
                scratch_times,
                0.5,
                at_most=True,
            ),
        ]

    def compare_member_memory(self) -> Row:
        """Compare the peak memory of the members with what `fan-out` reserves for each."""
        tensorflow = python(ROOT, "-c", IMPORT_TENSORFLOW).splitlines()[-1]
        peak = max(self.member_peaks)
        reserved = OWN_NETWORK_MEMORY // 2**20
        baseline = f"{reserved} MiB reserved; `import tensorflow` alone: {tensorflow} MiB"
        return Row(
            "peak memory of a member", f"{peak} MiB", baseline, peak / reserved, 1, at_most=True
        )


def ensemble_rows(times: dict[str, list[float]], cores: int) -> list[Row]:
    """Compare the wall times of the pipeline with those of each contestant."""
    goals = {
        "threads": (f"ThreadPoolExecutor of {cores} in one TensorFlow process", 1.5),
        "torch": (f"TorchEnsemble's BaggingClassifier, n_jobs={cores}", 1.5),
        "sequential": ("Keras models, sequential, all cores each", 1.4),
    }
    name = f"{MEMBERS} members, `dvc repro evaluate`"
    return [
        compare_times(name, times["pipeline"], baseline, times[contestant], goal)
        for contestant, (baseline, goal) in goals.items()
    ]


def efficiency_row(cpu_times: list[float], core_times: list[float]) -> Row:
    """Compare the members' CPU time with the time of all cores while `fan-out` ran, in seconds."""
    pairs = zip(cpu_times, core_times, strict=True)
    return Row(
        "parallel efficiency of `fan-out`",
        f"{statistics.median(cpu_times):.0f} s of CPU time, each member alone",
        f"{statistics.median(core_times):.0f} s: cores × wall time",
        statistics.median(cpu_time / core_time for cpu_time, core_time in pairs),
        0.85,
    )


if __name__ == "__main__":
    main()
