"""What a stage depends on, as dvc.yaml lists it, and whether it changed while the stage ran.

DVC records dependencies and parameters as they are after a stage's command (treeverse/dvc issue
11058). A stage that read something else must therefore end with an error, so that nothing is
recorded.
"""

import functools
import hashlib
import os
import re
from pathlib import Path

import yaml

from brainmri.common.errors import UserError
from brainmri.common.params import read_params
from brainmri.common.paths import PARAMS, PIPELINES

FileState = tuple[int, int, int] | None
# Names that no stage reads: of hidden files, as unfinished ones are, of backups of code by editors,
# and of compiled code
NOT_DEPENDENCY = re.compile(r"\..*|.*\.py~|__pycache__", re.DOTALL)


def stage_dependencies(stage: str, params: dict) -> tuple[list[Path], dict[str, object]]:
    """Look up what a stage depends on.

    Parameters
    ----------
    stage : str
        Name as DVC prints it, such as "ingest", "data/dvc.yaml:phantom" or "train@member-00".
    params : dict
        Content of params.yaml.

    Returns
    -------
    paths : list of Path
        Files and folders.
    values : dict
        Parameters by name, such as "split.fold".

    Raises
    ------
    UserError
        If params.yaml lacks a parameter that the stage depends on.
    """
    name, _, key = stage.rpartition(":")[2].partition("@")
    definition, variables = _definitions()[name], dict(params)
    if key:
        definition = definition["do"]
        variables |= {"key": key, "item": lookup(params, f"ensemble.{key}")}

    def fill(template: str) -> str:
        return re.sub(r"\$\{([^}]+)\}", lambda match: str(lookup(variables, match[1])), template)

    paths = [Path(fill(path)) for path in definition.get("deps", [])]
    names = [fill(name) for name in definition.get("params", [])]
    return paths, {name: lookup(params, name) for name in names}


@functools.cache
def _definitions() -> dict[str, dict]:
    """Read the stages of all dvc.yaml files, by name; once, for all members."""
    definitions = {}
    for file in PIPELINES:
        definitions |= yaml.safe_load(file.read_text("utf-8"))["stages"]
    return definitions


class StageInputs:
    """A snapshot of a stage's inputs, to be compared with their state later.

    Files are compared by inode, size and time of modification, parameters by value. Hidden files
    and backups of editors do not count.

    Parameters
    ----------
    stage : str
        See `stage_dependencies`.
    params : dict, optional
        Content of params.yaml, read here if it is not given.

    Raises
    ------
    UserError
        If params.yaml is missing, is not YAML, or lacks a parameter that the stage depends on.
    """

    def __init__(self, stage: str, params: dict | None = None):
        self._stage = stage
        self._paths, self._values = stage_dependencies(stage, params or read_params())
        self._files = self._file_states()

    def check(self) -> None:
        """Check that no file and no parameter has changed.

        Raises
        ------
        UserError
            Naming the first one that has.
        """
        self.check_files()
        try:
            _, values = stage_dependencies(self._stage, read_params())
        except (UserError, KeyError):
            raise self._error(str(PARAMS)) from None
        for name, value in self._values.items():
            if values.get(name) != value:
                raise self._error(f"{PARAMS}: {first_difference(name, value, values.get(name))}")

    def check_files(self) -> None:
        """Check that no file has changed.

        Raises
        ------
        UserError
            Naming the first one that has.
        """
        states = self._file_states()
        for path in sorted(self._files.keys() | states.keys()):
            if self._files.get(path) != states.get(path):
                raise self._error(repr(path))

    def _file_states(self) -> dict[str, FileState]:
        states = {}
        for path in self._paths:
            if not path.is_dir():
                states[str(path)] = _state(path)
            for folder, folders, names in os.walk(path):
                folders[:] = [name for name in folders if not NOT_DEPENDENCY.fullmatch(name)]
                for name in names:
                    if not NOT_DEPENDENCY.fullmatch(name):
                        # A Path for each of many files is slow.
                        file = os.path.join(folder, name)  # noqa: PTH118
                        states[file] = _state(file)
        return states

    def _error(self, changed: str) -> UserError:
        return UserError(
            f"{changed} changed while {self._stage} ran; nothing is recorded: run `dvc repro` again"
        )


def hash_path(path: Path) -> str:
    """Compute the SHA-256 of a file, or of a folder's files with their names.

    Hidden files and backups of editors do not count.

    Raises
    ------
    UserError
        If it is missing.
    """
    if path.is_dir():
        files = sorted(
            file
            for file in path.rglob("*")
            if file.is_file()
            and not any(map(NOT_DEPENDENCY.fullmatch, file.relative_to(path).parts))
        )
        listing = "".join(f"{file}\0{hash_path(file)}\n" for file in files)
        return hashlib.sha256(listing.encode()).hexdigest()
    if not path.is_file():
        raise UserError(f"{path} is missing; run `dvc repro` to make it")
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _state(path: str | Path) -> FileState:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def first_difference(name: str, before: object, after: object) -> str:
    """Return the dotted name of the first value that differs in two blocks of parameters."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *after]:
            if before.get(key) != after.get(key):
                return first_difference(f"{name}.{key}", before.get(key), after.get(key))
    return name


def lookup(values: dict, name: str) -> object:
    """Return the value at a dotted name."""
    value = values
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            raise UserError(f"{PARAMS}: {name} is missing")
        value = value[part]
    return value
