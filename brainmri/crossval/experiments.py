"""The folds as DVC experiments: which ones are complete, and how to run those that are not."""

import json
import math
import subprocess
import tempfile
import time
from pathlib import Path

from dvc.output import Output
from dvc.repo import Repo
from dvc.utils.serialize import load_yaml, parse_yaml

from brainmri.common.dependencies import lookup
from brainmri.common.errors import UserError
from brainmri.common.paths import ENSEMBLE_METRICS, PARAMS, PLOT_DATA
from brainmri.crossval.votes import Votes, parse_votes

CODE = ("brainmri", "stages", "dvc.yaml")
COMMANDS = ("app", "audit", "crossval", "predict", "repair")  # packages that no stage runs
LATER_STAGES = ("export", "explain", "report")  # which a fold does not run
LOCK = Path("dvc.lock")
INTERNAL_REFS = ("/celery/", "/exec/")  # which DVC keeps for itself

VotesOfFolds = dict[tuple[int, int], Votes]  # by seed and fold


def run_folds(
    params: dict, seeds: list[int], folds: list[int], overrides: list[str]
) -> VotesOfFolds:
    """Return the votes of each seed and fold, and run the experiments that are missing.

    Parameters
    ----------
    params : dict
        See `compose_params`.
    seeds, folds : list of int
    overrides : list of str
        Of parameters, as `dvc exp run -S` takes them.

    Raises
    ------
    UserError
        If an experiment fails.
    """
    requested = [(seed, fold) for seed in seeds for fold in folds]
    completed = completed_folds(params)
    missing = [key for key in requested if key not in completed]
    if missing:
        started = time.monotonic()
        for number, (seed, fold) in enumerate(missing):
            seconds_left = (time.monotonic() - started) / max(number, 1) * (len(missing) - number)
            left = f", about {math.ceil(seconds_left / 60)} min left" if number else ""
            print(f"fold {number + 1} of {len(missing)} to run: {seed=}, {fold=}{left}", flush=True)
            if not run_fold(seed, fold, overrides):
                break
        completed = completed_folds(params)
    failed = [
        f"seed {seed}, fold {fold}" for seed, fold in requested if (seed, fold) not in completed
    ]
    if failed:
        raise UserError(
            f"no result of {'; '.join(failed)}; fix what is reported above, then run this again:"
            " completed folds are kept"
        )
    return {key: completed[key] for key in requested}


def run_fold(seed: int, fold: int, overrides: list[str]) -> bool:
    """Run a fold as an experiment in a folder of its own; return whether it succeeded.

    Not by DVC's queue, whose worker may die between two experiments, after which `dvc exp run
    --run-all` waits forever (treeverse/dvc issue 10428).
    """
    settings = []
    for override in (*overrides, f"seed={seed}", f"split.fold={fold}"):
        settings += ["-S", override]
    command = ["dvc", "exp", "run", "--temp", "evaluate", *settings]
    return subprocess.run(command, check=False).returncode == 0


def completed_folds(params: dict) -> VotesOfFolds:
    """Read the votes of experiments with this code, these parameters and images; of several, the
    newest's.
    """
    code, shared, inputs = current_code(), shared_params(params), current_inputs(params)
    completed = {}
    for commit in experiment_commits():
        if code_at(commit) != code:  # before params.yaml is read, which may be of other code
            continue
        fold_params = show_yaml(commit, PARAMS)
        if shared_params(fold_params) != shared:
            continue
        lock = show_yaml(commit, LOCK)
        if not has_inputs(lock, inputs) or not is_evaluated(lock, fold_params):
            continue
        votes, predictions = (
            run_command("git", "show", f"{commit}:{PLOT_DATA / name}")
            for name in ("votes.csv", "predictions.csv")
        )
        metrics = json.loads(run_command("git", "show", f"{commit}:{ENSEMBLE_METRICS}"))
        key = fold_params["seed"], fold_params["split"]["fold"]
        positive = fold_params["evaluate"]["positive"]
        completed[key] = parse_votes(votes, predictions, metrics, positive)
    return completed


def compose_params(overrides: list[str]) -> dict:
    """Compose params.yaml with overrides, which may name a preset, as `dvc exp run -S` does.

    Raises
    ------
    UserError
        If Hydra cannot apply an override.
    """
    from dvc.utils.hydra import compose_and_dump
    from hydra.errors import HydraException

    conf = str(Path("conf").resolve())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        try:
            compose_and_dump(path, conf, None, "compose", conf, overrides)
        except HydraException as error:
            raise UserError(f"--set-param: {str(error).splitlines()[0]}") from None
        return load_yaml(path)


def shared_params(params: dict) -> dict:
    """Return the parameters that folds and seeds of one cross-validation have in common."""
    varying = ("about", "seed", "ensemble", "fan_out")
    shared = {key: value for key, value in params.items() if key not in varying}
    return {**shared, "split": {**shared["split"], "fold": None}}


def experiment_commits() -> list[str]:
    """List the commits of DVC's experiments, the oldest first."""
    listing = run_command(
        "git",
        "for-each-ref",
        "--sort=creatordate",
        "--format=%(objectname) %(refname)",
        "refs/exps",
    )
    return [
        line.split()[0]
        for line in listing.splitlines()
        if not any(part in line for part in INTERNAL_REFS)
    ]


def current_inputs(params: dict) -> dict[str, str]:
    """Return DVC's hashes of the images, and of the table of labels, as they are now, by path.

    What a stage makes, such as data/phantom, depends on code and parameters alone.
    """
    hashes = {}
    with Repo() as repo:
        out_of = {out.fs_path: out for out in repo.index.outs}
        for path in (params["data"]["source"], params["further_input"]):
            out = out_of.get(str(Path(path).absolute()))
            if out and not out.stage.is_data_source:
                continue
            if Path(path).exists():
                out = Output(None, path, repo=repo, cache=False)
                hashes[path] = out.get_hash().value
            elif out:  # not checked out here
                hashes[path] = out.hash_info.value
    return hashes


def has_inputs(lock: dict, inputs: dict[str, str]) -> bool:
    """Return whether `ingest` read files of these hashes, by dvc.lock."""
    dependencies = lock["stages"]["ingest"]["deps"]
    read = {entry["path"]: entry.get("md5") for entry in dependencies}
    return all(read.get(path) == digest for path, digest in inputs.items())


def is_evaluated(lock: dict, params: dict) -> bool:
    """Return whether an experiment ran all stages up to `evaluate`, whose votes it then has.

    An experiment may run some stages alone; it has the votes of its base then.

    Parameters
    ----------
    lock : dict
        Content of dvc.lock.
    params : dict
        Content of params.yaml.
    """
    stages = [
        stage
        for name, stage in lock["stages"].items()
        if name not in LATER_STAGES and name.partition("@")[2] in {"", *params["ensemble"]}
    ]
    made = {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", [])}
    read = [(dep["path"], dep.get("md5")) for stage in stages for dep in stage.get("deps", [])]
    used = [stage["params"][str(PARAMS)] for stage in stages if "params" in stage]
    return all(made.get(path, md5) == md5 for path, md5 in read) and all(
        lookup(params, name) == value for values in used for name, value in values.items()
    )


def show_yaml(commit: str, path: Path) -> dict:
    """Read a YAML file of a commit."""
    return parse_yaml(run_command("git", "show", f"{commit}:{path}"), str(path))


def current_code() -> dict[str, str]:
    """Return Git's hashes of the pipeline's files as they are now, by path."""
    paths = [path for path in run_command("git", "ls-files", "--", *CODE).split() if is_run(path)]
    return dict(zip(paths, run_command("git", "hash-object", *paths).split(), strict=True))


def code_at(commit: str) -> dict[str, str]:
    """Return Git's hashes of the pipeline's files in a commit, by path."""
    listing = run_command("git", "ls-tree", "-r", commit, "--", *CODE)
    hashes = {}
    for line in listing.splitlines():
        _, _, blob, path = line.split()
        if is_run(path):
            hashes[path] = blob
    return hashes


def is_run(path: str) -> bool:
    """Return whether a stage may run this file of the project."""
    return not path.startswith(tuple(f"brainmri/{name}/" for name in COMMANDS))


def run_command(*words: str) -> str:
    """Run a command, and return what it prints on standard output.

    Raises
    ------
    UserError
        If it fails, with the last line that it prints.
    """
    process = subprocess.run(words, capture_output=True)
    if process.returncode == 0:
        return process.stdout.decode()  # with the line ends that names may hold
    lines = (process.stderr.strip() or process.stdout.strip()).decode(errors="replace").splitlines()
    reason = lines[-1].removeprefix("error: ") if lines else f"exit status {process.returncode}"
    raise UserError(f"`{' '.join(words[:4])}` failed: {reason}")
