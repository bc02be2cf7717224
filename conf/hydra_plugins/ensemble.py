"""Hydra plugin: check params.yaml and derive keys of it while `dvc exp run` composes it.

A mistake ends the command with one line before DVC has changed anything. It leaves as `SystemExit`,
since OmegaConf would wrap any other error in several lines of its own.
"""

import argparse
import difflib
import json
import os
import re
import sys
from pathlib import Path

import psutil
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

ROOT = Path(__file__).parents[2]
PRESETS = ROOT / "conf/preset"
DERIVED = {  # keys, and what to set instead
    "ensemble": "recipes, seed, members or network",
    "further_input": "data.labels or data.test",
}
OWN_SETTINGS = {  # settings that recipes may have of their own: the common parameter, and the error
    "network": (
        "network",
        "{override} has no effect on {recipe}, which names its own network; set"
        " {recipe}.{override} too, or take recipes that name none: -S preset=scratch",
    ),
    "epochs": (
        "train.epochs",
        "train.epochs has no effect on {recipe}, which names its own epochs; set {recipe}.epochs"
        " too",
    ),
}
sys.path.append(str(ROOT))  # Hydra imports this file from wherever DVC runs

from brainmri.common.dependencies import first_difference
from brainmri.common.errors import UserError
from brainmri.common.experiments import check_reachable
from brainmri.common.params import EditableParams, derive_ensemble, read_params, validate
from brainmri.common.paths import IMAGENET_WEIGHTS, PARAMS, PHANTOM


class Composition(SearchPathPlugin):
    """Hydra calls this before each composition; compose.yaml includes params.yaml, in the project's
    root.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        check_before_composition()
        OmegaConf.register_new_resolver("ensemble", ensemble, replace=True)
        OmegaConf.register_new_resolver("further_input", further_input, replace=True)
        search_path.append("project", f"file://{ROOT}")


def ensemble(_root_: DictConfig) -> DictConfig:
    """Resolve `${ensemble:}`: check the composed parameters, and derive the block from them."""
    params = composed_params(_root_)
    if params is None:
        return OmegaConf.create({})
    try:
        for name, path in params.data.paths.items():
            check_input(name, path)
            check_reachable(f"data.{name}", path)
        for key, network in params.networks.items():
            check_weights(f"{key}.weights", network.weights_file)
            check_reachable(f"{key}.weights", network.weights_file)
    except UserError as error:
        sys.exit(f"error: {error}")
    for name, path in params.data.paths.items():
        _root_.data[name] = path  # in its one spelling
    _root_.network.weights = params.network.weights
    for name, recipe in params.recipes.items():
        if recipe.network:
            _root_.recipes[name].network.weights = recipe.network.weights
    return OmegaConf.create(derive_ensemble(params))


def further_input(_root_: DictConfig) -> str:
    """Resolve `${further_input:}`, a path."""
    params = composed_params(_root_)
    return params.data.further_input if params else ""


def composed_params(root: DictConfig) -> EditableParams | None:
    """Return the composed parameters; None for compose.yaml alone, which Hydra resolves first."""
    edited = OmegaConf.masked_copy(root, [key for key in root if key not in DERIVED])
    if not edited:
        return None
    try:
        return validate(OmegaConf.to_container(edited), EditableParams)
    except UserError as error:
        sys.exit(f"error: {error}")


def check_input(name: str, path: str) -> None:
    """Check that a file or folder of images, or of labels, is there, or can be checked out."""
    tracked = tracked_path(path)
    if path == str(PHANTOM) or (tracked and not tracked.exists()):
        return
    if name == "labels":
        is_valid, kind, expected = (ROOT / path).is_file(), "file", "a CSV or TSV table"
    else:
        is_valid, kind, expected = (ROOT / path).is_dir(), "folder", "a folder of class folders"
    if not is_valid:
        problem = f"not a {kind}" if (ROOT / path).exists() else "missing"
        remedy = "; or run `dvc checkout`" if tracked else ""
        raise UserError(
            f"data.{name}: {path!r} is {problem}; expected {expected} (README: I have images)"
            f"{remedy}"
        )


def check_weights(key: str, file: str) -> None:
    """Check that a weights file is there, or can be checked out."""
    tracked = tracked_path(file)
    is_expected = file == str(IMAGENET_WEIGHTS) or (tracked and not tracked.exists())
    if not is_expected and not (ROOT / file).is_file():
        raise UserError(
            f"{key}: {file!r} is missing; expected none, imagenet or the path of a weights file"
        )


def tracked_path(path: str) -> Path | None:
    """Return the file or folder that DVC tracks, if it is this path or above it."""
    candidates = (Path(path), *Path(path).parents)
    tracked = [ROOT / place for place in candidates if (ROOT / f"{place}.dvc").is_file()]
    return tracked[0] if tracked else None


def check_before_composition() -> None:
    """Check what Hydra would report in lines of its own, or not at all."""
    try:
        check_no_other_command()
        params = read_params(ROOT / PARAMS)
        check_numbers(params)
        overrides = parse_overrides(override_texts(sys.argv))
        check_one_preset(overrides)
        for override in overrides:
            params["recipes"] = preset_recipes(override, params.get("recipes"))
        for override in overrides:
            check_override(override, params)
        for setting in OWN_SETTINGS:
            check_own_setting(setting, overrides, params.get("recipes"))
    except UserError as error:
        sys.exit(f"error: {error}")


def check_no_other_command() -> None:
    """Refuse to change params.yaml while another command of DVC's runs in this workspace."""
    try:
        locks = json.loads((ROOT / ".dvc/tmp/rwlock").read_bytes())
        holders = [*locks.get("write", {}).values()]
        for readers in locks.get("read", {}).values():
            holders += readers
        commands = {holder["pid"]: holder["cmd"] for holder in holders}
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return  # missing or damaged: DVC reports it
    for pid, command in commands.items():
        if pid != os.getpid() and psutil.pid_exists(pid):
            raise UserError(
                f"another command is running in this workspace (PID {pid}: {command}); params.yaml"
                " is unchanged: wait until it has ended; if it is none of DVC's, run `make repair`"
            )


def check_numbers(params: dict) -> None:
    """Refuse a number that `dvc repro` and `dvc exp run` would read differently, such as 010."""
    composed = OmegaConf.to_container(OmegaConf.load(ROOT / PARAMS))
    if composed != params:
        name = first_difference("", params, composed).removeprefix(".")
        raise UserError(
            f"{PARAMS}: {name} has two meanings in YAML; expected text in quotes, or a decimal"
            " number such as 10 or 0.5"
        )


def override_texts(arguments: list[str]) -> list[str]:
    """Return the overrides of params.yaml on DVC's command line."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-S", "--set-param", action="append", default=[])
    # As DVC takes -fS for -f -S
    separate = [re.sub("^-[fipPqRsv]+S", "-S", argument) for argument in arguments]
    parsed, _ = parser.parse_known_args(separate)
    return [text.removeprefix(f"{PARAMS}:") for text in parsed.set_param]


def parse_overrides(texts: list[str]) -> list[Override]:
    parser = OverridesParser.create()
    return [parser.parse_override(text) for text in texts]


def check_one_preset(overrides: list[Override]) -> None:
    """Refuse a second preset, which Hydra would take in place of the first."""
    presets = [override.input_line for override in overrides if override.key_or_group == "preset"]
    if len(presets) > 1:
        raise UserError(
            f"{' and '.join(presets)}; expected one preset: run with the first one, then with the"
            " other"
        )


def preset_recipes(override: Override, recipes: object) -> object:
    """Return the recipes after an override: those given, or if it names presets, which may be
    several for the queue, those that these make of them.
    """
    if override.key_or_group != "preset" or override.is_delete():
        return recipes
    if override.is_add() or override.is_force_add():
        text = override.input_line
        raise UserError(f"{text}: expected {text.lstrip('+')}, without +")
    names = [str(override.value())]
    if override.is_sweep_override():
        names = list(override.sweep_string_iterator())
    presets = sorted(path.stem for path in PRESETS.glob("*.yaml"))
    after = {}
    for name in names:
        if name not in presets:
            raise UserError(f"preset is {name!r}; expected one of {', '.join(presets)}")
        preset = OmegaConf.load(PRESETS / f"{name}.yaml")
        replaces = "defaults" in preset  # by way of own_recipes.yaml
        own = preset.recipes if replaces else OmegaConf.merge(recipes or {}, preset.recipes)
        after |= OmegaConf.to_container(own)
    return after


def check_own_setting(setting: str, overrides: list[Override], recipes: object) -> None:
    """Refuse an override of a common parameter that leaves members as they are; see
    `OWN_SETTINGS`.
    """
    parameter, message = OWN_SETTINGS[setting]
    kept = recipes_that_keep(setting, overrides, recipes)
    for override in overrides:
        keys = {override.key_or_group, *keys_set(override)}
        if kept and any(f"{key}.".startswith(f"{parameter}.") for key in keys):
            raise UserError(message.format(override=override.input_line, recipe=kept[0]))


def keys_set(override: Override) -> list[str]:
    """Return the parameters that an override sets or removes; of a block, those in it."""

    def walk(key: str, value: object) -> list[str]:
        if not isinstance(value, dict):
            return [key]
        return [path for name in value for path in walk(f"{key}.{name}", value[name])]

    value = None if override.is_delete() else override.value()
    return walk(override.key_or_group, value)


def recipes_that_keep(setting: str, overrides: list[Override], recipes: object) -> list[str]:
    """Return the recipes with a setting of their own that no override sets, by their keys."""
    if not isinstance(recipes, dict):
        return []
    keys = [f"{key}." for override in overrides for key in keys_set(override)]
    kept = []
    for name, recipe in recipes.items():
        own = f"recipes.{name}.{setting}."
        is_set = any(key.startswith(own) or own.startswith(key) for key in keys)
        if isinstance(recipe, dict) and recipe.get(setting) and not is_set:
            kept.append(f"recipes.{name}")
    return kept


def check_override(override: Override, params: dict) -> None:
    """Refuse an override of a derived parameter, or of one that params.yaml lacks."""
    text = override.input_line
    keys = override.key_or_group.split(".")
    if keys[0] in DERIVED:
        raise UserError(f"{text}: `{keys[0]}` is derived; set {DERIVED[keys[0]]} instead")
    is_added = override.is_add() or override.is_force_add()
    if override.key_or_group == "preset" or is_added:
        return
    if override.value() == {}:
        raise UserError(
            f"{text} changes nothing, since a block is merged with what is there; remove keys one"
            f" by one: -S '~{override.key_or_group}.KEY'"
        )
    block = params
    for depth, key in enumerate(keys):
        if not isinstance(block, dict) or key not in block:
            near = difflib.get_close_matches(key, block, n=1) if isinstance(block, dict) else []
            hint = f"; did you mean {'.'.join([*keys[:depth], *near])}?" if near else ""
            raise UserError(f"{PARAMS}: {'.'.join(keys[: depth + 1])} is unknown{hint}")
        block = block[key]
