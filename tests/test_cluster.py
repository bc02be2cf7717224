"""Members trained on a cluster: a scheduler and two workers as separate processes, with separate homes and caches."""

import os
import re
import shutil
import signal
import subprocess

import pytest
from conftest import SMALL, Project

from benchmarks.local_cluster import LIMIT_S, Cluster, wait_for
from stages.engines.cluster import snapshot
from stages.shared.errors import UserError
from stages.shared.params import load_params
from tests.faults.faults import small_disk

GPU = ("--resources", "GPU=1")  # that is not there: what matters is that members ask for it
ENDLESS = SMALL | {"train.epochs": 100_000}  # so a member that is gone was ended


OLDER = """
import distributed.versions as versions
told = versions.get_system_info
versions.get_system_info = lambda: told() | {"python": "2.7.18.final.0"}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    for name in ("a", "b"):
        cluster.worker(name, *GPU)
    yield cluster
    cluster.end()


@pytest.fixture(scope="module")
def sampled(sources, cluster, tmp_path_factory) -> Project:
    """A clone that is up to date as far as the bootstrap samples, and has a remote."""
    project = sources.copy(tmp_path_factory.mktemp("sampled"))
    project.run("dvc", "remote", "add", "-d", "lab", str(cluster.remote))
    project.run("git", "commit", "-q", "-a", "-m", "Remote")
    project.experiment("bootstrap-sample", **ENDLESS)
    project.edit(fan_out__engine="dask", fan_out__scheduler=cluster.address())
    return project


def trained(project: Project) -> dict[str, bytes]:
    files = [*project.path.glob("models/members/**/*"), *project.path.glob("metrics/members/*")]
    assert files
    return {str(file.relative_to(project.path)): file.read_bytes() for file in files if file.is_file()}


def test_a_cluster_trains_the_members_of_a_local_run_and_the_remote_has_them(small, sources, cluster, tmp_path):
    project = sources.copy(tmp_path)
    project.run("dvc", "remote", "add", "-d", "lab", str(cluster.remote))
    with open(project.path / "stages/train.py", "a") as code:  # not committed, and yet what is trained with
        code.write("\n")
    settings = {"fan_out.engine": "dask", "fan_out.scheduler": cluster.address()}
    output = project.experiment("weigh", **SMALL, **settings)
    assert "3 of 3 members to train on 2 workers; dashboard: http://" in output
    assert len(re.findall(r"member-0\d: epoch 2 of 2, out-of-bag log loss .*, done in \d+ s, [ab]", output)) == 3
    assert trained(project) == trained(small)
    assert cluster.is_clean()
    project.edit(fan_out__engine="local", fan_out__scheduler=None)
    assert "up to date" in project.run("dvc", "status", "weigh")

    other = Project(shutil.copytree(project.path, tmp_path / "other/project", symlinks=True))
    shutil.rmtree(other.path / ".dvc/cache")
    shutil.rmtree(other.path / "models/members")
    other.edit(fan_out__engine="dask", fan_out__scheduler=cluster.address())
    (other.path / "data/fan-out.json").unlink()
    assert "the remote had all members that were missing" in other.run("dvc", "repro", "weigh")
    assert trained(other) == trained(small)


def test_a_worker_that_is_killed_is_replaced_and_a_driver_that_is_stopped_leaves_nothing(sampled, cluster, tmp_path):
    project = sampled.copy(tmp_path)
    for how in (signal.SIGINT, signal.SIGKILL):
        driver = project.start("dvc", "repro", "fan-out", stdout=subprocess.PIPE)
        assert wait_for(lambda: cluster.training("a") and cluster.training("b"))
        assert cluster.scratch_folders()
        os.killpg(driver.pid, how)
        driver.communicate(timeout=LIMIT_S)
        assert cluster.is_clean()

    project.edit(train__epochs=30)
    driver = project.start("dvc", "repro", "weigh", stdout=subprocess.PIPE)
    assert wait_for(lambda: cluster.training("a") and cluster.training("b"))
    cluster.kill("b")
    assert wait_for(lambda: not cluster.training("b"))
    output, _ = driver.communicate(timeout=LIMIT_S)
    assert driver.returncode == 0, output
    assert set(re.findall(r"(member-\d\d): epoch 30 of 30, .* done in \d+ s, a", output)) >= {"member-01"}
    cluster.worker("b", *GPU)
    assert cluster.is_clean()


def told(project: Project, cluster: Cluster, words: str) -> None:
    """It fails with one line that holds these words, and leaves nothing on any worker."""
    output = project.run("dvc", "repro", "fan-out", ok=False)
    assert "Traceback" not in output, output
    assert [line for line in output.stderr.splitlines() if line.startswith("error: ") and words in line], output
    assert cluster.is_clean()


def test_workers_get_the_files_of_the_project_and_no_others(fresh, monkeypatch):
    """Names that are not UTF-8, too; contents as they are now."""
    monkeypatch.chdir(fresh.path)
    params = load_params()
    tracked = fresh.run("git", "ls-files", "-z").stdout.split("\0")[:-1]
    (fresh.path / "README.md").write_text("edited")
    with open(b"data/latin-\xe9.txt", "wb") as file:
        file.write(b"named in Latin-1")
    fresh.run("git", "add", "--force", "data")
    files = snapshot(params)
    assert {*files} == {*tracked, "data/latin-\udce9.txt"}
    assert files["README.md"] == b"edited"
    network = params.network.model_copy(update={"weights": "data/base.h5"})
    (fresh.path / "data/base.h5").write_bytes(b"weights")
    assert snapshot(params.model_copy(update={"network": network})) == files | {"data/base.h5": b"weights"}
    for weights in ("/root/base.h5", "../base.h5", "data/../../base.h5"):
        network = params.network.model_copy(update={"weights": weights})
        with pytest.raises(UserError, match=r"base\.h5' is outside of the project"):
            snapshot(params.model_copy(update={"network": network}))


def test_a_cluster_that_is_not_there_is_told(sampled, cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "3s")
    project = sampled.copy(tmp_path)
    project.edit(fan_out__scheduler="tcp://127.0.0.1:1")
    told(project, cluster, "no scheduler answers at tcp://127.0.0.1:1")
    project.edit(fan_out__scheduler=None)
    told(project, cluster, "Dask's configuration has no scheduler-address")
    project.run("dvc", "remote", "default", "--unset")
    told(project, cluster, "dvc remote add -d NAME URL")


def test_a_remote_that_is_not_there_or_full_is_told(sampled, cluster, tmp_path):
    project = sampled.copy(tmp_path)
    (tmp_path / "file").touch()
    project.run("dvc", "remote", "modify", "lab", "url", str(tmp_path / "file/remote"))
    told(project, cluster, "the DVC remote can't be")
    with small_disk(tmp_path / "full", "64k"):
        project.run("dvc", "remote", "modify", "lab", "url", str(tmp_path / "full"))
        told(project, cluster, "the DVC remote can't be written")


def test_a_worker_with_other_versions_or_without_disk_is_told_by_name(sampled, cluster, tmp_path):
    project = sampled.copy(tmp_path)
    other = tmp_path / "other/keras-0.0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: keras\nVersion: 0.0.1\n")
    (tmp_path / "older").mkdir()
    (tmp_path / "older/sitecustomize.py").write_text(OLDER)
    for name, words in (("other", "worker other has keras 0.0.1, the driver 3."), ("older", "has Python 2.7.18")):
        cluster.worker(name, PYTHONPATH=str(tmp_path / name))
        try:
            told(project, cluster, words)
        finally:
            cluster.kill(name)
    with small_disk(cluster.folder / "crowded/scratch", "1m"):
        cluster.worker("crowded")
        cluster.kill("a")
        cluster.kill("b")
        try:
            told(project, cluster, "No space left on device")
        finally:
            cluster.kill("crowded")
            cluster.worker("a", *GPU)
            cluster.worker("b", *GPU)


def test_a_member_that_fails_is_told_and_the_others_are_kept(sampled, cluster, tmp_path):
    project = sampled.copy(tmp_path)
    project.edit(train__epochs=3)
    text = project.read("stages/train.py")
    injected = 'name = sys.argv[1]\n    if name == "member-01":\n        raise UserError("injected")'
    (project.path / "stages/train.py").write_text(text.replace("name = sys.argv[1]", injected))
    told(project, cluster, "training failed: member-01 (injected); the other members are done and kept")
    assert "1 of 3 members to train" in project.run("dvc", "repro", "fan-out", ok=False)


def test_a_scheduler_that_is_lost_is_told_and_workers_stop(sampled, tmp_path):
    cluster = Cluster(tmp_path / "cluster")
    try:
        cluster.worker("a")
        project = sampled.copy(tmp_path)
        project.edit(fan_out__scheduler=cluster.address())
        driver = project.start("sh", "-c", "dvc repro fan-out 2>&1", stdout=subprocess.PIPE)
        assert wait_for(cluster.training)
        cluster.kill("scheduler")
        output, _ = driver.communicate(timeout=LIMIT_S)
        assert re.search(r"^error: the scheduler at tcp://\S+ is gone", output, re.MULTILINE), output
        assert "Traceback" not in output
        assert cluster.is_clean()
    finally:
        cluster.end()
