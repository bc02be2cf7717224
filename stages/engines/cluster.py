"""Trains members on the workers of a Dask cluster. Dask decides who trains what; DVC's remote carries what goes in and comes out.

Each worker gets the project's files, pulls the RAD and its member's sample from the remote, trains as `dvc repro` does, and
pushes the result with its entry of the run cache. From there this machine takes it, whoever trained it and whenever.
"""

import functools
import logging
import math
import operator
import os
import queue
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from stages.engines import dvc_repo
from stages.engines.runs import LOG_EVERY_S, Display, Run, member_memory
from stages.shared.errors import UserError
from stages.shared.params import Params

if TYPE_CHECKING:
    from distributed import Client, Future


def train_members(names: list[str], params: Params) -> list[Run]:
    """Train these members, unless the remote has them already; return those that failed.

    Raises
    ------
    UserError
        If there is no remote, or no scheduler, or a worker has other versions; or if one of them is lost meanwhile.
    """
    settings = dvc_repo.settings()
    with connected(params.fan_out.scheduler) as client:
        had = dvc_repo.pull_results(names)
        names = [name for name in names if name not in had]
        if not names:
            print("the remote had all members that were missing")
            return []
        expected = check_workers(client, params)
        dvc_repo.push_inputs()
        workers = len(workers_of(client))
        print(f"{len(names)} of {params.members} members to train on {workers} workers", end="; ")
        print(f"dashboard: {client.dashboard_link}", flush=True)
        runs = {name: Run(name) for name in names}
        follow(client, runs, params, settings, expected)
        done = [run.name for run in runs.values() if run.failure is None]
        found = dvc_repo.pull_results(done)
        for name in done:
            if name not in found:
                runs[name].end("the remote has no result of it")
    return [run for run in runs.values() if run.failure is not None]


@contextmanager
def connected(scheduler: str | None) -> Iterator["Client"]:
    """A client of the cluster; what it is still waiting for at the end is given up."""
    try:
        import dask
        from distributed import Client
    except ImportError:
        raise UserError("fan_out.engine is dask, which needs packages: pip install -r requirements-cluster.txt") from None
    from stages.engines import worker

    address = scheduler or dask.config.get("scheduler-address", None)
    if not address:
        raise UserError(
            "fan_out.scheduler is null and Dask's configuration has no scheduler-address; expected an address,"
            " such as tcp://10.0.0.1:8786"
        )
    import cloudpickle

    cloudpickle.register_pickle_by_value(worker)
    logging.disable(logging.CRITICAL)  # what is lost is told in a line of ours, where Dask logs tracebacks
    try:
        client = Client(address, name="fan-out")
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"fan_out.scheduler: no scheduler answers at {address} ({error}); start it: dask scheduler") from None
    try:
        yield client
    finally:
        with suppress(TimeoutError):  # the scheduler drops a client that is gone, too
            client.close(timeout=60)
        logging.disable(logging.NOTSET)


def check_workers(client: "Client", params: Params) -> dict[str, str]:
    """Refuse a cluster with a worker whose versions are not the driver's; return these. Waits for a first worker."""
    from stages.engines import worker

    wait_for_workers(client)
    answers = client.get_versions()  # without code of ours, which another Python would not understand
    python = answers["client"]["host"]["python"]
    for address, answer in answers["workers"].items():
        if answer["host"]["python"] != python:
            raise UserError(
                f"worker {address} has Python {answer['host']['python']}, the driver {python}; install the same on both"
            )
    packages = sorted({"dask", "distributed", *(Requirement(line).name for line in requirements())})
    expected = worker.versions(packages)
    found = client.run(worker.about, packages)
    for one in found.values():
        if wrong := worker.unlike(expected, one["versions"]):
            raise UserError(f"worker {one['name']} {wrong}; install the same on both: pip install -r requirements-cluster.txt")
    for address, one in workers_of(client).items():
        cores, memory = found[address]["cores"] if address in found else one["nthreads"], one["memory_limit"] or math.inf
        fitting = int(max(1, min(cores // params.train.threads, memory // member_memory(params))))
        if one["nthreads"] > fitting:
            print(
                f"worker {one['name']} would train {one['nthreads']} members at a time, where it has room for {fitting}; start it"
                f" with --nthreads {fitting}",
                flush=True,
            )
    return expected


def wait_for_workers(client: "Client") -> None:
    told = 0.0
    while not workers_of(client):
        if time.monotonic() - told > LOG_EVERY_S:
            told = time.monotonic()
            print(f"no worker has joined {client.scheduler.address} yet; waiting", flush=True)
        time.sleep(1)


def workers_of(client: "Client") -> dict[str, dict]:
    """What the scheduler knows of each worker, by its address."""
    return client.scheduler_info(n_workers=-1)["workers"]


def requirements() -> list[str]:
    lines = (line.partition("#")[0].strip() for line in Path("requirements.txt").read_text("utf-8").splitlines())
    return [line for line in lines if line]


def follow(client: "Client", runs: dict[str, Run], params: Params, settings: dict, expected: dict[str, str]) -> None:
    """Hand the members to the cluster and show how far they are, until all have ended."""
    import cloudpickle
    from distributed import wait

    from stages.engines import worker

    topic, events = f"fan-out-{uuid.uuid4()}", queue.SimpleQueue()
    client.subscribe_topic(topic, lambda event: events.put(event[1]))
    work = functools.partial(worker.train, files=snapshot(params), remote=settings, topic=topic, expected=expected)
    work = client.submit(cloudpickle.loads, cloudpickle.dumps(work), key=topic)  # workers hand it to each other
    wait(work)
    client.replicate([work])
    gpus = any(one["resources"].get("GPU") for one in workers_of(client).values())
    resources = {"GPU": params.train.replicas / params.fan_out.members_per_gpu} if gpus else {}
    futures = {name: client.submit(operator.call, work, name, key=f"{name}-{topic}", resources=resources) for name in runs}
    with Display([*runs.values()]) as display:
        while futures:
            listen(events, runs)
            for name in [name for name, future in futures.items() if future.done()]:
                listen(events, runs)
                runs[name].end(failure_of(futures.pop(name), client))
                display.ended(runs[name])
            display.update()


def listen(events: queue.SimpleQueue, runs: dict[str, Run], within_s: float = 0.2) -> None:
    """Write what workers tell into the members' logs."""
    try:
        while True:
            event = events.get(timeout=within_s)
            run, within_s = runs[event["member"]], 0.001
            if not event["text"]:
                run.begin(event["where"])
            with open(run.log, "a", encoding="utf-8") as log:
                log.write(event["text"])
            run.look()
    except queue.Empty:
        return


def failure_of(future: "Future", client: "Client") -> str | None:
    """What went wrong, if something did.

    Raises
    ------
    UserError
        If the scheduler is gone.
    """
    from distributed import KilledWorker

    if future.status == "finished":
        return future.result()
    if future.status == "error":
        error = future.exception()
        if isinstance(error, KilledWorker):
            return f"{error.allowed_failures + 1} workers died while they trained it, the last at {error.last_worker.address}"
        return f"{type(error).__name__}: {error}"
    raise UserError(
        f"the scheduler at {client.scheduler.address} is gone; members that were done are kept;"
        " start it again, and run `dvc repro` for the rest"
    )


def snapshot(params: Params) -> dict[str, bytes]:
    """Read the files that Git tracks, as they are now, and the file of the first weights.

    Returns
    -------
    dict of str to bytes
        Contents by relative path, none of which leads out of the project: a worker writes them as they are.

    Raises
    ------
    UserError
        If Git does not track the project, or the weights are outside of it.
    """
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True).stdout.decode(errors="surrogateescape").split("\0")
    if "stages/train.py" not in listed:
        raise UserError(
            "workers get the files that Git tracks, and it tracks no stages/train.py here; run `git add -A` in a clone"
        )
    weights = Path(os.path.normpath(params.network.weights_file))
    if weights.is_absolute() or ".." in weights.parts:
        raise UserError(
            f"network.weights: '{weights}' is outside of the project, whose files are all that workers get;"
            " expected a file inside, such as data/weights/NAME.h5"
        )
    paths = [path for path in [*listed, str(weights), "dvc.lock"] if path and Path(path).is_file()]
    return {path: Path(path).read_bytes() for path in sorted(paths)}
