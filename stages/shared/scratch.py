"""Where a member's files lie: at first in a scratch folder, then where DVC expects them."""

import functools
import hashlib
import json
import shutil
from pathlib import Path

import yaml

from stages.shared.errors import UserError
from stages.shared.files import write_bytes

MODELS = Path("models/members")
METRICS = Path("metrics/members")
SCRATCH = Path(".dvc/tmp/members")  # of members that were trained, and that DVC has not taken over yet


def scratch(name: str) -> Path:
    """The folder to train a member in: another one whenever something changed that the member depends on.

    That is what dvc.yaml lists as dependencies and parameters of its training.

    Raises
    ------
    UserError
        If there is no such member, or a dependency is missing.
    """
    stage, params = _read("dvc.yaml")["stages"]["train"]["do"], _read("params.yaml")
    if name not in params.get("ensemble", {}):
        raise UserError(f"no member {name!r} in params.yaml; expected one of {', '.join(params.get('ensemble', {}))}")
    member = params["ensemble"][name]
    paths = (dep.replace("${key}", name).replace("${item.weights_file}", member["weights_file"]) for dep in stage["deps"])
    inputs = {path: _hash(Path(path)) for path in paths}
    for key in (param.replace("${key}", name) for param in stage["params"]):
        section, _, of_member = key.partition(".")
        inputs[key] = params[section][of_member] if of_member else params[section]
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    return SCRATCH / f"{name}-{digest[:32]}"


def is_trained(folder: Path) -> bool:
    """Whether the training in this scratch folder came to its end: metrics are written last."""
    return (folder / "metrics.json").is_file()


def put_in_place(folder: Path, name: str) -> None:
    """Move what was trained in a scratch folder to where DVC expects it."""
    write_bytes(METRICS / f"{name}.json", (folder / "metrics.json").read_bytes())
    shutil.rmtree(MODELS / name, ignore_errors=True)
    shutil.copytree(folder, MODELS / name, ignore=shutil.ignore_patterns("metrics.json"))
    shutil.rmtree(folder)


@functools.cache
def _read(path: str) -> dict:
    return yaml.safe_load(Path(path).read_text("utf-8"))


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
