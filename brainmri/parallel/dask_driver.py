"""The Dask engine: members train on the workers of a cluster.

Dask carries all that a worker needs: the package's code, and the files that members read, each once
per worker, which keeps them by their content for later runs. A worker that shares the driver's disk
uses the project's folder in place. A member's result comes back as it is done, and is in its
staging folder at once: a driver that dies loses only what was in training.
"""

import logging
import math
import operator
import queue
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from brainmri.common.dependencies import StageInputs
from brainmri.common.errors import UserError
from brainmri.common.params import Params, read_params
from brainmri.common.paths import LOGS
from brainmri.parallel.bundle import Bundle, make_bundle, packs
from brainmri.parallel.metric_logs import metric_logger
from brainmri.parallel.monitor import LOG_EVERY_S, MemberRun, ProgressDisplay
from brainmri.parallel.resources import member_memory
from brainmri.parallel.staging import stage_files, staging_dir

if TYPE_CHECKING:
    from distributed import Client, Future

REQUIREMENTS = Path("requirements/training.in")  # of a worker
POLL_S = 0.05
INSTALL = "install the same on both: pip install -r requirements/cluster.txt"


def train_members(names: list[str], params: Params) -> list[MemberRun]:
    """Train these members; return those that failed.

    Raises
    ------
    UserError
        If there is no scheduler, or a worker has other versions; or if the scheduler is lost
        meanwhile.
    """
    content = read_params()
    inputs = {name: StageInputs(f"train@{name}", content) for name in names}
    bundle = make_bundle(params, names)
    folders = {name: staging_dir(name, content) for name in names}
    for snapshot in inputs.values():
        snapshot.check()  # or the bundle's params.yaml may not be what names the folders
    open_log = metric_logger(params.fan_out.log)
    with connected(params.fan_out.scheduler) as client:
        expected = check_workers(client, params)
        with trainers(client, bundle):
            workers = len(workers_of(client))
            print(
                f"{len(names)} of {params.members} members to train on {workers} workers", end="; "
            )
            print(f"dashboard: {client.dashboard_link}", flush=True)
            failure = deliver(client, bundle, list(workers_of(client)))
            if failure:
                raise UserError(
                    f"{failure}; free space there, or stop that worker, and run `dvc repro` again"
                )
            runs = [MemberRun(name, open_metric_log=open_log) for name in names]
            train_on(client, runs, bundle, folders, inputs, params, expected)
    return [run for run in runs if run.failure is not None]


@contextmanager
def connected(scheduler: str | None) -> Iterator["Client"]:
    """Connect to the cluster; at the end, what still trains is given up."""
    try:
        import dask
        from distributed import Client
    except ImportError:
        raise UserError(
            "fan_out.engine is dask, which needs packages: pip install -r requirements/cluster.txt"
        ) from None
    address = scheduler or dask.config.get("scheduler-address", None)
    if not address:
        raise UserError(
            "fan_out.scheduler is null and Dask's configuration has no scheduler-address;"
            " expected an address, such as tcp://10.0.0.1:8786"
        )
    import cloudpickle

    from brainmri.parallel import dask_worker

    cloudpickle.register_pickle_by_value(dask_worker)
    logging.disable(logging.CRITICAL)  # Dask logs tracebacks of what is reported here in a line
    try:
        client = Client(address, name="fan-out")
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise UserError(
            f"fan_out.scheduler: no scheduler answers at {address} ({error});"
            " start it: dask scheduler"
        ) from None
    try:
        yield client
    finally:
        with suppress(TimeoutError):  # the scheduler drops a client that is gone
            client.close(timeout=60)
        logging.disable(logging.NOTSET)


def check_workers(client: "Client", params: Params) -> dict[str, str]:
    """Wait for a worker; refuse a cluster with other versions than the driver's, and return these.

    Raises
    ------
    UserError
        Naming the worker.
    """
    from brainmri.parallel import dask_worker

    wait_for_workers(client)
    answers = client.get_versions()  # without code of ours, which another Python can't unpickle
    python = answers["client"]["host"]["python"]
    for address, answer in answers["workers"].items():
        if answer["host"]["python"] != python:
            raise UserError(
                f"worker {address} has Python {answer['host']['python']}, the driver {python};"
                " install the same on both"
            )
    packages = sorted({"dask", "distributed", *required_packages()})
    expected = dask_worker.versions(packages)
    described = client.run(dask_worker.describe, packages)
    for worker in described.values():
        if mismatch := dask_worker.version_mismatch(expected, worker["versions"]):
            raise UserError(f"worker {worker['name']} {mismatch}; {INSTALL}")
    memory_each = max(member_memory(member.network.name) for member in params.ensemble.values())
    for address, worker in workers_of(client).items():
        threads = worker["nthreads"]
        cores = described[address]["cores"] if address in described else threads
        memory = worker["memory_limit"] or math.inf
        fitting = int(max(1, min(cores // params.train.threads, memory // memory_each)))
        if threads > fitting:
            print(
                f"worker {worker['name']} would train {threads} members at a time, and has room for"
                f" {fitting}; start it with --nthreads {fitting}",
                flush=True,
            )
    return expected


def wait_for_workers(client: "Client") -> None:
    """Wait until a worker has joined, and print a line now and then."""
    printed = 0.0
    while not workers_of(client):
        if time.monotonic() - printed > LOG_EVERY_S:
            printed = time.monotonic()
            print(f"no worker has joined {client.scheduler.address} yet; waiting", flush=True)
        time.sleep(1)


def workers_of(client: "Client") -> dict[str, dict]:
    """Return what the scheduler knows of each worker, by its address."""
    return client.scheduler_info(n_workers=-1)["workers"]


def required_packages() -> list[str]:
    """Return the packages that training needs."""
    lines = REQUIREMENTS.read_text("utf-8").splitlines()
    requirements = [line.partition("#")[0].strip() for line in lines]
    return [Requirement(line).name for line in requirements if line]


@contextmanager
def trainers(client: "Client", bundle: Bundle) -> Iterator[None]:
    """Let every worker, also one that joins later, have a trainer process; they end with this."""
    from brainmri.parallel import dask_worker

    LOGS.mkdir(parents=True, exist_ok=True)
    token = LOGS.absolute() / f"shared-{uuid.uuid4()}"
    token.touch()
    try:
        client.register_plugin(
            dask_worker.TrainerPlugin(bundle.code, bundle.files, str(Path.cwd()), str(token))
        )
        yield
    finally:
        token.unlink()
        with suppress(Exception):  # whatever Dask raises if the scheduler is gone
            client.unregister_worker_plugin(dask_worker.PLUGIN)


def deliver(client: "Client", bundle: Bundle, workers: list[str]) -> str | None:
    """Give workers the files that they lack; return what went wrong, if something did."""
    from brainmri.parallel import dask_worker

    missing = client.run(dask_worker.missing_files, workers=workers, on_error="ignore")
    sent = {worker: [] for worker in missing}
    for pack in packs(bundle.files, set().union(*missing.values())):
        future = client.scatter(pack, hash=False)
        for worker, digests in missing.items():
            if digests & pack.keys():
                sent[worker].append(future)
    deliveries = {}
    for worker, futures in sent.items():
        if futures:
            deliveries[worker] = client.submit(
                operator.call,
                send_function(client, dask_worker.add_files),
                *futures,
                key=f"deliver-{uuid.uuid4()}",
                workers=[worker],
                priority=1,
            )
    while deliveries:
        present = workers_of(client)
        for worker, delivery in list(deliveries.items()):
            if worker not in present or delivery.done():
                del deliveries[worker]
                failure = delivery.result() if delivery.status == "finished" else None
                if failure:
                    return failure
        time.sleep(POLL_S)
    return None


def train_on(
    client: "Client",
    runs: list[MemberRun],
    bundle: Bundle,
    folders: dict[str, Path],
    inputs: dict[str, StageInputs],
    params: Params,
    expected: dict[str, str],
) -> None:
    """Hand the members to the cluster, and take their results as they are done.

    A worker that uses the project's folder in place reads files as they are then: a member of which
    an input has changed meanwhile has failed.
    """
    from brainmri.parallel import dask_worker

    topic, events = f"fan-out-{uuid.uuid4()}", queue.SimpleQueue()
    client.subscribe_topic(topic, lambda event: events.put(event[1]))
    has_gpus = any(worker["resources"].get("GPU") for worker in workers_of(client).values())
    gpus_each = params.train.replicas / params.fan_out.members_per_gpu
    resources = {"GPU": gpus_each} if has_gpus else {}

    train = send_function(client, dask_worker.train)

    def submit(name: str) -> "Future":
        return client.submit(
            operator.call,
            train,
            name,
            bundle.samples[name],
            topic,
            expected,
            key=f"{name}-{uuid.uuid4()}",
            resources=resources,
        )

    run_of = {run.name: run for run in runs}
    futures = {name: submit(name) for name in run_of}
    with ProgressDisplay(runs) as display:
        while futures:
            take_events(events, run_of)
            for name in [name for name, future in futures.items() if future.done()]:
                take_events(events, run_of)
                result = result_of(futures.pop(name), client)
                if worker := result.get("missing"):
                    failure = deliver(client, bundle, [worker])
                    if not failure:
                        futures[name] = submit(name)
                        continue
                    result = {"failure": failure}
                failure = result.get("failure")
                if "files" in result:
                    failure = stage_unchanged(folders[name], result["files"], inputs[name])
                run_of[name].end(failure)
                display.print_end(run_of[name])
            display.update()


def stage_unchanged(folder: Path, files: dict[str, bytes], inputs: StageInputs) -> str | None:
    """Stage a member's files; return why not, if one of its inputs has changed."""
    try:
        inputs.check_files()
    except UserError as error:
        return str(error)
    stage_files(folder, files)
    return None


def send_function(client: "Client", function: Callable) -> "Future":
    """Send a function by value: neither scheduler nor workers can import the project."""
    import cloudpickle

    key = f"{function.__name__}-{uuid.uuid4()}"
    return client.submit(cloudpickle.loads, cloudpickle.dumps(function), key=key)


def take_events(
    events: queue.SimpleQueue, runs: dict[str, MemberRun], timeout_s: float = 0.2
) -> None:
    """Append what workers report to the members' logs."""
    while True:
        try:
            event = events.get(timeout=timeout_s)
        except queue.Empty:
            return
        timeout_s = 0.001
        run = runs[event["member"]]
        if not event["text"]:
            run.start(event["where"])
        with open(run.log, "a", encoding="utf-8") as log:
            log.write(event["text"])
        run.poll_log()


def result_of(future: "Future", client: "Client") -> dict:
    """Return what `dask_worker.train` returned, or a failure of Dask's.

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
        if not isinstance(error, KilledWorker):
            return {"failure": f"{type(error).__name__}: {error}"}
        workers = error.allowed_failures + 1
        last = error.last_worker.address
        return {"failure": f"{workers} workers died while they trained it, the last at {last}"}
    raise UserError(
        f"the scheduler at {client.scheduler.address} is gone; members that were done are kept;"
        " start it again, and run `dvc repro` for the rest"
    )
