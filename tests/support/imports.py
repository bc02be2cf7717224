"""The project's files that a stage's script imports."""

import ast
from pathlib import Path

from tests.support.checkout import ROOT


def script_of(stage: str) -> str:
    """Return the path of a stage's script, relative to the project's root."""
    return f"stages/{stage.replace('-', '_')}.py"


def imported_files(path: str) -> set[str]:
    """Return the project's files that Python reads when it imports this one, with the file itself.

    Paths are relative to the project's root. Imports inside functions count.
    """
    files = {path}
    waiting = [path]
    while waiting:
        for name in imported_names(waiting.pop()):
            new = [file for file in files_of_module(name) if file not in files]
            files.update(new)
            waiting += new
    return files


def imported_names(path: str) -> list[str]:
    """Return the dotted names that a file imports; some may be of functions in a module."""
    names = []
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def files_of_module(name: str) -> list[str]:
    """Return the project's files of a module and of the packages that it is in."""
    parts = name.split(".")
    files = []
    for depth in range(1, len(parts) + 1):
        base = Path(*parts[:depth])
        candidates = (base / "__init__.py", base.with_suffix(".py"))
        files += [file.as_posix() for file in candidates if (ROOT / file).is_file()]
    return files
