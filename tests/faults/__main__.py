"""Tries every fault, and writes docs/reliability.md: what was tried, what was survived.

make faults           (or some kinds, whose rows are replaced: python -m tests.faults "disk full" member)
"""

import sys
import tempfile
import time
from pathlib import Path

from stages.shared.files import write_bytes
from tests.faults.faults import Lost, Undisturbed, cached_in, can_mount, workspace_files
from tests.faults.table import Fault, faults

PAGE = Path("docs/reliability.md")
TEXT = """# Faults tried on the pipeline

`make faults` does these to the real pipeline, with small settings (48 images, 3 members, 2 epochs), and writes this page. After
each fault, plain `dvc repro` has to end well, `dvc status` to be clean, every file of DVC's cache to hold what its name says,
and every file of `data`, `models`, `metrics`, `plots` and `dvc.lock` to have the bytes of a run without faults. `make test` tries
a few of each. (What the stages after the fault and after the training gave is in DVC's run cache, from which it is taken where
what they read is the same.) Each row is from the last run of its kind.

| fault | where | tried | survived | lost |
| --- | --- | ---: | ---: | ---: |
{rows}

{lost}

What to do after a fault: run `dvc repro` again. What DVC does otherwise is mended in this project's environment
(`environment/dvc_safeguards.py`): it writes `dvc.lock` and its list of running commands in place, and trusts files of its cache
that are read-only. A `dvc` that was installed elsewhere lacks that. Pixels are compared with their checksums whenever they are
read. Of other files in the workspace, damage without a change of size or time, as by a failing disk, is not noticed.
"""


def main() -> None:
    began = time.monotonic()
    losses: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        undisturbed = Undisturbed(Path(folder)).run()
        files = len(cached_in(undisturbed.whole)), len(workspace_files(undisturbed))
        all_faults = faults([*undisturbed.seconds], *files)
        wanted = [fault for fault in all_faults if not sys.argv[1:] or any(word in fault.what for word in sys.argv[1:])]
        rows = {f.what: try_out(f, undisturbed, Path(folder) / str(place), losses) for place, f in enumerate(wanted)}
    if sys.argv[1:]:
        lines = PAGE.read_text("utf-8").splitlines()
        losses += [
            line[2:] for line in lines if line.startswith("- ") and not line.startswith(tuple(f"- {what}: " for what in rows))
        ]
        former = {line.split(" | ")[0][2:]: line for line in lines if line.startswith("| ")}
        rows = {fault.what: rows.get(fault.what) or former[fault.what] for fault in all_faults}
    told = "None was lost." if not losses else "Lost:\n\n" + "\n".join(f"- {loss}" for loss in losses)
    write_bytes(PAGE, TEXT.format(rows="\n".join(rows.values()), lost=told).encode())
    print(f"{PAGE} written after {time.monotonic() - began:.0f} s; {len(losses)} lost")
    sys.exit(bool(losses))


def try_out(fault: Fault, undisturbed: Undisturbed, folder: Path, losses: list[str]) -> str:
    """Try each case of a fault; return its row of the table."""
    if fault.needs_disk and not can_mount():
        return f"| {fault.what} | {fault.where} | not tried: no disk could be mounted | | |"
    survived = 0
    for number, case in enumerate(fault.cases):
        told = f"{fault.what}: {tell(case)}"
        try:
            fault.function(undisturbed, folder / str(number), *case)
            survived += 1
            print(f"survived: {told}", flush=True)
        except Lost as error:
            losses.append(f"{told}: {' '.join(str(error).split())}")
            print(f"lost: {losses[-1]}", flush=True)
    return f"| {fault.what} | {fault.where} | {len(fault.cases)} | {survived} | {len(fault.cases) - survived} |"


def tell(case: tuple) -> str:
    return ", ".join(getattr(part, "__name__", str(part)) for part in case)


if __name__ == "__main__":
    main()
