"""Faults in the real pipeline. Each function causes one, and checks that the project recovers.

They take the reference run, a folder of their own and the case, and return whether DVC needed the
repair.
"""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.faults.processes import check_no_process, no_process_remains, processes_of
from tests.faults.recovery import SHOWN, check_state, recover, run_repair
from tests.faults.reference import (
    NotRecovered,
    ReferenceRun,
    cached_objects,
    check,
    start_repro,
    started_stages,
)
from tests.support.disk import fill, small_disk
from tests.support.project import Project
from tests.support.waiting import LIMIT_S, wait_for

PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
# How DVC reports that another command runs
BUSY = ("Unable to acquire lock", "is busy, it is being blocked by")
# How it reports a full disk; the last is of any failure to put a file in its place
FULL_DISK = (
    "No space left on device",
    "database or disk is full",
    "disk I/O error",
    "unable to open database file",
    "No possible cache link types",
)
FAILING_MEMBER = """
import multiprocessing.process as processes
run = processes.BaseProcess.run
def fail(*arguments):
    raise RuntimeError("an injected error")
def run_or_fail(process):
    if process.name == "train@member-01":
        from brainmri.training import member
        member.train_member = fail
    run(process)
processes.BaseProcess.run = run_or_fail
"""
FOLDERS_OF_CACHED_FILES = ("data/rad", "data/bootstrap", "models")


def wait_for_stage(process: subprocess.Popen, stage: str) -> None:
    """Wait until a run has started a stage."""
    if stage not in started_stages(process):
        raise NotRecovered(f"the run ended before {stage}")


def kill_all(reference: ReferenceRun, folder: Path, stage: str, seed: int) -> bool:
    """Send SIGKILL to the whole process group at a random moment of a stage."""
    project = reference.copy_before(stage, folder)
    delay = random.Random(f"{stage} {seed}").uniform(0, reference.durations[stage])
    with no_process_remains(project):
        process = start_repro(project)
        wait_for_stage(process, stage)
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        check_no_process(project)
    return recover(project, reference).needed_repair


def stop(reference: ReferenceRun, folder: Path, stage: str, how: signal.Signals) -> bool:
    """Press Ctrl-C, which a terminal sends to the whole group, or send a signal to DVC alone."""
    delay = reference.durations[stage]
    # Where the machine has become faster, the run may end before it is stopped.
    for attempt in range(6):
        delay /= 2
        project = reference.copy_before(stage, folder / str(attempt))
        with no_process_remains(project):
            process = start_repro(project)
            wait_for_stage(process, stage)
            time.sleep(delay)
            status = end_by_signal(process, how, project)
        if status != 0:
            return recover(project, reference).needed_repair
    raise NotRecovered("the run that was stopped ended as if it had not been")


def end_by_signal(process: subprocess.Popen, how: signal.Signals, project: Project) -> int:
    """Send a signal as `stop` does; check that no process remains; return the run's status."""
    if how == signal.SIGINT:
        os.killpg(process.pid, how)
    else:
        process.send_signal(how)
    check_no_process(project)
    return process.wait()


def kill_member(reference: ReferenceRun, folder: Path) -> bool:
    """Send SIGKILL to one member's process while it trains."""
    project = reference.copy_before("fan-out", folder)
    with no_process_remains(project):
        process = start_repro(project)
        os.kill(process_of_member(project, "member-01"), signal.SIGKILL)
        output, _ = process.communicate(timeout=LIMIT_S)
    return recover_one_member(process.returncode, output, project, reference)


def process_of_member(project: Project, name: str) -> int:
    """Wait until a member trains; return the PID of its process."""
    log = project.path / f".dvc/tmp/fan-out/{name}.log"
    pids: list[int] = []

    def is_training() -> bool:
        for pid in processes_of(project):
            with suppress(OSError):  # it has ended meanwhile
                if Path(f"/proc/{pid}/fd/1").readlink() == log:
                    pids.append(pid)
        return bool(pids)

    check(wait_for(is_training), f"{name} did not start")
    return pids[0]


def interrupt_in_turn(reference: ReferenceRun, folder: Path) -> bool:
    """Press Ctrl-C while members train; kill DVC alone in the next run, a member in the third."""
    project = reference.copy_before("fan-out", folder)
    with no_process_remains(project):
        for how in (signal.SIGINT, signal.SIGKILL):
            process = start_repro(project)
            process_of_member(project, "member-01")
            status = end_by_signal(process, how, project)
            check(status != 0, "the run that was stopped ended as if it had not been")
        process = start_repro(project)
        os.kill(process_of_member(project, "member-01"), signal.SIGKILL)
        output, _ = process.communicate(timeout=LIMIT_S)
    return recover_one_member(process.returncode, output, project, reference)


def fail_member(reference: ReferenceRun, folder: Path) -> bool:
    """Raise an error inside one member's process."""
    project = reference.copy_before("fan-out", folder)
    injected = folder / "injected"
    injected.mkdir()
    (injected / "sitecustomize.py").write_text(FAILING_MEMBER)
    output, status = project.try_to_run("dvc", "repro", PYTHONPATH=str(injected))
    check("an injected error" in output.stdout, f"the error is not printed: {output[-SHOWN:]}")
    return recover_one_member(status, output, project, reference)


def recover_one_member(status: int, output: str, project: Project, reference: ReferenceRun) -> bool:
    """Check that the failed member is named, and that the next run trains no other."""
    is_named = status != 0 and "member-01 failed" in output
    check(is_named, f"the member that failed is not named: {output[-SHOWN:]}")
    recovery = recover(project, reference)
    trains_one = "1 of 3 members to train" in recovery.output
    check(trains_one, "more members than the failed one were trained again")
    return recovery.needed_repair


def fill_disk(reference: ReferenceRun, folder: Path, stage: str, left: int) -> bool:
    """Let the disk have so many KiB left when a stage starts, and room again afterwards."""
    disk = folder / "disk"
    with small_disk(disk, "256m"):
        project = reference.copy_before(stage, disk)
        (disk / "home").mkdir(exist_ok=True)
        filler = disk / "filler"
        fill(filler, left)
        output, status = project.try_to_run("dvc", "repro")
        check(status != 0, f"there was room with {left} KiB")
        is_reported = any(words in output for words in FULL_DISK)
        check(is_reported, f"a full disk is not reported: {output[-SHOWN:]}")
        check("Traceback" not in output, f"a traceback is printed: {output[-SHOWN:]}")
        filler.unlink()
        return recover(project, reference).needed_repair


def run_twice(reference: ReferenceRun, folder: Path, stage: str) -> bool:
    """Run two `dvc repro` in one clone, from a stage on."""
    project = reference.copy_before(stage, folder)
    command = ["dvc", "repro", *reference.targets]
    runs = [
        subprocess.Popen(command, cwd=project.path, env=project.environment, **PIPES)
        for _ in range(2)
    ]
    for run in runs:
        output, errors = run.communicate(timeout=LIMIT_S)
        is_clear = run.returncode == 0 or any(words in errors for words in BUSY)
        check(is_clear, f"it does not say why it can't go on: {errors[-SHOWN:]}")
        has_traceback = "Traceback" in output + errors
        check(not has_traceback, f"a traceback is printed: {(output + errors)[-SHOWN:]}")
    return recover(project, reference).needed_repair


def run_beside_queue(reference: ReferenceRun, folder: Path) -> bool:
    """Queue two experiments, start two workers, and run `dvc repro` beside them."""
    project = reference.copy_before("ingest", folder)
    project.run("git", "add", "-A")
    project.run("git", "commit", "-q", "--allow-empty", "-m", "Before")
    for seed in (5, 6):
        project.run("dvc", "exp", "run", "--queue", "--name", f"seed-{seed}", "-S", f"seed={seed}")
    project.run("git", "checkout", "-q", "--", ".")

    def queue_is_empty() -> bool:
        status = project.run("dvc", "queue", "status")
        return "Queued" not in status and "Running" not in status

    with no_process_remains(project):
        project.run("dvc", "queue", "start", "--jobs", "2")
        recovery = recover(project, reference)
        check("Running stage" in recovery.output, "dvc repro had nothing to do beside the queue")
        check(wait_for(queue_is_empty), "the queue hangs")
        status = project.run("dvc", "queue", "status")
        check(status.count("Success") == 2, f"experiments failed: {status}")
        check_state(project, reference)
        project.run("dvc", "queue", "stop", "--kill")
    return recovery.needed_repair


def remove(file: Path) -> None:
    file.unlink()


def truncate(file: Path) -> None:
    """Cut the second half off."""
    content = file.read_bytes()
    overwrite(file, content[: len(content) // 2])


def flip_bit(file: Path) -> None:
    """Change one bit in the middle; an empty file gets a byte."""
    content = bytearray(file.read_bytes() or b"\0")
    content[len(content) // 2] ^= 1
    overwrite(file, bytes(content))


def overwrite(file: Path, content: bytes) -> None:
    """Write over a file, which may be read-only, and stays so."""
    mode = file.stat().st_mode
    file.chmod(0o644)
    file.write_bytes(content)
    file.chmod(mode)


def damage_cache(
    reference: ReferenceRun, folder: Path, damage: Callable[[Path], None], number: int
) -> bool:
    """Damage an object of DVC's cache, and remove the workspace's copies.

    DVC notices that an object is missing. It trusts one whose content is damaged, so the repair
    has to find it.
    """
    project = reference.final.copy(folder)
    file = cached_objects(project)[number]
    damage(file)
    for name in FOLDERS_OF_CACHED_FILES:
        shutil.rmtree(project.path / name)
    is_damaged = file.exists()
    if is_damaged:
        check(file.name in run_repair(project), f"the repair does not report {file.name}")
    return recover(project, reference).needed_repair or is_damaged


def lose_cache(reference: ReferenceRun, folder: Path) -> bool:
    """Remove DVC's cache and all that it has copies of; dvc.lock stays."""
    project = reference.final.copy(folder)
    for name in (".dvc/cache", "data/phantom", *FOLDERS_OF_CACHED_FILES):
        shutil.rmtree(project.path / name)
    return recover(project, reference).needed_repair


def damage_workspace(
    reference: ReferenceRun, folder: Path, damage: Callable[[Path], None], number: int
) -> bool:
    """Damage a file that the pipeline made."""
    project = reference.final.copy(folder)
    damage(project.path / list(reference.files)[number])
    return recover(project, reference).needed_repair
