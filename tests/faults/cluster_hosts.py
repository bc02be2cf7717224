"""A cluster of three hosts, by `make cluster-test`: network namespaces, each with a file tree of
its own.

`driver` has the project and the scheduler; `first` and `second` are workers, with nothing but
Python and its packages. No host sees another's files. Needs root and iproute2; skips where it may
not make namespaces.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.project import SMALL, Project
from tests.support.waiting import LIMIT_S, wait_for

ADDRESSES = {"driver": "10.77.0.1", "first": "10.77.0.2", "second": "10.77.0.3"}
SCHEDULER = f"tcp://{ADDRESSES['driver']}:8786"
SETTINGS = SMALL | {"members": 6, "train.epochs": 60}
ENTER = """
mount --bind "$1" /mnt && mount -t tmpfs none "$2" && mount --bind /mnt/var-tmp /var/tmp \\
  && hostname "$3" && cd /mnt || exit 99
shift 3
exec "$@"
"""


def sh(*command: str) -> str:
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


def missing_requirement() -> str | None:
    """Return why there can be no such hosts here; None if there can."""
    if not shutil.which("ip", path=f"{os.environ['PATH']}:/usr/sbin"):
        return "needs iproute2"
    name = f"try-{os.getpid()}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if tried.returncode:
        return f"may not make network namespaces: {tried.stderr.strip()}"
    sh("ip", "netns", "delete", name)
    return None


class Hosts:
    """Three network namespaces joined by a bridge in a fourth."""

    def __init__(self, folder: Path):
        self.folder, self.tag = folder, f"{os.getpid()}"
        self.running: list[subprocess.Popen] = []
        for name in ("switch", *ADDRESSES):
            sh("ip", "netns", "add", self.of(name))
        sh("ip", "-n", self.of("switch"), "link", "add", "bridge", "type", "bridge")
        sh("ip", "-n", self.of("switch"), "link", "set", "bridge", "up")
        for name, address in ADDRESSES.items():
            for place in ("home", "tmp", "var-tmp"):
                (folder / name / place).mkdir(parents=True)
            port, host = f"to-{name}", self.of(name)
            switch = self.of("switch")
            pair = f"ip link add {port} netns {switch} type veth peer name eth0 netns {host}"
            sh(*pair.split())
            sh("ip", "-n", switch, "link", "set", port, "master", "bridge", "up")
            sh("ip", "-n", host, "addr", "add", f"{address}/24", "dev", "eth0")
            self.link(name, "up")
            sh("ip", "-n", host, "link", "set", "lo", "up")

    def of(self, name: str) -> str:
        return f"{name}-{self.tag}"

    def link(self, name: str, state: str) -> None:
        sh("ip", "-n", self.of(name), "link", "set", "eth0", state)

    def start(self, name: str, *command: str, **options) -> subprocess.Popen:
        """Start a command on a host, whose tree is `/mnt`, and which has nothing else."""
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("DVC", "PIPELINE", "GIT", "TF_"))
        }
        environment = {
            **kept,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin",
            "HOME": "/mnt/home",
            "XDG_CACHE_HOME": "/mnt/home/.cache",
            "TMPDIR": "/mnt/tmp",
            "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s",
            "PYTHONUNBUFFERED": "1",
        }
        enter = [
            "unshare",
            "--uts",
            "sh",
            "-c",
            ENTER,
            "enter",
            str(self.folder / name),
            str(self.folder),
            name,
        ]
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.of(name), *enter, *command],
            env=environment,
            text=True,
            **options,
        )
        self.running.append(process)
        return process

    def serve(self, name: str, log: str, *command: str) -> None:
        with open(self.folder / name / log, "w") as file:
            self.start(
                name, *command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )

    def worker(self, name: str) -> None:
        options = [
            "--name",
            name,
            "--nthreads",
            "1",
            "--local-directory",
            "/mnt/scratch",
            "--no-dashboard",
        ]
        self.serve(name, "worker.log", sys.executable, "-m", "dask", "worker", SCHEDULER, *options)
        log = self.folder / name / "worker.log"
        assert wait_for(lambda: "Registered to:" in log.read_text()), log.read_text()

    def processes(self, name: str, words: str = "") -> list[int]:
        pids = []
        for pid in map(int, sh("ip", "netns", "pids", self.of(name)).split()):
            try:
                if words in Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode():
                    pids.append(pid)
            except OSError:
                continue
        return pids

    def kill(self, name: str) -> None:
        for pid in self.processes(name):
            subprocess.run(["kill", "-KILL", str(pid)])

    def is_clean(self, name: str) -> bool:
        """Return whether neither a process nor a folder of a member is left on that host."""
        left = self.folder.glob(f"{name}/scratch/dask-scratch-space/*/member-*")
        return not self.processes(name, "brainmri.") and not [*left]

    def end(self) -> None:
        for name in ADDRESSES:
            self.kill(name)
        for process in self.running:
            process.wait()
        for name in ("switch", *ADDRESSES):
            sh("ip", "netns", "delete", self.of(name))


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    if reason := missing_requirement():
        pytest.skip(reason)
    hosts = Hosts(tmp_path_factory.mktemp("hosts"))
    options = ("--host", ADDRESSES["driver"], "--no-dashboard")
    try:
        hosts.serve("driver", "scheduler.log", "dask", "scheduler", *options)
        for name in ("first", "second"):
            hosts.worker(name)
        yield hosts
    finally:
        hosts.end()


@pytest.fixture(scope="module")
def project(sources, hosts) -> Project:
    """The driver's clone, which is up to date as far as the bootstrap samples."""
    project = sources.copy(hosts.folder / "driver")
    project.reproduce("bootstrap-sample", **SETTINGS)
    return project


def local_results(project: Project, folder: Path) -> dict[str, bytes]:
    """Return what a local run gives."""
    local = project.copy(folder)
    local.edit(fan_out__engine="local")
    local.run("dvc", "repro", "weigh")
    return results(local)


def results(project: Project) -> dict[str, bytes]:
    files = [
        *project.path.glob("models/**/*"),
        *project.path.glob("metrics/members/*"),
        project.path / "dvc.lock",
    ]
    return {
        str(file.relative_to(project.path)): file.read_bytes() for file in files if file.is_file()
    }


@pytest.mark.parametrize("fault", ["link cut", "worker killed"])
def test_the_end_is_that_of_a_local_run_whatever_happens_to_a_worker(
    project, hosts, tmp_path, fault
):
    project.edit(
        fan_out__engine="dask",
        fan_out__scheduler=SCHEDULER,
        train__epochs=60 if fault == "link cut" else 61,
    )
    expected = local_results(project, tmp_path)
    driver = hosts.start(
        "driver",
        "sh",
        "-c",
        "cd project && dvc repro weigh",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert wait_for(lambda: hosts.processes("second", "brainmri.parallel.trainer"))
    hosts.link("second", "down") if fault == "link cut" else hosts.kill("second")
    output, _ = driver.communicate(timeout=LIMIT_S)
    assert driver.returncode == 0, output
    assert "6 of 6 members to train on 2 workers" in output
    assert len(re.findall(r"member-0\d: .*done in \d+ s, first", output)) >= 4, output
    assert results(project) == expected
    assert hosts.is_clean("first")
    assert wait_for(lambda: not hosts.processes("second", "brainmri."))
    hosts.kill("second")
    hosts.link("second", "up")
    hosts.worker("second")
    assert hosts.is_clean("second")
