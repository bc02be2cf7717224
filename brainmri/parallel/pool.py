"""The local engine: members train on this machine, each in a process of its own, as many at a time
as fit.
"""

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import IO

from brainmri.common.errors import UserError
from brainmri.common.params import Params
from brainmri.common.paths import LOGS
from brainmri.common.processes import ProcessIds, processes_to_watch
from brainmri.common.resources import free_memory, usable_cores
from brainmri.common.stage import run_child
from brainmri.networks.runtime import start_tensorflow
from brainmri.parallel.metric_logs import metric_logger
from brainmri.parallel.monitor import MemberRun, ProgressDisplay
from brainmri.parallel.resources import (
    Jobs,
    gpu_slots,
    member_memory,
    number_of_jobs,
    visible_gpus,
)
from brainmri.parallel.staging import staging_dir, train_into

PRELOADED = ["brainmri.parallel.preload", "rich.live"]
POLL_S = 0.2
Processes = multiprocessing.context.BaseContext


def train_members(names: list[str], params: Params) -> list[MemberRun]:
    """Train these members; return those that failed.

    Raises
    ------
    UserError
        If the pretrained weights that members start from can't be had, or a package that
        `fan_out.log` needs.
    """
    open_log = metric_logger(params.fan_out.log)
    gpus = gpu_slots(visible_gpus(), params.train.replicas, params.fan_out.members_per_gpu)
    processes = training_processes(has_gpus=bool(gpus))
    networks = [params.ensemble[name].network for name in names]
    if weights := {network.weights for network in networks if network.is_pretrained}:
        check_pretrained(processes, ", ".join(sorted(weights)))
    jobs = number_of_jobs(
        params.fan_out.jobs,
        len(names),
        params.train.threads,
        usable_cores(),
        free_memory(),
        len(gpus),
        max(member_memory(network.name) for network in networks),
    )
    print(f"{len(names)} of {params.members} members to train,", end=" ")
    print(f"{jobs.number} at a time (limit: {jobs.limit})", flush=True)
    return train_in_parallel(
        [LocalRun(name, open_metric_log=open_log) for name in names], jobs, gpus, processes
    )


@dataclass
class LocalRun(MemberRun):
    """The training of a member in a process of this machine."""

    process: multiprocessing.Process | None = None
    gpus: str | None = None

    def start_process(self, processes: Processes, gpus: str | None) -> None:
        self.start()
        self.gpus = gpus
        arguments = (self.name, staging_dir(self.name), self.log, gpus, processes_to_watch())
        self.process = processes.Process(target=train, args=arguments, name=f"train@{self.name}")
        self.process.start()

    def poll(self) -> bool:
        """Read the log; return whether the process has ended."""
        has_ended = self.process.exitcode is not None
        self.poll_log()
        if has_ended:
            self.end(None if self.process.exitcode == 0 else describe_signal(self.process))
        return has_ended


def training_processes(has_gpus: bool) -> Processes:
    """Return the context that makes members' processes, forked from one that has imported
    TensorFlow and nothing else.

    Importing it takes as long as several epochs of a small network. With GPUs, whose driver does
    not allow a fork, each process imports it.
    """
    if has_gpus:
        return multiprocessing.get_context("spawn")
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(PRELOADED)
    # Ctrl-C is for this process, which ends the others.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    LOGS.mkdir(parents=True, exist_ok=True)
    with open(LOGS / "tensorflow.log", "wb") as log, stderr_to(log):  # what its import prints
        try:
            forkserver.ensure_running()
        except OSError as error:
            raise UserError(
                f"no socket can be in {tempfile.gettempdir()!r} ({error}); set TMPDIR to another"
                " folder, with a short path"
            ) from None
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return processes


def train_in_parallel(
    runs: list[LocalRun], jobs: Jobs, gpus: list[str], processes: Processes
) -> list[MemberRun]:
    """Train members, some at a time, each on GPUs of its own if there are any; return those that
    failed.

    However this function ends, no process is left.
    """
    free_gpus = list(gpus)
    waiting, running = list(runs), []
    try:
        with ProgressDisplay(runs) as display:
            while waiting or running:
                is_last = len(waiting) + len(running) <= jobs.last
                at_once = jobs.last if is_last else jobs.number
                while waiting and len(running) < at_once:
                    run = waiting.pop(0)
                    running.append(run)
                    run.start_process(processes, free_gpus.pop(0) if free_gpus else None)
                connection.wait([run.process.sentinel for run in running], POLL_S)
                for run in [run for run in running if run.poll()]:
                    running.remove(run)
                    if run.gpus is not None:
                        free_gpus.append(run.gpus)
                    display.print_end(run)
                display.update()
    finally:
        # Ctrl-C may come before the last one has started
        started = [run for run in running if run.process and run.process.pid]
        for run in started:
            run.process.kill()
        for run in started:
            run.process.join()
    return [run for run in runs if run.failure is not None]


def train(name: str, folder: Path, log: Path, gpus: str | None, watched: ProcessIds) -> None:
    """Train a member in this process."""
    if gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus
    run_child(lambda: train_into(folder, name), name, log, watched)


def check_pretrained(processes: Processes, weights: str) -> None:
    """Fail once, before members train, if their pretrained weights can't be had.

    Parameters
    ----------
    processes : context of multiprocessing
    weights : str
        What the error calls them.

    Raises
    ------
    UserError
    """
    log = LOGS / "weights.log"
    process = processes.Process(target=check_pretrained_here, args=(log, processes_to_watch()))
    process.start()
    process.join()
    if process.exitcode == 0:
        return
    reason = f"network.weights: {weights} can't be read ({describe_signal(process)});"
    reason += " expected a file of weights"
    if process.exitcode > 0:
        lines = log.read_text("utf-8", "replace").strip().splitlines()
        reason = lines[-1] if lines else reason
    raise UserError(reason.removeprefix("error: "))


def check_pretrained_here(log: Path, watched: ProcessIds) -> None:
    """Check the pretrained weights in this process."""

    def work() -> None:
        start_tensorflow()
        from brainmri.training.member import check_weights

        check_weights()

    run_child(work, "weights", log, watched)


def describe_signal(process: multiprocessing.Process) -> str:
    """Return which signal ended a process, as of a system without memory or of a fault in a
    library; else "".
    """
    return f"ended by {signal.Signals(-process.exitcode).name}" if process.exitcode < 0 else ""


@contextmanager
def stderr_to(file: IO) -> Iterator[None]:
    """Redirect standard error to a file, also that of processes that are started."""
    stderr = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
