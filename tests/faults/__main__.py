"""Cause every fault, and write docs/reliability.md: what was tried, and what recovered.

make faults       (or some kinds, whose rows are replaced: python -m tests.faults "disk full")
"""

import signal
import sys
import tempfile
import time
from pathlib import Path

from brainmri.common.files import write_bytes
from tests.faults.reference import NotRecovered, ReferenceRun, cached_objects
from tests.faults.table import Fault, list_faults
from tests.support.disk import can_mount

PAGE = Path("docs/reliability.md")
TEXT = """# Fault-injection tests

`make faults` causes these faults in the real pipeline, with small settings (48 images, 3 members,
2 epochs), and writes this page; `make test` causes a few of each. After each fault, `dvc repro` has
to end well; where DVC refuses to run, `make repair` comes before it. Then `dvc status` has to be
clean, every object of DVC's cache to hold what its name says, every file of `data`, `models`,
`metrics` and `plots` to have the bytes of a run without faults, and `dvc.lock` to have the same
entries. (Results of the stages after the fault and after the training are in DVC's run cache, which
restores them where their inputs are the same.) Each row is from the last run that tried its fault.

| fault | where | tried | recovered | repair needed | lost |
| --- | --- | ---: | ---: | ---: | ---: |
{rows}

{losses}

## Recovery
Run `dvc repro` again. If it refuses, run
```bash
make repair
```
and then `dvc repro`. The repair changes nothing where nothing is broken, prints a line for each
repair, and may run while another command works:

- A `dvc.lock` that is half written is restored from Git; `dvc repro` then takes later results from
  the run cache.
- Lock files that a killed command of DVC's or Git's has left are removed.
- Objects of DVC's cache whose content is damaged are removed; `dvc repro` makes them again. DVC
  itself trusts an object that is read-only, and restores a damaged one without a word: after errors
  of a disk, run the repair before `dvc repro`. So it is done in the table, where such a case counts
  as one that needed the repair.
- Copies that a killed process or a full disk has left unfinished are removed.
- Files of `data.source` that DVC can't read, such as links to nowhere, are named; remove or replace
  these yourself.

Pixels are compared with their checksums whenever they are read. In other files of the workspace,
damage without a change of size or time, as by a failing disk, is not noticed.
"""


def main() -> None:
    start = time.monotonic()
    words = sys.argv[1:]
    losses: list[str] = []
    rows: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        reference = ReferenceRun(Path(folder)).run()
        objects = len(cached_objects(reference.final))
        faults = list_faults(reference.stages, objects, len(reference.files))
        for number, fault in enumerate(faults):
            if not words or any(word in fault.name for word in words):
                rows[fault.name] = try_fault(fault, reference, Path(folder) / str(number), losses)
    if words:
        former_rows, former_losses = read_page()
        losses += [loss for loss in former_losses if loss.partition(": ")[0] not in rows]
        rows = former_rows | rows
    write_page([rows[fault.name] for fault in faults], losses)
    print(f"{PAGE} written after {time.monotonic() - start:.0f} s; {len(losses)} lost")
    sys.exit(bool(losses))


def try_fault(fault: Fault, reference: ReferenceRun, folder: Path, losses: list[str]) -> str:
    """Try each case of a fault; return its row of the table, and append what was lost."""
    if fault.needs_disk and not can_mount():
        return f"| {fault.name} | {fault.where} | not tried: no disk could be mounted | | | |"
    recovered = repaired = 0
    for number, case in enumerate(fault.cases):
        label = f"{fault.name}: {describe(case)}"
        try:
            needed_repair = fault.function(reference, folder / str(number), *case)
        except (NotRecovered, AssertionError) as error:
            losses.append(f"{label}: {' '.join(str(error).split())}")
            print(f"lost: {losses[-1]}", flush=True)
            continue
        recovered += 1
        repaired += needed_repair
        print(f"recovered{' after a repair' if needed_repair else ''}: {label}", flush=True)
    tried = len(fault.cases)
    counts = [tried, recovered, repaired, tried - recovered]
    return f"| {' | '.join([fault.name, fault.where, *map(str, counts)])} |"


def describe(case: tuple) -> str:
    """Return the arguments of a case, such as "fan-out, SIGINT"."""
    words = []
    for argument in case:
        if isinstance(argument, signal.Signals):
            words.append(argument.name)
        else:
            words.append(getattr(argument, "__name__", str(argument)))
    return ", ".join(words)


def read_page() -> tuple[dict[str, str], list[str]]:
    """Read the rows by fault, and the losses, of the page as it is."""
    table, _, _ = PAGE.read_text("utf-8").partition("\n## ")
    lines = table.splitlines()
    rows = {line.split(" | ")[0][2:]: line for line in lines if line.startswith("| ")}
    losses = [line[2:] for line in lines if line.startswith("- ")]
    return rows, losses


def write_page(rows: list[str], losses: list[str]) -> None:
    summary = "None was lost."
    if losses:
        summary = "Lost:\n\n" + "\n".join(f"- {loss}" for loss in losses)
    write_bytes(PAGE, TEXT.format(rows="\n".join(rows), losses=summary).encode())


if __name__ == "__main__":
    main()
