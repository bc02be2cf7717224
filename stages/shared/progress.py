"""Progress: a bar in a terminal, a line now and then in a log."""

import re
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.progress import track

Item = TypeVar("Item")


def progress(items: Iterable[Item], total: int, label: str, every_s: float = 5.0) -> Iterator[Item]:
    """Yield the items, telling on standard error how far it is.

    Parameters
    ----------
    items : iterable
        What is worked through.
    total : int
        How many items there are.
    label : str
        What is done, such as "reading images".
    every_s : float
        Seconds between two lines where standard error is no terminal.
    """
    if sys.stderr.isatty():
        from rich.console import Console

        yield from track(items, label, total, console=Console(stderr=True), transient=True)
        return
    told = time.monotonic()
    for done, item in enumerate(items):
        if time.monotonic() - told > every_s:
            told = time.monotonic()
            print(f"{label}: {done} of {total}", file=sys.stderr, flush=True)
        yield item


def epoch_line(epoch: int, epochs: int, measures: dict[str, float]) -> str:
    """What a member says at the end of an epoch: "epoch 3 of 40  loss 0.5312  accuracy 0.7500"."""
    return f"epoch {epoch} of {epochs}  " + "  ".join(f"{name} {value:.4f}" for name, value in measures.items())


def parse_epoch_line(line: str) -> tuple[int, int, dict[str, float]] | None:
    """What `epoch_line` was given, rounded; None for any other line."""
    head = re.match(r"epoch (\d+) of (\d+)  ", line)
    if not head:
        return None
    pairs = (part.rsplit(" ", 1) for part in line[head.end() :].split("  "))
    return int(head[1]), int(head[2]), {name: float(value) for name, value in pairs}
