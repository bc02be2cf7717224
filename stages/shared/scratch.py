"""Where a member's files lie: at first in a scratch folder, then where DVC expects them."""

import functools
import hashlib
import json
import shutil
from pathlib import Path

from stages.shared.errors import UserError
from stages.shared.files import write_bytes
from stages.shared.inputs import dependencies
from stages.shared.params import read_params

MODELS = Path("models/members")
METRICS = Path("metrics/members")
SCRATCH = Path(".dvc/tmp/members")  # of members that were trained, and that DVC has not taken over yet


def scratch(name: str, params: dict | None = None) -> Path:
    """The folder to train a member in: another one whenever something changed that the member depends on.

    That is what dvc.yaml lists as dependencies and parameters of its training. `params` is the content of params.yaml, read
    here if it is not given.

    Raises
    ------
    UserError
        If there is no such member, or a dependency is missing.
    """
    params = params or read_params()
    members = params.get("ensemble") or {}
    if name not in members:
        raise UserError(f"no member {name!r} in params.yaml; expected one of {', '.join(members)}")
    paths, values = dependencies(f"train@{name}", params)
    inputs = {str(path): _hash(path) for path in paths} | values
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    return SCRATCH / f"{name}-{digest[:32]}"


def is_trained(folder: Path) -> bool:
    """Whether the training for this scratch folder has ended."""
    return folder.is_dir()


def outdated() -> list[str]:
    """The members of which a scratch folder holds a training that is of other inputs than today's."""
    trained = {path: path.name.rpartition("-")[0] for path in sorted(SCRATCH.glob("*")) if path.suffix != ".part"}
    params = read_params()
    members = params.get("ensemble") or {}
    return [name for path, name in trained.items() if name not in members or scratch(name, params) != path]


def put_in_place(folder: Path, name: str) -> None:
    """Move what was trained in a scratch folder to where DVC expects it."""
    write_bytes(METRICS / f"{name}.json", (folder / "metrics.json").read_bytes())
    shutil.rmtree(MODELS / name, ignore_errors=True)
    shutil.copytree(folder, MODELS / name, ignore=shutil.ignore_patterns("metrics.json"))
    shutil.rmtree(folder.rename(folder.with_name(f"{folder.name}.part")))  # half of it is no trained member


@functools.cache
def _hash(path: Path) -> str:
    """SHA-256 of a file, or of a folder's files with their names."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return hashlib.sha256("".join(f"{file}\0{_hash(file)}\n" for file in files).encode()).hexdigest()
    if not path.is_file():
        raise UserError(f"{path} is missing; run `dvc repro` to make it")
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
