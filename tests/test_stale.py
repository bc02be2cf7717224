"""DVC takes no two different runs for one, and records no run whose inputs changed meanwhile."""

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
from conftest import Output, Project, check_trained_in_parallel, ran

from stages.shared import inputs, scratch
from stages.shared.errors import UserError
from stages.shared.params import UNHASHED_KEYS, Inputs, Params, check, derive_ensemble, load_params, read_params

ROOT = Path(__file__).parents[1]
STAGES = {
    **yaml.safe_load((ROOT / "data/dvc.yaml").read_text())["stages"],
    **yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"],
}


def unhashed_keys() -> set[str]:
    """The keys that DVC leaves out of its run-cache key, as DVC itself names them."""
    excluded = []
    original = dvc.stage.cache.dict_sha256
    dvc.stage.cache.dict_sha256 = lambda content, exclude=(): excluded.extend(exclude)
    try:
        dvc.stage.cache._get_cache_hash({})
    finally:
        dvc.stage.cache.dict_sha256 = original
    return set(excluded)


def keys(content: object) -> set[str]:
    if isinstance(content, dict):
        return set(content).union(*map(keys, content.values()))
    return set().union(*map(keys, content)) if isinstance(content, list) else set()


def leaves(content: dict, prefix: str = "") -> dict[str, object]:
    found = {}
    for key, value in content.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def with_value(content: dict, name: str, value: object) -> dict:
    changed = json.loads(json.dumps(content))
    *sections, last = name.split(".")
    block = changed
    for section in sections:
        block = block[section]
    block[last] = value
    return changed


def test_no_parameter_has_a_name_that_dvc_leaves_out():
    names = unhashed_keys()
    assert names == set(UNHASHED_KEYS) >= {"size"}
    for file in ("params.yaml", "dvc.yaml", "data/dvc.yaml"):
        assert not keys(yaml.safe_load((ROOT / file).read_text())) & names
    for model in [Params, *Params.model_fields.values()]:
        fields = getattr(getattr(model, "annotation", model), "model_fields", {})
        assert not set(fields) & names


@pytest.mark.parametrize("name", sorted(unhashed_keys()))
def test_a_recipe_of_a_name_that_dvc_leaves_out_is_refused(name):
    params = read_params(ROOT / "params.yaml")
    params["recipes"] = {name: params["recipes"]["base"]}
    params.pop("ensemble")
    with pytest.raises(UserError, match=f"recipes.{name}: expected another name"):
        check(params, Inputs)


def test_values_that_dvc_takes_for_equal_are_one_value_or_refused():
    """DVC compares parameters as Python does, where 1, 1.0 and true are equal, and heeds no order of keys."""
    params = read_params(ROOT / "params.yaml")
    params.pop("ensemble")
    before = check(params, Inputs)
    compared = taken = 0
    for name, value in leaves(params).items():
        for other in (True, False, int, float):
            equal = other if isinstance(other, bool) else other(value) if isinstance(value, int | float) else None
            if equal is None or equal != value or type(equal) is type(value):
                continue
            compared += 1
            try:
                after = check(with_value(params, name, equal), Inputs)
            except UserError:
                continue
            taken += 1
            assert repr(after.model_dump()) == repr(before.model_dump()), name
    assert compared > taken > 0
    assert compared > 30


def test_order_of_keys_changes_nothing(tmp_path, monkeypatch):
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    orders = []
    for order in (list, lambda block: list(reversed(block))):
        params["ensemble"] = {name: params["ensemble"][name] for name in order(sorted(params["ensemble"]))}
        Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        orders.append(list(load_params().ensemble))
    assert orders[0] == orders[1] == sorted(orders[0])


def test_order_of_recipes_is_in_the_members_parameters():
    """DVC takes `recipes` in another order for the same: stages that depend on the order declare `ensemble`."""
    params = read_params(ROOT / "params.yaml")
    params.pop("ensemble")
    swapped = {**params, "recipes": dict(reversed(params["recipes"].items()))}
    assert derive_ensemble(check(params, Inputs)) != derive_ensemble(check(swapped, Inputs))


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "phantom"])
def test_stage_declares_the_parameters_that_it_reads(stage):
    """What it does not declare in dvc.yaml could change without the stage running again."""
    declared = STAGES[stage].get("do", STAGES[stage]).get("params", [])
    declared = [name.replace("ensemble.${key}", "ensemble") for name in declared]
    text = (ROOT / f"stages/{stage.replace('-', '_')}.py").read_text()
    if stage == "train":
        text += (ROOT / "stages/shared/training.py").read_text()
    names = set(re.findall(rf"\bparams\.((?:{'|'.join(Params.model_fields)})(?:\.[a-z_]+)?)", text))
    names -= {"fan_out.engine"}  # where members train decides no result
    assert names
    for name in names:
        assert name in declared or name.partition(".")[0] in declared, f"{stage} reads {name}"


def test_dependencies_are_those_that_dvc_yaml_lists(monkeypatch):
    monkeypatch.chdir(ROOT)
    params = read_params()
    paths, values = inputs.dependencies("data/dvc.yaml:phantom", params)
    assert paths == [Path(path) for path in STAGES["phantom"]["deps"]]
    assert values == {"phantom": params["phantom"]}
    paths, values = inputs.dependencies("ingest", with_value(params, "data.source", "my/images"))
    assert paths == [Path("my/images"), *(Path(path) for path in STAGES["ingest"]["deps"][1:])]
    assert values == {"data.source": "my/images", "ingest": params["ingest"]}
    changed = with_value(params, "ensemble.member-01.weights_file", "my/weights.h5")
    paths, values = inputs.dependencies("train@member-01", changed)
    plain = [path for path in STAGES["train"]["do"]["deps"] if "$" not in path]
    assert {*paths} == {Path(path) for path in (*plain, "data/bootstrap/member-01.json", "my/weights.h5")}
    assert values == {
        "ensemble.member-01": changed["ensemble"]["member-01"],
        "network": params["network"],
        "train": params["train"],
    }
    for stage, message in (("train@member-99", "ensemble.member-99 is missing"), ("split", "split is missing")):
        with pytest.raises(UserError, match=message):
            inputs.dependencies(stage, {name: value for name, value in params.items() if name != "split"})


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder, the current one, with a stage for each of two members that depends on files and parameters."""
    definition = {"deps": ["data", "${item.weights_file}", "${key}.json"], "params": ["ensemble.${key}", "split.fold"]}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(inputs, "_definitions", lambda: {"train": {"do": definition}})
    scratch._hash.cache_clear()
    members = {name: {"weights_file": "w.h5", "seed": seed} for seed, name in enumerate(("member-00", "member-01"))}
    set_params({"ensemble": members, "split": {"fold": 0, "folds": 5}})
    for name in ("data/deep/a.png", "data/b.png", "data/.hidden/c", "data/deep/.d", "w.h5", "member-00.json", "member-01.json"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)
    yield tmp_path
    scratch._hash.cache_clear()


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
        (lambda: edit("ensemble.member-01.seed", 0), "params.yaml: ensemble.member-01.seed changed"),
        (lambda: edit("ensemble.member-01.more", 0), "params.yaml: ensemble.member-01.more changed"),
        (lambda: set_params({"split": {"fold": 0}}), "params.yaml changed"),
        (lambda: Path("params.yaml").write_text("a: ["), "params.yaml changed"),
    ],
)
def test_inputs_that_are_no_longer_what_they_were_are_named(workplace, change, reported):
    for path in Path().rglob("*"):
        os.utime(path, (1, 1))
    before = inputs.Inputs("train@member-01")
    change()
    if reported:
        with pytest.raises(UserError, match=f"^{re.escape(reported)} while train@member-01 ran"):
            before.check()
    else:
        before.check()
    if reported is None or reported.startswith("params.yaml"):
        before.check_files()


def test_a_scratch_folder_is_named_by_all_that_its_member_depends_on(workplace):
    def sha256(text):
        return hashlib.sha256(text.encode()).hexdigest()

    inside = ["data/.hidden/c", "data/b.png", "data/deep/.d", "data/deep/a.png"]
    depends = {
        "data": sha256("".join(f"{name}\0{sha256(name)}\n" for name in inside)),
        "w.h5": sha256("w.h5"),
        "member-01.json": sha256("member-01.json"),
        "ensemble.member-01": {"weights_file": "w.h5", "seed": 1},
        "split.fold": 0,
    }
    digest = sha256(json.dumps(depends, sort_keys=True))
    assert scratch.scratch("member-01") == Path(f".dvc/tmp/members/member-01-{digest[:32]}")
    assert scratch.scratch("member-01", with_value(read_params(), "split.folds", 7)) == scratch.scratch("member-01")
    with pytest.raises(UserError, match="no member 'member-02'"):
        scratch.scratch("member-02")
    Path("w.h5").unlink()
    scratch._hash.cache_clear()
    with pytest.raises(UserError, match=r"w\.h5 is missing"):
        scratch.scratch("member-00")


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
def test_members_are_outdated_if_anything_that_they_depend_on_is_another(workplace, change):
    assert scratch.outdated() == []
    folders = [scratch.scratch(name) for name in ("member-00", "member-01")]
    for folder in (*folders, folders[0].with_name("member-00-" + "0" * 32 + ".part")):
        assert not scratch.is_trained(folder)
        folder.mkdir(parents=True)
        assert scratch.is_trained(folder)
    folders[0].with_name("member-07-" + "0" * 32).mkdir()
    assert scratch.outdated() == ["member-07"]
    change()
    scratch._hash.cache_clear()
    assert scratch.scratch("member-00") != folders[0]
    assert scratch.outdated()[0] == "member-00"


def test_what_was_trained_replaces_what_was_in_its_place(workplace):
    folder = Path(".dvc/tmp/members/member-01-0")
    for path in (folder / "metrics.json", folder / "deep/model.keras", Path("models/members/member-01/old.keras")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    scratch.put_in_place(folder, "member-01")
    assert not [*folder.parent.iterdir()]
    assert {str(path) for path in Path("models").rglob("*") if path.is_file()} == {"models/members/member-01/deep/model.keras"}
    assert Path("metrics/members/member-01.json").read_text() == "metrics.json"
    assert Path("models/members/member-01/deep/model.keras").read_text() == "model.keras"


def test_another_image_size_gives_another_store_and_comes_back_from_the_cache(done):
    """`size`, as the parameter was called once, is not in the key of DVC's run cache: sizes 32, 48 and 32 gave one store."""
    first = done.read("dvc.lock")
    assert ran(done.experiment("split", **{"ingest.image_size": 48}))[0] == "ingest"
    metadata = done.run("python", "-c", "from stages.shared.rad import RadReader; print(RadReader().shape)")
    assert metadata.stdout.splitlines()[-1].endswith("48, 48, 1)")
    assert "Stage 'ingest' is cached" in done.experiment("split", **{"ingest.image_size": 32})
    assert yaml.safe_load(done.read("dvc.lock"))["stages"]["ingest"] == yaml.safe_load(first)["stages"]["ingest"]


def meddle(project: Project, stage: str, change: str) -> None:
    """Let a stage's command end with a change of an input, as if somebody made it while the stage ran."""
    script = f"import {stage}\nfrom stages.shared.running import run_stage\n"
    script += f"def main():\n    {stage}.main()\n    {change}\nif __name__ == '__main__':\n    run_stage(main)\n"
    (project.path / "meddle.py").write_text(script)
    text = project.read("dvc.yaml")
    (project.path / "dvc.yaml").write_text(text.replace(f"cmd: python -m {stage}\n", "cmd: python -m meddle\n"))
    assert "python -m meddle" in project.read("dvc.yaml")


@pytest.mark.parametrize(
    ("change", "reported"),
    [
        (
            "import shutil; shutil.copy('data/raw/yes/a.png', 'data/raw/yes/b.png')",
            "'data/raw/yes/b.png' changed while ingest ran",
        ),
        ("import os; os.remove('data/raw/yes/a.png')", "'data/raw/yes/a.png' changed while ingest ran"),
        ("import os; os.utime('data/raw/no/a.png')", "'data/raw/no/a.png' changed while ingest ran"),
        (
            "import pathlib; p = pathlib.Path('params.yaml'); p.write_text(p.read_text().replace('crop: true', 'crop: false'))",
            "params.yaml: ingest.crop changed while ingest ran",
        ),
        ("import pathlib; pathlib.Path('params.yaml').write_text('a: [')", "params.yaml changed while ingest ran"),
    ],
)
def test_an_input_that_changes_while_a_stage_runs_is_reported_and_nothing_is_recorded(fresh, change, reported):
    for number, name in enumerate(("no", "yes")):
        (fresh.path / "data/raw" / name).mkdir(parents=True)
        for index, file in enumerate("acd"):
            source = "import sys, numpy; from PIL import Image; Image.fromarray(numpy.random.default_rng([int(sys.argv[1]), 7])"
            source += ".integers(0, 256, (40, 40), 'u1')).save(sys.argv[2])"
            fresh.run("python", "-c", source, str(10 * number + index), f"data/raw/{name}/{file}.png")
    fresh.edit(data__source="data/raw")
    before = yaml.safe_load(fresh.read("dvc.lock"))["stages"]["ingest"]
    meddle(fresh, "stages.ingest", change)
    output = fresh.run("dvc", "repro", "ingest", ok=False)
    errors = [line for line in output.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert reported in errors[0]
    assert "run `dvc repro` again" in errors[0]
    assert "Traceback" not in output
    assert yaml.safe_load(fresh.read("dvc.lock"))["stages"]["ingest"] == before


def test_class_names_are_in_what_dvc_compares_and_file_modes_change_nothing(done):
    done.edit(data__source="data/raw")
    shutil.copytree(done.path / "data/phantom", done.path / "data/raw", symlinks=True)
    done.run("dvc", "repro", "ingest")
    store = done.read("data/rad/metadata.json")
    images = [*(done.path / "data/raw").rglob("*.png")]
    assert len(images) == 48
    for path in images:
        path.chmod(0o755)
    assert not ran(done.run("dvc", "repro", "ingest"))
    done.run("python", "-m", "stages.ingest")
    assert done.read("data/rad/metadata.json") == store
    (done.path / "data/raw/yes").rename(done.path / "data/raw/tumor")
    assert ran(done.run("dvc", "repro", "ingest")) == ["ingest"]
    assert json.loads(done.read("data/rad/metadata.json"))["classes"] == ["no", "tumor"]


def test_other_files_and_parameters_may_change_while_a_stage_runs(done):
    change = "import pathlib; p = pathlib.Path('params.yaml'); p.write_text(p.read_text().replace('jobs: auto', 'jobs: 1'));"
    change += " pathlib.Path('README.md').write_text('changed'); pathlib.Path('data/phantom/.DS_Store').write_text('x')"
    meddle(done, "stages.ingest", change)
    done.run("dvc", "repro", "ingest")
    assert "jobs: 1" in done.read("params.yaml")


def test_an_edit_while_members_train_ends_fan_out_and_the_next_run_trains_in_parallel(done):
    done.edit(train__label_smoothing=0.1)
    edit = "import pathlib; p = pathlib.Path('params.yaml');"
    edit += " p.write_text(p.read_text().replace('label_smoothing: 0.1', 'label_smoothing: 0.2'))"
    meddle(done, "stages.fan_out", edit)
    output = done.run("dvc", "repro", "evaluate", ok=False)
    assert [line for line in output.stderr.splitlines() if line.startswith("error: ")] == [
        "error: params.yaml: train.label_smoothing changed while fan-out ran; nothing is recorded: run `dvc repro` again"
    ]
    assert not [stage for stage in ran(output) if stage.startswith("train@")]
    done.run("git", "checkout", "dvc.yaml")
    check_trained_in_parallel(done)


def test_an_edit_between_fan_out_and_a_member_is_reported_before_anything_trains_alone(done):
    done.edit(train__label_smoothing=0.1)
    done.run("dvc", "repro", "fan-out")
    done.edit(train__label_smoothing=0.2)
    output = done.run("dvc", "repro", "--single-item", "train@member-01", ok=False)
    assert "an input changed after fan-out trained member-00, member-01, member-02; run `dvc repro` again" in output.stderr
    assert "3 of 3 members to train" in done.run("dvc", "repro", "fan-out")


def test_a_member_is_not_trained_into_a_folder_of_other_parameters(done):
    """Parameters that change after the folder was named and before the member reads them must not end in that folder."""
    done.edit(train__label_smoothing=0.1)
    code = "from stages.shared.scratch import scratch; print(scratch('member-00'))"
    folder = done.run("python", "-c", code).stdout.splitlines()[-1]
    done.edit(train__label_smoothing=0.2)
    code = "import sys; from pathlib import Path; from stages.shared.training import train_member\n"
    code += "from stages.shared.errors import UserError\n"
    code += "try: train_member('member-00', Path(sys.argv[1]))\nexcept UserError as error: print(error)"
    assert "an input of member-00 changed before it was trained" in done.run("python", "-c", code, folder)
    assert not (done.path / folder).exists()


def test_a_second_experiment_in_the_workspace_leaves_params_of_the_first(done):
    """DVC refuses it only after it has written params.yaml."""
    wait = "import time, pathlib; pathlib.Path('started').touch()\n"
    wait += "    while not pathlib.Path('go').exists(): time.sleep(0.1)"
    meddle(done, "stages.split", wait)
    done.run("git", "add", "-A")
    first = done.start("dvc", "exp", "run", "split", "-S", "split.fold=1")
    while not (done.path / "started").exists():
        assert first.poll() is None
        time.sleep(0.1)
    before = done.read("params.yaml")
    output = done.run("dvc", "exp", "run", "split", "-S", "split.fold=2", ok=False)
    (done.path / "go").touch()
    errors = [line for line in output.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "another command is running in this workspace" in errors[0]
    assert done.read("params.yaml") == before
    assert first.wait() == 0
    assert yaml.safe_load(done.read("dvc.lock"))["stages"]["split"]["params"]["params.yaml"]["split"]["fold"] == 1


def test_environment_of_tensorflow_and_keras_changes_no_byte(done, tmp_path):
    """DVC does not know of them."""
    (tmp_path / "keras").mkdir()
    settings = {"floatx": "float64", "image_data_format": "channels_first", "backend": "jax", "epsilon": 0.1}
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
    output = done.run("env", *environment, "dvc", "repro", "--force", "--downstream", "train@member-00")
    assert {"train@member-00", "evaluate", "export", "explain", "report"} <= set(ran(output))
    assert done.read("dvc.lock") == before


def test_stages_start_without_activation(fresh):
    """`.venv/bin/dvc repro`, as editors and schedulers start it: no `python` of the environment is on the path."""
    dvc_script = shutil.which("dvc", path=Path(sys.executable).parent)
    environment = {**fresh.environment, "PATH": "/usr/bin:/bin"}
    result = subprocess.run(
        [dvc_script, "repro", "split"], cwd=fresh.path, env=environment, text=True, capture_output=True, check=False
    )
    output = Output(result.stdout, result.stderr)
    assert result.returncode == 0, output
    assert "ingest" in ran(output)
