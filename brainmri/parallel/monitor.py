"""How far each member's training is, and the display of it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from brainmri.common.errors import printable
from brainmri.common.paths import LOGS
from brainmri.common.progress import parse_record
from brainmri.parallel.metric_logs import MetricLog

LOG_EVERY_S = 15.0
LAST_LINES = 15
COLUMNS = ("member", "epoch", "", "out-of-bag log loss", "accuracy", "", "")
METRICS = ("out_of_bag_log_loss", "out_of_bag_accuracy")


@dataclass
class MemberRun:
    """The training of a member, here or on another machine; its log holds a record of each epoch.

    Attributes
    ----------
    host : str
        The machine, if it is another.
    failure : str or None
        Why it failed, as far as it is not in the log; None unless it has failed.
    open_metric_log : callable, optional
        See `metric_logs.metric_logger`.
    """

    name: str
    host: str = ""
    started: float = 0.0
    ended: float = 0.0
    failure: str | None = None
    epoch: int = 0
    epochs: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    first_epoch: float = 0.0
    images: int = 0
    all_images: int = 0
    first_images: tuple[int, float] | None = None
    reported: float = 0.0
    log_offset: int = 0
    open_metric_log: Callable[[str], MetricLog] | None = None
    metric_log: MetricLog | None = None

    @property
    def log(self) -> Path:
        return LOGS / f"{self.name}.log"

    def start(self, host: str = "") -> None:
        """Reset the log and the progress: the training starts, or starts again."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_bytes(b"")
        self.host = host
        self.started, self.first_epoch = time.monotonic(), 0.0
        self.epoch = self.log_offset = self.images = 0
        self.first_images = None
        self._close_metric_log()
        if self.open_metric_log:
            self.metric_log = self.open_metric_log(self.name)

    def poll_log(self) -> None:
        """Read the epochs that the log has since the last call."""
        with open(self.log, "a+", encoding="utf-8", errors="replace") as log:
            log.seek(self.log_offset)
            for line in iter(log.readline, ""):
                if not line.endswith("\n"):
                    break
                self.log_offset = log.tell()
                record = parse_record(line) or {}
                if "epoch" in record:
                    self.epoch, self.epochs = record["epoch"], record["epochs"]
                    self.metrics = record["metrics"]
                    self.first_epoch = self.first_epoch or time.monotonic()
                    if self.metric_log:
                        self.metric_log.write(self.epoch, self.metrics)
                elif record:
                    self.images, self.all_images = record["images"], record["all_images"]
                    self.reported = time.monotonic()
                    self.first_images = self.first_images or (self.images, self.reported)

    def end(self, failure: str | None = None) -> None:
        self.ended, self.failure = time.monotonic(), failure
        self._close_metric_log()

    def _close_metric_log(self) -> None:
        if self.metric_log:
            self.metric_log.close()
        self.metric_log = None

    def last_lines(self) -> str:
        """Return the end of the log, without records of epochs."""
        if not self.log.exists():
            return ""
        lines = self.log.read_text("utf-8", "replace").splitlines()
        lines = [line for line in lines if not parse_record(line)]
        return "\n".join("  " + printable(line) for line in lines[-LAST_LINES:])

    def state(self) -> str:
        """Describe the state in a few words, such as "120 s left"."""
        if self.ended and self.failure is not None:
            return "failed"
        if self.ended:
            return f"done in {self.ended - (self.started or self.ended):.0f} s"
        if not self.started:
            return "waiting"
        if self.first_images and self.images > self.first_images[0]:
            first, at = self.first_images
            rate = (self.images - first) / (self.reported - at)
            left = (self.all_images - self.images) / rate - (time.monotonic() - self.reported)
            return f"{rate:.0f} images/s, {max(left, 0):.0f} s left"
        if self.epoch < 2:
            return "starting"
        per_epoch = (time.monotonic() - self.first_epoch) / (self.epoch - 1)
        return f"{per_epoch * (self.epochs - self.epoch):.0f} s left"

    def line(self) -> str:
        """Describe the run in a line of a log."""
        parts = [self.state(), *([self.host] if self.host else [])]
        if self.epoch:
            log_loss, accuracy = (self.metrics[name] for name in METRICS)
            metrics = f"out-of-bag log loss {log_loss:.3f}, accuracy {accuracy:.3f}"
            parts = [f"epoch {self.epoch} of {self.epochs}", metrics, *parts]
        return f"{self.name}: {', '.join(parts)}"


class ProgressDisplay:
    """Display runs as a live table in a terminal, as a line now and then in a log; a context
    manager.
    """

    def __init__(self, runs: list[MemberRun]):
        self._runs, self._printed = runs, time.monotonic()
        console = Console()
        self._live = None
        if console.is_terminal:
            self._live = Live(table(runs), console=console, auto_refresh=False)

    def print_end(self, run: MemberRun) -> None:
        """Print that a run has ended, unless the table shows it."""
        if not self._live:
            print(run.line(), flush=True)

    def update(self) -> None:
        """Draw the table again, or print a line for each run that trains if it is time."""
        if self._live:
            self._live.update(table(self._runs), refresh=True)
        elif time.monotonic() - self._printed > LOG_EVERY_S:
            self._printed = time.monotonic()
            for run in self._runs:
                if run.started and not run.ended:
                    print(run.line(), flush=True)

    def __enter__(self) -> "ProgressDisplay":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_) -> None:
        if self._live:
            self._live.stop()


def table(runs: list[MemberRun]) -> Table:
    """Build the live table: epoch, out-of-bag log loss and accuracy, state, and host."""
    rows = Table(*COLUMNS, box=None, padding=(0, 2, 0, 0))
    for run in runs:
        epoch = f"{run.epoch} of {run.epochs}" if run.epoch else ""
        metrics = [f"{run.metrics[name]:.3f}" if run.epoch else "" for name in METRICS]
        bar = ProgressBar(run.epochs or 1, run.epoch, 24)
        rows.add_row(run.name, epoch, bar, *metrics, run.state(), run.host)
    return rows
