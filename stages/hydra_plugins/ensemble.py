"""Hydra plugin: derives the `ensemble` block while `dvc exp run` composes params.yaml, after checking all of it.

A mistake ends the command with one line before DVC has changed anything. It leaves as `SystemExit`, since OmegaConf would
wrap any other error in several lines of its own.
"""

import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))

from stages.shared.errors import UserError
from stages.shared.params import Inputs, check, derive_ensemble


def ensemble(_root_: DictConfig) -> DictConfig:
    if list(_root_) == ["ensemble"]:  # Hydra also looks at compose.yaml alone, before it joins it with params.yaml
        return OmegaConf.create({})
    edited = OmegaConf.masked_copy(_root_, [key for key in _root_ if key != "ensemble"])
    try:
        inputs = check(OmegaConf.to_container(edited), Inputs)
        check_source(inputs.data.source)
        check_weights(inputs.network.weights_file)
    except UserError as error:
        sys.exit(f"error: {error}")
    return OmegaConf.create(derive_ensemble(inputs))


def check_source(source: str) -> None:
    """The images are there, or DVC knows how to get them."""
    if source != "data/phantom" and not (ROOT / source).is_dir() and not (ROOT / f"{source}.dvc").is_file():
        raise UserError(f"data.source: {source!r} is not there; expected a folder of class folders (README: Your own images)")


def check_weights(file: str) -> None:
    """The weights file is there, or DVC knows how to get it."""
    if not (ROOT / file).is_file() and not (ROOT / f"{file}.dvc").is_file():
        raise UserError(f"network.weights: {file!r} is not there; expected none, imagenet or the path of a weights file")


OmegaConf.register_new_resolver("ensemble", ensemble, replace=True)
