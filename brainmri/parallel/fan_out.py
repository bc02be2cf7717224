"""Train the members that are not up to date, all at once, ahead of their own stages."""

import shutil

from brainmri.common.params import Params, read_params
from brainmri.common.paths import MEMBER_METRICS, MEMBERS, STAGING
from brainmri.parallel import dask_driver, pool
from brainmri.parallel.monitor import MemberRun
from brainmri.parallel.staging import is_trained, staging_dir
from brainmri.parallel.stale import up_to_date

ENGINES = {"local": pool, "dask": dask_driver}


def train_stale_members(params: Params) -> list[MemberRun]:
    """Train the members that are not up to date into their staging folders, and return those that
    failed.
    """
    content = read_params()
    folders = {name: staging_dir(name, content) for name in params.ensemble}
    for folder in STAGING.glob("*"):
        if folder not in folders.values():
            shutil.rmtree(folder)
    current = up_to_date(list(folders))
    stale = [
        name for name, folder in folders.items() if name not in current and not is_trained(folder)
    ]
    if not stale:
        print(f"all {len(folders)} members are trained already")
        return []
    return ENGINES[params.fan_out.engine].train_members(stale, params)


def remove_former_members(names: list[str]) -> None:
    """Remove the workspace's files of members that the ensemble no longer has; DVC's cache keeps
    them.
    """
    for path in [*MEMBERS.glob("member-*"), *MEMBER_METRICS.glob("member-*.json")]:
        if path.stem not in names:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def describe_failures(failed: list[MemberRun]) -> str:
    """Return the failed members, those that failed for the same reason together."""
    members_of: dict[str, list[str]] = {}
    for run in sorted(failed, key=lambda run: (run.failure, run.name)):
        members_of.setdefault(run.failure, []).append(run.name)
    return ", ".join(
        ", ".join(names) + (f" ({reason})" if reason else "")
        for reason, names in members_of.items()
    )
