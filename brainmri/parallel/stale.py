"""Which members DVC would train. The only module that uses DVC's private API;
tests/pipeline/test_dvc_contract.py guards it.
"""

from dvc.repo import Repo, lock_repo
from dvc.stage.cache import RunCacheNotFoundError
from dvc_data.hashfile.hash_info import HashInfo


def up_to_date(names: list[str]) -> set[str]:
    """Return the members whose stage `dvc repro` will skip, or restore from its run cache."""
    current = set()
    with Repo(_wait_for_lock=True) as repo, lock_repo(repo):
        # All at once: each call of collect reads all of dvc.yaml and dvc.lock.
        stages = {
            stage.addressing.partition("@")[2]: stage for stage in repo.stage.collect("train")
        }
        for name in names:
            stage = stages[name]
            if not stage.changed() or _is_in_run_cache(repo, stage):
                current.add(name)
    return current


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
