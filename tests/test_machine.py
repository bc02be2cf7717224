"""How many members train at a time, and on which GPUs, is decided from what the machine has; how far they are is shown."""

import os
import re
from types import SimpleNamespace

import pytest

from stages.engines.runs import Run
from stages.shared import machine
from stages.shared.machine import MEMBER_MEMORY, free_memory, gpu_slots, listed_gpus, number_of_jobs, usable_cores, visible_gpus
from stages.shared.progress import epoch_line


@pytest.mark.parametrize(
    ("wanted", "stale", "threads", "cores", "members_in_memory", "expected"),
    [
        ("auto", 9, 1, 4, 16, (4, "cores", 7)),
        ("auto", 5, 1, 2, 16, (2, "cores", 3)),
        ("auto", 9, 2, 5, 16, (2, "cores", 3)),
        ("auto", 9, 8, 4, 16, (1, "cores", 1)),
        ("auto", 9, 1, 4, 5, (4, "cores", 5)),
        ("auto", 3, 1, 8, 16, (3, "members to train", 3)),
        ("auto", 9, 1, 8, 2, (2, "free memory", 2)),
        ("auto", 9, 1, 8, 0, (1, "free memory", 1)),
        (6, 9, 1, 2, 16, (6, "fan_out.jobs", 6)),
        (6, 9, 1, 2, 4, (4, "free memory", 4)),
        (1, 9, 1, 8, 16, (1, "fan_out.jobs", 1)),
    ],
)
def test_number_of_jobs(wanted, stale, threads, cores, members_in_memory, expected):
    jobs = number_of_jobs(wanted, stale, threads, cores, members_in_memory * MEMBER_MEMORY)
    assert (jobs.number, jobs.limit, jobs.last) == expected


def test_members_that_need_more_memory_are_fewer_at_a_time():
    jobs = number_of_jobs("auto", 9, 1, 8, 8 * MEMBER_MEMORY, each=4 * MEMBER_MEMORY)
    assert (jobs.number, jobs.limit) == (2, "free memory")


def test_this_machine_has_cores_and_memory():
    assert usable_cores() >= 1
    assert free_memory() > 0


GIB = 2**30


@pytest.mark.parametrize(
    ("limit", "used", "free"),
    [("max", 0, 9 * GIB), (8 * GIB, 3 * GIB, 5 * GIB), (20 * GIB, GIB, 9 * GIB), (GIB, 2 * GIB, 0), (None, 0, 9 * GIB)],
)
def test_free_memory_is_what_the_machine_and_the_container_leave(monkeypatch, tmp_path, limit, used, free):
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: SimpleNamespace(available=9 * GIB, total=50 * GIB))
    if limit is not None:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text(f"{used}\n")
    assert free_memory() == free


def test_gpus_that_are_named_are_listed_as_they_are_named(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-a,-1,,0")
    assert listed_gpus() == ["3", "GPU-a", "0"]


def test_no_gpu_is_listed_where_the_driver_fails_or_is_missing(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert listed_gpus() == []
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 0\nexit 9\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert listed_gpus() == []


@pytest.mark.parametrize(
    ("gpu_slots", "stale", "memory", "expected"),
    [(2, 9, 9, (2, "GPUs", 2)), (4, 3, 9, (3, "members to train", 3)), (4, 9, 3, (3, "free memory", 3))],
)
def test_members_on_gpus_are_as_many_as_gpus_memory_and_members_allow(gpu_slots, stale, memory, expected):
    jobs = number_of_jobs("auto", stale, 1, 16, memory * GIB, gpu_slots=gpu_slots, each=GIB)
    assert (jobs.number, jobs.limit, jobs.last) == expected


@pytest.mark.parametrize(
    ("gpus", "replicas", "members_per_gpu", "slots"),
    [
        ([], 1, 1, []),
        (["0"], 1, 1, ["0"]),
        (["0", "1"], 1, 1, ["0", "1"]),
        (["0", "1"], 1, 2, ["0", "1", "0", "1"]),
        (["0", "1", "2", "3"], 2, 1, ["0,1", "2,3"]),
        (["0", "1", "2"], 2, 1, ["0,1"]),
        (["4"], 2, 1, ["4"]),
        (["GPU-a", "GPU-b"], 1, 1, ["GPU-a", "GPU-b"]),
    ],
)
def test_members_that_train_at_a_time_see_gpus_of_their_own(gpus, replicas, members_per_gpu, slots):
    assert gpu_slots(gpus, replicas, members_per_gpu) == slots


def test_gpus_limit_the_members_at_a_time_and_cores_do_not():
    jobs = number_of_jobs("auto", 9, 1, 2, 64 * MEMBER_MEMORY, gpu_slots=4)
    assert (jobs.number, jobs.limit) == (4, "GPUs")


def test_visible_gpus_are_those_that_tensorflow_can_use(monkeypatch, capsys):
    monkeypatch.setattr(machine, "tensorflow_gpus", lambda names: len({*names.split(",")} & {"2", "3", "7"}))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert visible_gpus() == ["2", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert visible_gpus() == []
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,4,7")
    assert visible_gpus() == ["2", "7"]
    assert "TensorFlow can use 2 of 3 GPU(s) here" in capsys.readouterr().out


def test_driver_without_tensorflows_libraries_is_reported(monkeypatch, tmp_path, capsys):
    """A real question to TensorFlow: the driver lists two GPUs, of which it finds none."""
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 0\necho 1\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert listed_gpus() == ["0", "1"]
    assert visible_gpus() == []
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("TensorFlow can use 0 of 2 GPU(s) here")
    assert re.search(r"pip install 'tensorflow\[and-cuda\]==2\.[0-9.]+'", lines[0])


def test_progress_shows_the_out_of_bag_log_loss(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    run = Run("member-00")
    run.begin()
    measures = {"loss": 2.5, "in bag log loss": 0.25, "out of bag log loss": 0.5, "out of bag accuracy": 0.75}
    run.log.write_text(epoch_line(3, 40, measures) + "\n")
    run.look()
    assert run.line().startswith("member-00: epoch 3 of 40, out-of-bag log loss 0.500, accuracy 0.750, ")
