"""How many members train at a time, and on which GPUs, is decided from what the machine has; how far they are is shown."""

import os
import re
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import yaml

from stages import fan_out
from stages.engines.runs import Run
from stages.shared import machine
from stages.shared.errors import UserError
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
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))
    assert 2**20 < free_memory() < psutil.virtual_memory().total


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


MEMBERS = [f"member-{number:02d}" for number in range(4)]


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """An empty folder, in which a member's scratch folder is named by its name alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fan_out, "read_params", lambda: "params")
    monkeypatch.setattr(fan_out, "scratch", lambda name, params: Path(".dvc/tmp/members") / f"{name}-{params}")
    return tmp_path


@pytest.mark.parametrize("engine", ["local", "dask"])
def test_members_are_trained_that_neither_dvc_nor_a_scratch_folder_has(workspace, monkeypatch, engine):
    for name in ("member-02-params", "member-02-before", "member-09-params"):
        (workspace / ".dvc/tmp/members" / name).mkdir(parents=True)
    asked = []
    for name, module in (("local", fan_out.local), ("dask", fan_out.cluster)):
        monkeypatch.setattr(module, "train_members", lambda *given, name=name: asked.append((name, *given)) or ["failed"])
    monkeypatch.setattr(fan_out.dvc_repo, "known", lambda names: {"member-01"} & {*names})
    params = SimpleNamespace(fan_out=SimpleNamespace(engine=engine))
    assert fan_out.train_stale(MEMBERS, params) == ["failed"]
    assert asked == [(engine, ["member-00", "member-03"], params)]
    assert [folder.name for folder in (workspace / ".dvc/tmp/members").iterdir()] == ["member-02-params"]
    assert fan_out.train_stale(["member-01", "member-02"], params) == []
    assert len(asked) == 1


def test_files_of_members_that_the_ensemble_no_longer_has_are_removed(workspace):
    for name in MEMBERS:
        (workspace / "models/members" / name).mkdir(parents=True)
        (workspace / "metrics/members").mkdir(parents=True, exist_ok=True)
        (workspace / f"metrics/members/{name}.json").touch()
    (workspace / "models/members/.gitignore").touch()
    fan_out.remove_former(["member-00", "member-02"])
    assert {path.name for path in (workspace / "models/members").iterdir()} == {"member-00", "member-02", ".gitignore"}
    assert {path.name for path in (workspace / "metrics/members").iterdir()} == {"member-00.json", "member-02.json"}


def test_the_lock_file_lists_todays_members_in_the_order_of_dvc_yaml(workspace):
    (workspace / "dvc.yaml").write_text(
        yaml.safe_dump({"stages": {name: {} for name in ("split", "train", "weigh")}}, sort_keys=False)
    )
    names = ["train@member-07", "weigh", "split", "train@member-02", "train@member-00"]
    stages = {name: {"cmd": name, "outs": [{"path": name}]} for name in names}
    (workspace / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}, sort_keys=False))
    fan_out.tidy_lock_file(["member-00", "member-01", "member-02"])
    after = yaml.safe_load((workspace / "dvc.lock").read_text())["stages"]
    assert list(after) == ["split", "train@member-00", "train@member-01", "train@member-02", "weigh"]
    assert after.pop("train@member-01") == {"cmd": "python -m stages.train member-01"}
    assert all(stage == stages[name] for name, stage in after.items())
    written = (workspace / "dvc.lock").stat().st_mtime_ns
    fan_out.tidy_lock_file(["member-00", "member-01", "member-02"])
    assert (workspace / "dvc.lock").stat().st_mtime_ns == written


def test_fan_out_is_done_only_if_no_member_failed(workspace, monkeypatch):
    failed = [
        SimpleNamespace(name=name, failure=why, log="log", last_lines=lambda: "")
        for name, why in (("member-00", "ended by SIGKILL"), ("member-01", ""), ("member-02", "ended by SIGKILL"))
    ]
    monkeypatch.setattr(fan_out, "load_params", lambda: SimpleNamespace(ensemble=dict.fromkeys(MEMBERS)))
    tidied = []
    monkeypatch.setattr(fan_out, "tidy_lock_file", tidied.append)
    monkeypatch.setattr(fan_out, "train_stale", lambda names, params: failed)
    with pytest.raises(UserError, match=r"failed: member-01, member-00, member-02 \(ended by SIGKILL\);"):
        fan_out.main()
    assert not (workspace / "data/fan-out.json").exists()
    monkeypatch.setattr(fan_out, "train_stale", lambda names, params: [])
    fan_out.main()
    assert (workspace / "data/fan-out.json").exists()
    assert tidied == [MEMBERS, MEMBERS]
