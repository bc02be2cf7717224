"""Stages depend in dvc.yaml on the modules of the project that they import, and on no others."""

import ast
from pathlib import Path

import pytest
import yaml

from tests.support.checkout import ROOT
from tests.support.imports import imported_files, script_of

STAGES = {
    **yaml.safe_load((ROOT / "data/dvc.yaml").read_text())["stages"],
    **yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"],
}


def has_code(path: str) -> bool:
    """Return whether there is more in a file than its docstring."""
    return len(ast.parse((ROOT / path).read_text()).body) > 1


def files_of(stage: str) -> set[str]:
    """Return the files with code that a stage's command imports."""
    files = imported_files(script_of(stage))
    if stage == "fan-out":  # which runs whenever a member must be trained
        files |= files_of("train")
    return set(filter(has_code, files))


def listed_code(stage: str) -> list[str]:
    """Return the files and folders of code that dvc.yaml lists, in its order."""
    entry = STAGES[stage].get("do", STAGES[stage])
    return [path for path in entry["deps"] if path.startswith(("brainmri", "stages"))]


@pytest.mark.parametrize("stage", STAGES)
def test_code_listed_is_code_imported(stage):
    code, files = listed_code(stage), files_of(stage)
    assert code == sorted(code)
    is_covered = {
        path: [file for file in files if Path(file).is_relative_to(path)] for path in code
    }
    assert all(is_covered.values())
    covered = {file for group in is_covered.values() for file in group}
    assert files - covered == set()


def test_members_depend_on_what_they_import_alone():
    """Another file in a folder that is listed would retrain them when it changes."""
    listed = [ROOT / path for path in listed_code("train")]
    files = [file for path in listed for file in (path.rglob("*.py") if path.is_dir() else [path])]
    names = {str(file.relative_to(ROOT)) for file in files}
    assert set(filter(has_code, names)) == files_of("train")
