"""Trains the members side by side: several `dvc repro --single-item train@MEMBER` at a time.

    dvc repro fan-out

DVC runs one stage after the other, but holds no lock while a stage's command runs. So this stage starts DVC for the
members that changed; when the outer DVC reaches them, they are in the cache. How many run at a time changes no result.

Reads   all that members read; params: members, recipes, ensemble, network, train; fan_out, which DVC does not track
Writes  data/fan-out.json, a marker: where it is missing, as in a fresh clone, members train side by side again
"""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from dvc.utils.serialize import load_yaml, modify_yaml
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from stages.shared.errors import UserError
from stages.shared.files import write_json
from stages.shared.machine import Jobs, free_memory, gpu_slots, number_of_jobs, usable_cores, visible_gpus
from stages.shared.members import METRICS, MODELS
from stages.shared.params import Params, load_params
from stages.shared.progress import parse_epoch_line
from stages.shared.running import for_children, run_stage

LOGS = Path(".dvc/tmp/fan-out")
DVC = [sys.executable, "-m", "dvc", "--wait-for-lock"]
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
            print(f"\n{run.name} failed; the end of {run.log}:\n{run.last_lines()}", flush=True)
        failures = ", ".join(run.name for run in failed)
        raise UserError(f"training failed: {failures}; the other members are done and kept; run `dvc repro` again for the rest")
    write_json("data/fan-out.json", {"done": True})


@dataclass
class Run:
    """One member's training in a process of its own."""

    name: str
    process: subprocess.Popen | None = None
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

    def start(self, gpus: str | None) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = [*DVC, "repro", "--single-item", f"train@{self.name}"]
        environment = {**os.environ, **for_children(), "PYTHONUNBUFFERED": "1"}
        if gpus is not None:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus = gpus
        self.started = time.monotonic()
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
            )

    def look(self) -> bool:
        """Read what the member has said since the last look; True once it has ended."""
        done = self.process.poll() is not None
        with open(self.log, encoding="utf-8", errors="replace") as log:
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
        return self.process.returncode != 0

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
    stale = stale_members(names)
    if not stale:
        print(f"all {len(names)} members are trained already")
        return []
    gpus = gpu_slots(visible_gpus(), params.train.replicas, params.fan_out.members_per_gpu)
    jobs = number_of_jobs(params.fan_out.jobs, len(stale), params.train.threads, usable_cores(), free_memory(), len(gpus))
    print(f"{len(stale)} of {len(names)} members to train, {jobs.number} at a time (limit: {jobs.limit})", flush=True)
    return train_all([Run(name) for name in stale], jobs, gpus)


def train_all(runs: list[Run], jobs: Jobs, gpus: list[str]) -> list[Run]:
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
                running[-1].start(free.pop(0) if free else None)
            time.sleep(0.2)
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
            run.process.terminate()
        for run in running:
            run.process.wait()
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


def stale_members(names: list[str]) -> list[str]:
    """The members whose training is not up to date; DVC is asked once for all of them."""
    command = [*DVC, "status", "--json", *(f"train@{name}" for name in names)]
    answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode != 0:
        raise UserError(f"`dvc status` failed: {answer.stderr.strip()}")
    changed = json.loads(answer.stdout)
    return [name for name in names if f"train@{name}" in changed]


def remove_former(names: list[str]) -> None:
    """Remove the workspace's files of members that the ensemble no longer has; the cache keeps them."""
    for path in [*MODELS.glob("member-*"), *METRICS.glob("member-*.json")]:
        if path.stem not in names:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def tidy_lock_file(names: list[str]) -> None:
    """Leave former members out of dvc.lock, and put the rest in the order of dvc.yaml.

    DVC adds members to it as they finish, which depends on chance.
    """
    place = {name: index for index, name in enumerate(load_yaml("dvc.yaml")["stages"])}
    with modify_yaml("dvc.lock") as lock:
        stages = lock["stages"]
        kept = [name for name in stages if not name.startswith("train@") or name.removeprefix("train@") in names]
        ordered = {
            name: stages[name] for name in sorted(kept, key=lambda name: (place.get(name.split("@")[0], len(place)), name))
        }
        stages.clear()
        stages.update(ordered)


if __name__ == "__main__":
    run_stage(main)
