"""A few of the faults that `make faults` tries; the project recovers from each."""

import pytest

from tests.faults.faults import interrupt_in_turn
from tests.faults.reference import ReferenceRun
from tests.faults.table import list_faults
from tests.support.disk import can_mount

STAGES = ("data/dvc.yaml:phantom", "ingest", "fan-out", "weigh", "evaluate")
LAST = {"ingest": "weigh", "weigh": "evaluate"}  # with which recovery ends, by the fault's stage


@pytest.fixture(scope="module")
def reference(sources, small, tmp_path_factory) -> ReferenceRun:
    folder = tmp_path_factory.mktemp("reference")
    return ReferenceRun(folder, restores_training=True).take(sources, small)


@pytest.mark.parametrize(
    ("fault", "case"),
    [
        pytest.param(fault, case, id=f"{fault.name} {number}")
        for fault in list_faults(STAGES)
        for number, case in enumerate(fault.tested)
    ],
)
def test_recovery(reference, tmp_path, fault, case):
    """As far as `LAST`, since the stages after it take long."""
    if case and case[0] in LAST:
        reference = reference.until(LAST[case[0]])
    if fault.needs_disk and not can_mount():
        pytest.skip("no disk can be mounted here")
    fault.function(reference, tmp_path, *case)


def test_recovery_from_interruptions_in_turn(reference, tmp_path):
    """As `make faults` tries each alone; the project's end is checked once, after the last."""
    interrupt_in_turn(reference.until("weigh"), tmp_path)
