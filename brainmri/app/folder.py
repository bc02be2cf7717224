"""The folder of the app's temporary files, such as uploads: removed however the app ends."""

import fcntl
import os
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "brainmri-app-"
ATTEMPTS = 100  # to remove a folder into which an upload still goes
SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder that only this user may read, and remove it when the app ends.

    It is removed also by the signals that end the app, but for SIGKILL; after that, the next app
    that starts removes it. An owner holds a lock on its folder, which the system releases when the
    owner is gone.
    """
    remove_stale_folders()
    folder, lock = _make_locked_folder()

    def remove() -> None:
        for _ in range(ATTEMPTS):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break

    def remove_and_exit(number: int, _frame: object) -> None:
        remove()
        # At once: the page's threads would go on meanwhile, and write into a new folder
        os._exit(128 + number)

    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, remove_and_exit)
    try:
        yield folder
    finally:
        remove()
        os.close(lock)


def remove_stale_folders() -> None:
    """Remove the folders of this user's apps that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # gone meanwhile, another user's, or in use
            details = folder.lstat()
            if stat.S_ISDIR(details.st_mode) and details.st_uid == os.geteuid():
                lock = _lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)
                print("removed what an app that was killed has left", file=sys.stderr)


def _make_locked_folder() -> tuple[Path, int]:
    """Make a folder and lock it; return it and the lock's file descriptor."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        lock = _lock(folder, fcntl.LOCK_EX)
        if folder.exists():  # else another app took it for a stale one, before it was locked
            return folder, lock
        os.close(lock)


def _lock(folder: Path, how: int) -> int:
    """Lock a folder; return the file descriptor that holds the lock."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, how)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
