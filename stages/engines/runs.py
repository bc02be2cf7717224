"""How far each member's training is, and how that is shown."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from stages.shared.machine import APPLICATION_MEMORY, MEMBER_MEMORY
from stages.shared.params import Application, Params
from stages.shared.progress import parse_epoch_line

LOGS = Path(".dvc/tmp/fan-out")
LOG_EVERY_S = 15.0
LAST_LINES = 15


def member_memory(params: Params) -> int:
    """Bytes that a member's process needs at most."""
    return APPLICATION_MEMORY if params.network.name in get_args(Application) else MEMBER_MEMORY


@dataclass
class Run:
    """One member's training, wherever it is done; its log tells how far it is.

    Attributes
    ----------
    where : str
        The machine, if it is another.
    failure : str
        What is known of a failure besides the log; None as long as it has not failed.
    """

    name: str
    where: str = ""
    started: float = 0.0
    ended: float = 0.0
    failure: str | None = None
    epoch: int = 0
    epochs: int = 0
    measures: dict[str, float] = field(default_factory=dict)
    first_epoch: float = 0.0
    read: int = 0

    @property
    def log(self) -> Path:
        return LOGS / f"{self.name}.log"

    def begin(self, where: str = "") -> None:
        """Its training begins, or begins again."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_bytes(b"")
        self.where, self.started, self.epoch, self.first_epoch, self.read = where, time.monotonic(), 0, 0.0, 0

    def look(self) -> None:
        """Read what its log tells since the last look."""
        with open(self.log, "a+", encoding="utf-8", errors="replace") as log:
            log.seek(self.read)
            for line in iter(log.readline, ""):
                if not line.endswith("\n"):
                    break
                self.read = log.tell()
                if told := parse_epoch_line(line.rstrip()):
                    self.epoch, self.epochs, self.measures = told
                    self.first_epoch = self.first_epoch or time.monotonic()

    def end(self, failure: str | None = None) -> None:
        self.ended, self.failure = time.monotonic(), failure

    def last_lines(self) -> str:
        lines = self.log.read_text("utf-8", "replace").splitlines() if self.log.exists() else []
        return "\n".join("  " + line for line in lines[-LAST_LINES:])

    def state(self) -> str:
        if self.ended:
            return "failed" if self.failure is not None else f"done in {self.ended - (self.started or self.ended):.0f} s"
        if not self.started:
            return "waiting"
        if self.epoch < 2:
            return "starting"
        left = (time.monotonic() - self.first_epoch) / (self.epoch - 1) * (self.epochs - self.epoch)
        return f"{left:.0f} s left"

    def line(self) -> str:
        parts = [self.state(), *([self.where] if self.where else [])]
        if self.epoch:
            log_loss, accuracy = (self.measures[f"out of bag {name}"] for name in ("log loss", "accuracy"))
            measures = f"out-of-bag log loss {log_loss:.3f}, accuracy {accuracy:.3f}"
            parts = [f"epoch {self.epoch} of {self.epochs}", measures, *parts]
        return f"{self.name}: {', '.join(parts)}"


class Display:
    """Shows runs in a terminal as a table that lives, in a log by a line now and then; a context manager."""

    def __init__(self, runs: list[Run]):
        self._runs, self._told = runs, time.monotonic()
        console = Console()
        self._live = Live(table(runs), console=console, auto_refresh=False) if console.is_terminal else None

    def ended(self, run: Run) -> None:
        if not self._live:
            print(run.line(), flush=True)

    def update(self) -> None:
        if self._live:
            self._live.update(table(self._runs), refresh=True)
        elif time.monotonic() - self._told > LOG_EVERY_S:
            self._told = time.monotonic()
            for run in self._runs:
                if run.started and not run.ended:
                    print(run.line(), flush=True)

    def __enter__(self) -> "Display":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_) -> None:
        if self._live:
            self._live.stop()


def table(runs: list[Run]) -> Table:
    """The members as a live table: epoch, out-of-bag log loss and accuracy, time left, and where, if not here."""
    rows = Table("member", "epoch", "", "out-of-bag log loss", "accuracy", "", "", box=None, padding=(0, 2, 0, 0))
    for run in runs:
        measures = [f"{run.measures[key]:.3f}" if run.epoch else "" for key in ("out of bag log loss", "out of bag accuracy")]
        rows.add_row(
            run.name,
            f"{run.epoch} of {run.epochs}" if run.epoch else "",
            ProgressBar(run.epochs or 1, run.epoch, 24),
            *measures,
            run.state(),
            run.where,
        )
    return rows
