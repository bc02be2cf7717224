"""DVC never confuses two runs, and records none whose inputs changed meanwhile."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import dvc.stage.cache
import pytest
import yaml

from brainmri.common import dependencies
from brainmri.common.errors import UserError
from brainmri.common.params import (
    UNHASHED_KEYS,
    EditableParams,
    Params,
    derive_ensemble,
    load_params,
    read_params,
    validate,
)
from brainmri.parallel import staging
from tests.support.checkout import ROOT
from tests.support.images import encode_noise, write_raw_files
from tests.support.imports import imported_files, script_of
from tests.support.project import (
    Output,
    Project,
    check_trained_in_parallel,
    error_lines,
    ran,
)

STAGES = {
    **yaml.safe_load((ROOT / "data/dvc.yaml").read_text())["stages"],
    **yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"],
}
USED_PARAM = re.compile(rf"\bparams\.((?:{'|'.join(Params.model_fields)})(?:\.[a-z_]+)?)")
# Keeps the packages of this environment from the stages that a test starts.
OTHER_PYTHON = """#!/bin/sh
exec {python} -S "$@"
"""


def unhashed_keys() -> set[str]:
    """Return the keys that DVC skips in the key of its run cache, as DVC itself names them."""
    excluded = []
    original = dvc.stage.cache.dict_sha256
    dvc.stage.cache.dict_sha256 = lambda content, exclude=(): excluded.extend(exclude)
    try:
        dvc.stage.cache._get_cache_hash({})
    finally:
        dvc.stage.cache.dict_sha256 = original
    return set(excluded)


def all_keys(content: object) -> set[str]:
    """Return the keys of nested mappings and lists."""
    if isinstance(content, dict):
        return set(content).union(*map(all_keys, content.values()))
    if isinstance(content, list):
        return set().union(*map(all_keys, content))
    return set()


def leaves(content: dict, prefix: str = "") -> dict[str, object]:
    """Return the values of nested mappings by dotted names."""
    values = {}
    for key, value in content.items():
        if isinstance(value, dict):
            values |= leaves(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = value
    return values


def with_value(content: dict, name: str, value: object) -> dict:
    """Return a copy of nested mappings with another value at a dotted name."""
    changed = json.loads(json.dumps(content))
    *sections, last = name.split(".")
    block = changed
    for section in sections:
        block = block[section]
    block[last] = value
    return changed


def editable_params() -> dict:
    params = read_params(ROOT / "params.yaml")
    del params["ensemble"], params["further_input"]
    return params


def test_no_parameter_has_an_unhashed_name():
    names = unhashed_keys()
    assert names == set(UNHASHED_KEYS) >= {"size"}
    for file in ("params.yaml", "dvc.yaml", "data/dvc.yaml"):
        assert not all_keys(yaml.safe_load((ROOT / file).read_text())) & names
    for model in [Params, *Params.model_fields.values()]:
        fields = getattr(getattr(model, "annotation", model), "model_fields", {})
        assert not set(fields) & names


@pytest.mark.parametrize("name", sorted(unhashed_keys()))
def test_unhashed_names_of_recipes_are_refused(name):
    params = editable_params()
    params["recipes"] = {name: next(iter(params["recipes"].values()))}
    with pytest.raises(UserError, match=f"recipes.{name}: expected another name"):
        validate(params, EditableParams)


def equal_values(value: object) -> list[object]:
    """Return the values of other types that Python, and so DVC, takes for equal to this one."""
    candidates = [True, False]
    if isinstance(value, int | float):
        candidates += [int(value), float(value)]
    return [other for other in candidates if other == value and type(other) is not type(value)]


def test_equal_values_of_other_types_change_nothing():
    """DVC compares parameters as Python does, where 1, 1.0 and true are equal."""
    params = editable_params()
    before = validate(params, EditableParams)
    compared = valid = 0
    for name, value in leaves(params).items():
        for other in equal_values(value):
            compared += 1
            try:
                after = validate(with_value(params, name, other), EditableParams)
            except UserError:
                continue
            valid += 1
            assert repr(after.model_dump()) == repr(before.model_dump()), name
    assert compared > valid > 0
    assert compared > 30


def test_order_of_keys_changes_nothing(tmp_path, monkeypatch):
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    members = params["ensemble"]
    orders = []
    for names in (sorted(members), sorted(members, reverse=True)):
        params["ensemble"] = {name: members[name] for name in names}
        Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        orders.append(list(load_params().ensemble))
    assert orders[0] == orders[1] == sorted(members)


def test_order_of_recipes_changes_members():
    """DVC ignores the order of `recipes`: stages that depend on it declare `ensemble`."""
    params = editable_params()
    swapped = {**params, "recipes": dict(reversed(params["recipes"].items()))}
    before, after = (validate(content, EditableParams) for content in (params, swapped))
    assert derive_ensemble(before) != derive_ensemble(after)


def code_with_params(stage: str) -> str:
    """Return the text of what a stage runs, except of the modules that check all parameters."""
    scripts = [script_of(stage)]
    if stage == "fan-out":
        scripts.append(script_of("train"))
    files = set().union(*map(imported_files, scripts))
    files = {file for file in files if not file.startswith("brainmri/common/")}
    if stage == "report":
        templates = (ROOT / "brainmri/report/templates").glob("*.j2")
        files |= {path.relative_to(ROOT).as_posix() for path in templates}
    return "\n".join((ROOT / file).read_text() for file in sorted(files))


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "phantom"])
def test_stage_declares_the_parameters_that_it_reads(stage):
    """What it does not declare in dvc.yaml could change without the stage running again."""
    declared = STAGES[stage].get("do", STAGES[stage]).get("params", [])
    declared = [name.replace("ensemble.${key}", "ensemble") for name in declared]
    names = set(USED_PARAM.findall(code_with_params(stage)))
    # Where members train decides no result.
    names = {name for name in names if not name.startswith("fan_out")}
    assert bool(names) == bool(declared)
    for name in names:
        section = name.partition(".")[0]
        assert name in declared or section in declared, f"{stage} reads {name}"


def test_dependencies_are_those_of_dvc_yaml(monkeypatch):
    monkeypatch.chdir(ROOT)
    params = read_params()
    paths, values = dependencies.stage_dependencies("data/dvc.yaml:phantom", params)
    assert paths == [Path(path) for path in STAGES["phantom"]["deps"]]
    assert values == {"phantom": params["phantom"]}

    changed = with_value(params, "data.source", "my/images")
    paths, values = dependencies.stage_dependencies("ingest", changed)
    code = [Path(path) for path in STAGES["ingest"]["deps"] if "$" not in path]
    assert paths == [Path("my/images"), Path(params["further_input"]), *code]
    assert values == {"data": changed["data"], "ingest": params["ingest"]}


def test_dependencies_of_a_member(monkeypatch):
    monkeypatch.chdir(ROOT)
    params = with_value(read_params(), "ensemble.member-01.weights_file", "my/weights.h5")
    paths, values = dependencies.stage_dependencies("train@member-01", params)
    expected = [path for path in STAGES["train"]["do"]["deps"] if "$" not in path]
    expected += ["data/bootstrap/member-01.json", "my/weights.h5", "data/README.md"]
    assert {*paths} == {*map(Path, expected)}
    assert values == {
        "ensemble.member-01": params["ensemble"]["member-01"],
        "train": params["train"],
    }


def test_missing_dependencies_are_named(monkeypatch):
    monkeypatch.chdir(ROOT)
    params = read_params()
    del params["split"]
    with pytest.raises(UserError, match="split is missing"):
        dependencies.stage_dependencies("split", params)
    with pytest.raises(UserError, match=r"ensemble\.member-99 is missing"):
        dependencies.stage_dependencies("train@member-99", params)


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """The current folder, with stages of two members that depend on files and parameters."""
    definition = {
        "deps": ["data", "${item.weights_file}", "${key}.json"],
        "params": ["ensemble.${key}", "split.fold"],
    }
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dependencies, "_definitions", lambda: {"train": {"do": definition}})
    staging._hash.cache_clear()
    members = {
        "member-00": {"weights_file": "w.h5", "seed": 0},
        "member-01": {"weights_file": "w.h5", "seed": 1},
    }
    set_params({"ensemble": members, "split": {"fold": 0, "folds": 5}})
    for name in (
        "data/deep/a.png",
        "data/b.png",
        "data/.hidden/c",
        "data/deep/.d",
        "w.h5",
        "member-00.json",
        "member-01.json",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)
    yield tmp_path
    staging._hash.cache_clear()


def set_params(params: dict) -> None:
    Path("params.yaml").write_text(yaml.safe_dump(params))


def edit(name: str, value: object) -> None:
    set_params(with_value(read_params(), name, value))


@pytest.mark.parametrize(
    ("change", "reported"),
    [
        (lambda: None, None),
        (lambda: Path("data/b.png").write_text("DATA/b.png"), "'data/b.png' changed"),
        (lambda: os.utime("data/deep/a.png"), "'data/deep/a.png' changed"),
        (lambda: os.unlink("data/deep/a.png"), "'data/deep/a.png' changed"),
        (lambda: Path("data/new").touch(), "'data/new' changed"),
        (lambda: Path(shutil.copy2("w.h5", "copy")).rename("w.h5"), "'w.h5' changed"),
        (lambda: os.unlink("member-01.json"), "'member-01.json' changed"),
        (lambda: Path("data/.hidden/c").write_text("x"), None),
        (lambda: Path("data/deep/.d").unlink(), None),
        (lambda: Path("member-00.json").unlink(), None),
        (lambda: edit("split.folds", 6), None),
        (lambda: edit("ensemble.member-00.seed", 6), None),
        (lambda: edit("split.fold", 1), "params.yaml: split.fold changed"),
        (
            lambda: edit("ensemble.member-01.seed", 0),
            "params.yaml: ensemble.member-01.seed changed",
        ),
        (
            lambda: edit("ensemble.member-01.more", 0),
            "params.yaml: ensemble.member-01.more changed",
        ),
        (lambda: set_params({"split": {"fold": 0}}), "params.yaml changed"),
        (lambda: Path("params.yaml").write_text("a: ["), "params.yaml changed"),
    ],
)
def test_changed_inputs_are_named(workspace, change, reported):
    for path in Path().rglob("*"):
        os.utime(path, (1, 1))
    before = dependencies.StageInputs("train@member-01")
    change()
    if reported:
        with pytest.raises(UserError, match=f"^{re.escape(reported)} while train@member-01 ran"):
            before.check()
    else:
        before.check()
    if reported is None or reported.startswith("params.yaml"):
        before.check_files()


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_staging_folder_is_named_by_all_inputs(workspace):
    inside = ["data/b.png", "data/deep/a.png"]  # no hidden ones
    depends = {
        "data": sha256("".join(f"{name}\0{sha256(name)}\n" for name in inside)),
        "w.h5": sha256("w.h5"),
        "member-01.json": sha256("member-01.json"),
        "ensemble.member-01": {"weights_file": "w.h5", "seed": 1},
        "split.fold": 0,
    }
    digest = sha256(json.dumps(depends, sort_keys=True))
    write_names(Path("data/deep/__pycache__/a.pyc"))
    assert staging.staging_dir("member-01") == Path(f".dvc/tmp/members/member-01-{digest[:32]}")
    params = with_value(read_params(), "split.folds", 7)
    assert staging.staging_dir("member-01", params) == staging.staging_dir("member-01")
    with pytest.raises(UserError, match="no member 'member-02'"):
        staging.staging_dir("member-02")
    Path("w.h5").unlink()
    staging._hash.cache_clear()
    with pytest.raises(UserError, match=r"w\.h5 is missing"):
        staging.staging_dir("member-00")


@pytest.mark.parametrize(
    "change",
    [
        lambda: Path("data/b.png").rename("data/c.png"),
        lambda: Path("data/b.png").write_text("other"),
        lambda: Path("w.h5").write_text("other"),
        lambda: Path("member-00.json").write_text("other"),
        lambda: edit("split.fold", 1),
        lambda: edit("ensemble.member-00.seed", 1),
    ],
)
def test_members_with_changed_inputs_are_outdated(workspace, change):
    assert staging.outdated_trainings() == []
    first, second = (staging.staging_dir(name) for name in ("member-00", "member-01"))
    for folder in (first, second):
        assert not staging.is_trained(folder)
        folder.mkdir(parents=True)
        assert staging.is_trained(folder)
    first.with_name("member-00-" + "0" * 32 + ".part").mkdir()
    former = first.with_name("member-07-" + "0" * 32)
    former.mkdir()
    assert staging.outdated_trainings() == [former]
    change()
    staging._hash.cache_clear()
    assert staging.staging_dir("member-00") != first
    assert staging.outdated_trainings()[0] == first


def write_names(*paths: Path) -> None:
    """Write files whose content is their name."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)


def test_publishing_replaces_former_files(workspace):
    folder = Path(".dvc/tmp/members/member-01-0")
    write_names(folder / "metrics.json", folder / "deep/model.keras")
    write_names(Path("models/members/member-01/old.keras"))
    staging.publish(folder, "member-01")
    assert not [*folder.parent.iterdir()]
    files = [str(path) for path in Path("models").rglob("*") if path.is_file()]
    assert files == ["models/members/member-01/deep/model.keras"]
    assert Path("metrics/members/member-01.json").read_text() == "metrics.json"
    assert Path("models/members/member-01/deep/model.keras").read_text() == "model.keras"


def test_each_image_size_has_its_own_store(done):
    """A parameter named `size` would not be in the key of DVC's run cache."""
    before = done.locked_stages["ingest"]
    assert ran(done.reproduce("split", **{"ingest.image_size": 48}))[0] == "ingest"
    code = "from brainmri.store.reader import RadReader; print(RadReader().shape)"
    shape = done.run("python", "-c", code).stdout.splitlines()[-1]
    assert shape.endswith("48, 48, 1)")
    assert "Stage 'ingest' is cached" in done.reproduce("split", **{"ingest.image_size": 32})
    assert done.locked_stages["ingest"] == before


MEDDLING_STAGE = """
from brainmri.common.stage import run_stage
from stages import {module}

def main():
    {module}.main()
    {change}

if __name__ == "__main__":
    run_stage(main, "{stage}")
"""
REPLACE_PARAM = (
    "import pathlib; params = pathlib.Path('params.yaml');"
    " params.write_text(params.read_text().replace({before!r}, {after!r}))"
)


def meddle(project: Project, stage: str, change: str) -> None:
    """Let a stage's command end with a change, as if somebody made it while the stage ran."""
    module = stage.replace("-", "_")
    code = MEDDLING_STAGE.format(stage=stage, module=module, change=change)
    (project.path / "meddle.py").write_text(code)
    text = project.read("dvc.yaml")
    command = f"cmd: python -m stages {stage}\n"
    assert text.count(command) == 1
    (project.path / "dvc.yaml").write_text(text.replace(command, "cmd: python -m meddle\n"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "import shutil; shutil.copy('data/raw/yes/a.png', 'data/raw/yes/b.png')",
            "'data/raw/yes/b.png' changed while ingest ran",
        ),
        (
            "import os; os.remove('data/raw/yes/a.png')",
            "'data/raw/yes/a.png' changed while ingest ran",
        ),
        (
            "import os; os.utime('data/raw/no/a.png')",
            "'data/raw/no/a.png' changed while ingest ran",
        ),
        (
            REPLACE_PARAM.format(before="crop: true", after="crop: false"),
            "params.yaml: ingest.crop changed while ingest ran",
        ),
        (
            "import pathlib; pathlib.Path('params.yaml').write_text('a: [')",
            "params.yaml changed while ingest ran",
        ),
    ],
)
def test_a_run_with_changed_inputs_is_not_recorded(fresh, change, message):
    for label, name in enumerate(("no", "yes")):
        files = {
            f"{name}/{file}.png": encode_noise(10 * label + index)
            for index, file in enumerate("acd")
        }
        write_raw_files(fresh, files)
    fresh.edit(data__source="data/raw")
    before = fresh.locked_stages["ingest"]
    meddle(fresh, "ingest", change)
    output = fresh.run("dvc", "repro", "ingest", ok=False)
    (error,) = error_lines(output)
    assert message in error
    assert "run `dvc repro` again" in error
    assert "Traceback" not in output
    assert fresh.locked_stages["ingest"] == before


def test_class_names_count_and_file_modes_do_not(done):
    done.edit(data__source="data/raw")
    shutil.copytree(done.path / "data/phantom", done.path / "data/raw", symlinks=True)
    done.run("dvc", "repro", "ingest")
    metadata = done.read("data/rad/metadata.json")
    images = [*(done.path / "data/raw").rglob("*.png")]
    assert len(images) == 48
    for path in images:
        path.chmod(0o755)
    assert not ran(done.run("dvc", "repro", "ingest"))
    done.run("python", "-m", "stages", "ingest")
    assert done.read("data/rad/metadata.json") == metadata
    (done.path / "data/raw/yes").rename(done.path / "data/raw/tumor")
    assert ran(done.run("dvc", "repro", "ingest")) == ["ingest"]
    assert json.loads(done.read("data/rad/metadata.json"))["classes"] == ["no", "tumor"]


def test_other_files_may_change_while_a_stage_runs(done):
    change = REPLACE_PARAM.format(before="jobs: auto", after="jobs: 1")
    change += "; pathlib.Path('README.md').write_text('changed')"
    change += "; pathlib.Path('data/phantom/.DS_Store').write_text('x')"
    meddle(done, "ingest", change)
    done.run("dvc", "repro", "ingest")
    assert "jobs: 1" in done.read("params.yaml")
    assert done.read("README.md") == "changed"


def test_files_of_editors_change_nothing(done):
    """Of code that is open in one while members train."""
    for name in (".fitting.py.swp", ".#fitting.py", "fitting.py~"):
        (done.path / "brainmri/training" / name).symlink_to("of-an-editor")  # as Emacs's lock is
    assert "up to date" in done.run("dvc", "status")


def test_an_edit_after_or_while_members_train_is_noticed(done):
    """The next run trains them in parallel."""
    done.edit(train__label_smoothing=0.1)
    done.run("dvc", "repro", "fan-out")
    done.edit(train__label_smoothing=0.2)
    output = done.run("dvc", "repro", "--single-item", "train@member-01", ok=False)
    (error,) = error_lines(output)
    assert error == (
        "error: an input changed after fan-out trained member-00, member-01, member-02;"
        " run `dvc repro` again, which trains members in parallel"
    )
    # Trained here, since DVC runs no other stage: what fan-out left does not end it again
    done.run("dvc", "repro", "--single-item", "train@member-01")

    change = REPLACE_PARAM.format(before="label_smoothing: 0.2", after="label_smoothing: 0.3")
    meddle(done, "fan-out", change)
    output = done.run("dvc", "repro", "weigh", ok=False)
    assert "2 of 3 members to train" in output
    assert error_lines(output) == [
        "error: params.yaml: train.label_smoothing changed while fan-out ran;"
        " nothing is recorded: run `dvc repro` again"
    ]
    assert not [stage for stage in ran(output) if stage.startswith("train@")]
    done.run("git", "checkout", "dvc.yaml")
    check_trained_in_parallel(done)


TRAIN_INTO = """
import sys
from pathlib import Path
from brainmri.common.errors import UserError
from brainmri.parallel.staging import train_into
try:
    train_into(Path(sys.argv[1]), "member-00")
except UserError as error:
    print(error)
"""


def test_no_training_into_a_folder_of_other_parameters(done):
    """As when they change after the folder was named, and before the member reads them."""
    done.edit(train__label_smoothing=0.1)
    code = "from brainmri.parallel.staging import staging_dir; print(staging_dir('member-00'))"
    folder = done.run("python", "-c", code).stdout.splitlines()[-1]
    done.edit(train__label_smoothing=0.2)
    output = done.run("python", "-c", TRAIN_INTO, folder)
    assert "an input of member-00 changed before it was trained" in output
    assert not (done.path / folder).exists()


WAIT = """import time, pathlib
    pathlib.Path("started").touch()
    while not pathlib.Path("go").exists():
        time.sleep(0.1)"""


def test_a_second_experiment_keeps_params_of_the_first(done):
    """DVC refuses it only after it has written params.yaml."""
    meddle(done, "split", WAIT)
    done.run("git", "add", "-A")
    first = done.start("dvc", "exp", "run", "split", "-S", "split.fold=1")
    while not (done.path / "started").exists():
        assert first.poll() is None
        time.sleep(0.1)
    before = done.read("params.yaml")
    output = done.run("dvc", "exp", "run", "split", "-S", "split.fold=2", ok=False)
    (done.path / "go").touch()
    (error,) = error_lines(output)
    assert "another command is running in this workspace" in error
    assert done.read("params.yaml") == before
    assert first.wait() == 0
    assert done.locked_stages["split"]["params"]["params.yaml"]["split"]["fold"] == 1


def test_environment_variables_change_no_byte(done, tmp_path):
    """Nor do settings files of Keras and Matplotlib; DVC tracks none of them."""
    (tmp_path / "keras").mkdir()
    settings = {
        "floatx": "float64",
        "image_data_format": "channels_first",
        "backend": "jax",
        "epsilon": 0.1,
    }
    (tmp_path / "keras/keras.json").write_text(json.dumps(settings))
    (done.path / "matplotlibrc").write_text("savefig.dpi: 50\nfont.size: 20\naxes.grid: True\n")
    variables = {
        "KERAS_HOME": tmp_path / "keras",
        "KERAS_BACKEND": "jax",
        "TF_ENABLE_ONEDNN_OPTS": 0,
        "TF_USE_LEGACY_KERAS": 1,
        "XLA_FLAGS": "--xla_cpu_enable_fast_math=true",
        "DNNL_MAX_CPU_ISA": "SSE41",
        "MPLBACKEND": "svg",
        "OMP_NUM_THREADS": 1,
        "PYTHONHASHSEED": 3,
        "LC_ALL": "C",
    }
    before = done.read("dvc.lock")
    shutil.rmtree(done.path / ".dvc/cache/runs")
    environment = [f"{name}={value}" for name, value in variables.items()]
    output = done.run(
        "env", *environment, "dvc", "repro", "--force", "--downstream", "train@member-00"
    )
    assert {"train@member-00", "evaluate", "export", "explain", "report"} <= set(ran(output))
    assert done.read("dvc.lock") == before


def test_stages_need_the_environment(fresh, tmp_path):
    """As when an editor or a scheduler starts `.venv/bin/dvc`: `python` is another one."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "python").write_text(OTHER_PYTHON.format(python=sys._base_executable))
    (folder / "python").chmod(0o755)
    dvc_script = shutil.which("dvc", path=Path(sys.executable).parent)
    result = subprocess.run(
        [dvc_script, "repro", "split"],
        cwd=fresh.path,
        env={**fresh.environment, "PATH": f"{folder}:/usr/bin:/bin"},
        text=True,
        capture_output=True,
    )
    output = Output(result.stdout, result.stderr)
    assert result.returncode != 0, output
    (error,) = error_lines(output)
    assert " lacks " in error
    assert error.endswith("; activate the environment: source .venv/bin/activate")
    assert "Traceback" not in output
