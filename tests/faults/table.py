"""Which faults are tried, and where: all of them, or a few of each."""

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice

from tests.faults import faults

KILLS = 15
STOPPED_STAGES = ("ingest", "fan-out", "evaluate")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
LEFT_ON_DISK = (0, 24, 96)  # KiB
EVERY = 29  # of many files, one in so many is damaged


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes
    ----------
    name, where : str
        In the table on the page.
    function : callable
        Of `faults`.
    cases : list of tuple
        Its arguments after the reference run and the folder.
    tested : list of tuple
        The cases that `make test` tries.
    needs_disk : bool
        Whether it mounts a disk.
    """

    name: str
    where: str
    function: Callable[..., bool]
    cases: list[tuple]
    tested: list[tuple] = field(default_factory=list)
    needs_disk: bool = False


def list_faults(stages: Sequence[str], objects: int = 0, files: int = 0) -> list[Fault]:
    """List all faults.

    Parameters
    ----------
    stages : sequence of str
        In the order in which they run.
    objects : int
        Number of objects in DVC's cache.
    files : int
        Number of files that the pipeline makes in the workspace.
    """
    numbered_stages = islice(enumerate(cycle(stages)), KILLS)
    kills = [(stage, number // len(stages)) for number, stage in numbered_stages]
    stops = [(stage, how) for stage in STOPPED_STAGES for how in SIGNALS]
    full_disks = [(stage, left) for stage in STOPPED_STAGES for left in LEFT_ON_DISK]
    return [
        Fault(
            "SIGKILL to all processes at a random moment",
            "every stage",
            faults.kill_all,
            kills,
            tested=[("ingest", 9)],
        ),
        Fault(
            "Ctrl-C; SIGTERM or SIGKILL to DVC alone",
            "ingest, fan-out, evaluate",
            faults.stop,
            stops,
        ),
        Fault("one member's process killed", "fan-out", faults.kill_member, [()]),
        Fault("an error in one member", "fan-out", faults.fail_member, [()]),
        Fault(
            "disk full",
            "ingest, fan-out, evaluate",
            faults.fill_disk,
            full_disks,
            tested=[("ingest", 24)],
            needs_disk=True,
        ),
        Fault(
            "two `dvc repro` at once",
            "all stages; the last ones",
            faults.run_twice,
            [(stages[0],), ("weigh",)],
            tested=[("weigh",)],
        ),
        Fault(
            "two experiments of the queue and a `dvc repro`",
            "all stages",
            faults.run_beside_queue,
            [()],
        ),
        Fault(
            "an object of DVC's cache removed, truncated or changed",
            f"every {EVERY}th, for each",
            faults.damage_cache,
            damages(objects),
            tested=[(faults.flip_bit, 0)],
        ),
        Fault(
            "a file of the workspace removed, truncated or changed",
            f"every {EVERY}th, for each",
            faults.damage_workspace,
            damages(files),
            tested=[(faults.truncate, 0)],
        ),
        Fault("the whole cache and all it has copies of removed", "", faults.lose_cache, [()]),
    ]


def damages(files: int) -> list[tuple]:
    """Return a kind of damage and the number of a file, for some of so many files."""
    kinds = (faults.remove, faults.truncate, faults.flip_bit)
    return [
        (kind, number) for start, kind in enumerate(kinds) for number in range(start, files, EVERY)
    ]
