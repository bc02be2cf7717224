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
    if tracking := tracked_by_dvc(path):
        file, is_modified = tracking
        if not git_files("--", file):
            raise UserError(
                f"{name}: {path!r} is tracked by {file}, {lost}: it is not in Git; run"
                f" `git add {file}`"
            )
        if is_modified:
            raise UserError(
                f"{name}: {path!r} has changed since {file} was written, and an experiment in its"
                f" own folder would get it as it was; run `dvc add {file.removesuffix('.dvc')}`"
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
def tracked_by_dvc(path: str) -> tuple[str, bool] | None:
    """Return the .dvc file or dvc.yaml that tracks a path, and whether what the former tracks has
    changed; None if DVC does not track it.
    """
    from dvc.repo import Repo

    with Repo() as repo:
        for out in repo.index.outs:
            if out.protocol == "local" and Path(path).absolute().is_relative_to(out.fs_path):
                file = os.path.relpath(out.stage.path)
                is_source = file.endswith(".dvc")
                return file, is_source and "modified" in out.workspace_status().values()
    return None


def git_files(*options: str) -> list[str]:
    """Return the files that `git ls-files` lists."""
    listed = subprocess.run(["git", "ls-files", "-z", *options], capture_output=True, check=True)
    return [os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]
