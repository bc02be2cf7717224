"""Recovery from a fault: `dvc repro`, and where DVC refuses, the repair before it."""

import hashlib
from typing import NamedTuple

from tests.faults.processes import processes_of
from tests.faults.reference import (
    ReferenceRun,
    cached_objects,
    check,
    half_copies,
    lock_entries,
)
from tests.support.project import Output, Project

SHOWN = 600  # characters of an output, at its end
MAX_NAMED = 5


class Recovery(NamedTuple):
    """How a project recovered.

    Attributes
    ----------
    output : Output
        Of the `dvc repro` that succeeded.
    needed_repair : bool
        Whether DVC refused to run before `python -m brainmri.repair`.
    """

    output: Output
    needed_repair: bool


def recover(project: Project, reference: ReferenceRun) -> Recovery:
    """Run `dvc repro`, with a repair where DVC refuses; check that the end is the reference's."""
    command = ("dvc", "repro", *reference.targets)
    output, status = project.try_to_run(*command)
    needed_repair = status != 0
    if needed_repair:
        run_repair(project)
        output, status = project.try_to_run(*command)
    check(status == 0, f"dvc repro failed: {output[-SHOWN:]}")
    check_state(project, reference)
    if half_copies(project) and not processes_of(project):
        run_repair(project)
        check(not half_copies(project), "the repair does not remove copies that are not finished")
        check_state(project, reference)
    return Recovery(output, needed_repair)


def run_repair(project: Project) -> Output:
    output, status = project.try_to_run("python", "-m", "brainmri.repair")
    check(status == 0, f"the repair failed: {output[-SHOWN:]}")
    return output


def check_state(project: Project, reference: ReferenceRun) -> None:
    """Check that outputs, lock files and cache are as after the reference run."""
    files = reference.files_of(project)
    different = different_keys(files, reference.files)
    check(not different, f"files differ from the reference run: {different}")
    entries = lock_entries(project, reference.stages)
    different = different_keys(entries, lock_entries(reference.final, reference.stages))
    check(not different, f"entries of dvc.lock differ from the reference run: {different}")
    objects = cached_objects(project)
    check(bool(objects), "the cache is empty")
    for file in objects:
        expected = (file.parent.name + file.name).removesuffix(".dir")
        is_whole = hashlib.md5(file.read_bytes()).hexdigest() == expected
        check(is_whole, f"{file.name} in the cache is damaged")
    status = project.run("dvc", "status", *reference.targets)
    check("up to date" in status, "dvc status is not clean")


def different_keys(actual: dict, expected: dict) -> str:
    """Return the first keys whose values differ."""
    keys = sorted(actual.keys() | expected.keys())
    different = [key for key in keys if actual.get(key) != expected.get(key)]
    return ", ".join(different[:MAX_NAMED])
