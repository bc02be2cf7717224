"""What a worker of a Dask cluster does: it keeps the run's files by their content, and trains
members.

The driver sends this module's code to the workers, which have no checkout; so it imports nothing of
the project. A run needs no DVC, no Git and no network besides Dask's on a worker.
"""

import hashlib
import io
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from distributed import Worker, WorkerPlugin, get_worker

CACHE_BYTES = 20 * 2**30  # of files kept from run to run
POLL_S = 0.5
PLUGIN = "brain-mri-trainer"


def versions(packages: list[str]) -> dict[str, str]:
    """Return the versions of Python and of these packages; "none" for a missing one."""
    installed = {"Python": ".".join(map(str, sys.version_info[:3]))}
    for package in packages:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            installed[package] = "none"
    return installed


def version_mismatch(expected: dict[str, str], installed: dict[str, str]) -> str | None:
    """Describe in which versions a worker differs from the driver; None if it does not."""
    different = [
        f"{name} {installed[name]}, the driver {expected[name]}"
        for name in expected
        if installed[name] != expected[name]
    ]
    return "has " + "; ".join(different) if different else None


def describe(packages: list[str], dask_worker: Worker) -> dict:
    """Return what the driver checks before it gives a worker work: its versions, name and number of
    cores.
    """
    return {
        "versions": versions(packages),
        "name": str(dask_worker.name),
        "cores": len(os.sched_getaffinity(0)),
    }


def _read_only(path: str, flags: int) -> int:
    return os.open(path, flags, 0o444)


class FileCache:
    """Files kept from run to run, by the SHA-256 of their content; workers of one user share it.

    Parameters
    ----------
    folder : Path, optional
    limit : int
        Bytes; above it, files that the run does not need are removed, the longest unused first.
    """

    def __init__(self, folder: Path | None = None, limit: int = CACHE_BYTES):
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self._folder, self._limit = folder or base / "brain-mri-ensemble" / "objects", limit

    def path(self, digest: str) -> Path:
        return self._folder / digest[:2] / digest[2:]

    def missing(self, digests: set[str]) -> set[str]:
        """Return those that are not there, and mark the others as used."""
        missing = set()
        for digest in digests:
            try:
                os.utime(self.path(digest))
            except FileNotFoundError:
                missing.add(digest)
        return missing

    def add(self, pack: dict[str, bytes]) -> None:
        """Add files by the hash of their content."""
        for digest, content in pack.items():
            if hashlib.sha256(content).hexdigest() != digest:
                raise ValueError(f"{digest}: its content was changed on the way")
            path = self.path(digest)
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
            try:
                with open(temporary, "xb", opener=_read_only) as file:
                    file.write(content)
                os.replace(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

    def shrink(self, needed: set[str]) -> None:
        """Remove what is not needed, the longest unused first, until the limit is kept."""
        files = [(file.stat(), file) for file in self._folder.glob("??/*")]
        size = sum(status.st_size for status, _ in files)
        for status, file in sorted(files, key=lambda entry: entry[0].st_mtime):
            if size <= self._limit:
                return
            if file.parent.name + file.name not in needed:
                file.unlink(missing_ok=True)
                size -= status.st_size


class TrainerPlugin(WorkerPlugin):
    """Holds a worker's trainer process, which has imported TensorFlow and forks a process for each
    member.

    Parameters
    ----------
    code : bytes
        A zip archive of the project's package.
    files : dict of str to str
        Hash of each file that members read, by path.
    shared : str
        The project's folder on the driver.
    token : str
        A file in it, which is there if this worker shares the disk.
    """

    name = PLUGIN

    def __init__(self, code: bytes, files: dict[str, str], shared: str, token: str):
        self.code, self.files, self.shared, self.token = code, files, shared, token

    def setup(self, worker: Worker) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="brain-mri-", dir=worker.local_directory))
        self.cache = FileCache()
        self.process = None
        self.lock = threading.Lock()
        self.exits: dict[str, int] = {}
        self.pids: dict[str, int] = {}
        self.requests: dict[str, tuple[Path, Path]] = {}

    def teardown(self, worker: Worker) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def is_shared(self) -> bool:
        """Whether this worker sees the driver's project folder."""
        return Path(self.token).is_file()

    def missing(self) -> set[str]:
        """Return the hashes of files that this worker must be given."""
        if self.is_shared:
            return set()
        return self.cache.missing(set(self.files.values()))

    def lay_out(self, folder: Path, name: str, sample: bytes) -> None:
        """Link the run's files into a folder laid out as the project's root."""
        for path, digest in self.files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            source = Path(self.shared) / path if self.is_shared else self.cache.path(digest)
            if path == "params.yaml" and self.is_shared:
                content = source.read_bytes()  # a later edit must not change what trains
                if hashlib.sha256(content).hexdigest() != digest:
                    raise ValueError("params.yaml changed while fan-out ran")
                target.write_bytes(content)
            else:
                target.symlink_to(source)
        (folder / "data/bootstrap").mkdir(parents=True, exist_ok=True)
        (folder / f"data/bootstrap/{name}.json").write_bytes(sample)

    def request(self, name: str, folder: Path, log: Path) -> None:
        """Let the trainer train a member; the trainer is started if it does not run."""
        with self.lock:
            if self.process is None or self.process.poll() is not None:
                self._start()
            self.exits.pop(name, None)
            self.pids.pop(name, None)
            self.requests[name] = folder, log
            message = json.dumps({"name": name, "folder": str(folder), "log": str(log)})
            self.process.stdin.write(message.encode() + b"\n")
            self.process.stdin.flush()

    def exit_code(self, name: str) -> int | None:
        """Return how a member's process ended; None while it runs."""
        if name in self.exits:
            return self.exits[name]
        trainer = self.process.poll()
        if trainer is None:
            return None
        # It was idle, and ended before it read the request
        if trainer == 0 and name not in self.pids:
            self.request(name, *self.requests[name])
            return None
        return -signal.SIGKILL

    def kill(self, name: str) -> None:
        """End a member's process, if it runs."""
        if name in self.pids and name not in self.exits:
            try:
                os.kill(self.pids[name], signal.SIGKILL)
            except ProcessLookupError:
                return

    def _start(self) -> None:
        code = self.folder / "code"
        if not code.exists():
            with zipfile.ZipFile(io.BytesIO(self.code)) as archive:
                archive.extractall(code)
        self.log = self.folder / "trainer.log"
        with open(self.log, "wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "brainmri.parallel.trainer"],
                cwd=code,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        threading.Thread(target=self._listen, args=(self.process,), daemon=True).start()

    def _listen(self, process: subprocess.Popen) -> None:
        for line in process.stdout:
            message = json.loads(line)
            if "pid" in message:
                self.pids[message["name"]] = message["pid"]
            else:
                self.exits[message["name"]] = message["exitcode"]


def plugin_of(worker: Worker) -> TrainerPlugin:
    return worker.plugins[PLUGIN]


def missing_files(dask_worker: Worker) -> set[str]:
    """Return the hashes of files that a worker must be given."""
    return plugin_of(dask_worker).missing()


def add_files(*packs: dict[str, bytes]) -> str | None:
    """Keep files on this worker; return what went wrong, if something did."""
    worker = get_worker()
    plugin = plugin_of(worker)
    try:
        for pack in packs:
            plugin.cache.add(pack)
        plugin.cache.shrink(set(plugin.files.values()))
    except OSError as error:
        return f"worker {worker.name}: {error.filename or worker.local_directory}: {error.strerror}"
    return None


def train(name: str, sample: bytes, topic: str, expected: dict[str, str]) -> dict:
    """Train a member in a folder of its own, which is removed however this ends.

    Parameters
    ----------
    name : str
        Of the member.
    sample : bytes
        Its bootstrap sample.
    topic : str
        Of the events with `member`, `where` and `text` by which its log comes to the driver.
    expected : dict of str to str
        The driver's `versions`.

    Returns
    -------
    dict
        `files`, content by name, of a member that was trained; `failure`, the reason, of one that
        failed; `missing`, the name of this worker, if it lacks files of the run.
    """
    worker = get_worker()
    plugin = plugin_of(worker)
    if mismatch := version_mismatch(
        expected, versions([key for key in expected if key != "Python"])
    ):
        return {"failure": mismatch}
    if plugin.missing():
        return {"missing": worker.address}
    worker.log_event(topic, {"member": name, "where": str(worker.name), "text": ""})
    try:
        with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=worker.local_directory) as folder:
            return _train_in(Path(folder), plugin, worker, name, sample, topic)
    except OSError as error:
        return {"failure": f"{error.filename or worker.local_directory}: {error.strerror}"}


def _train_in(
    folder: Path, plugin: TrainerPlugin, worker: Worker, name: str, sample: bytes, topic: str
) -> dict:
    task, log = worker.get_current_task(), folder / "log"
    plugin.lay_out(folder, name, sample)
    log.touch()
    plugin.request(name, folder, log)
    with open(log, encoding="utf-8", errors="replace") as lines:
        while True:
            code = plugin.exit_code(name)
            if text := lines.read():
                worker.log_event(topic, {"member": name, "where": str(worker.name), "text": text})
            if code is not None:
                break
            if not _is_wanted(worker, task):
                plugin.kill(name)
                while plugin.exit_code(name) is None:
                    time.sleep(POLL_S / 10)
                return {"failure": "no longer wanted"}
            time.sleep(POLL_S)
    if code:
        errors = log if log.stat().st_size else plugin.log
        return {"failure": describe_failure(errors, code)}
    result = folder / "result"
    return {"files": {file.name: file.read_bytes() for file in sorted(result.iterdir())}}


def _is_wanted(worker: Worker, task: str) -> bool:
    """Return whether the driver still waits for the task, and this worker is not about to close."""
    state = worker.state.tasks.get(task)
    is_open = worker.status.name in ("running", "paused")
    return state is not None and state.state == "executing" and is_open


def describe_failure(log: Path, code: int) -> str:
    """Return the last line of a log that reports an error; without one, the last line."""
    lines = log.read_text("utf-8", "replace").splitlines() or [""]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if errors:
        return errors[-1]
    return (
        f"ended with {code}: {lines[-1]}" if code > 0 else f"ended by {signal.Signals(-code).name}"
    )
