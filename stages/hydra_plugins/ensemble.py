"""Hydra plugin: derives the `ensemble` block while `dvc exp run` composes params.yaml, after checking all of it.

A mistake ends the command with one line before DVC has changed anything. It leaves as `SystemExit`, since OmegaConf would
wrap any other error in several lines of its own.
"""

import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

sys.path.append(str(Path(__file__).parents[2]))

from stages.shared.errors import UserError
from stages.shared.params import Inputs, check, derive_ensemble


def ensemble(_root_: DictConfig) -> DictConfig:
    if list(_root_) == ["ensemble"]:  # Hydra also looks at compose.yaml alone, before it joins it with params.yaml
        return OmegaConf.create({})
    inputs = OmegaConf.masked_copy(_root_, [key for key in _root_ if key != "ensemble"])
    try:
        return OmegaConf.create(derive_ensemble(check(OmegaConf.to_container(inputs), Inputs)))
    except UserError as error:
        sys.exit(f"error: {error}")


OmegaConf.register_new_resolver("ensemble", ensemble, replace=True)
