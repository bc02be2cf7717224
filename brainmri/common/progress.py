"""Progress: a bar in a terminal, or a line now and then in a log; a JSON line for each epoch."""

import json
import math
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from pydantic import TypeAdapter
from rich.markup import escape
from rich.progress import track
from typing_extensions import TypedDict

from brainmri.common.errors import printable
from brainmri.common.files import load_json

Item = TypeVar("Item")


class EpochRecord(TypedDict):
    """What a member reports at the end of an epoch; metrics by their columns of history.csv."""

    epoch: int
    epochs: int
    metrics: dict[str, float]


def progress(items: Iterable[Item], total: int, label: str, every_s: float = 5.0) -> Iterator[Item]:
    """Yield the items, and report on standard error how many are done.

    Parameters
    ----------
    items : iterable
    total : int
        Number of items.
    label : str
        What is done, such as "reading images".
    every_s : float
        Seconds between two lines where standard error is no terminal.
    """
    label = printable(label)
    if sys.stderr.isatty():
        from rich.console import Console

        yield from track(items, escape(label), total, console=Console(stderr=True), transient=True)
        return
    printed = time.monotonic()
    for done, item in enumerate(items):
        if time.monotonic() - printed > every_s:
            printed = time.monotonic()
            print(f"{label}: {done} of {total}", file=sys.stderr, flush=True)
        yield item


class StepRecord(TypedDict):
    """What a member reports now and then within an epoch: images trained on, of those to come."""

    images: int
    all_images: int


def print_record(record: EpochRecord | StepRecord) -> None:
    """Print a record as a line of compact JSON.

    Metrics of a training that diverges may not be finite: they are null there, and NaN again when
    they are parsed.
    """
    if "metrics" in record:
        metrics = record["metrics"].items()
        finite = {name: value if math.isfinite(value) else None for name, value in metrics}
        record = {**record, "metrics": finite}
    print(json.dumps(record, separators=(",", ":"), allow_nan=False), flush=True)


def parse_record(line: str) -> EpochRecord | StepRecord | None:
    """Parse what `print_record` printed; None for any other line."""
    if not line.startswith("{"):
        return None
    try:
        record = load_json(line)
        if isinstance(metrics := record.get("metrics"), dict):
            nan = float("nan")
            metrics.update({key: nan for key, value in metrics.items() if value is None})
        return TypeAdapter(EpochRecord | StepRecord).validate_python(record, strict=True)
    except (ValueError, RecursionError):  # pydantic's ValidationError is a ValueError
        return None
