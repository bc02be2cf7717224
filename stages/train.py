"""Puts one member in its place: as `fan-out` trained it beside the others, or trained now.

    dvc repro --single-item train@member-00

Reads   the RAD, data/split.json, data/bootstrap/MEMBER.json; params: network, train, ensemble.MEMBER
Writes  models/members/MEMBER/   model.keras, history.csv, and class probabilities: out_of_bag.csv, test.csv
        metrics/members/MEMBER.json
"""

import sys

from stages.shared.errors import UserError
from stages.shared.running import run_stage
from stages.shared.scratch import is_trained, outdated, put_in_place, scratch


def main() -> None:
    if len(sys.argv) != 2:
        raise UserError("expected the name of a member, such as member-00")
    name = sys.argv[1]
    folder = scratch(name)
    if is_trained(folder):
        print(f"{name} was trained beside the others")
    elif names := outdated():
        raise UserError(
            f"an input changed after fan-out trained {', '.join(names)}; run `dvc repro` again, which trains members in parallel"
        )
    else:
        print(f"{name} is trained alone: fan-out has not trained it", flush=True)
        from stages.shared.training import train_member  # TensorFlow takes seconds to import

        train_member(name, folder)
    put_in_place(folder, name)


if __name__ == "__main__":
    run_stage(main)
