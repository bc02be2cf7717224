"""Members' metrics while they train, for the programs in which people watch them.

They are written beside the pipeline: no output of a stage depends on them. Git doesn't ignore those
of DVCLive, since DVC shows nothing that Git ignores.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from brainmri.common.errors import UserError

DVCLIVE, TENSORBOARD = Path("dvclive"), Path("tensorboard")
PACKAGES = "pip install -r requirements/logs.txt"


class MetricLog(Protocol):
    """Where the metrics of a member are written."""

    def write(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Write the metrics of an epoch."""

    def close(self) -> None:
        """End the log: no epoch follows."""


class DvcLiveLog:
    """Metrics as DVCLive writes them: dvclive/MEMBER/plots/metrics/METRIC.tsv, shown by DVC."""

    def __init__(self, member: str):
        from dvclive import Live

        self._live = Live(
            str(DVCLIVE / member),
            save_dvc_exp=False,
            dvcyaml=str(DVCLIVE / member / "dvc.yaml"),
            monitor_system=False,
        )
        self._live.make_dvcyaml()  # so that DVC shows the first epochs

    def write(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self._live.step = epoch
        for name, value in _finite(metrics):
            self._live.log_metric(name, value)
        self._live.make_summary()

    def close(self) -> None:
        self._live.end()


class TensorBoardLog:
    """Metrics as TensorBoard reads them: an event file in tensorboard/MEMBER."""

    def __init__(self, member: str):
        from tensorboardX import SummaryWriter

        folder = TENSORBOARD / member
        for former in folder.glob("events.out.tfevents.*"):
            former.unlink()
        self._writer = SummaryWriter(str(folder))

    def write(self, epoch: int, metrics: Mapping[str, float]) -> None:
        for name, value in _finite(metrics):
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _finite(metrics: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return the metrics that can be drawn: those of a training that diverges may not be."""
    return [(name, value) for name, value in metrics.items() if math.isfinite(value)]


def metric_logger(kind: str) -> Callable[[str], MetricLog] | None:
    """Return what opens the log of a member; None for "none".

    Raises
    ------
    UserError
        If the package that it needs is not installed.
    """
    if kind == "none":
        return None
    try:
        if kind == "dvclive":
            import dvclive  # noqa: F401  (only asked whether it is there)

            return DvcLiveLog
        import tensorboardX  # noqa: F401

        return TensorBoardLog
    except ImportError:
        raise UserError(f"fan_out.log is {kind}, which needs packages: {PACKAGES}") from None
