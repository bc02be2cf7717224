"""Repair this clone's files of DVC, and report what DVC can't read.

    make repair        (or: python -m brainmri.repair)

It changes nothing where nothing is broken, prints a line for each repair, and is safe while another
command works. Then `dvc repro` makes again what is missing.
"""

from brainmri.common.command import run_command
from brainmri.common.errors import UserError, printable
from brainmri.common.params import read_params
from brainmri.repair.cache import remove_damaged_objects, remove_half_copies
from brainmri.repair.lock_files import remove_stale_locks, restore_dvc_locks
from brainmri.repair.source import unreadable_files


def main() -> None:
    repairs = [
        *restore_dvc_locks(),
        *remove_stale_locks(),
        *remove_damaged_objects(),
        *remove_half_copies(),
    ]
    for line in repairs:
        print(printable(line))
    data = read_params().get("data")
    for key in ("source", "test"):
        folder = data.get(key) if isinstance(data, dict) else None
        if not isinstance(folder, str):  # which the stages name, if it is a mistake
            continue
        problems = unreadable_files(folder)
        for line in problems:
            print(printable(line))
        if problems:
            raise UserError(
                f"data.{key}: DVC can't read {len(problems)} file(s) of {folder!r}, named above;"
                " remove, rename or replace them"
            )
    print(f"{len(repairs)} repair(s); run `dvc repro`" if repairs else "nothing to repair")


if __name__ == "__main__":
    run_command(main)
