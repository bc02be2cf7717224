"""Trains members on this machine, each in a process of its own, as many at a time as it has room for."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import IO

from stages.engines.runs import LOGS, Display, Run, member_memory
from stages.shared.errors import UserError
from stages.shared.machine import (
    Jobs,
    free_memory,
    gpu_slots,
    number_of_jobs,
    usable_cores,
    visible_gpus,
)
from stages.shared.params import Params
from stages.shared.running import Watched, run_part, watch_me
from stages.shared.scratch import scratch

Processes = multiprocessing.context.BaseContext


def train_members(names: list[str], params: Params) -> list[Run]:
    """Train these members; return those that failed.

    Raises
    ------
    UserError
        If the weights that members start from can't be had.
    """
    gpus = gpu_slots(visible_gpus(), params.train.replicas, params.fan_out.members_per_gpu)
    processes = training_processes(bool(gpus))
    if params.network.weights != "none":
        check_first(processes, params.network.weights)
    each, free = member_memory(params), free_memory()
    jobs = number_of_jobs(params.fan_out.jobs, len(names), params.train.threads, usable_cores(), free, len(gpus), each)
    print(f"{len(names)} of {params.members} members to train, {jobs.number} at a time (limit: {jobs.limit})", flush=True)
    return train_side_by_side([LocalRun(name) for name in names], jobs, gpus, processes)


@dataclass
class LocalRun(Run):
    """One member's training in a process of its own."""

    process: multiprocessing.Process | None = None
    gpus: str | None = None

    def start(self, processes: Processes, gpus: str | None) -> None:
        self.begin()
        self.gpus = gpus
        arguments = self.name, scratch(self.name), self.log, gpus, watch_me()
        self.process = processes.Process(target=train, args=arguments, name=f"train@{self.name}")
        self.process.start()

    def has_ended(self) -> bool:
        ended = self.process.exitcode is not None
        self.look()
        if ended:
            self.end(None if self.process.exitcode == 0 else ended_by(self.process))
        return ended


def training_processes(gpus: bool) -> Processes:
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
    return f"ended by {signal.Signals(-process.exitcode).name}" if process.exitcode < 0 else ""


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


def check_first(processes: Processes, weights: str) -> None:
    """Fail here, once, if the weights that members start from can't be had."""
    log = LOGS / "weights.log"
    process = processes.Process(target=check, args=(log, watch_me()))
    process.start()
    process.join()
    if process.exitcode != 0:
        told = log.read_text("utf-8", "replace").strip().splitlines()[-1:] if process.exitcode > 0 else []
        why = told or [f"network.weights: {weights} can't be read ({ended_by(process)}); expected a file of weights"]
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


def train_side_by_side(runs: list[LocalRun], jobs: Jobs, gpus: list[str], processes: Processes) -> list[Run]:
    """Run them, so many at a time, each on GPUs of its own if there are any; return those that failed.

    None is left running when this ends, however it ends.
    """
    free = list(gpus)
    waiting, running = list(runs), []
    try:
        with Display(runs) as display:
            while waiting or running:
                at_once = jobs.last if len(waiting) + len(running) <= jobs.last else jobs.number
                while waiting and len(running) < at_once:
                    running.append(waiting.pop(0))
                    running[-1].start(processes, free.pop(0) if free else None)
                connection.wait([run.process.sentinel for run in running], 0.2)
                for run in [run for run in running if run.has_ended()]:
                    running.remove(run)
                    free += [run.gpus] if run.gpus is not None else []
                    display.ended(run)
                display.update()
    finally:
        for run in running:
            run.process.kill()
        for run in running:
            run.process.join()
    return [run for run in runs if run.failure is not None]
