"""Staging folders: the result of a member's training, named by a hash of all that the member
depends on.

Engines fill them; `train@MEMBER` publishes them to where DVC expects the member's files.
"""

import functools
import hashlib
import json
import shutil
from pathlib import Path

from brainmri.common.dependencies import StageInputs, hash_path, stage_dependencies
from brainmri.common.errors import UserError
from brainmri.common.files import write_bytes
from brainmri.common.params import load_params, read_params
from brainmri.common.paths import MEMBER_METRICS, MEMBERS, STAGING

UNFINISHED = ".part"  # at the end of a folder's name


def staging_dir(name: str, params: dict | None = None) -> Path:
    """Return the staging folder of a member, another one whenever something that it depends on
    changes.

    What it depends on is what dvc.yaml lists as dependencies and parameters of its stage.

    Parameters
    ----------
    name : str
        Of the member.
    params : dict, optional
        Content of params.yaml, read here if it is not given.

    Raises
    ------
    UserError
        If there is no such member, or a dependency is missing.
    """
    params = params or read_params()
    members = params.get("ensemble") or {}
    if name not in members:
        raise UserError(f"no member {name!r} in params.yaml; expected one of {', '.join(members)}")
    paths, values = stage_dependencies(f"train@{name}", params)
    inputs = {str(path): _hash(path) for path in paths} | values
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    return STAGING / f"{name}-{digest[:32]}"


def is_trained(folder: Path) -> bool:
    """Return whether a staging folder holds a finished training."""
    return folder.is_dir()


def train_into(folder: Path, name: str) -> None:
    """Train a member into its staging folder, which exists only once the training has ended and its
    inputs are unchanged.

    Parameters
    ----------
    folder : Path
        As `staging_dir` names it.
    name : str
        Of the member.

    Raises
    ------
    UserError
        If an input has changed since the folder was named or while the member trains, and what
        `train_member` raises.
    """
    from brainmri.networks.runtime import start_tensorflow

    start_tensorflow()
    from brainmri.training.member import train_member

    inputs, params = StageInputs(f"train@{name}"), load_params()
    # Later edits of params.yaml do not matter: the values read here name the folder.
    if staging_dir(name) != folder:
        raise UserError(f"an input of {name} changed before it was trained; run `dvc repro` again")
    unfinished = _unfinished(folder)
    train_member(name, params, unfinished)
    inputs.check_files()
    unfinished.rename(folder)


def stage_files(folder: Path, files: dict[str, bytes]) -> None:
    """Write a member that was trained elsewhere into its staging folder.

    Parameters
    ----------
    folder : Path
        As `staging_dir` names it.
    files : dict of str to bytes
        Content by name.
    """
    unfinished = _unfinished(folder)
    for name, content in files.items():
        write_bytes(unfinished / name, content)
    unfinished.rename(folder)


def publish(folder: Path, name: str) -> None:
    """Move a finished training from its staging folder to where DVC expects it."""
    write_bytes(MEMBER_METRICS / f"{name}.json", (folder / "metrics.json").read_bytes())
    shutil.rmtree(MEMBERS / name, ignore_errors=True)
    shutil.copytree(folder, MEMBERS / name, ignore=shutil.ignore_patterns("metrics.json"))
    # A folder that is half removed must not look finished.
    shutil.rmtree(folder.rename(folder.with_name(folder.name + UNFINISHED)))


def outdated_trainings() -> list[Path]:
    """Return the staging folders of finished trainings with other inputs than today's."""
    folders = [path for path in sorted(STAGING.glob("*")) if path.suffix != UNFINISHED]
    params = read_params()
    members = params.get("ensemble") or {}
    outdated = []
    for folder in folders:
        name = folder.name.rpartition("-")[0]
        if name not in members or staging_dir(name, params) != folder:
            outdated.append(folder)
    return outdated


def _unfinished(folder: Path) -> Path:
    """Return the folder for an unfinished training, without what an interrupted one has left."""
    unfinished = folder.with_name(folder.name + UNFINISHED)
    shutil.rmtree(unfinished, ignore_errors=True)
    return unfinished


_hash = functools.cache(hash_path)  # members have most of their dependencies in common
