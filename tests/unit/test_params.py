"""params.yaml: its checks, the derived block, and the page that documents it."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import yaml
from dvc.utils.serialize import load_yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from brainmri.common.errors import UserError
from brainmri.common.params import (
    Data,
    IncludedNetwork,
    Ingest,
    KerasApplication,
    OwnNetwork,
    Params,
    Recipe,
    Train,
    derive_ensemble,
    load_params,
    read_params,
    validate,
)
from brainmri.crossval.experiments import compose_params
from brainmri.networks.applications import APPLICATIONS
from brainmri.networks.builders import NETWORKS
from conf.hydra_plugins import ensemble as plugin
from docs.make_parameters import describe_values, markdown_tables
from tests.support.checkout import ROOT
from tests.support.project import assign, scratch_params

COMMITTED = yaml.safe_load((ROOT / "params.yaml").read_text())
CONTENT = scratch_params()


def changed(**values):
    content = copy.deepcopy(CONTENT)
    assign(content, values)
    return content


def test_committed_parameters_are_valid(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert len(load_params().ensemble) == COMMITTED["members"]


def test_members_do_not_depend_on_their_number():
    """Each takes the next recipe in turn."""
    five = derive_ensemble(validate(changed(members=5), Params))
    nine = derive_ensemble(validate(changed(members=9), Params))
    assert list(nine)[:5] == list(five)
    assert all(nine[name] == five[name] for name in five)
    names = list(CONTENT["recipes"])
    in_turn = [names[index % len(names)] for index in range(9)]
    assert [member["recipe"] for member in nine.values()] == in_turn
    assert len({member["seed"] for member in nine.values()}) == 9


def test_ensembles_share_no_member_seed():
    seeds = set()
    for seed in (0, 1):
        ensemble = derive_ensemble(validate(changed(seed=seed, members=20), Params))
        seeds |= {member["seed"] for member in ensemble.values()}
    assert len(seeds) == 2 * 20


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"members": True}, "members is True; expected a valid integer"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": None}, "seed is None"),
        ({"data__source": ""}, "data.source is ''"),
        ({"data__labels": ""}, "data.labels is ''"),
        ({"data__test": ""}, "data.test is ''"),
        (
            {"data__labels": "table.csv", "data__test": "data/held"},
            "data: test is 'data/held'; expected null with labels: name the test images in the"
            " table's column split",
        ),
        (
            {"data__source": "data/raw", "data__test": "data/raw/Testing"},
            "data: test is 'data/raw/Testing' and source is 'data/raw'; expected separate folders,"
            " neither in the other",
        ),
        ({"data__source": "data/raw/a", "data__test": "./data//raw"}, "neither in the other"),
        ({"data__source": "data/raw", "data__test": "data/raw/"}, "neither in the other"),
        ({"data__patient": 5}, "data.patient is 5; expected text: quote it"),
        (
            {"data__patient": "P[0-9]+"},
            "data.patient: 'P[0-9]+' has 0 groups; expected one, the patient, such as",
        ),
        ({"data__patient": "(P)(Q)"}, "data.patient: '(P)(Q)' has 2 groups"),
        (
            {"data__patient": "(P"},
            "data.patient: '(P' is no regular expression: missing ), unterminated subpattern",
        ),
        ({"split__overlap": "remove"}, "split.overlap is 'remove'; expected 'drop', 'error' or"),
        ({"ingest__image_size": 8}, "ingest.image_size is 8"),
        ({"split__folds": 1}, "split.folds is 1"),
        ({"recipes__base__fraction": 0}, "recipes.base.fraction is 0"),
        ({"recipes__light__fraction": 5.0}, "recipes.light.fraction is 5.0"),
        (
            {"bootstrap__scheme": "subsample"},
            "recipes.base.fraction is 1.0; expected below 1 with bootstrap.scheme: subsample",
        ),
        (
            {
                "bootstrap__scheme": "subsample",
                "recipes__base__fraction": 0.8,
                "recipes__strong__fraction": 0.5,
            },
            "recipes.light.fraction is 1.0; expected below 1",
        ),
        (
            {f"recipes__{name}__fraction": 0.8 for name in ("base", "light")}
            | {"bootstrap__scheme": "committee", "recipes__strong__fraction": 0.5},
            (
                "recipes.strong.fraction is 0.5; expected 0.8, as in recipes.base,"
                " with bootstrap.scheme: committee"
            ),
        ),
        (
            {f"recipes__{name}__fraction": 0.6 for name in ("base", "light", "strong")}
            | {"bootstrap__scheme": "committee"},
            "recipes.base.fraction is 0.6; expected 1/2, 2/3, 3/4, 4/5 or the like",
        ),
        (
            {"network__name": "seed-cnn", "ingest__image_size": 45},
            "ingest.image_size is 45; expected 46 or more with network.name",
        ),
        ({"train__epochs": "many"}, "train.epochs is 'many'"),
        ({"train__clip_norm": -1.0}, "train.clip_norm is -1.0"),
        ({"train__clip_norm": float("nan")}, "train.clip_norm is nan"),
        (
            {"train__reduce_lr": 3, "train__schedule": "cosine"},
            "reduce_lr is 3, which needs schedule: constant",
        ),
        ({"train__augment__rotation": 400}, "train.augment.rotation is 400"),
        ({"recipes": {}}, "recipes is {}"),
        ({"recipes": ["base"]}, "recipes is ['base']"),
        ({"fan_out__jobs": "all"}, "fan_out.jobs is 'all'"),
        ({"weigh": {}}, "weigh.scheme is missing"),
        ({"wiegh": {}}, "wiegh is unknown; did you mean weigh?"),
        ({"train__epoch": 3}, "train.epoch is unknown; did you mean epochs?"),
        ({"phantom__classes__yes": 0}, "expected two classes or more"),
    ],
)
def test_invalid_values_are_named(values, message):
    with pytest.raises(UserError) as error:
        validate(changed(**values), Params)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["none", "int", "functional", "literal"])
def test_recipes_with_names_of_types_are_named(name):
    recipe = changed()["recipes"]["base"]
    recipes = {"base": recipe, name: {**recipe, "dropout": 3, "epochs": "all"}}
    with pytest.raises(UserError) as error:
        validate(changed(recipes=recipes), Params)
    assert f"recipes.{name}.dropout is 3; expected a number less than 1" in str(error.value)
    assert f"recipes.{name}.epochs is 'all'; expected a valid integer" in str(error.value)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("2e-3", 0.002),
        ("2E-3", 0.002),
        ("+2.0e-3", 0.002),
        (".002", 0.002),
        ("1e1", 10.0),
        ("1", 1),
        ("0x10", 16),
        ("0o10", 8),
        ("0b11", 3),
        ("010", 10),
        ("1_000", 1000),
    ],
)
def test_numbers_are_read_as_by_dvc(tmp_path, monkeypatch, written, value):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "params.yaml").read_text().replace("clip_norm: 1.0", f"clip_norm: {written}")
    Path("params.yaml").write_text(text)
    clip_norm = load_params().train.clip_norm
    assert clip_norm == value
    # What DVC reads, and so records
    assert load_yaml("params.yaml")["train"]["clip_norm"] == value


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "'no': 98",
            "no: 98",
            "phantom.classes.false is a boolean, as YAML reads no, off and false without quotes",
        ),
        (
            "'yes': 155",
            "yes: 155",
            "phantom.classes.true is a boolean, as YAML reads yes, on and true without quotes",
        ),
        ("  scratch:", "  1:", "recipes.1 is not text; expected a name: quote it, as '1':"),
        ("positive: auto", "positive: 1", "quote it, -S \"evaluate.positive='NAME'\""),
        ("seed: 0", "seed: 1:30", "seed is '1:30'; expected a valid integer"),
        ("crop: true", "crop: [", "params.yaml is not valid YAML"),
    ],
)
def test_values_that_yaml_reads_otherwise(tmp_path, before, after, message):
    text = (ROOT / "params.yaml").read_text()
    assert before in text
    path = tmp_path / "params.yaml"
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(UserError) as error:
        validate(read_params(path), Params)
    assert message in str(error.value)


ANY = math.inf
RANGES = {  # of whole numbers
    "seed": (0, 2**20 - 1),
    "members": (1, 999),
    "phantom.seed": (0, 2**20 - 1),
    **{f"phantom.classes.{kind}": (0, ANY) for kind in CONTENT["phantom"]["classes"]},
    "ingest.image_size": (16, 1024),
    "split.folds": (2, ANY),
    "split.fold": (0, CONTENT["split"]["folds"] - 1),
    "split.near_duplicate_bits": (0, 256),
    **{
        f"train.{name}": (1, ANY)
        for name in ("epochs", "batch_size", "threads", "replicas", "early_stopping")
    },
    "fan_out.jobs": (1, ANY),
    "fan_out.members_per_gpu": (1, ANY),
    "evaluate.resamples": (100, 100_000),
    "evaluate.bins": (2, 100),
    "evaluate.gallery": (0, 64),
    "explain.images": (0, 64),
}
SPANS = {  # of other numbers, with whether the ends belong to them
    "train.clip_norm": (0, ANY, False, False),
    "train.label_smoothing": (0, 1, True, False),
    "train.mixup": (0, 0.5, True, True),
    "train.augment.rotation": (0, 180, True, True),
    "train.augment.shift": (0, 0.5, True, True),
    "train.augment.zoom": (0, 0.5, True, True),
    "train.augment.contrast": (0, 1, True, True),
    "train.augment.brightness": (0, 1, True, True),
    "train.augment.erase": (0, 0.7, True, True),
    **{f"recipes.base.{penalty}": (0, ANY, True, False) for penalty in ("l1", "l2")},
    "recipes.base.dropout": (0, 1, True, False),
    "recipes.base.learning_rate": (0, ANY, False, False),
    "recipes.base.augment": (0, 3, True, True),
    "recipes.base.fraction": (0, 4, False, True),
    "decide.min_sensitivity": (0, 1, False, True),
    "decide.min_specificity": (0, 1, False, True),
    "decide.error": (0.001, 0.5, True, True),
    "decide.prevalence": (0, 1, False, False),
    "export.false_alarms": (0, 0.5, False, True),
}


def is_allowed(name, value):
    values = {
        "split__fold": 0,
        "phantom__classes__glioma": 9,
        name.replace(".", "__"): value,
    }
    try:
        validate(changed(**values), Params)
    except UserError as error:
        assert name.rpartition(".")[2] in str(error)
        return False
    return True


@pytest.mark.parametrize(("name", "ends"), RANGES.items())
def test_ranges_of_whole_numbers(name, ends):
    least, most = ends
    assert is_allowed(name, least)
    assert not is_allowed(name, least - 1)
    assert is_allowed(name, 2**19 if most == ANY else most)
    assert most == ANY or not is_allowed(name, most + 1)


@pytest.mark.parametrize(("name", "span"), SPANS.items())
def test_ranges_of_other_numbers(name, span):
    least, most, with_least, with_most = span
    assert is_allowed(name, float(least)) == with_least
    assert is_allowed(name, float(most)) == with_most
    assert not is_allowed(name, math.nextafter(least, -1))
    assert is_allowed(name, math.nextafter(least, 1))
    assert is_allowed(name, math.nextafter(most, 0))
    assert most == ANY or not is_allowed(name, math.nextafter(most, 1000))


@pytest.mark.parametrize(
    "name",
    [
        "split.fold",
        "split.near_duplicate_bits",
        "train.clip_norm",
        "train.early_stopping",
        "train.reduce_lr",
    ],
)
def test_null_switches_off(name):
    assert is_allowed(name, None)


@pytest.mark.parametrize(
    ("network", "least"),
    [
        ("seed-cnn", 46),
        *((name, 32) for name in APPLICATIONS),
        ("residual", 16),
        ("notebook-1", 16),
    ],
)
def test_smallest_image_size_of_a_network(network, least):
    values = {"network__name": network, "network__weights": "none"}
    params = validate(changed(**values, ingest__image_size=least), Params)
    assert params.ingest.image_size == least
    with pytest.raises(UserError, match="image_size"):
        validate(changed(**values, ingest__image_size=least - 1), Params)


@pytest.mark.parametrize(
    ("name", "weights", "file"),
    [
        ("vgg16", "none", "data/weights/README.md"),
        ("vgg16", "imagenet", "data/weights/README.md"),
        ("vgg16", "w/own.h5", "w/own.h5"),
        ("efficientnet-lite0", "none", "data/weights/README.md"),
        ("efficientnet-lite0", "imagenet", "data/weights/efficientnet-lite0.weights.h5"),
        ("efficientnet-lite0", "./w//own.h5", "w/own.h5"),
    ],
)
def test_members_depend_on_the_weights_file(name, weights, file):
    """The stage `pretrained` writes that of EfficientNet-Lite0; Keras downloads the others."""
    params = validate(changed(network__name=name, network__weights=weights), Params)
    assert params.network.weights_file == file
    assert {member["weights_file"] for member in derive_ensemble(params).values()} == {file}


@pytest.mark.parametrize("weights", ["imagenet", "w/own.h5"])
def test_own_networks_have_no_weights(weights):
    with pytest.raises(UserError, match="expected none with residual"):
        validate(changed(network__name="residual", network__weights=weights), Params)
    own = {"name": "residual", "weights": weights, "freeze": False}
    with pytest.raises(UserError, match=r"recipes\.light\.network: .*expected none with residual"):
        validate(changed(recipes__light__network=own), Params)


def test_smallest_image_size_of_a_recipes_network():
    """Of networks that members have: the block `network` does not count if all have others."""
    own = {"name": "vgg16", "weights": "none", "freeze": False}
    content = changed(ingest__image_size=31, recipes__strong__network=own)
    with pytest.raises(UserError) as raised:
        validate(content, Params)
    assert str(raised.value) == (
        "params.yaml: ingest.image_size is 31; expected 32 or more with"
        " recipes.strong.network.name: vgg16"
    )
    content["ingest"]["image_size"] = 32
    assert validate(content, Params).recipes["strong"].network.name == "vgg16"

    content["network"]["name"] = "seed-cnn"
    with pytest.raises(UserError, match=r"46 or more with network\.name: seed-cnn"):
        validate(content, Params)
    for recipe in content["recipes"].values():
        recipe["network"] = own
    assert list(validate(content, Params).networks) == [
        "recipes.base.network",
        "recipes.strong.network",
        "recipes.light.network",
    ]


def test_members_are_derived_from_recipes():
    values = {
        "l1": 0.25,
        "l2": 0.5,
        "dropout": 0.125,
        "learning_rate": 0.75,
        "augment": 2.0,
        "fraction": 0.875,
    }
    other_values = {
        "l1": 1.0,
        "l2": 2.0,
        "dropout": 0.0,
        "learning_rate": 3.0,
        "augment": 0.5,
        "fraction": 4.0,
    }
    content = changed(seed=7, members=102, recipes={"second": values, "first": other_values})
    ensemble = derive_ensemble(validate(content, Params))
    assert list(ensemble)[:3] == ["member-00", "member-01", "member-02"]
    assert list(ensemble)[99:] == ["member-99", "member-100", "member-101"]
    shared = {
        "network": CONTENT["network"],
        "epochs": None,
        "weights_file": "data/weights/README.md",
        "features": "data/README.md",
    }
    assert ensemble["member-00"] == {"recipe": "second", "seed": 7000, **values, **shared}
    assert ensemble["member-01"] == {"recipe": "first", "seed": 7001, **other_values, **shared}
    assert ensemble["member-02"] == {"recipe": "second", "seed": 7002, **values, **shared}
    assert ensemble["member-101"] == {"recipe": "first", "seed": 7101, **other_values, **shared}
    assert derive_ensemble(validate(content | {"seed": 0}, Params))["member-02"]["seed"] == 2


def test_recipes_may_have_their_own_network_and_epochs():
    """The others have those of the blocks `network` and `train`."""
    own = {"name": "efficientnet-lite0", "weights": "imagenet", "freeze": False}
    file = {"name": "vgg16", "weights": "w/own.h5", "freeze": True}
    content = changed(
        members=6,
        recipes__base__network=own,
        recipes__base__epochs=7,
        recipes__strong__epochs="auto",
        recipes__light__network=file,
    )
    params = validate(content, Params)
    base, strong, light, *again = derive_ensemble(params).values()
    assert (base["network"], base["epochs"]) == (own, 7)
    assert base["weights_file"] == "data/weights/efficientnet-lite0.weights.h5"
    assert (strong["network"], strong["epochs"]) == (content["network"], "auto")
    assert strong["weights_file"] == "data/weights/README.md"
    assert (light["network"], light["epochs"]) == (file, None)
    assert light["weights_file"] == "w/own.h5"
    for first, second in zip((base, strong, light), again, strict=True):
        assert {**first, "seed": second["seed"]} == second
    assert {key: network.name for key, network in params.networks.items()} == {
        "recipes.base.network": "efficientnet-lite0",
        "network": content["network"]["name"],
        "recipes.light.network": "vgg16",
    }


def test_members_are_ordered_by_number(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = changed(members=101)
    content["ensemble"] = dict(sorted(derive_ensemble(validate(content, Params)).items()))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    assert list(load_params().ensemble) == [f"member-{number:02}" for number in range(101)]


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("member-03", "seed", 4),
        ("member-100", "l2", 0.5),
        ("member-00", "recipe", "strong"),
        ("member-00", "epochs", 3),
        ("member-00", "network", {**CONTENT["network"], "name": "residual"}),
    ],
)
def test_an_edited_member_is_refused(tmp_path, monkeypatch, name, key, value):
    monkeypatch.chdir(tmp_path)
    content = changed(members=101)
    content["ensemble"] = derive_ensemble(validate(content, Params))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    load_params()
    content["ensemble"][name][key] = value
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(UserError, match="does not fit"):
        load_params()


@pytest.mark.parametrize(
    ("scheme", "fractions", "is_valid"),
    [
        ("bootstrap", (1.0, 4.0, 0.5), True),
        ("subsample", (0.9, 0.5, 0.1), True),
        ("subsample", (0.9, 0.5, 1.0), False),
        ("committee", (0.8, 0.8, 0.8), True),
        ("committee", (0.8, 0.8, 0.7), False),
        ("committee", (1.0, 1.0, 1.0), False),
    ],
)
def test_samples_without_replacement_hold_images_out(scheme, fractions, is_valid):
    values = {
        f"recipes__{name}__fraction": fraction
        for name, fraction in zip(CONTENT["recipes"], fractions, strict=True)
    }
    content = changed(bootstrap__scheme=scheme, **values)
    if is_valid:
        validate(content, Params)
    else:
        with pytest.raises(UserError, match="fraction is"):
            validate(content, Params)


@pytest.mark.parametrize(
    ("schedule", "reduce_lr", "is_valid"),
    [("cosine", None, True), ("constant", 1, True), ("cosine", 1, False)],
)
def test_only_a_constant_rate_is_reduced(schedule, reduce_lr, is_valid):
    content = changed(train__schedule=schedule, train__reduce_lr=reduce_lr)
    if is_valid:
        assert validate(content, Params).train.reduce_lr == reduce_lr
    else:
        with pytest.raises(UserError, match="reduce_lr"):
            validate(content, Params)


@pytest.mark.parametrize(
    ("counts", "is_valid"),
    [((1, 1, 0, 0, 0), True), ((0, 0, 0, 1, 1), True), ((0, 9, 0, 0, 0), False), ((0,) * 5, False)],
)
def test_built_in_data_have_two_classes(counts, is_valid):
    classes = dict(zip(CONTENT["phantom"]["classes"], counts, strict=True))
    content = changed(phantom__classes=classes)
    if is_valid:
        validate(content, Params)
    else:
        with pytest.raises(UserError, match="two classes"):
            validate(content, Params)


def keys_of(block: dict, above: tuple = ()) -> list[tuple]:
    """Return the paths of all keys, also of those that have blocks."""
    paths = []
    for key, value in block.items():
        paths.append((*above, key))
        if isinstance(value, dict):
            paths += keys_of(value, (*above, key))
    return paths


KEYS = [path for path in keys_of(COMMITTED) if path[0] != "ensemble"]
# Not the comment, which may be missing, nor the recipes, which users name.
FIXED_KEYS = [path for path in KEYS if path != ("about",) and path[:-1] != ("recipes",)]
OPTIONAL_KEYS = [path for path in KEYS if path[0] == "recipes" and path[2:] == ("network",)]


def error_after(path: tuple, change: Callable[[dict, str], object]) -> str | None:
    """Return the error after a change to the block that holds a key; None if it is still valid."""
    content = copy.deepcopy(COMMITTED)
    block = content
    for section in path[:-1]:
        block = block[section]
    change(block, path[-1])
    try:
        validate(content, Params)
    except UserError as error:
        assert "\n" not in str(error)
        return str(error)
    return None


@pytest.mark.parametrize("path", FIXED_KEYS, ids=".".join)
def test_missing_misspelled_and_mistyped_keys_are_named(path):
    def remove(block: dict, key: str) -> None:
        del block[key]

    def misspell(block: dict, key: str) -> None:
        block[f"{key}e"] = block.pop(key)

    def mistype(block: dict, key: str) -> None:
        block[key] = [[]]

    name = ".".join(path)
    if path in OPTIONAL_KEYS:
        assert error_after(path, remove) is None
    else:
        assert f"{name} is missing" in error_after(path, remove)
    assert f"{name}e is unknown; did you mean {path[-1]}?" in error_after(path, misspell)
    error = error_after(path, mistype)
    # Of a list, the item is wrong
    assert f"{name} is [[]]; expected" in error or f"{name}.0 is []; expected" in error


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=3,
)


@given(path=st.sampled_from(KEYS), value=anything)
@settings(deadline=None, max_examples=500)
def test_any_value_is_valid_or_named(path, value):
    error = error_after(path, lambda block, key: block.update({key: value}))
    assert error is None or path[-1] in error


def test_edits_without_composition_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = next(iter(CONTENT["recipes"]))
    for values in ({"members": 9}, {"seed": 5}, {f"recipes__{first}__l2": 0.3}):
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(changed(**values), sort_keys=False))
        with pytest.raises(UserError, match="run `dvc exp run`"):
            load_params()


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({}, "data/README.md"),
        ({"data__labels": "data/table.csv"}, "data/table.csv"),
        ({"data__test": "data/held"}, "data/held"),
    ],
)
def test_ingest_depends_on_a_table_or_a_test_folder(tmp_path, monkeypatch, values, path):
    """Edited by hand, these need `dvc exp run`, which derives the key."""
    monkeypatch.chdir(tmp_path)
    content = changed(**values, further_input=path)
    content["ensemble"] = derive_ensemble(validate(content, Params))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    assert load_params().data.further_input == path
    content["further_input"] = "data/other"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(UserError) as raised:
        load_params()
    assert str(raised.value) == (
        "params.yaml: the derived key `further_input` (data/other) does not fit data.labels and"
        " data.test, as happens when they are edited by hand; run `dvc exp run` once, which derives"
        " it again"
    )


def test_first_file_that_ingest_depends_on_exists():
    assert (ROOT / CONTENT["further_input"]).is_file()
    assert CONTENT["further_input"] == validate(CONTENT, Params).data.further_input


@pytest.mark.parametrize(
    ("override", "data", "path"),
    [
        ("data.labels=./docs//parameters.md", {"labels": "docs/parameters.md"}, None),
        ("data.test=tests/", {"test": "tests"}, None),
        ("data.test=null", {}, "data/README.md"),
        ('data.patient="(P[0-9]+)_"', {"patient": "(P[0-9]+)_"}, "data/README.md"),
        (r"data.patient='/(\w+)-\d{2}$'", {"patient": r"/(\w+)-\d{2}$"}, "data/README.md"),
    ],
)
def test_composition_derives_what_ingest_depends_on(monkeypatch, override, data, path):
    monkeypatch.chdir(ROOT)
    content = compose_params([override])
    assert content["data"] == CONTENT["data"] | data
    assert content["further_input"] == (path or next(iter(data.values())))
    validate(content, Params)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "data.labels=data/nowhere.csv",
            "data.labels: 'data/nowhere.csv' is missing; expected a CSV or TSV table",
        ),
        ("data.labels=docs", "data.labels: 'docs' is not a file; expected a CSV or TSV table"),
        (
            "data.test=data/nowhere",
            "data.test: 'data/nowhere' is missing; expected a folder of class folders",
        ),
        ("data.test=README.md", "data.test: 'README.md' is not a folder"),
        ("data.patient='(P'", "params.yaml: data.patient: '(P' is no regular expression"),
        ("further_input=README.md", "`further_input` is derived; set data.labels or data.test"),
    ],
)
def test_composition_refuses_what_is_missing_or_derived(monkeypatch, override, message):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["dvc", "exp", "run", "-S", override])
    with pytest.raises(SystemExit) as raised:
        compose_params([override])
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def compose_from_command_line(monkeypatch, overrides: list[str]) -> dict:
    """Compose params.yaml as `dvc exp run -S …` does."""
    monkeypatch.chdir(ROOT)
    arguments = [word for override in overrides for word in ("-S", override)]
    monkeypatch.setattr("sys.argv", ["dvc", "exp", "run", *arguments])
    return compose_params(overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["network.name=residual"],
        ["network.freeze=false", "members=3"],
        ["network={name: residual}"],
        ["+network={}"],
        ["network.name=residual", "recipes.fine-tuned.l2=0.1"],
        ["network.name=residual", "+recipes.scratch.epochs=3"],
        ["network.name=residual", "preset=bagging"],
        ["network.name=residual", "recipes.fine-tuned={dropout: 0.4}"],
        ["network.name=residual", "recipes={scratch: {dropout: 0.4}}"],
    ],
    ids=" ".join,
)
def test_network_of_some_members_is_not_changed_unnoticed(monkeypatch, overrides):
    with pytest.raises(SystemExit) as raised:
        compose_from_command_line(monkeypatch, overrides)
    assert str(raised.value) == (
        f"error: {overrides[0]} has no effect on recipes.fine-tuned, which names its own network;"
        f" set recipes.fine-tuned.{overrides[0]} too, or take recipes that name none:"
        " -S preset=scratch"
    )


def check_own_setting(setting: str, overrides: list[str], recipes: dict) -> None:
    plugin.check_own_setting(setting, plugin.parse_overrides(overrides), recipes)


def test_epochs_of_some_members_are_not_left_unnoticed():
    recipes = {"own": {"epochs": 3}, "other": {"epochs": None}, "third": {}}
    with pytest.raises(UserError, match=r"has no effect on recipes\.own.*set recipes\.own\.epochs"):
        check_own_setting("epochs", ["train.epochs=5"], recipes)
    check_own_setting("epochs", ["train.epochs=5", "recipes.own.epochs=5"], recipes)
    check_own_setting("epochs", ["members=3"], recipes)
    with pytest.raises(UserError, match=r"has no effect on recipes\.own"):
        check_own_setting("epochs", ["train={epochs: 5}", "recipes.own={l2: 0.1}"], recipes)
    for override in ("recipes.own={epochs: 5}", "recipes.own.epochs=null", "~recipes.own"):
        check_own_setting("epochs", ["train.epochs=5", override], recipes)


@pytest.mark.parametrize(
    "override",
    [
        "recipes.own.network.name=residual",
        "recipes.own.network=null",
        "recipes.own.network={name: residual}",
        "recipes={own: {network: {name: residual}}}",
        "~recipes.own.network",
    ],
)
def test_network_of_a_recipe_is_set_too(override):
    recipes = {"own": {"network": {"name": "efficientnet-lite0"}}, "other": {}}
    check_own_setting("network", ["network.name=residual", override], recipes)


def test_a_second_preset_is_refused(monkeypatch):
    """Hydra would take it in place of the first."""
    with pytest.raises(SystemExit, match="preset=scratch and preset=bagging; expected one preset"):
        compose_from_command_line(monkeypatch, ["preset=scratch", "preset=bagging"])


def test_an_empty_block_is_refused(monkeypatch):
    with pytest.raises(SystemExit, match="changes nothing"):
        compose_from_command_line(monkeypatch, ["decide.costs={}"])


def test_override_after_other_short_options(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["dvc", "exp", "run", "-qfS", "network.name=residual"])
    with pytest.raises(SystemExit, match=r"has no effect on recipes\.fine-tuned"):
        compose_params(["network.name=residual"])


LITE = "{name: efficientnet-lite0, weights: imagenet, freeze: true}"


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["preset=scratch", "network.name=residual"], ["residual"] * 3),
        (
            ["network.name=residual", f"+recipes.base.network={LITE}", "preset=scratch"],
            ["efficientnet-lite0", "residual", "residual"],
        ),
        (
            ["network.name=residual", "recipes.fine-tuned.network.freeze=true"],
            ["efficientnet-lite0", "residual"],
        ),
        (["network.name=residual", "recipes.fine-tuned.network=null"], ["residual"] * 2),
        (["network.name=residual", "~recipes.fine-tuned"], ["residual"]),
        (["recipes.fine-tuned.network.name=mobilenet-v2"], ["mobilenet-v2", "residual-sides"]),
    ],
    ids=" ".join,
)
def test_network_of_all_members_is_changed(monkeypatch, overrides, names):
    content = compose_from_command_line(monkeypatch, overrides)
    members = list(validate(content, Params).ensemble.values())
    assert [member.network.name for member in members[: len(names)]] == names


def test_recipes_of_any_name_have_networks(monkeypatch):
    """The paths of their weights are kept in one spelling."""
    network = "{name: vgg16, weights: ./data//weights/README.md, freeze: true}"
    values = "l1: 0.0, l2: 0.0, dropout: 0.5, learning_rate: 0.1, augment: 1.0, fraction: 0.8"
    recipe = f"+recipes={{v1.5: {{{values}, network: {network}}}}}"
    content = compose_from_command_line(monkeypatch, [recipe, "preset=scratch", "members=4"])
    assert content["recipes"]["v1.5"]["network"]["weights"] == "data/weights/README.md"
    assert content["ensemble"]["member-03"]["weights_file"] == "data/weights/README.md"
    assert validate(content, Params).ensemble["member-03"].recipe == "v1.5"


@pytest.mark.parametrize("recipe", ["fine-tuned", "scratch"])
def test_missing_weights_of_a_recipe_are_named(monkeypatch, recipe):
    override = f"+recipes.{recipe}.network={{name: vgg16, weights: w/own.h5, freeze: true}}"
    with pytest.raises(SystemExit) as raised:
        compose_from_command_line(monkeypatch, [override.lstrip("+" * (recipe == "fine-tuned"))])
    assert str(raised.value) == (
        f"error: recipes.{recipe}.network.weights: 'w/own.h5' is missing; expected none, imagenet"
        " or the path of a weights file"
    )


@pytest.mark.parametrize("pointer", ["w/own.h5.dvc", "w.dvc"])
def test_tracked_weights_need_not_be_checked_out(tmp_path, monkeypatch, pointer):
    monkeypatch.setattr(plugin, "ROOT", tmp_path)
    with pytest.raises(UserError, match=r"network\.weights: 'w/own\.h5' is missing"):
        plugin.check_weights("network.weights", "w/own.h5")
    (tmp_path / pointer).parent.mkdir(exist_ok=True)
    (tmp_path / pointer).touch()
    plugin.check_weights("network.weights", "w/own.h5")


@pytest.mark.parametrize("path", ["raw/Trainin", "raw/none/Training"])
def test_misspelled_folders_of_tracked_ones_are_named(tmp_path, monkeypatch, path):
    monkeypatch.setattr(plugin, "ROOT", tmp_path)
    (tmp_path / "raw.dvc").touch()
    plugin.check_input("source", path)
    (tmp_path / "raw/Training").mkdir(parents=True)
    plugin.check_input("source", "raw/Training")
    with pytest.raises(UserError, match=rf"'{path}' is missing; .*; or run `dvc checkout`$"):
        plugin.check_input("source", path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing"),
        ("a: [", "is not valid YAML"),
        ("[]", "expected a mapping"),
        ("", "expected a mapping"),
    ],
)
def test_files_without_parameters_are_refused(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "params.yaml").write_text(content)
    with pytest.raises(UserError, match=message):
        load_params()


SEED_RECIPES = {  # l1, l2, dropout, learning_rate, augment, fraction
    "original": {
        "first": [1e-5, 1e-4, 0.3, 0.001, 1.0, 0.8],
        "second": [1e-6, 1e-3, 0.4, 0.0005, 1.0, 0.9],
        "third": [1e-4, 1e-5, 0.5, 0.00025, 1.0, 1.0],
    },
    "notebook-1": {"notebook": [0.0, 0.0, 0.0, 0.001, 1.0, 1.0]},
    "notebook-2": {"notebook": [0.0, 0.0, 0.15, 0.001, 1.0, 1.0]},
    "notebook-3": {"notebook": [0.0, 0.0, 0.5, 0.001, 1.0, 1.0]},
}


def test_each_preset_is_tested():
    presets = {path.stem for path in (ROOT / "conf/preset").glob("*.yaml")}
    assert presets == {*SEED_RECIPES, "bagging", "scratch", "frozen", "fine-tuned"}


@pytest.mark.parametrize(("preset", "freeze"), [("frozen", True), ("fine-tuned", "early")])
def test_pretrained_presets(monkeypatch, preset, freeze):
    """All members start from the installed weights; frozen ones depend on features."""
    monkeypatch.chdir(ROOT)
    params = validate(compose_params([f"preset={preset}"]), Params)
    for member in params.ensemble.values():
        assert member.network.name == "efficientnet-lite0"
        assert member.network.freeze == freeze
        assert member.weights_file == "data/weights/efficientnet-lite0.weights.h5"
        has_features = member.features.startswith("data/features/efficientnet-lite0-")
        assert has_features == (freeze is True)


def test_bagging_preset(monkeypatch):
    """It draws as many images as there are with replacement, and changes nothing else."""
    monkeypatch.chdir(ROOT)
    content = compose_params(["preset=bagging"])
    params = validate(content, Params)
    assert params.bootstrap.scheme == "bootstrap"
    assert {member.fraction for member in params.ensemble.values()} == {1.0}
    for recipe in content["recipes"].values():
        recipe["fraction"] = 0.8
    assert content["recipes"] == COMMITTED["recipes"]
    changed = ("bootstrap", "recipes", "ensemble")
    assert {key: value for key, value in content.items() if key not in changed} == {
        key: value for key, value in COMMITTED.items() if key not in changed
    }


def test_scratch_preset(monkeypatch):
    """It replaces the recipes, and changes nothing else."""
    monkeypatch.chdir(ROOT)
    content = compose_params(["preset=scratch"])
    params = validate(content, Params)
    kept = {key: value for key, value in content.items() if key not in ("recipes", "ensemble")}
    assert kept == {key: COMMITTED[key] for key in kept}
    assert list(content) == list(COMMITTED)
    assert list(params.recipes) == ["base", "strong", "light"]
    assert list(params.networks) == ["network"]
    assert {member.network for member in params.ensemble.values()} == {params.network}
    assert not params.network.is_pretrained


@pytest.mark.parametrize(("preset", "recipes"), SEED_RECIPES.items())
def test_presets_have_recipes_of_the_seed_projects(preset, recipes, monkeypatch):
    monkeypatch.chdir(ROOT)
    content = compose_params([f"preset={preset}", "seed=1"])
    params = validate(content, Params)
    assert list(content) == list(CONTENT)  # no key of the preset's own
    values = {
        name: list(recipe.model_dump(exclude_unset=True).values())
        for name, recipe in params.recipes.items()
    }
    assert values == recipes
    assert params.members == len(recipes)
    ensemble = {name: member.model_dump() for name, member in params.ensemble.items()}
    assert ensemble == derive_ensemble(params)
    assert [member.recipe for member in params.ensemble.values()] == list(recipes)


def test_original_preset(monkeypatch):
    monkeypatch.chdir(ROOT)
    params = validate(compose_params(["preset=original"]), Params)
    train = params.train
    assert params.network.name == "seed-cnn"
    assert params.ingest.image_size == 128
    assert not params.ingest.crop
    assert (train.batch_size, train.label_smoothing, train.clip_norm) == (32, 0.1, 1.0)
    assert (train.early_stopping, train.reduce_lr, train.schedule) == (10, 5, "constant")
    assert not any(train.augment.model_dump().values())
    assert train.mixup == 0
    assert train.class_weights == "none"


@pytest.mark.parametrize("number", [1, 2, 3])
def test_notebook_presets(number, monkeypatch):
    monkeypatch.chdir(ROOT)
    params = validate(compose_params([f"preset=notebook-{number}"]), Params)
    network = {
        "name": f"notebook-{number}",
        "weights": "imagenet" if number == 3 else "none",
        "freeze": True,
    }
    assert params.network.model_dump() == network
    assert params.ingest.image_size == 240
    assert params.train.augment.flip


def test_overrides_change_a_preset(monkeypatch):
    monkeypatch.chdir(ROOT)
    content = compose_params(
        ["preset=original", "members=4", "recipes.third.l2=0.5", "split.fold=2"]
    )
    assert [member["l2"] for member in content["ensemble"].values()] == [1e-4, 1e-3, 0.5, 1e-4]
    assert content["split"]["fold"] == 2


def test_presets_set_the_same_keys():
    """So that no value of one seed project remains after another is chosen."""

    def keys_set_by(path: Path) -> set[str]:
        content = yaml.safe_load(path.read_text())
        included = [name for name in content.pop("defaults", []) if name != "_self_"]
        keys = {".".join(path) for path in keys_of(content) if path[0] != "recipes"}
        return keys.union(*(keys_set_by(ROOT / f"conf{name}.yaml") for name in included))

    first, *rest = [keys_set_by(ROOT / f"conf/preset/{preset}.yaml") for preset in SEED_RECIPES]
    assert "train.label_smoothing" in first
    assert all(keys == first for keys in rest)


def test_every_network_exists():
    assert get_args(OwnNetwork) == tuple(NETWORKS)
    assert (*get_args(KerasApplication), *get_args(IncludedNetwork)) == tuple(APPLICATIONS)


def test_documentation_lists_every_parameter():
    assert markdown_tables(COMMITTED) in (ROOT / "docs/parameters.md").read_text(), (
        "run `make docs`"
    )


@pytest.mark.parametrize(
    ("section", "name", "expected"),
    [
        (Params, "members", "integer, 1 to 999"),
        (Params, "seed", "integer, 0 to 1,048,575"),
        (Train, "epochs", "integer, 1 or more; `auto`"),
        (Train, "clip_norm", "number, above 0; `null`"),
        (Train, "label_smoothing", "number, 0 or more, below 1"),
        (Train, "cache", "`auto`, `memory`, `none`"),
        (Recipe, "fraction", "number, above 0, at most 4"),
        (Data, "labels", "text; `null`"),
        (Ingest, "crop", "`true`, `false`"),
    ],
)
def test_documentation_says_what_is_allowed(section, name, expected):
    assert describe_values(section.model_json_schema()["properties"][name]) == expected
