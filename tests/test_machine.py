"""How many members train at a time, and in which precision, is decided from what the machine has."""

import pytest

from stages.shared.devices import choose_precision
from stages.shared.machine import MEMBER_MEMORY, free_memory, number_of_jobs, usable_cores


@pytest.mark.parametrize(
    ("wanted", "stale", "threads", "cores", "members_in_memory", "expected"),
    [
        ("auto", 8, 1, 4, 16, (4, "cores")),
        ("auto", 8, 2, 5, 16, (2, "cores")),
        ("auto", 9, 8, 4, 16, (1, "cores")),
        ("auto", 5, 1, 2, 16, (3, "cores")),
        ("auto", 9, 1, 2, 16, (3, "cores")),
        ("auto", 3, 1, 2, 16, (3, "members to train")),
        ("auto", 3, 1, 8, 16, (3, "members to train")),
        ("auto", 9, 1, 8, 2, (2, "free memory")),
        ("auto", 9, 1, 8, 0, (1, "free memory")),
        (6, 9, 1, 2, 16, (6, "fan_out.jobs")),
        (6, 9, 1, 2, 4, (4, "free memory")),
        (1, 9, 1, 8, 16, (1, "fan_out.jobs")),
    ],
)
def test_number_of_jobs(wanted, stale, threads, cores, members_in_memory, expected):
    jobs = number_of_jobs(wanted, stale, threads, cores, members_in_memory * MEMBER_MEMORY)
    assert (jobs.number, jobs.limit) == expected


def test_this_machine_has_cores_and_memory():
    assert usable_cores() >= 1
    assert free_memory() > 0


@pytest.mark.parametrize(
    ("gpus", "precision"),
    [([], "float32"), ([(6, 1)], "float32"), ([(7, 0)], "mixed_float16"), ([(9, 0), (6, 0)], "float32"), ([None], "float32")],
)
def test_precision_is_mixed_only_where_every_gpu_has_units_for_it(gpus, precision):
    assert choose_precision(gpus) == precision
