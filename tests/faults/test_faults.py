"""A few of the faults that `make faults` tries; the project recovers from each."""

import pytest

from tests.faults.reference import ReferenceRun
from tests.faults.table import list_faults
from tests.support.disk import can_mount

STAGES = ("data/dvc.yaml:phantom", "ingest", "fan-out", "weigh", "evaluate")


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
    if fault.needs_disk and not can_mount():
        pytest.skip("no disk can be mounted here")
    fault.function(reference, tmp_path, *case)
