"""Trains the members that changed side by side: in processes of this machine, or on a cluster.

    dvc repro fan-out

DVC runs one stage after the other. So this stage trains the members ahead of their own stages; when DVC comes to
`train@MEMBER`, it finds the result in its run cache, or in a scratch folder, from which that stage puts it in its place. Where
and how many train at a time changes no result.

Reads   all that members read; params: members, recipes, ensemble, network, train; fan_out, which DVC does not track
Writes  data/fan-out.json, a marker: where it is missing, as in a fresh clone, members train side by side again
"""

import shutil

from stages.engines import cluster, dvc_repo, local
from stages.engines.runs import Run
from stages.shared.errors import UserError
from stages.shared.files import write_json
from stages.shared.params import Params, load_params, read_params
from stages.shared.running import run_stage
from stages.shared.scratch import METRICS, MODELS, SCRATCH, is_trained, scratch


def main() -> None:
    params = load_params()
    names = list(params.ensemble)
    remove_former(names)
    failed = train_stale(names, params)
    tidy_lock_file(names)
    if failed:
        for run in failed:
            print(f"\n{run.name} failed; the end of {run.log}:\n{run.last_lines()}", flush=True)
        reasons = sorted({run.failure for run in failed})
        alike = {reason: ", ".join(run.name for run in failed if run.failure == reason) for reason in reasons}
        failures = ", ".join(f"{names} ({reason})" if reason else names for reason, names in alike.items())
        raise UserError(f"training failed: {failures}; the other members are done and kept; run `dvc repro` again for the rest")
    write_json("data/fan-out.json", {"done": True})


def train_stale(names: list[str], params: Params) -> list[Run]:
    """Train the members that are not up to date; return those that failed."""
    content = read_params()
    folders = {name: scratch(name, content) for name in names}
    for left in SCRATCH.glob("*"):
        if left not in folders.values():
            shutil.rmtree(left)
    known = dvc_repo.known(names)
    stale = [name for name, folder in folders.items() if name not in known and not is_trained(folder)]
    if not stale:
        print(f"all {len(names)} members are trained already")
        return []
    engine = {"local": local, "dask": cluster}[params.fan_out.engine]
    return engine.train_members(stale, params)


def remove_former(names: list[str]) -> None:
    """Remove the workspace's files of members that the ensemble no longer has; the cache keeps them."""
    for path in [*MODELS.glob("member-*"), *METRICS.glob("member-*.json")]:
        if path.stem not in names:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def tidy_lock_file(names: list[str]) -> None:
    """Leave former members out of dvc.lock, and give new ones their place in the order of dvc.yaml: DVC adds at the end."""
    from dvc.utils.serialize import load_yaml, modify_yaml

    place = {name: index for index, name in enumerate(load_yaml("dvc.yaml")["stages"])}
    stages = load_yaml("dvc.lock")["stages"]
    members = {f"train@{name}": {"cmd": f"python -m stages.train {name}"} for name in names}
    kept = {name: stage for name, stage in stages.items() if not name.startswith("train@") or name in members}
    order = sorted(members | kept, key=lambda name: (place.get(name.split("@")[0], len(place)), name))
    if order != list(stages):
        with modify_yaml("dvc.lock") as lock:
            lock["stages"] = {name: kept.get(name, members.get(name)) for name in order}


if __name__ == "__main__":
    run_stage(main)
