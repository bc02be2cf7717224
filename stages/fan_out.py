"""Trains the members that changed side by side, each in a process of its own.

    dvc repro fan-out

DVC runs one stage after the other. So this stage trains the members ahead of their own stages, into scratch folders; when
DVC comes to `train@MEMBER`, that only puts the result in its place. How many train at a time changes no result.

Reads   all that members read; params: members, recipes, ensemble, network, train; fan_out, which DVC does not track
Writes  data/fan-out.json, a marker: where it is missing, as in a fresh clone, members train side by side again
"""

import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import IO, get_args

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from stages.shared.errors import UserError
from stages.shared.files import write_bytes, write_json
from stages.shared.machine import (
    APPLICATION_MEMORY,
    MEMBER_MEMORY,
    Jobs,
    free_memory,
    gpu_slots,
    number_of_jobs,
    usable_cores,
    visible_gpus,
)
from stages.shared.params import Application, Params, load_params
from stages.shared.progress import parse_epoch_line
from stages.shared.running import Watched, run_part, run_stage, watch_me
from stages.shared.scratch import METRICS, MODELS, SCRATCH, is_trained, scratch

LOGS = Path(".dvc/tmp/fan-out")
LOG_EVERY_S = 15.0
LAST_LINES = 15


def main() -> None:
    params = load_params()
    names = list(params.ensemble)
    remove_former(names)
    failed = train_stale(names, params)
    tidy_lock_file(names)
    if failed:
        for run in failed:
            print(f"\n{run.name} failed{ended_by(run.process)}; the end of {run.log}:\n{run.last_lines()}", flush=True)
        failures = ", ".join(run.name for run in failed)
        raise UserError(f"training failed: {failures}; the other members are done and kept; run `dvc repro` again for the rest")
    write_json("data/fan-out.json", {"done": True})


@dataclass
class Run:
    """One member's training in a process of its own."""

    name: str
    folder: Path
    process: multiprocessing.Process | None = None
    started: float = 0.0
    ended: float = 0.0
    epoch: int = 0
    epochs: int = 0
    measures: dict[str, float] = field(default_factory=dict)
    first_epoch: float = 0.0
    read: int = 0
    gpus: str | None = None

    @property
    def log(self) -> Path:
        return LOGS / f"{self.name}.log"

    def start(self, processes: multiprocessing.context.BaseContext, gpus: str | None) -> None:
        self.log.unlink(missing_ok=True)
        self.gpus = gpus
        self.started = time.monotonic()
        arguments = self.name, self.folder, self.log, gpus, watch_me()
        self.process = processes.Process(target=train, args=arguments, name=f"train@{self.name}")
        self.process.start()

    def look(self) -> bool:
        """Read what the member has said since the last look; True once it has ended."""
        done = self.process.exitcode is not None
        with open(self.log, "a+", encoding="utf-8", errors="replace") as log:
            log.seek(self.read)
            for line in iter(log.readline, ""):
                if not line.endswith("\n"):
                    break
                self.read = log.tell()
                if told := parse_epoch_line(line.rstrip()):
                    self.epoch, self.epochs, self.measures = told
                    self.first_epoch = self.first_epoch or time.monotonic()
        if done:
            self.ended = time.monotonic()
        return done

    def failed(self) -> bool:
        return self.process.exitcode != 0

    def last_lines(self) -> str:
        return "\n".join("  " + line for line in self.log.read_text("utf-8", "replace").splitlines()[-LAST_LINES:])

    def state(self) -> str:
        if not self.process:
            return "waiting"
        if self.ended:
            return "failed" if self.failed() else f"done in {self.ended - self.started:.0f} s"
        if self.epoch < 2:
            return "starting"
        left = (time.monotonic() - self.first_epoch) / (self.epoch - 1) * (self.epochs - self.epoch)
        return f"{left:.0f} s left"

    def line(self) -> str:
        parts = [self.name, self.state()]
        if self.epoch:
            parts.insert(1, f"epoch {self.epoch} of {self.epochs}")
            parts.insert(2, f"loss {self.measures['loss']:.3f}, out-of-bag accuracy {self.measures['out of bag accuracy']:.3f}")
        return ": ".join([parts[0], ", ".join(parts[1:])])


def train_stale(names: list[str], params: Params) -> list[Run]:
    """Train the members that are not up to date; return those that failed."""
    folders = {name: scratch(name) for name in names}
    for left in SCRATCH.glob("*"):
        if left not in folders.values():
            shutil.rmtree(left)
    gpus = gpu_slots(visible_gpus(), params.train.replicas, params.fan_out.members_per_gpu)
    processes = training_processes(bool(gpus))
    known = known_to_dvc(names)
    stale = [Run(name, folder) for name, folder in folders.items() if name not in known and not is_trained(folder)]
    if not stale:
        print(f"all {len(names)} members are trained already")
        return []
    if params.network.weights != "none":
        check_first(processes, params.network.weights)
    each = APPLICATION_MEMORY if params.network.name in get_args(Application) else MEMBER_MEMORY
    jobs = number_of_jobs(params.fan_out.jobs, len(stale), params.train.threads, usable_cores(), free_memory(), len(gpus), each)
    print(f"{len(stale)} of {len(names)} members to train, {jobs.number} at a time (limit: {jobs.limit})", flush=True)
    return train_all(stale, jobs, gpus, processes)


def training_processes(gpus: bool) -> multiprocessing.context.BaseContext:
    """How processes for members are made: forked from one that has imported TensorFlow already and does nothing else.

    Importing it takes as long as several epochs of a small network. Not so with GPUs, whose driver does not allow it.
    """
    if gpus:
        return multiprocessing.get_context("spawn")
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["stages.shared.training", "rich.live"])
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C is for this process, which ends the others
    LOGS.mkdir(parents=True, exist_ok=True)
    with open(LOGS / "tensorflow.log", "wb") as log, stderr_to(log):  # what it says while it is imported
        forkserver.ensure_running()
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return processes


def ended_by(process: multiprocessing.Process) -> str:
    """The signal that ended a process, as the system's does that has no memory left, or a fault's inside a library."""
    return f" (ended by {signal.Signals(-process.exitcode).name})" if process.exitcode < 0 else ""


@contextmanager
def stderr_to(file: IO) -> Iterator[None]:
    """Meanwhile, standard error goes to the file, also that of processes started."""
    stderr = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def check_first(processes: multiprocessing.context.BaseContext, weights: str) -> None:
    """Fail here, once, if the weights that members start from can't be had."""
    log = LOGS / "weights.log"
    process = processes.Process(target=check, args=(log, watch_me()))
    process.start()
    process.join()
    if process.exitcode != 0:
        told = log.read_text("utf-8", "replace").strip().splitlines()[-1:] if process.exitcode > 0 else []
        why = told or [f"network.weights: {weights} can't be read{ended_by(process)}; expected a file of weights"]
        raise UserError(why[0].removeprefix("error: "))


def check(log: Path, watched: Watched) -> None:
    def work() -> None:
        from stages.shared.training import check_weights

        check_weights()

    run_part(work, "weights", log, watched)


def train(name: str, folder: Path, log: Path, gpus: str | None, watched: Watched) -> None:
    """Train a member in this process."""
    if gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus

    def work() -> None:
        from stages.shared.training import train_member

        train_member(name, folder)

    run_part(work, name, log, watched)


def train_all(runs: list[Run], jobs: Jobs, gpus: list[str], processes: multiprocessing.context.BaseContext) -> list[Run]:
    """Run them, so many at a time, each on GPUs of its own if there are any; return those that failed.

    None is left running when this ends, however it ends.
    """
    free = list(gpus)
    waiting, running, failed = list(runs), [], []
    told = time.monotonic()
    console = Console()
    live = Live(table(runs), console=console, auto_refresh=False) if console.is_terminal else None
    try:
        if live:
            live.start()
        while waiting or running:
            at_once = jobs.last if len(waiting) + len(running) <= jobs.last else jobs.number
            while waiting and len(running) < at_once:
                running.append(waiting.pop(0))
                running[-1].start(processes, free.pop(0) if free else None)
            connection.wait([run.process.sentinel for run in running], 0.2)
            for run in [run for run in running if run.look()]:
                running.remove(run)
                free += [run.gpus] if run.gpus is not None else []
                failed += [run] if run.failed() else []
                if not live:
                    print(run.line(), flush=True)
            if live:
                live.update(table(runs), refresh=True)
            elif time.monotonic() - told > LOG_EVERY_S:
                told = time.monotonic()
                for run in running:
                    print(run.line(), flush=True)
    finally:
        if live:
            live.stop()
        for run in running:
            run.process.kill()
        for run in running:
            run.process.join()
    return failed


def table(runs: list[Run]) -> Table:
    """The members as a live table: epoch, loss, out-of-bag accuracy, time left."""
    rows = Table("member", "epoch", "", "loss", "out-of-bag accuracy", "", box=None, padding=(0, 2, 0, 0))
    for run in runs:
        measures = [f"{run.measures[key]:.3f}" if run.epoch else "" for key in ("loss", "out of bag accuracy")]
        rows.add_row(
            run.name,
            f"{run.epoch} of {run.epochs}" if run.epoch else "",
            ProgressBar(run.epochs or 1, run.epoch, 24),
            *measures,
            run.state(),
        )
    return rows


def known_to_dvc(names: list[str]) -> set[str]:
    """The members whose training DVC will skip or take from its cache, asked in the way in which `dvc repro` decides it."""
    from dvc.repo import Repo, lock_repo
    from dvc.stage.cache import RunCacheNotFoundError
    from dvc_data.hashfile.hash_info import HashInfo

    known = set()
    with Repo(_wait_for_lock=True) as repo, lock_repo(repo):
        for name in names:
            (stage,) = repo.stage.collect(f"train@{name}")
            if stage.changed():
                if not stage.deps_cached():
                    stage.save_deps()
                    for out in stage.outs:  # what dvc.lock says of them was made from other dependencies
                        out.hash_info = HashInfo()
                try:
                    repo.stage_cache.restore(stage, dry=True)
                except RunCacheNotFoundError:
                    continue
            known.add(name)
    return known


def remove_former(names: list[str]) -> None:
    """Remove the workspace's files of members that the ensemble no longer has; the cache keeps them."""
    for path in [*MODELS.glob("member-*"), *METRICS.glob("member-*.json")]:
        if path.stem not in names:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def tidy_lock_file(names: list[str]) -> None:
    """Leave former members out of dvc.lock, and give new ones their place in the order of dvc.yaml: DVC adds at the end."""
    from dvc.utils.serialize import dumps_yaml, load_yaml, parse_yaml_for_update

    place = {name: index for index, name in enumerate(load_yaml("dvc.yaml")["stages"])}
    lock = parse_yaml_for_update(Path("dvc.lock").read_text("utf-8"), "dvc.lock")
    stages = lock["stages"]
    members = {f"train@{name}": {"cmd": f"python -m stages.train {name}"} for name in names}
    kept = {name: stage for name, stage in stages.items() if not name.startswith("train@") or name in members}
    order = sorted(members | kept, key=lambda name: (place.get(name.split("@")[0], len(place)), name))
    if order != list(stages):
        stages.clear()
        stages.update({name: kept.get(name, members.get(name)) for name in order})
        write_bytes("dvc.lock", dumps_yaml(lock).encode())


if __name__ == "__main__":
    run_stage(main)
