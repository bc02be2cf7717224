"""Which members DVC would train. The only module that uses DVC's private API;
tests/pipeline/test_dvc_contract.py guards it.
"""

from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo, lock_repo
from dvc.stage.cache import RunCacheNotFoundError
from dvc.utils.serialize import load_yaml
from dvc_data.hashfile.hash_info import HashInfo

from brainmri.common.dependencies import lookup
from brainmri.common.paths import PARAMS


def up_to_date(names: list[str]) -> set[str]:
    """Return the members whose stage `dvc repro` will skip, or restore from its run cache."""
    current = set()
    with Repo(_wait_for_lock=True) as repo, lock_repo(repo):
        # All at once: each call of collect reads all of dvc.yaml and dvc.lock.
        stages = {
            stage.addressing.partition("@")[2]: stage for stage in repo.stage.collect("train")
        }
        params = load_yaml(str(PARAMS))
        for name in names:
            stage = stages[name]
            _set_params(stage, params)
            if not stage.changed() or _is_in_run_cache(repo, stage):
                current.add(name)
    return current


def _set_params(stage, params: dict) -> None:
    """Give a stage the content of params.yaml, which it would parse four times.

    That takes longer than all else, and for each member the longer the more members there are.
    """
    for dependency in stage.deps:
        if isinstance(dependency, ParamsDependency):
            values = {name: lookup(params, name) for name in dependency.params}
            dependency.read_params = lambda values=values, **_: values


def _is_in_run_cache(repo: Repo, stage) -> bool:
    if not stage.deps_cached():
        stage.save_deps()
        for out in stage.outs:  # whose hashes in dvc.lock are of other dependencies
            out.hash_info = HashInfo()
    try:
        repo.stage_cache.restore(stage, dry=True)
    except RunCacheNotFoundError:
        return False
    return True
