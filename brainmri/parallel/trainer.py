"""A process on a worker that imports TensorFlow once, and forks a process for each member.

    python -m brainmri.parallel.trainer        (from the folder with the code; the worker starts it)

Each line of standard input is a JSON object {"name", "folder", "log"}: train that member in a
folder laid out as the project's root, into its subfolder `result`. For each, two lines on standard
output: {"name", "pid"}, then {"name", "exitcode"}. It ends, and with it all that it started, when
standard input is closed; and when it has been idle for a minute.
"""

import json
import multiprocessing
import os
import sys
from multiprocessing import connection
from pathlib import Path

from brainmri.common.files import to_json
from brainmri.common.params import load_params
from brainmri.common.processes import ProcessIds, processes_to_watch
from brainmri.common.stage import run_child
from brainmri.networks.runtime import start_tensorflow

RESULT = Path("result")
IDLE_S = 60.0  # after which it ends: the driver may be gone


def main() -> None:
    start_tensorflow()
    import brainmri.training.member  # noqa: F401  (children have it then)

    context = multiprocessing.get_context("fork")
    watched = processes_to_watch()
    children: dict[str, multiprocessing.Process] = {}
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    pending = b""
    try:
        while True:
            sentinels = [child.sentinel for child in children.values()]
            ready = connection.wait([requests, *sentinels], None if children else IDLE_S)
            if not ready:
                return
            if requests in ready:
                received = requests.read(65536)
                if not received:
                    return
                *lines, pending = (pending + received).split(b"\n")
                for request in map(json.loads, lines):
                    arguments = (request["name"], request["folder"], Path(request["log"]), watched)
                    child = context.Process(target=train, args=arguments)
                    child.start()
                    children[request["name"]] = child
                    report(name=request["name"], pid=child.pid)
            for name, child in list(children.items()):
                if child.exitcode is not None:
                    del children[name]
                    report(name=name, exitcode=child.exitcode)
    finally:
        for child in children.values():
            child.kill()


def train(name: str, folder: str, log: Path, watched: ProcessIds) -> None:
    """Train a member in this process."""
    os.chdir(folder)

    def work() -> None:
        from brainmri.training.member import train_member

        train_member(name, load_params(), RESULT)

    run_child(work, name, log, watched)


def report(**message: str | int) -> None:
    sys.stdout.write(to_json(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
