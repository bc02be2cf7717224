"""Publish one member: as `fan-out` trained it in parallel with the others, or trained here.

    dvc repro --single-item train@member-00

Reads   data/rad, data/split.json, data/bootstrap/MEMBER.json, the file of its network's weights;
        params: train, ensemble.MEMBER
Writes  models/members/MEMBER/   model.keras, history.csv, and class probabilities: out_of_bag.csv,
                                 test.csv
        metrics/members/MEMBER.json
"""

import shutil

from brainmri.common.errors import UserError
from brainmri.parallel.staging import (
    is_trained,
    outdated_trainings,
    publish,
    staging_dir,
    train_into,
)


def main(member: str) -> None:
    folder = staging_dir(member)
    if is_trained(folder):
        print(f"{member} was trained by fan-out")
    elif outdated := outdated_trainings():
        for former in outdated:
            shutil.rmtree(former)  # or this would end like this again, unless fan-out runs
        names = ", ".join(former.name.rpartition("-")[0] for former in outdated)
        raise UserError(
            f"an input changed after fan-out trained {names}; run `dvc repro` again, which trains"
            " members in parallel"
        )
    else:
        print(f"{member} is trained here: fan-out has not trained it", flush=True)
        train_into(folder, member)
    publish(folder, member)
