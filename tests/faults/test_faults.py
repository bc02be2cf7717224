"""A few of the faults that `make faults` tries; after each, `dvc repro` ends with the bytes of an undisturbed run."""

import pytest

from tests.faults.faults import Undisturbed, can_mount
from tests.faults.table import faults

STAGES = ("data/dvc.yaml:phantom", "ingest", "fan-out", "weigh", "evaluate")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return Undisturbed(tmp_path_factory.mktemp("undisturbed")).run()


@pytest.mark.parametrize(
    ("fault", "case"),
    [
        pytest.param(fault, case, id=f"{fault.what} {number}")
        for fault in faults(STAGES)
        for number, case in enumerate(fault.short)
    ],
)
def test_the_pipeline_comes_through(undisturbed, tmp_path, fault, case):
    if fault.needs_disk and not can_mount():
        pytest.skip("no disk can be mounted here")
    fault.function(undisturbed, tmp_path, *case)
