"""Which faults are tried, and where: all of them, or a few of each."""

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice

from tests.faults import faults as do

KILLS = 30


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes
    ----------
    what, where : str
        For people.
    function : callable
        Takes the undisturbed run, a folder of its own, and a case.
    cases : list of tuple
    short : list of tuple
        The cases that `make test` tries.
    needs_disk : bool
        Whether it mounts a disk of its own.
    """

    what: str
    where: str
    function: Callable
    cases: list[tuple]
    short: list[tuple] = field(default_factory=list)
    needs_disk: bool = False


def faults(stages: Sequence[str], cached: int = 0, made: int = 0) -> list[Fault]:
    """All faults, given the stages, and how many files are in DVC's cache and were made in the workspace."""
    rounds = [(stage, number // len(stages)) for number, stage in islice(enumerate(cycle(stages)), KILLS)]
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
    stops = [(stage, how) for stage in ("ingest", "fan-out", "evaluate") for how in signals]
    room = [(stage, left) for stage in ("ingest", "fan-out", "evaluate") for left in (0, 24, 96)]

    def some(files: int) -> list[tuple]:
        return [(how, number) for start, how in enumerate((do.lost, do.cut, do.changed)) for number in range(start, files, 11)]

    return [
        Fault("SIGKILL to all processes at a random moment", "every stage", do.killed, rounds, [("ingest", 9)]),
        Fault("Ctrl-C; SIGTERM or SIGKILL to DVC alone", "ingest, fan-out, evaluate", do.stopped, stops, stops[3:6:2]),
        Fault("one member's process killed", "fan-out", do.member_killed, [()], [()]),
        Fault("an error in one member", "fan-out", do.member_fails, [()]),
        Fault("disk full", "ingest, fan-out, evaluate", do.disk_full, room, [("ingest", 24)], needs_disk=True),
        Fault("two `dvc repro` at once", "all stages; the last ones", do.two_at_once, [(stages[0],), ("weigh",)], [("weigh",)]),
        Fault("two experiments of the queue and a `dvc repro`", "all stages", do.queue_beside, [()]),
        Fault(
            "a file of DVC's cache lost, cut or changed",
            "every 11th, for each",
            do.cache_damaged,
            some(cached),
            [(do.changed, 0)],
        ),
        Fault("a file of the workspace lost, cut or changed", "the same", do.workspace_damaged, some(made), [(do.cut, 0)]),
        Fault("the whole cache and all it held lost", "", do.all_lost, [()]),
    ]
