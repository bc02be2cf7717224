"""Commands that work in this clone."""

from pathlib import Path

import psutil

PROGRAMS = ("dvc", "git")


def other_command() -> str | None:
    """Return a running command of DVC's or Git's in this clone, besides this process and those
    above it.
    """
    me = psutil.Process()
    own = {me.pid, *(parent.pid for parent in me.parents())}
    root = Path.cwd()
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if process.pid in own or process.status() == psutil.STATUS_ZOMBIE:
                continue
            is_ours = Path(process.cwd()).is_relative_to(root)
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue
        if is_ours and any(Path(word).name in PROGRAMS for word in words):
            return f"PID {process.pid}: {' '.join(words)}"
    return None
