"""Check that an experiment in a folder of its own, queued or run with `--temp`, has its files
there.

DVC makes that folder from what Git knows, staged or committed, and from what DVC itself tracks.
"""

import functools
import os
import subprocess
import sys
from pathlib import Path

from brainmri.common.errors import UserError
from brainmri.common.file_names import is_hidden
from brainmri.common.params import normalize_path


def copied_paths(arguments: list[str]) -> list[str] | None:
    """Return the paths after `--copy-paths`; None if these arguments run no experiment in its own
    folder.
    """
    if not {"exp", "experiments"} & {*arguments}:
        return None
    from dvc.cli import DvcParserError, parse_args

    try:
        options = parse_args(arguments)
    except DvcParserError:  # another program, which uses DVC as a library
        return None
    has_own_folder = getattr(options, "queue", False) or getattr(options, "tmp_dir", False)
    return (options.copy_paths or []) if has_own_folder else None


def check_reachable(name: str, path: str) -> None:
    """Refuse a path that the experiment which this process starts would lack in its own folder.

    Parameters
    ----------
    name : str
        Of the parameter.
    path : str
        Relative to the project's root, which is the current folder, or absolute.

    Raises
    ------
    UserError
        If neither Git nor DVC tracks it, or if it leads out of the project.
    """
    copied = copied_paths(sys.argv[1:])
    if copied is None or Path(path).is_absolute():
        return
    lost = "which a queued experiment or a fold of cross-validation would lack in its own folder"
    if path.startswith(".."):
        raise UserError(
            f"{name}: {path!r} is a relative path out of the project, {lost}; give the absolute"
            f" path: {os.path.realpath(path)}"
        )
    if any(Path(path).is_relative_to(normalize_path(folder)) for folder in copied):
        return
    for tracked, file in tracked_by_dvc().items():
        if Path(path).absolute().is_relative_to(tracked):
            if not git_files("--", file):
                raise UserError(
                    f"{name}: {path!r} is tracked by {file}, {lost}: it is not in Git; run"
                    f" `git add {file}`"
                )
            return
    if links := [part for part in (Path(path), *Path(path).parents) if part.is_symlink()]:
        target = normalize_path(os.path.realpath(path))
        raise UserError(
            f"{name}: {str(links[-1])!r} is a symbolic link, {lost}; give its target: {target}"
        )
    files = git_files("--others", "--", path)
    untracked = [file for file in files if not any(map(is_hidden, Path(file).parts))]
    if untracked:
        raise UserError(
            f"{name}: {untracked[0]!r} is neither in DVC nor in Git, {lost}; run `dvc add {path}`"
            f" and the `git add` that it prints, or add `--copy-paths {path}` to `dvc exp run`"
        )


@functools.cache
def tracked_by_dvc() -> dict[str, str]:
    """Return the absolute paths that DVC tracks, each with its .dvc file or dvc.yaml."""
    from dvc.repo import Repo

    with Repo() as repo:
        outputs = [out for out in repo.index.outs if out.protocol == "local"]
        return {out.fs_path: os.path.relpath(out.stage.path) for out in outputs}


def git_files(*options: str) -> list[str]:
    """Return the files that `git ls-files` lists."""
    listed = subprocess.run(["git", "ls-files", "-z", *options], capture_output=True, check=True)
    return [os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]
