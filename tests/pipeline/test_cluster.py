"""Members trained on a cluster: a scheduler and two workers as separate processes, with separate
homes and caches.
"""

import os
import re
import signal
import subprocess

import pytest

from tests.support.cluster import Cluster
from tests.support.disk import small_disk
from tests.support.project import SMALL, Project
from tests.support.waiting import LIMIT_S, wait_for

GPU = ("--resources", "GPU=1")  # which does not exist: what matters is that members ask for it
MEMBERS = 2  # one for each worker
ENDLESS = SMALL | {"members": MEMBERS, "train.epochs": 100_000}  # a member that ends was ended
LONG = 150  # epochs: seconds, in which a training process is met
OTHER_PYTHON = """
import distributed.versions as versions
system_info = versions.get_system_info
versions.get_system_info = lambda: system_info() | {"python": "2.7.18.final.0"}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    cluster.worker("a", *GPU)
    cluster.remote_worker("b", *GPU)
    yield cluster
    cluster.end()


@pytest.fixture(scope="module")
def sampled(sources, cluster, tmp_path_factory) -> Project:
    """A clone that is up to date as far as the bootstrap samples."""
    project = sources.copy(tmp_path_factory.mktemp("sampled"))
    project.reproduce("bootstrap-sample", **ENDLESS)
    project.edit(fan_out__engine="dask", fan_out__scheduler=cluster.address())
    return project


def member_files(project: Project) -> dict[str, bytes]:
    files = [*project.path.glob("models/members/**/*"), *project.path.glob("metrics/members/*")]
    contents = {
        str(file.relative_to(project.path)): file.read_bytes() for file in files if file.is_file()
    }
    assert contents
    return contents


def check_fails(project: Project, cluster: Cluster, words: str) -> None:
    """Check that `fan-out` fails with one line that holds these words, and leaves nothing on any
    worker.
    """
    output = project.run("dvc", "repro", "fan-out", ok=False)
    assert "Traceback" not in output, output
    errors = [line for line in output.stderr.splitlines() if line.startswith("error: ")]
    assert [line for line in errors if words in line], output
    assert cluster.is_clean()


def test_members_are_those_of_a_local_run(small, done, cluster):
    with open(done.path / "brainmri/training/member.py", "a") as code:
        code.write("\n")  # not committed, and yet what is trained with
    settings = {"fan_out.engine": "dask", "fan_out.scheduler": cluster.address()}
    output = done.reproduce("weigh", **settings)
    assert "3 of 3 members to train on 2 workers; dashboard: http://" in output
    ends = re.findall(
        r"member-0\d: epoch 2 of 2, out-of-bag log loss .*, done in \d+ s, [ab]", output
    )
    assert len(ends) == 3
    assert {line[-1] for line in ends} == {"a", "b"}  # by the shared disk, and by Dask
    assert member_files(done) == member_files(small)
    assert cluster.is_clean()
    done.edit(fan_out__engine="local", fan_out__scheduler=None)
    assert "up to date" in done.run("dvc", "status", "weigh")


def test_workers_keep_files_for_later_runs(sampled, cluster, tmp_path):
    project = sampled.copy(tmp_path)
    project.edit(train__epochs=1)
    project.run("dvc", "repro", "fan-out")
    before = cluster.cached_files("b")
    assert before
    assert not cluster.cached_files("a")  # it shares the driver's disk
    project.edit(train__epochs=2)
    project.run("dvc", "repro", "fan-out")
    after = cluster.cached_files("b")
    assert len(set(after) - set(before)) <= 1  # params.yaml
    assert all(after[digest] == before[digest] for digest in before)  # written once


def test_a_killed_worker_is_replaced_and_a_stopped_driver_leaves_nothing(
    sampled, cluster, tmp_path
):
    project = sampled.copy(tmp_path)
    for how in (signal.SIGINT, signal.SIGKILL):
        driver = project.start("dvc", "repro", "fan-out", stdout=subprocess.PIPE)
        assert wait_for(lambda: cluster.training("a") and cluster.training("b"))
        assert cluster.member_folders()
        os.killpg(driver.pid, how)
        driver.communicate(timeout=LIMIT_S)
        assert cluster.is_clean()

    project.edit(train__epochs=LONG)
    driver = project.start("sh", "-c", "dvc repro weigh 2>&1", stdout=subprocess.PIPE)
    assert wait_for(lambda: cluster.training("b") or driver.poll() is not None)
    on_b = cluster.training("b")
    assert on_b
    cluster.kill("b")
    assert wait_for(lambda: not cluster.training("b"))
    output, _ = driver.communicate(timeout=LIMIT_S)
    assert driver.returncode == 0, output
    ends = re.findall(rf"(member-\d\d): epoch {LONG} of {LONG}, .* done in \d+ s, a", output)
    assert set(on_b) <= set(ends), output
    cluster.remote_worker("b", *GPU)
    assert cluster.is_clean()


def test_a_killed_driver_loses_only_what_was_training(sampled, cluster, tmp_path):
    project = sampled.copy(tmp_path)
    project.edit(train__epochs=2)
    driver = project.start("dvc", "repro", "fan-out", stdout=subprocess.PIPE)
    staging = project.path / ".dvc/tmp/members"
    assert wait_for(lambda: [path for path in staging.glob("*") if path.suffix != ".part"])
    os.killpg(driver.pid, signal.SIGKILL)
    driver.communicate(timeout=LIMIT_S)
    assert cluster.is_clean()
    output = project.run("dvc", "repro", "fan-out")
    assert f"{MEMBERS} of {MEMBERS} members to train" not in output


def test_a_missing_cluster_is_reported(sampled, cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "3s")
    project = sampled.copy(tmp_path)
    project.edit(fan_out__scheduler="tcp://127.0.0.1:1")
    check_fails(project, cluster, "no scheduler answers at tcp://127.0.0.1:1")
    project.edit(fan_out__scheduler=None)
    check_fails(project, cluster, "Dask's configuration has no scheduler-address")


def test_a_worker_with_other_versions_is_named(sampled, cluster, tmp_path):
    project = sampled.copy(tmp_path)
    other = tmp_path / "other/keras-0.0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: keras\nVersion: 0.0.1\n")
    (tmp_path / "older").mkdir()
    (tmp_path / "older/sitecustomize.py").write_text(OTHER_PYTHON)
    for name, words in (
        ("other", "worker other has keras 0.0.1, the driver 3."),
        ("older", "has Python 2.7.18"),
    ):
        cluster.worker(name, PYTHONPATH=str(tmp_path / name))
        try:
            check_fails(project, cluster, words)
        finally:
            cluster.kill(name)


def test_a_worker_with_a_full_disk_is_named(sampled, tmp_path):
    """It is the only worker of its cluster."""
    project = sampled.copy(tmp_path)
    cluster = Cluster(tmp_path / "cluster")
    project.edit(fan_out__scheduler=cluster.address())
    try:
        for folder in ("scratch", "cache"):
            name = f"crowded-{folder}"
            with small_disk(cluster.folder / name / folder, "64k"):
                cluster.remote_worker(name)
                check_fails(project, cluster, "No space left on device")
                cluster.kill(name)
    finally:
        cluster.end()


def test_a_failed_member_is_named_and_the_others_are_kept(sampled, cluster, tmp_path):
    project = sampled.copy(tmp_path)
    project.edit(train__epochs=3)
    path = project.path / "brainmri/training/member.py"
    line = "    member, train = "
    injected = '    if name == "member-01":\n        raise UserError("injected")\n'
    text = path.read_text()
    assert text.count(line) == 1
    path.write_text(text.replace(line, injected + line))
    words = "training failed: member-01 (injected); the other members are done and kept"
    check_fails(project, cluster, words)
    assert f"1 of {MEMBERS} members to train" in project.run("dvc", "repro", "fan-out", ok=False)


def test_a_member_whose_input_changed_is_not_kept(sampled, cluster, tmp_path):
    """A worker on the driver's disk may have read the former file, or the new one."""
    project = sampled.copy(tmp_path)
    project.edit(train__epochs=LONG)
    driver = project.start("sh", "-c", "dvc repro fan-out 2>&1", stdout=subprocess.PIPE)
    assert wait_for(cluster.training)
    (project.path / "data/split.json").touch()
    output, _ = driver.communicate(timeout=LIMIT_S)
    assert "'data/split.json' changed while " in output
    assert not [path for path in (project.path / ".dvc/tmp/members").glob("*") if path.is_dir()]


def test_a_lost_scheduler_is_reported_and_workers_stop(sampled, tmp_path):
    cluster = Cluster(tmp_path / "cluster")
    try:
        cluster.worker("a")
        project = sampled.copy(tmp_path)
        project.edit(fan_out__scheduler=cluster.address())
        driver = project.start("sh", "-c", "dvc repro fan-out 2>&1", stdout=subprocess.PIPE)
        assert wait_for(cluster.training)
        cluster.kill("scheduler")
        output, _ = driver.communicate(timeout=LIMIT_S)
        is_reported = re.search(r"^error: the scheduler at tcp://\S+ is gone", output, re.MULTILINE)
        assert is_reported, output
        assert "Traceback" not in output
        assert cluster.is_clean()
    finally:
        cluster.end()
