"""dvc.lock, and the lock files by which commands exclude each other."""

import json
import subprocess
from pathlib import Path

from brainmri.common.files import write_bytes
from brainmri.common.paths import LOCK_FILES
from brainmri.repair.running import other_command

RUNNING = Path(".dvc/tmp/rwlock")  # DVC's list of running commands
GIT_LOCKS = ("index.lock", "HEAD.lock", "config.lock")


def restore_dvc_locks() -> list[str]:
    """Restore a half-written dvc.lock from Git; return a line for each."""
    lines = []
    for path in LOCK_FILES:
        if not path.exists() or _is_dvc_lock(path):
            continue
        if command := other_command():
            print(f"{path} can't be read, but a command works here ({command}): unchanged")
            continue
        committed = subprocess.run(["git", "show", f"HEAD:./{path}"], capture_output=True)
        if committed.returncode == 0:
            write_bytes(path, committed.stdout)
            lines.append(f"{path} was half written: restored from Git")
        else:
            path.unlink()
            lines.append(f"{path} was half written and is not in Git: removed")
    return lines


def remove_stale_locks() -> list[str]:
    """Remove lock files that a dead process has left; return a line for each."""
    git_folder = Path(_git("rev-parse", "--git-dir") or ".git")
    stale = [git_folder / name for name in GIT_LOCKS if (git_folder / name).exists()]
    if RUNNING.exists() and not _is_empty(RUNNING):
        stale.append(RUNNING)
    if not stale or other_command():
        return []
    for path in stale:
        path.unlink(missing_ok=True)
    return [f"{path}, left by a command that was killed: removed" for path in stale]


def _is_dvc_lock(path: Path) -> bool:
    """Return whether DVC can read the file; what is valid YAML may lack what it needs."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA  # takes a second
    from dvc.utils.serialize import ParseError, load_yaml
    from voluptuous import Invalid

    try:
        COMPILED_LOCKFILE_SCHEMA(load_yaml(path))
    except (ParseError, Invalid):
        return False
    return True


def _is_empty(path: Path) -> bool:
    """Return whether DVC's list names no command; a process may have the PID of one that died."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return False
    return isinstance(content, dict) and not any(content.values())


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True).stdout.strip()
