"""Trains one member in a worker's clone of the project: from the DVC remote and back to it.

python -m stages.engines.clone member-00
"""

import sys

from stages.engines import dvc_repo
from stages.shared.running import run_stage


def main() -> None:
    from dvc.exceptions import ReproductionError

    name = sys.argv[1]
    dvc_repo.pull_inputs(name)
    try:
        with dvc_repo.open_repo() as repo:
            repo.reproduce(f"train@{name}", single_item=True)
    except ReproductionError:  # the stage has told why
        sys.exit(1)
    dvc_repo.push_results()


if __name__ == "__main__":
    run_stage(main)
