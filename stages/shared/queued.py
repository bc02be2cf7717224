"""Checks that an experiment in a folder of its own finds its files: one that is queued, or runs with `--temp`.

DVC makes that folder from what Git knows of, staged or committed, and from what DVC itself tracks.
"""

import functools
import os
import subprocess
import sys
from pathlib import Path

from stages.shared.errors import UserError
from stages.shared.params import normalize_path
from stages.shared.sources import is_hidden


def copied_paths(arguments: list[str]) -> list[str] | None:
    """The paths that `--copy-paths` names if these are the arguments of an experiment in a folder of its own, else None."""
    if not {"exp", "experiments"} & {*arguments}:
        return None
    from dvc.cli import DvcParserError, parse_args

    try:
        options = parse_args(arguments)
    except DvcParserError:  # another program, which uses DVC as a library
        return None
    elsewhere = getattr(options, "queue", False) or getattr(options, "tmp_dir", False)
    return (options.copy_paths or []) if elsewhere else None


def check_reachable(name: str, path: str) -> None:
    """Refuse a path that the experiment which this process starts would lack, if it runs in a folder of its own.

    Parameters
    ----------
    name : str
        Of the parameter.
    path : str
        Relative to the project's root, which is the current folder, or absolute.

    Raises
    ------
    UserError
        If Git does not know of it and DVC does not track it, or if it leads out of the project.
    """
    copied = copied_paths(sys.argv[1:])
    if copied is None or Path(path).is_absolute():
        return
    lost = "which an experiment that is queued or runs with --temp would lack in its own folder"
    if path.startswith(".."):
        absolute = os.path.realpath(path)
        raise UserError(f"{name}: {path!r} is a relative path out of the project, {lost}; give the absolute path: {absolute}")
    if any(Path(path).is_relative_to(normalize_path(folder)) for folder in copied):
        return
    for tracked, file in tracked_by_dvc().items():
        if Path(path).absolute().is_relative_to(tracked):
            if not git_files("--", file):
                raise UserError(f"{name}: {path!r} is tracked by {file}, {lost}: it is not in Git; run `git add {file}`")
            return
    if links := [place for place in (Path(path), *Path(path).parents) if place.is_symlink()]:
        target = normalize_path(os.path.realpath(path))
        raise UserError(f"{name}: {str(links[-1])!r} is a symbolic link, {lost}; give the path that it leads to: {target}")
    if unknown := [file for file in git_files("--others", "--", path) if not any(map(is_hidden, Path(file).parts))]:
        raise UserError(
            f"{name}: {unknown[0]!r} is neither in DVC nor in Git, {lost}; run `dvc add {path}` and `git add {path}.dvc`, or"
            f" add `--copy-paths {path}` to the command"
        )


@functools.cache
def tracked_by_dvc() -> dict[str, str]:
    """The files and folders that DVC tracks, as absolute paths, each with its .dvc file or dvc.yaml."""
    from dvc.repo import Repo

    with Repo() as repo:
        return {out.fs_path: os.path.relpath(out.stage.path) for out in repo.index.outs if out.protocol == "local"}


def git_files(*options: str) -> list[str]:
    """The files that `git ls-files` lists."""
    done = subprocess.run(["git", "ls-files", "-z", *options], capture_output=True, check=True)
    return [os.fsdecode(name) for name in done.stdout.split(b"\0") if name]
