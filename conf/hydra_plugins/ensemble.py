"""Hydra plugin: derives the `ensemble` block while `dvc exp run` composes params.yaml, after checking all of it.

A mistake ends the command with one line before DVC has changed anything. It leaves as `SystemExit`, since OmegaConf would
wrap any other error in several lines of its own.
"""

import argparse
import difflib
import json
import os
import sys
from pathlib import Path

import psutil
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

ROOT = Path(__file__).parents[2]
PRESETS = ROOT / "conf/preset"
sys.path.append(str(ROOT))

from stages.shared.errors import UserError
from stages.shared.inputs import first_difference
from stages.shared.params import PATH, Inputs, check, derive_ensemble, read_params
from stages.shared.queued import check_reachable


class ProjectRoot(SearchPathPlugin):
    """Lets compose.yaml include params.yaml, which is in the project's root."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append("project", f"file://{ROOT}")


def ensemble(_root_: DictConfig) -> DictConfig:
    if list(_root_) == ["ensemble"]:  # Hydra also looks at compose.yaml alone, before it joins it with params.yaml
        return OmegaConf.create({})
    edited = OmegaConf.masked_copy(_root_, [key for key in _root_ if key != "ensemble"])
    try:
        inputs = check(OmegaConf.to_container(edited), Inputs)
        check_source(inputs.data.source)
        check_weights(inputs.network.weights_file)
        check_reachable("data.source", inputs.data.source)
        check_reachable("network.weights", inputs.network.weights_file)
    except UserError as error:
        sys.exit(f"error: {error}")
    _root_.data.source, _root_.network.weights = inputs.data.source, inputs.network.weights  # each in its one spelling
    return OmegaConf.create(derive_ensemble(inputs))


def check_source(source: str) -> None:
    """The images are there, or DVC knows how to get them."""
    tracked = any((ROOT / f"{folder}.dvc").is_file() for folder in (Path(source), *Path(source).parents))
    if source != "data/phantom" and not (ROOT / source).is_dir() and not tracked:
        raise UserError(f"data.source: {source!r} is not there; expected a folder of class folders (README: Your own images)")


def check_weights(file: str) -> None:
    """The weights file is there, or DVC knows how to get it."""
    if not (ROOT / file).is_file() and not (ROOT / f"{file}.dvc").is_file():
        raise UserError(f"network.weights: {file!r} is not there; expected none, imagenet or the path of a weights file")


def check_before_composition() -> None:
    """Check what Hydra would report in lines of its own, or not at all."""
    try:
        check_no_other_command()
        params = read_params(ROOT / PATH)
        check_numbers(params)
        texts = overrides(sys.argv)
        for text in texts:
            params["recipes"] = preset_recipes(text) or params["recipes"]
        for text in texts:
            check_override(text, params)
    except UserError as error:
        sys.exit(f"error: {error}")


def check_no_other_command() -> None:
    """Refuse to change params.yaml under a stage that is running in this workspace."""
    try:
        locks = json.loads((ROOT / ".dvc/tmp/rwlock").read_bytes())
        writers, readers = locks.get("write", {}).values(), locks.get("read", {}).values()
        holders = {holder["pid"]: holder["cmd"] for holder in [*writers, *(holder for group in readers for holder in group)]}
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return  # missing or damaged: DVC reports it
    for pid, command in holders.items():
        if pid != os.getpid() and psutil.pid_exists(pid):
            raise UserError(
                f"another command is running in this workspace (PID {pid}: {command}); params.yaml is left as it is:"
                " wait until it has ended"
            )


def check_numbers(params: dict) -> None:
    """Refuse a number that `dvc repro` and `dvc exp run` would read differently, such as 010."""
    composed = OmegaConf.to_container(OmegaConf.load(ROOT / PATH))
    if composed != params:
        name = first_difference("", params, composed).removeprefix(".")
        raise UserError(
            f"{PATH}: {name} has two meanings in YAML; expected text in quotes, or a decimal number such as 10 or 0.5"
        )


def overrides(arguments: list[str]) -> list[str]:
    """The overrides of params.yaml on DVC's command line."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-S", "--set-param", action="append", default=[])
    known, _ = parser.parse_known_args(arguments)
    return [text.removeprefix(f"{PATH}:") for text in known.set_param]


def preset_recipes(text: str) -> dict:
    """The recipes of the presets that an override names, which may be several for the queue; none if it names no preset."""
    override = OverridesParser.create().parse_override(text)
    if override.key_or_group != "preset" or override.is_delete():
        return {}
    if override.is_add() or override.is_force_add():
        raise UserError(f"{text}: expected {text.lstrip('+')}, without +")
    known = sorted(path.stem for path in PRESETS.glob("*.yaml"))
    recipes = {}
    for name in override.sweep_string_iterator() if override.is_sweep_override() else [str(override.value())]:
        if name not in known:
            raise UserError(f"preset is {name!r}; expected one of {', '.join(known)}")
        recipes |= OmegaConf.to_container(OmegaConf.load(PRESETS / f"{name}.yaml").recipes)
    return recipes


def check_override(text: str, params: dict) -> None:
    """Refuse an override of a derived parameter, or of one that params.yaml lacks."""
    override = OverridesParser.create().parse_override(text)
    names = override.key_or_group.split(".")
    if names[0] == "ensemble":
        raise UserError(f"{text}: `ensemble` is derived; set recipes, seed, members or network.weights instead")
    if override.key_or_group == "preset":
        return  # see `preset_recipes`
    block = {} if override.is_add() or override.is_force_add() else params
    for place, name in enumerate(names if block else []):
        if not isinstance(block, dict) or name not in block:
            near = difflib.get_close_matches(name, block, n=1) if isinstance(block, dict) else []
            hint = f"; did you mean {'.'.join([*names[:place], *near])}?" if near else ""
            raise UserError(f"{PATH}: {'.'.join(names[: place + 1])} is unknown{hint}")
        block = block[name]


check_before_composition()
OmegaConf.register_new_resolver("ensemble", ensemble, replace=True)
