"""What members read and wrote, as DVC keeps it: in the repository's cache, and in the remote over which a cluster shares it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo, lock_repo
from dvc.stage import PipelineStage
from dvc.stage.cache import RunCacheNotFoundError
from dvc_data.hashfile.hash_info import HashInfo

from stages.shared.errors import UserError


def settings() -> dict:
    """The settings of the DVC remote that is the default here.

    Raises
    ------
    UserError
        If there is none.
    """
    with Repo() as repo:
        name = repo.config["core"].get("remote")
        if not name:
            raise UserError(
                "fan_out.engine is dask, which needs a DVC remote that this machine and the workers reach;"
                " expected one that is the default: dvc remote add -d NAME URL"
            )
        if name not in repo.config["remote"]:
            raise UserError(f"the default DVC remote is {name!r}, which is not configured; add it: dvc remote add {name} URL")
        return dict(repo.config["remote"][name])


def push_inputs() -> None:
    """Push what members read to the remote."""
    with open_repo() as repo, told("can't be written"):
        repo.push(["data/rad", "data/split.json", "data/bootstrap"])


def pull_inputs(name: str) -> None:
    """Pull what a member reads from the remote."""
    with open_repo() as repo, told("can't be read"):
        repo.pull(["data/rad", "data/split.json", f"data/bootstrap/{name}.json"])


def push_results() -> None:
    """Push what stages that ran here wrote to the remote, and then that they ran, for DVC's run cache.

    `dvc push --run-cache` leaves out the outputs that are not cached, the metrics, and without them a run can't be restored.
    """
    with open_repo() as repo, told("can't be written"):
        runs = [(path.parent.name, path.name) for path in Path(repo.stage_cache.cache_dir).glob("*/*/*")]
        for odb, objects in repo.stage_cache.get_used_objs(runs).items():
            if failed := repo.cloud.push(objects, odb=odb).failed:
                raise DvcException(f"{len(failed)} files could not be pushed")
        repo.stage_cache.push(None)


def pull_results(names: list[str]) -> set[str]:
    """Take these members' results from the remote, as far as it has them, whoever trained them.

    Returns
    -------
    set of str
        The members that DVC needs not train any more.
    """
    if not names:
        return set()
    with open_repo() as repo, told("can't be read"):
        repo.stage_cache.pull(None)
        wanted = {}
        for stage in stages_of(repo, names).values():
            as_it_is_now(stage)
            if ran := repo.stage_cache._load(stage):
                for odb, objects in repo.stage_cache._create_stage(ran, wdir=stage.wdir).get_used_objs().items():
                    wanted.setdefault(odb, set()).update(objects)
        for odb, objects in wanted.items():
            repo.cloud.pull(objects, odb=odb)
    return known(names)


def known(names: list[str]) -> set[str]:
    """The members whose training DVC will skip or take from its cache, asked in the way in which `dvc repro` decides it."""
    found = set()
    with open_repo() as repo:
        for name, stage in stages_of(repo, names).items():
            if stage.changed():
                as_it_is_now(stage)
                try:
                    repo.stage_cache.restore(stage, dry=True)
                except RunCacheNotFoundError:
                    continue
            found.add(name)
    return found


def stages_of(repo: Repo, names: list[str]) -> dict[str, PipelineStage]:
    """The members' stages; all are collected at once, since each time DVC reads all of dvc.yaml and dvc.lock."""
    stages = {stage.addressing.partition("@")[2]: stage for stage in repo.stage.collect("train")}
    return {name: stages[name] for name in names}


def as_it_is_now(stage: PipelineStage) -> None:
    """Give a stage the hashes that what it reads has now."""
    if not stage.deps_cached():
        stage.save_deps()
        for out in stage.outs:  # what dvc.lock says of them was made from other dependencies
            out.hash_info = HashInfo()


@contextmanager
def open_repo() -> Iterator[Repo]:
    with Repo(_wait_for_lock=True) as repo, lock_repo(repo):
        yield repo


@contextmanager
def told(what: str) -> Iterator[None]:
    """Whatever the remote's library raises becomes one line: each kind of remote has errors of its own."""
    try:
        yield
    except Exception as error:
        raise UserError(f"the DVC remote {what} ({type(error).__name__}: {error}); finished members are kept") from error
