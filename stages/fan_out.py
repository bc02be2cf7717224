"""Train the members that changed in parallel: in processes of this machine, or on a Dask cluster.

    dvc repro fan-out

DVC runs one stage after the other. So this stage trains the members ahead of their own stages; when
DVC comes to `train@MEMBER`, it finds the result in its run cache, or in a staging folder, which
that stage publishes. Where and how many members train at a time changes no result.

Reads   all that members read; params: members, recipes, ensemble, train; fan_out, which
        DVC does not track
Writes  data/fan-out.json   a marker: the members, each with a hash of its inputs; this stage runs
                            where it is missing (a fresh clone) or is of others (after `git pull`)
"""

from brainmri.common.errors import UserError
from brainmri.common.files import write_json
from brainmri.common.params import load_params, read_params
from brainmri.common.paths import FAN_OUT_MARKER
from brainmri.parallel.fan_out import describe_failures, remove_former_members, train_stale_members
from brainmri.parallel.staging import staging_dir


def main() -> None:
    params = load_params()
    remove_former_members(list(params.ensemble))
    content = read_params()  # once: it takes the longer, the more members there are
    inputs = [staging_dir(name, content).name for name in params.ensemble]
    failed = train_stale_members(params)
    for run in failed:
        print(f"\n{run.name} failed; the end of {run.log}:\n{run.last_lines()}", flush=True)
    if failed:
        raise UserError(
            f"training failed: {describe_failures(failed)}; the other members are done and kept;"
            " run `dvc repro` again for the rest"
        )
    write_json(FAN_OUT_MARKER, {"members": inputs})
