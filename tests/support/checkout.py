"""A copy of the project's files."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIST_FILES = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]


def checkout(folder: Path) -> Path:
    """Copy the project's files, as they are now, into a folder, and make it a Git repository."""
    listed = subprocess.run(LIST_FILES, cwd=ROOT, check=True, capture_output=True, text=True)
    for name in listed.stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=folder, check=True)
    return folder
