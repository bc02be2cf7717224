"""How many members train at a time and on which GPUs; which members are trained; their progress."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from brainmri.common import resources as common_resources
from brainmri.common.errors import UserError
from brainmri.common.progress import print_record
from brainmri.common.resources import free_memory, usable_cores
from brainmri.parallel import fan_out, resources
from brainmri.parallel.metric_logs import metric_logger
from brainmri.parallel.monitor import MemberRun
from brainmri.parallel.resources import (
    APPLICATION_MEMORY,
    OWN_NETWORK_MEMORY,
    gpu_slots,
    listed_gpus,
    member_memory,
    number_of_jobs,
    visible_gpus,
)
from stages import fan_out as fan_out_stage

GIB = 2**30
DVC = (sys.executable, "-m", "dvc")
MEMBERS = [f"member-{number:02d}" for number in range(4)]


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
    memory = members_in_memory * OWN_NETWORK_MEMORY
    jobs = number_of_jobs(wanted, stale, threads, cores, memory)
    assert (jobs.number, jobs.limit, jobs.last) == expected


def test_members_that_need_more_memory_are_fewer():
    jobs = number_of_jobs("auto", 9, 1, 8, memory=8 * GIB, memory_each=4 * GIB)
    assert (jobs.number, jobs.limit) == (2, "free memory")


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ("residual", OWN_NETWORK_MEMORY),
        ("seed-cnn", OWN_NETWORK_MEMORY),
        ("notebook-2", OWN_NETWORK_MEMORY),
        ("efficientnet-lite0", 2 * OWN_NETWORK_MEMORY),
        ("notebook-3", APPLICATION_MEMORY),
        ("mobilenet-v2", APPLICATION_MEMORY),
    ],
)
def test_memory_of_a_member(network, expected):
    assert member_memory(network) == expected
    assert OWN_NETWORK_MEMORY == GIB
    assert APPLICATION_MEMORY == 4 * GIB


def test_cores_and_memory_of_this_machine():
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))
    assert 2**20 < free_memory() < psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("limit", "used", "free"),
    [
        ("max", 0, 9 * GIB),
        (8 * GIB, 3 * GIB, 5 * GIB),
        (20 * GIB, GIB, 9 * GIB),
        (GIB, 2 * GIB, 0),
        (None, 0, 9 * GIB),
    ],
)
def test_free_memory_of_machine_and_container(monkeypatch, tmp_path, limit, used, free):
    memory = SimpleNamespace(available=9 * GIB, total=50 * GIB)
    monkeypatch.setattr(common_resources, "CGROUP", tmp_path)
    monkeypatch.setattr(common_resources.psutil, "virtual_memory", lambda: memory)
    if limit is not None:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text(f"{used}\n")
    assert free_memory() == free


def test_gpus_listed_as_they_are_named(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-a,-1,,0")
    assert listed_gpus() == ["3", "GPU-a", "0"]


def test_no_gpus_without_a_working_driver(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert listed_gpus() == []
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 0\nexit 9\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert listed_gpus() == []


@pytest.mark.parametrize(
    ("slots", "stale", "memory", "expected"),
    [
        (2, 9, 9, (2, "GPUs", 2)),
        (4, 3, 9, (3, "members to train", 3)),
        (4, 9, 3, (3, "free memory", 3)),
    ],
)
def test_number_of_jobs_on_gpus(slots, stale, memory, expected):
    jobs = number_of_jobs("auto", stale, 1, 16, memory * GIB, gpu_slots=slots, memory_each=GIB)
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
def test_gpus_of_each_member_that_trains(gpus, replicas, members_per_gpu, slots):
    assert gpu_slots(gpus, replicas, members_per_gpu) == slots


def test_gpus_are_the_limit_instead_of_cores():
    jobs = number_of_jobs("auto", 9, 1, 2, 64 * OWN_NETWORK_MEMORY, gpu_slots=4)
    assert (jobs.number, jobs.limit) == (4, "GPUs")


def test_gpus_that_tensorflow_can_use(monkeypatch, capsys):
    def count_usable(names: str) -> int:
        return len({*names.split(",")} & {"2", "3", "7"})

    monkeypatch.setattr(resources, "tensorflow_gpus", count_usable)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert visible_gpus() == ["2", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert visible_gpus() == []
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,4,7")
    assert visible_gpus() == ["2", "7"]
    assert "TensorFlow can use 2 of 3 GPU(s)" in capsys.readouterr().out


def test_missing_gpu_libraries_are_reported(monkeypatch, tmp_path, capsys):
    """The driver lists two GPUs, of which the real TensorFlow finds none."""
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 0\necho 1\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert listed_gpus() == ["0", "1"]
    assert visible_gpus() == []
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("TensorFlow can use 0 of 2 GPU(s)")
    assert lines[0].endswith("pip install -r requirements/gpu.txt")


def test_progress_of_a_member(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    run = MemberRun("member-00")
    assert run.line() == "member-00: waiting"
    run.start()
    metrics = {
        "loss": 2.5,
        "in_bag_log_loss": 0.25,
        "out_of_bag_log_loss": 0.5,
        "out_of_bag_accuracy": 0.75,
    }
    print_record({"epoch": 3, "epochs": 40, "metrics": metrics})
    run.log.write_text("a line of TensorFlow\n" + capsys.readouterr().out + '{"epoch": 4, ')
    run.poll_log()
    expected = "member-00: epoch 3 of 40, out-of-bag log loss 0.500, accuracy 0.750, "
    assert run.line().startswith(expected)
    assert run.line().endswith(" s left")
    run.end()
    assert run.line().startswith(expected + "done in ")
    run.end("ended by SIGKILL")
    assert run.line() == expected + "failed"


def test_progress_within_an_epoch(monkeypatch, tmp_path, capsys):
    """Images a second and the time left are known before the first epoch ends."""
    monkeypatch.chdir(tmp_path)
    seconds = iter([100.0, 110.0, 130.0, 135.0])
    monkeypatch.setattr("brainmri.parallel.monitor.time.monotonic", lambda: next(seconds))
    run = MemberRun("member-00")
    run.start()
    for images in (300, 1300):
        print_record({"images": images, "all_images": 6300})
        with open(run.log, "a") as log:
            log.write(capsys.readouterr().out)
        run.poll_log()
    assert run.line() == "member-00: 50 images/s, 95 s left"


def train_logged(kind: str, epochs: list[dict], capsys) -> None:
    """Let a member report epochs while its metrics are logged."""
    run = MemberRun("member-00", open_metric_log=metric_logger(kind))
    run.start()
    for number, metrics in enumerate(epochs, 1):
        print_record({"epoch": number, "epochs": len(epochs), "metrics": metrics})
        with open(run.log, "a") as log:
            log.write(capsys.readouterr().out)
        run.poll_log()
    run.end()


EPOCHS = [
    {"loss": 0.5, "out_of_bag_log_loss": 0.4},
    {"loss": float("nan"), "out_of_bag_log_loss": 0.3},
]


def test_dvc_shows_metrics_while_members_train(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    commit = ["git", "-c", "user.name=x", "-c", "user.email=x", "commit", "-qm", "Start"]
    for command in (["git", "init", "-q"], [*DVC, "init", "-q"], commit):
        subprocess.run(command, check=True)
    train_logged("dvclive", [{"loss": 9.0}] * 3, capsys)  # a former training
    train_logged("dvclive", EPOCHS, capsys)
    shown = subprocess.run([*DVC, "plots", "show", "--json"], capture_output=True, check=True)
    plots = json.loads(shown.stdout)["data"]
    points = {Path(name).stem: plot[0]["content"]["data"]["values"] for name, plot in plots.items()}
    assert [point["out_of_bag_log_loss"] for point in points["out_of_bag_log_loss"]] == [
        "0.4",
        "0.3",
    ]
    assert [point["loss"] for point in points["loss"]] == ["0.5"]  # NaN can't be drawn


def test_tensorboard_events(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    for epochs in (EPOCHS, EPOCHS):
        train_logged("tensorboard", epochs, capsys)
    [file] = (tmp_path / "tensorboard/member-00").iterdir()
    content = file.read_bytes()
    assert content.count(b"out_of_bag_log_loss") == 2
    assert content.count(b"loss") == 3


def test_missing_package_of_a_metric_log(monkeypatch):
    assert metric_logger("none") is None
    monkeypatch.setitem(sys.modules, "dvclive", None)
    with pytest.raises(UserError, match=r"is dvclive, which needs .* -r requirements/logs\.txt"):
        metric_logger("dvclive")


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """An empty folder, in which a member's staging folder has the member's name."""
    monkeypatch.chdir(tmp_path)
    staging = Path(".dvc/tmp/members")
    monkeypatch.setattr(fan_out, "read_params", lambda: "params")
    monkeypatch.setattr(fan_out, "staging_dir", lambda name, params: staging / f"{name}-{params}")
    return tmp_path


@pytest.mark.parametrize("engine", ["local", "dask"])
def test_stale_members_are_trained_by_the_engine(workspace, monkeypatch, engine):
    """A member is not stale if DVC is up to date with it, or if its staging folder is there."""
    for name in ("member-02-params", "member-02-before", "member-09-params"):
        (workspace / ".dvc/tmp/members" / name).mkdir(parents=True)
    calls = []
    for name, module in fan_out.ENGINES.items():

        def train_members(names, params, name=name):
            calls.append((name, names, params))
            return ["failed"]

        monkeypatch.setattr(module, "train_members", train_members)
    monkeypatch.setattr(fan_out, "up_to_date", lambda names: {"member-01"} & {*names})
    settings = SimpleNamespace(engine=engine)
    params = SimpleNamespace(fan_out=settings, ensemble=dict.fromkeys(MEMBERS))
    assert fan_out.train_stale_members(params) == ["failed"]
    assert calls == [(engine, ["member-00", "member-03"], params)]
    staging_folders = [path.name for path in (workspace / ".dvc/tmp/members").iterdir()]
    assert staging_folders == ["member-02-params"]


def test_nothing_is_trained_without_stale_members(workspace, monkeypatch, capsys):
    (workspace / ".dvc/tmp/members/member-02-params").mkdir(parents=True)
    monkeypatch.setattr(fan_out, "up_to_date", lambda names: {"member-01"})
    monkeypatch.setattr(fan_out, "ENGINES", {})
    params = SimpleNamespace(
        fan_out=SimpleNamespace(engine="local"),
        ensemble=dict.fromkeys(["member-01", "member-02"]),
    )
    assert fan_out.train_stale_members(params) == []
    assert capsys.readouterr().out == "all 2 members are trained already\n"


def test_files_of_former_members_are_removed(workspace):
    models = workspace / "models/members"
    metrics = workspace / "metrics/members"
    metrics.mkdir(parents=True)
    for name in MEMBERS:
        (models / name).mkdir(parents=True)
        (metrics / f"{name}.json").touch()
    (models / ".gitignore").touch()
    fan_out.remove_former_members(["member-00", "member-02"])
    assert {path.name for path in models.iterdir()} == {"member-00", "member-02", ".gitignore"}
    assert {path.name for path in metrics.iterdir()} == {"member-00.json", "member-02.json"}
    shutil.rmtree(models)
    fan_out.remove_former_members(["member-00"])


def failed_run(name: str, failure: str) -> SimpleNamespace:
    return SimpleNamespace(name=name, failure=failure, log="log", last_lines=lambda: "  the end")


def test_fan_out_fails_if_a_member_failed(workspace, monkeypatch, capsys):
    failed = [
        failed_run("member-00", "ended by SIGKILL"),
        failed_run("member-01", ""),
        failed_run("member-02", "ended by SIGKILL"),
    ]
    removed = []
    params = SimpleNamespace(ensemble=dict.fromkeys(MEMBERS))
    monkeypatch.setattr(fan_out_stage, "load_params", lambda: params)
    monkeypatch.setattr(fan_out_stage, "remove_former_members", removed.append)
    monkeypatch.setattr(fan_out_stage, "read_params", dict)
    monkeypatch.setattr(fan_out_stage, "staging_dir", lambda name, content: Path(f"{name}-1a2b"))
    monkeypatch.setattr(fan_out_stage, "train_stale_members", lambda params: failed)
    with pytest.raises(
        UserError, match=r"failed: member-01, member-00, member-02 \(ended by SIGKILL\);"
    ):
        fan_out_stage.main()
    assert "\nmember-00 failed; the end of log:\n  the end\n" in capsys.readouterr().out
    assert not (workspace / "data/fan-out.json").exists()
    monkeypatch.setattr(fan_out_stage, "train_stale_members", lambda params: [])
    fan_out_stage.main()
    marker = json.loads((workspace / "data/fan-out.json").read_bytes())
    assert marker == {"members": [f"{name}-1a2b" for name in MEMBERS]}
    assert removed == [MEMBERS, MEMBERS]
