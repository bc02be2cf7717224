"""What a stage depends on, as dvc.yaml lists it, and whether it changed while the stage ran.

DVC records dependencies and parameters as they are after a stage's command (treeverse/dvc issue 11058). A stage that read
something else must therefore end with an error, so that nothing is recorded.
"""

import functools
import os
import re
from pathlib import Path

import yaml

from stages.shared.errors import UserError
from stages.shared.params import PATH, read_params

DEFINITIONS = ("data/dvc.yaml", "dvc.yaml")
FileState = tuple[int, int, int] | None


def dependencies(stage: str, params: dict) -> tuple[list[Path], dict[str, object]]:
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
        variables |= {"key": key, "item": look_up(params, f"ensemble.{key}")}

    def fill(template: str) -> str:
        return re.sub(r"\$\{([^}]+)\}", lambda match: str(look_up(variables, match[1])), template)

    paths = [Path(fill(path)) for path in definition.get("deps", [])]
    names = [fill(param) for param in definition.get("params", [])]
    return paths, {name: look_up(params, name) for name in names}


@functools.cache
def _definitions() -> dict[str, dict]:
    """The stages of all files, by name; read once, since a stage may ask for each of many members."""
    definitions = {}
    for file in DEFINITIONS:
        definitions |= yaml.safe_load(Path(file).read_text("utf-8"))["stages"]
    return definitions


class Inputs:
    """The state of a stage's inputs at one moment.

    Files are compared by inode, size and time of modification, parameters by value. Dotfiles do not count.

    Parameters
    ----------
    stage : str
        See `dependencies`.

    Raises
    ------
    UserError
        If params.yaml is missing, is no YAML, or lacks a parameter that the stage depends on.
    """

    def __init__(self, stage: str):
        self._stage = stage
        self._paths, self._values = dependencies(stage, read_params())
        self._files = self._file_states()

    def check(self) -> None:
        """Check that the inputs are as they were.

        Raises
        ------
        UserError
            Naming the first file or parameter that changed.
        """
        self.check_files()
        try:
            values = dependencies(self._stage, read_params())[1]
        except (UserError, KeyError):
            raise self._error(str(PATH)) from None
        for name, value in self._values.items():
            if values.get(name) != value:
                raise self._error(f"{PATH}: {first_difference(name, value, values.get(name))}")

    def check_files(self) -> None:
        """Check that the files are as they were, whatever the parameters are.

        Raises
        ------
        UserError
            Naming the first file that changed.
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
                folders[:] = [name for name in folders if not name.startswith(".")]
                for name in names:
                    if not name.startswith("."):
                        file = os.path.join(folder, name)  # noqa: PTH118, a Path for each of many files is slow
                        states[file] = _state(file)
        return states

    def _error(self, what: str) -> UserError:
        return UserError(f"{what} changed while {self._stage} ran; nothing is recorded: run `dvc repro` again")


def _state(path: str | Path) -> FileState:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def first_difference(name: str, before: object, after: object) -> str:
    """Name the first value that differs in two blocks of parameters."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *after]:
            if before.get(key) != after.get(key):
                return first_difference(f"{name}.{key}", before.get(key), after.get(key))
    return name


def look_up(values: dict, name: str) -> object:
    """The value at a dotted name."""
    value = values
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            raise UserError(f"{PATH}: {name} is missing")
        value = value[part]
    return value
