"""The repair of what a killed process or a full disk leaves, and DVC does not repair itself."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from dvc.utils.serialize import ParseError, load_yaml
from voluptuous import Invalid

from brainmri.common.errors import UserError
from brainmri.repair import __main__ as repair
from brainmri.repair.lock_files import restore_dvc_locks
from brainmri.repair.running import other_command
from brainmri.repair.source import unreadable_files
from tests.support.checkout import ROOT
from tests.support.waiting import LIMIT_S, wait_for

LOCK = """schema: '2.0'
stages:
  split:
    cmd: python -m stages split
    deps:
    - path: data/rad/metadata.json
      hash: md5
      md5: 0123456789abcdef0123456789abcdef
      size: 12345
    params:
      params.yaml:
        seed: 0
        split:
          fold: 0
          near_duplicate_bits:
    outs:
    - path: data/split.json
      hash: md5
      md5: fedcba9876543210fedcba9876543210
      size: 543
  train@member-00:
    cmd: python -m stages train member-00
    deps:
    - path: data/rad
      hash: md5
      md5: 00112233445566778899aabbccddeeff.dir
      size: 6789
      nfiles: 3
    outs:
    - path: models/members/member-00
      hash: md5
      md5: ffeeddccbbaa99887766554433221100.dir
      size: 9876
      nfiles: 4
"""
HALF_LOCK = LOCK[: LOCK.index("md5: fedc") + len("md5")]  # a key without a value
OBJECTS = Path(".dvc/cache/files/md5")
RUN = Path(".dvc/cache/runs/ab/ab01/cd01")
RUNNING = Path(".dvc/tmp/rwlock")
LONG_AGO, FAR_AHEAD = 1_000_000_000, 4_000_000_000  # seconds since the epoch
HALF_COPIES = [
    OBJECTS / "00/.AbCdEfGhIjKlMnOpQr-_12.tmp",
    Path("models/members/member-00/.0123456789012345678901.tmp"),
    Path("metrics/.abcdefghijklmnopqrstuv.tmp"),
]
SLEEP = "import time; time.sleep(3600)"


def write(path: str | Path, content: bytes | str) -> Path:
    """Write a file, also over one that is read-only."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def write_object(content: bytes, suffix: str = "") -> Path:
    """Write an object of DVC's cache, read-only as DVC does."""
    digest = hashlib.md5(content).hexdigest()
    path = write(OBJECTS / digest[:2] / (digest[2:] + suffix), content)
    path.chmod(0o444)
    return path


def git(*words: str) -> None:
    identity = ["-c", "user.name=Tester", "-c", "user.email=tester@example.org"]
    subprocess.run(["git", *identity, *words], check=True, capture_output=True)


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Path:
    """The current folder: files as DVC keeps them, in a Git repository that lacks data/dvc.lock."""
    folder = tmp_path / "clone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    write(".dvc/config", "")
    write("params.yaml", "data: {source: data/raw}\n")
    write("dvc.lock", LOCK)
    git("init", "-q")
    git("add", "dvc.lock")
    git("commit", "-q", "-m", "Run")
    write("data/dvc.lock", LOCK)
    write("data/raw/yes/image.png", "an image")
    write("models/weights.json", "{}")
    write(RUNNING, '{"write": {}, "read": {}}')
    write(RUN, "cmd: python -m stages split\n")
    os.utime(RUN, (LONG_AGO, LONG_AGO))
    write_object(b"whole")
    write_object(b"[]", ".dir")
    return folder


def run_repair(capsys: pytest.CaptureFixture) -> list[str]:
    """Repair the current folder; return the lines printed."""
    repair.main()
    return capsys.readouterr().out.splitlines()


def state_of(folder: Path) -> dict[Path, tuple[bytes, int]]:
    """Return the content and the time of modification of each file."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_nothing_is_changed_where_nothing_is_broken(clone, capsys):
    before = state_of(clone)
    assert run_repair(capsys) == ["nothing to repair"]
    assert state_of(clone) == before


# A command that died, whose number another process has now
REUSED_PID = '{"write": {"data/split.json": {"pid": 1, "cmd": "dvc repro"}}, "read": {}}'


def break_object(content: bytes, suffix: str = "") -> Path:
    path = write_object(b"damaged", suffix)
    write(path, content).chmod(0o444)
    return path


def break_run() -> Path:
    write(RUN, "cmd: [")
    os.utime(RUN, (LONG_AGO, LONG_AGO))
    return RUN


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda: write("dvc.lock", HALF_LOCK), "{} was half written: restored from Git"),
        (lambda: write("dvc.lock", ""), "{} was half written: restored from Git"),
        (lambda: write("dvc.lock", b"stages: \xff"), "{} was half written: restored from Git"),
        (
            lambda: write("data/dvc.lock", HALF_LOCK),
            "{} was half written and is not in Git: removed",
        ),
        (lambda: write(RUNNING, '{"write": {'), "{}, left by a command that was killed: removed"),
        (lambda: write(RUNNING, REUSED_PID), "{}, left by a command that was killed: removed"),
        (lambda: write(RUNNING, ""), "{}, left by a command that was killed: removed"),
        (lambda: write(".git/index.lock", ""), "{}, left by a command that was killed: removed"),
        (lambda: write(".git/HEAD.lock", ""), "{}, left by a command that was killed: removed"),
        (lambda: break_object(b"dama"), "{}, an object of DVC's cache, was damaged: removed"),
        (lambda: break_object(b"damaged!"), "{}, an object of DVC's cache, was damaged: removed"),
        (lambda: break_object(b""), "{}, an object of DVC's cache, was damaged: removed"),
        (lambda: break_object(b"[", ".dir"), "{}, an object of DVC's cache, was damaged: removed"),
        (break_run, "{}, an entry of DVC's run cache, was damaged: removed"),
        (lambda: write(HALF_COPIES[0], "ha"), "{}, a copy that was not finished: removed"),
        (lambda: write(HALF_COPIES[1], "ha"), "{}, a copy that was not finished: removed"),
        (lambda: write(HALF_COPIES[2], "ha"), "{}, a copy that was not finished: removed"),
    ],
)
def test_each_kind_of_damage_is_repaired_and_reported(clone, capsys, damage, line):
    before = state_of(clone)
    path = damage()
    assert run_repair(capsys) == [line.format(path), "1 repair(s); run `dvc repro`"]
    after = state_of(clone)
    if "restored" in line:
        assert path.read_text() == LOCK
    else:
        assert not path.exists()
    for file in before.keys() - {clone / path}:
        assert after[file] == before[file]
    assert run_repair(capsys) == ["nothing to repair"]


def is_readable(path: Path) -> bool:
    """Return whether DVC can read a lock file."""
    try:
        COMPILED_LOCKFILE_SCHEMA(load_yaml(path))
    except (ParseError, Invalid):
        return False
    return True


def test_lock_files_that_dvc_cannot_read_are_restored(clone):
    """Wherever the writing ended; a part that is YAML may still lack what DVC needs."""
    path = Path("dvc.lock")
    restored = 0
    for length in range(0, len(LOCK), 5):
        write(path, LOCK[:length])
        if is_readable(path):
            assert restore_dvc_locks() == [], LOCK[:length]
        else:
            restored += 1
            assert restore_dvc_locks() == ["dvc.lock was half written: restored from Git"]
            assert path.read_text() == LOCK
    assert restored > 20


@contextmanager
def running(folder: Path, *words: str) -> Iterator[None]:
    """Let a command with these words run in a folder."""
    process = subprocess.Popen([sys.executable, "-c", SLEEP, *words], cwd=folder)
    try:
        assert wait_for(lambda: words[-1] in Path(f"/proc/{process.pid}/cmdline").read_text())
        yield
    finally:
        process.kill()
        process.wait()


def test_files_of_a_running_command_are_left_alone(clone, capsys):
    """A new entry of the run cache too may be one that is being written."""
    write("dvc.lock", HALF_LOCK)
    write(RUNNING, "{")
    write(".git/index.lock", "")
    write(HALF_COPIES[0], "ha")
    write(RUN, "cmd: [")
    os.utime(RUN, (FAR_AHEAD, FAR_AHEAD))  # new, however slow this machine is
    damaged = break_object(b"dama")
    before = state_of(clone)
    with running(clone, "/somewhere/bin/dvc", "repro"):
        lines = run_repair(capsys)
        after = state_of(clone)
    assert before.keys() - after.keys() == {clone / damaged}
    assert all(after[file] == before[file] for file in after)
    assert lines[0].startswith("dvc.lock can't be read, but a command works here (PID ")
    assert "dvc repro): unchanged" in lines[0]
    os.utime(RUN, (LONG_AGO, LONG_AGO))
    assert run_repair(capsys)[-1] == "5 repair(s); run `dvc repro`"
    assert Path("dvc.lock").read_text() == LOCK


def test_new_copies_in_a_shared_cache_are_left_alone(clone, tmp_path, capsys):
    """A command of another clone may be writing them."""
    write(".dvc/config", f"[cache]\n    dir = {tmp_path / 'shared'}\n")
    copy = tmp_path / "shared/files/md5/00/.AbCdEfGhIjKlMnOpQr-_12.tmp"
    write(copy, "ha")
    assert run_repair(capsys) == ["nothing to repair"]
    os.utime(copy, (LONG_AGO, LONG_AGO))
    assert len(run_repair(capsys)) == 2
    assert not copy.exists()


def test_commands_elsewhere_and_other_programs_do_not_count(clone, tmp_path):
    assert other_command() is None
    with running(tmp_path, "dvc", "repro"):
        assert other_command() is None
    with running(clone, "vim", "dvc.yaml"):
        assert other_command() is None
    with running(clone, "git", "commit"):
        assert "git commit" in other_command()


def link_to_nowhere(path: Path) -> None:
    path.symlink_to("nowhere")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


LATIN_NAME = os.fsdecode(b"latin-\xe9.png")


@pytest.mark.parametrize(
    ("make", "name", "reason"),
    [
        (link_to_nowhere, "link.png", "a symbolic link to nowhere"),
        (link_to_itself, "link.png", "Too many levels of symbolic links"),
        (os.mkfifo, "pipe.png", "not a regular file"),
        (Path.touch, LATIN_NAME, "its name is not UTF-8"),
        (Path.mkdir, LATIN_NAME, "its name is not UTF-8"),
    ],
)
def test_unreadable_files_are_named(clone, make: Callable[[Path], None], name, reason):
    assert unreadable_files("data/raw") == []
    make(Path("data/raw/yes") / name)
    assert unreadable_files("data/raw") == [f"{f'data/raw/yes/{name}'!r}: {reason}"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_files_without_permission_are_named(clone):
    Path("data/raw/yes/image.png").chmod(0)
    reason = "no permission to read it"
    assert unreadable_files("data/raw") == [f"'data/raw/yes/image.png': {reason}"]


def test_unreadable_files_end_the_repair_with_status_1(clone):
    """Each is in a line of its own; repairs are done nevertheless."""
    link_to_nowhere(Path("data/raw/yes/gone.png"))
    Path("data/raw/yes", LATIN_NAME).touch()
    write("dvc.lock", HALF_LOCK)
    result = subprocess.run(
        [sys.executable, "-m", "brainmri.repair"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert result.returncode == 1
    assert result.stdout.splitlines() == [
        "dvc.lock was half written: restored from Git",
        "'data/raw/yes/gone.png': a symbolic link to nowhere",
        "'data/raw/yes/latin-\\udce9.png': its name is not UTF-8",
    ]
    assert result.stderr.splitlines() == [
        "error: data.source: DVC can't read 2 file(s) of 'data/raw', named above; remove, rename or"
        " replace them"
    ]


def test_parameters_that_are_missing_are_reported(clone):
    Path("params.yaml").unlink()
    with pytest.raises(UserError, match=r"params\.yaml is missing"):
        repair.main()


@pytest.mark.parametrize("data", ["data/raw", None, {"source": 2024}], ids=str)
def test_mistakes_in_parameters_are_left_to_the_stages(clone, capsys, data):
    Path("params.yaml").write_text(yaml.safe_dump({"data": data}))
    assert run_repair(capsys) == ["nothing to repair"]


def test_repro_ends_well_after_repair(done):
    entries, weights = done.locked_stages, done.read("models/weights.json")
    md5 = entries["weigh"]["outs"][0]["md5"]
    damaged = done.path / OBJECTS / md5[:2] / md5[2:]
    write(damaged, weights[:10]).chmod(0o444)
    (done.path / "models/weights.json").unlink()
    lock = done.read("dvc.lock")
    write(done.path / "dvc.lock", lock[: lock.rindex("md5") + len("md5")])
    write(done.path / RUNNING, '{"write": {')
    write(done.path / HALF_COPIES[1], "ha")

    assert "Traceback" not in done.run("dvc", "repro", ok=False)
    assert "4 repair(s); run `dvc repro`" in done.run("python", "-m", "brainmri.repair")
    done.run("dvc", "repro")
    assert done.locked_stages == entries
    assert done.read("models/weights.json") == weights
    assert "up to date" in done.run("dvc", "status")
    assert done.run("python", "-m", "brainmri.repair").stdout == "nothing to repair\n"
