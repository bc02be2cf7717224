"""The commands that people type, with the real DVC and TensorFlow, on a copy of the project."""

import csv
import html
import json
import re
import tempfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import yaml
from PIL import Image
from sklearn import metrics as sk

from brainmri.common.params import load_params
from brainmri.evaluation.calibration import calibrate
from brainmri.networks.applications import application_base
from brainmri.networks.saving import load_model
from brainmri.store.reader import RadReader
from tests.support.images import encode_noise, write_raw_files
from tests.support.project import (
    Output,
    Project,
    check_trained_in_parallel,
    error_lines,
    ran,
    skipped,
)

ALL_STAGES = [
    "data/dvc.yaml:phantom",
    "ingest",
    "split",
    "bootstrap-sample",
    "pretrained",
    "features",
    "fan-out",
    "train@member-00",
    "train@member-01",
    "train@member-02",
    "weigh",
    "evaluate",
    "export",
    "explain",
    "report",
]
EVALUATION_PLOTS = [
    "confusion",
    "learning_curves",
    "roc_precision_recall",
    "reliability",
    "members",
    "gallery",
]
PLOTS = [f"plots/evaluation/{name}.png" for name in EVALUATION_PLOTS] + ["plots/explanations.png"]
TOO_FEW_GROUPS = (
    "ROC AUC, average precision or bootstrap intervals: expected 5 or more independent groups of"
    " test images of each class;"
)


def read_json(project: Project, path: str) -> dict:
    return json.loads(project.read(path))


def read_table(project: Project, path: str) -> list[dict[str, str]]:
    return list(csv.DictReader(project.read(path).splitlines()))


def second_recipe(project: Project) -> str:
    """Return the recipe of member-01."""
    return list(project.params["recipes"])[1]


def changed_files(project: Project) -> str:
    return project.run("git", "status", "--porcelain").stdout


def members_of_workspace(project: Project) -> list[str]:
    return sorted(path.name for path in (project.path / "models/members").iterdir())


def test_second_repro_runs_nothing(done):
    output = done.run("dvc", "repro")
    assert not ran(output)
    assert skipped(output) == ALL_STAGES
    assert "up to date" in done.run("dvc", "status")
    assert changed_files(done) == ""
    done.edit(fan_out__jobs=1)
    assert skipped(done.run("dvc", "repro")) == ALL_STAGES


def entries_of(project: Project, stages: set[str]) -> dict:
    """Return the entries that dvc.lock has of some stages."""
    return {name: entry for name, entry in project.locked_stages.items() if name in stages}


def test_fewer_members_train_nothing(done):
    """The entries of former members stay in dvc.lock, as DVC keeps them."""
    former = {"train@member-01", "train@member-02"}
    before = entries_of(done, former)
    output = done.reproduce("evaluate", members=1)
    assert "all 1 members are trained already" in output
    assert not [stage for stage in ran(output) if stage.startswith("train")]
    assert len(read_json(done, "models/weights.json")["members"]) == 1
    assert members_of_workspace(done) == ["member-00"]
    assert entries_of(done, former) == before
    assert "up to date" in done.run("dvc", "status", "evaluate")


def test_another_voting_scheme_trains_nothing(done):
    """And DVC compares parameters, metrics and plots with those before."""
    assert ran(done.reproduce("evaluate", **{"weigh.scheme": "auc"})) == ["weigh", "evaluate"]
    changes = done.run("dvc", "params", "diff")
    assert re.search(r"weigh\.scheme\s+\S*\s*log_loss\s+\S*\s*auc", changes)
    assert "log_loss" in done.run("dvc", "metrics", "diff", "--all")
    done.run("dvc", "plots", "diff", "HEAD", "workspace", "--targets", "plots/data/roc.csv")
    assert "workspace" in done.read("dvc_plots/index.html")


def test_a_recipe_draws_and_retrains_only_its_members(done):
    """A fraction draws its members' samples again, another value none."""
    done.reproduce("weigh", **{"bootstrap.scheme": "bootstrap"})
    samples = sorted((done.path / "data/bootstrap").iterdir())
    before = {path.name: path.read_bytes() for path in samples}
    _, second, third = done.params["recipes"]
    changes = {f"recipes.{second}.fraction": 0.5, f"recipes.{third}.l2": 0.01}
    output = done.reproduce("weigh", **changes)
    assert "2 of 3 members to train" in output
    trained = {"train@member-00", "train@member-01", "train@member-02"} - {*skipped(output)}
    assert trained == {"train@member-01", "train@member-02"}
    after = {path.name: path.read_bytes() for path in samples}
    assert [name for name in before if before[name] != after[name]] == ["member-01.json"]
    training = len(read_json(done, "data/split.json")["training"])
    in_bag = len(read_json(done, "data/bootstrap/member-01.json")["in_bag"])
    assert in_bag == pytest.approx(training / 2, abs=1)


def test_presets_are_queued(done):
    """The workspace keeps its parameters."""
    committed = done.read("params.yaml")
    queue = ("dvc", "exp", "run", "--queue", "-S")
    done.run(*queue, "preset=original,notebook-2")
    done.run(*queue, "preset=original", "-S", "recipes.third.l2=0.5")
    assert done.run("dvc", "queue", "status").stdout.count("Queued") == 3
    output = done.run(*queue, "preset=original", "-S", "recipes.base.l2=0.5", ok=False)
    assert "recipes.base is unknown" in output.stderr
    assert done.read("params.yaml") == committed


def test_metrics_are_complete_and_shown(done):
    metrics = read_json(done, "metrics/ensemble.json")
    rows = read_table(done, "plots/data/predictions.csv")
    labels = np.array([row["class"] == "yes" for row in rows])
    predicted = np.array([row["predicted"] == "yes" for row in rows])
    positive = np.array([float(row["probability of yes"]) for row in rows])
    expected = {
        "accuracy": np.mean(labels == predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "roc_auc": sk.roc_auc_score(labels, positive),
        "average_precision": sk.average_precision_score(labels, positive),
        "f1": sk.f1_score(labels, predicted),
        "log_loss": sk.log_loss(labels, positive),
        "brier_score": sk.brier_score_loss(labels, positive),
        "test_images": len(rows),
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    recall = {"no": np.mean(~predicted[~labels]), "yes": np.mean(predicted[labels])}
    assert metrics["recall"] == pytest.approx(recall)
    assert 0 <= metrics["expected_calibration_error"] <= 1
    assert list(metrics["interval"]) == ["accuracy", "balanced_accuracy", "roc_auc"]
    for name, interval in metrics["interval"].items():
        low, high = interval or (metrics[name], metrics[name])
        assert 0 <= low <= metrics[name] <= high <= 1
        assert interval or metrics[name] in (0, 0.5, 1)  # as all draws
    for voter in ("best_member", "mean_member", "uniform_vote"):
        assert {"accuracy", "balanced_accuracy", "roc_auc", "log_loss"} <= set(metrics[voter])
    table = done.run("dvc", "metrics", "show")
    assert "metrics/ensemble.json" in table
    assert "balanced_accuracy" in table


def keep_one_positive_test_image(project: Project) -> int:
    """Move all other positive test images to training; return the number of test images."""
    split = read_json(project, "data/split.json")
    images = read_json(project, "data/rad/metadata.json")["images"]
    positives = [row for row in split["test"] if images[row]["class"] == "yes"]
    test = [row for row in split["test"] if row not in positives[1:]]
    split["training"] = sorted(split["training"] + positives[1:])
    split["test"] = test
    (project.path / "data/split.json").write_text(json.dumps(split))
    for table in (project.path / "models/members").glob("*/test.csv"):
        header, *lines = table.read_text().splitlines(keepends=True)
        lines = [line for line in lines if int(line.split(",")[0]) in test]
        table.unlink()  # it may be a link into DVC's cache
        table.write_text("".join([header, *lines]))
    return len(test)


def test_one_positive_test_image_gives_null_and_a_reason(done):
    """No file and no line has a ROC AUC of one image's rank; DVC compares the other metrics."""
    test_images = keep_one_positive_test_image(done)
    output = done.run("python", "-W", "error", "-m", "stages", "evaluate")
    assert "ROC AUC: none; mean member none\n" in output.stdout
    headlines = [line for line in output.stdout.splitlines() if "; mean member " in line]
    assert "95 % interval " not in "".join(headlines)
    assert f"no {TOO_FEW_GROUPS}" in output
    assert "'yes' has 1" in output
    metrics = read_json(done, "metrics/ensemble.json")
    assert metrics["interval"] == {"accuracy": None, "balanced_accuracy": None, "roc_auc": None}
    for voter in (metrics, metrics["best_member"], metrics["mean_member"], metrics["uniform_vote"]):
        assert voter["roc_auc"] is None
        assert 0 <= voter["balanced_accuracy"] <= 1
    assert metrics["recall"]["yes"] in (0, 1)

    done.run("python", "-m", "stages", "report")
    page, card = html.unescape(done.read("plots/report.html")), done.read("docs/model-card.md")
    assert f"No {TOO_FEW_GROUPS}" in " ".join(page.split())
    assert re.search(r"<div>ROC AUC<b>none</b>\s*no interval\s*</div>", page)
    assert f"No {TOO_FEW_GROUPS}" in " ".join(card.split())
    assert "| ROC AUC | none |  |" in card
    assert "ROC AUC none." in card
    assert "None" not in card

    differences = json.loads(done.run("dvc", "metrics", "diff", "--json").stdout)
    changes = differences["metrics/ensemble.json"]
    assert changes["roc_auc"]["new"] is None
    assert 0 <= changes["roc_auc"]["old"] <= 1
    assert changes["test_images"] == {"old": 10, "new": test_images, "diff": test_images - 10}
    table = done.run("dvc", "metrics", "diff").stdout
    assert re.search(r"ensemble.json\s+roc_auc\s+[\d.]+\s+-\s+-\n", table)
    assert "balanced_accuracy" in done.run("dvc", "metrics", "show")
    done.run("dvc", "plots", "show")


def test_plots_are_images_and_data_that_dvc_draws(done):
    for path in PLOTS:
        with Image.open(done.path / path) as plot:
            assert min(plot.size) > 300
    done.run("dvc", "plots", "show")
    page = done.read("dvc_plots/index.html")
    assert page.count("vegaEmbed('#") >= 6
    assert page.count("<img") >= len(PLOTS)


def test_members_vote_as_their_models_predict(done, monkeypatch):
    """The saved models, loaded in safe mode without the project's code, give the predictions."""
    monkeypatch.chdir(done.path)
    params = load_params()
    vote = read_json(done, "models/weights.json")
    with RadReader() as rad:
        images = rad.images(read_json(done, "data/split.json")["test"])
    votes = 0
    for name in params.ensemble:
        path = f"models/members/{name}/model.keras"
        model = keras.saving.load_model(path, safe_mode=True)
        votes += vote["members"][name]["weight"] * model.predict(images, verbose=0)
    calibration = vote["calibrations"]["ensemble"]
    predictions = [
        [float(row["probability of no"]), float(row["probability of yes"])]
        for row in read_table(done, "plots/data/predictions.csv")
    ]
    np.testing.assert_allclose(calibrate(votes, **calibration), predictions, atol=1e-5)
    assert calibration["temperature"] != 1


def test_out_of_bag_images_are_not_in_bag(done):
    split = read_json(done, "data/split.json")
    assert sorted(split["test"] + split["training"]) == list(range(48))
    for name in done.params["ensemble"]:
        sample = read_json(done, f"data/bootstrap/{name}.json")
        assert sample["in_bag"]
        assert sample["out_of_bag"]
        assert set(sample["in_bag"]) | set(sample["out_of_bag"]) <= set(split["training"])
        assert not set(sample["in_bag"]) & set(sample["out_of_bag"])


def test_no_output_holds_a_path_of_this_machine(small):
    """Not even the first two folders of the path in which the pipeline ran."""
    above = str(Path(*small.path.parts[:3])).encode()
    files = [small.path / "dvc.lock"]
    for folder in ("data", "models", "metrics", "plots"):
        files += [path for path in (small.path / folder).rglob("*") if path.is_file()]
    assert {small.path / "models/ensemble.keras", small.path / "plots/report.html"} <= {*files}
    for path in files:
        assert above not in path.read_bytes(), path


def test_members_edited_by_hand_stop_with_one_line(done):
    """Nothing is trained, and the number before is still up to date."""
    before = sorted((done.path / "models/members").rglob("*"))
    done.edit(members=9)
    output = done.run("dvc", "repro", ok=False)
    (error,) = error_lines(output)
    assert "members: 9" in error
    assert "dvc exp run" in error
    assert "Traceback" not in output
    assert not [stage for stage in ran(output) if stage.startswith(("train", "fan-out"))]
    assert sorted((done.path / "models/members").rglob("*")) == before
    done.edit(members=3)
    up_to_date = skipped(done.run("dvc", "repro"))
    assert {"fan-out", "train@member-00", "train@member-01", "train@member-02"} <= {*up_to_date}


def test_a_failed_member_is_named_and_the_others_are_kept(done):
    done.edit(train__label_smoothing=0.1)  # all three are to be trained
    recipe = second_recipe(done)
    name, rate = f"recipes.{recipe}.learning_rate", done.params["recipes"][recipe]["learning_rate"]
    output = done.run("dvc", "exp", "run", "-S", f"{name}=1e30", ok=False)
    assert "3 of 3 members to train" in output
    assert "training failed: member-01;" in output.stderr
    assert f"member-01 diverged; expected finite predictions: lower {name}" in output
    assert "Traceback" not in output
    assert "1 of 3 members to train" in done.reproduce("fan-out", **{name: rate})

    # As if `fan-out` had been stopped after the members: their staging folders stay.
    staging = done.path / ".dvc/tmp/members"
    assert len(list(staging.iterdir())) == 3
    (done.path / "data/fan-out.json").unlink()
    output = done.run("dvc", "repro", "weigh")
    assert "all 3 members are trained already" in output
    assert output.count("was trained by fan-out") == 3
    assert not list(staging.iterdir())


def test_members_of_a_pulled_commit_train_in_parallel(done):
    """After `git pull`, dvc.lock names members that only a colleague's cache has."""
    lock = done.locked_stages
    done.reproduce("fan-out", members=1)
    done.run("git", "checkout", "HEAD", ".")
    done.run("rm", "-r", ".dvc/cache", "models/members")
    assert "3 of 3 members to train" in (output := done.run("dvc", "repro", "weigh"))
    assert output.count("was trained by fan-out") == 3
    assert done.locked_stages == lock


@pytest.fixture(scope="module")
def four_classes(small, tmp_path_factory) -> tuple[Project, Output]:
    """A project in which a preset is trained on four classes, and what DVC printed; not changed."""
    project = small.copy(tmp_path_factory.mktemp("four"))
    counts = {"phantom.classes.no": 16, "phantom.classes.yes": 0}
    counts |= {f"phantom.classes.{kind}": 16 for kind in ("glioma", "meningioma", "pituitary")}
    settings = {"ingest.image_size": 48, "train.epochs": 2, "evaluate.resamples": 100}
    settings |= {"split.folds": 3, "train.views": "zoomed", "explain.images": 6}
    return project, project.reproduce(preset="original", **settings, **counts)


def test_a_preset_is_trained(four_classes):
    project, output = four_classes
    assert "3 of 3 members to train" in output
    params = project.params
    assert params["network"]["name"] == "seed-cnn"
    assert list(params["recipes"]) == ["first", "second", "third"]
    training = len(read_json(project, "data/split.json")["training"])
    fractions = [
        len(read_json(project, f"data/bootstrap/{name}.json")["in_bag"]) / training
        for name in params["ensemble"]
    ]
    assert fractions == pytest.approx([0.8, 0.9, 1.0], abs=0.03)


def test_four_classes_have_every_plot_and_metric(four_classes):
    project, _ = four_classes
    metrics = read_json(project, "metrics/ensemble.json")
    assert list(metrics["recall"]) == ["glioma", "meningioma", "no", "pituitary"]
    assert 0 <= metrics["roc_auc"] <= 1
    for path in PLOTS:
        assert (project.path / path).stat().st_size > 5000
    curves = {row["curve"] for row in read_table(project, "plots/data/roc.csv")}
    assert curves == set(metrics["recall"])


def write_gray_images(folder: Path) -> None:
    """Write six images for each of two classes, darker for the first."""
    for name, level in (("no", 60), ("yes", 200)):
        (folder / name).mkdir(parents=True)
        for index in range(6):
            noise = np.random.default_rng([level, index]).integers(0, level, (40, 40), np.uint8)
            Image.fromarray(noise).save(folder / f"{name}/{index}.png")


def test_own_images_by_dvc_import_from_a_git_repository(fresh, tmp_path):
    """As the README shows; the commit is recorded, and the built-in data is not drawn."""
    repository = tmp_path / "repository"
    write_gray_images(repository / "data/raw")
    (repository / "data/raw/yes/notes.txt").write_text("no image")
    (repository / "data/raw/yes/.hidden").write_text("hidden")
    git = ("git", "-C", str(repository), "-c", "user.name=T", "-c", "user.email=t@example.org")
    fresh.run("git", "init", "-q", str(repository))
    fresh.run(*git, "add", "-A")
    fresh.run(*git, "commit", "-qm", "Images")
    fresh.run("dvc", "import", str(repository), "data/raw", "-o", "data/raw")
    assert yaml.safe_load(fresh.read("data/raw.dvc"))["deps"][0]["repo"]["rev_lock"]
    fresh.edit(data__source="data/raw")
    output = fresh.run("dvc", "repro", "split")
    assert "skipped: 'yes/notes.txt': not an image of a known format" in output
    assert "hidden" not in output
    expected = {"images": 12, "rejected": 1, "classes": {"no": 6, "yes": 6}}
    assert read_json(fresh, "metrics/ingest.json") == expected
    assert "phantom" not in output
    assert not (fresh.path / "data/phantom").exists()
    changes = changed_files(fresh)
    assert "data/raw.dvc" in changes
    assert "raw" not in changes.replace("data/raw.dvc", "")


REFUSED = [
    ("members=0", "members is 0; expected a number greater"),
    ("members=-1", "members is -1"),
    ("members=2.5", "members is 2.5; expected a valid integer"),
    ("members=five", "members is 'five'"),
    (
        "network.name=resnet9000",
        "network.name is 'resnet9000'; expected 'residual', 'residual-sides', 'residual-deep'",
    ),
    ("weigh.scheme=best", "weigh.scheme is 'best'; expected 'uniform'"),
    ("+recipes.base.droput=0.5", "recipes.base.droput is unknown; did you mean dropout?"),
    ("ingest.croop=false", "ingest.croop is unknown; did you mean ingest.crop?"),
    ("membrs=9", "membrs is unknown; did you mean members?"),
    (
        "preset=orignal",
        "preset is 'orignal'; expected one of bagging, fine-tuned, frozen, notebook-1,"
        " notebook-2, notebook-3, original, scratch",
    ),
    ("+preset=original", "+preset=original: expected preset=original, without +"),
    ("recipes.bsae.l2=0.1", "recipes.bsae is unknown; did you mean recipes.base?"),
    ("members.count=9", "members.count is unknown"),
    ("~recipes.lihgt", "recipes.lihgt is unknown; did you mean recipes.light?"),
    (
        "ensemble.member-00.l2=0.1",
        "`ensemble` is derived; set recipes, seed, members or network instead",
    ),
    ("recipes.base.dropout=1.5", "recipes.base.dropout is 1.5; expected a number less than 1"),
    ("split.fold=5", "fold is 5; expected 0 to 4"),
    (
        "data.source=data/nowhere",
        "data.source: 'data/nowhere' is missing; expected a folder of class folders",
    ),
    (
        "network={name: vgg16, weights: data/weights/other.h5, freeze: false}",
        "'data/weights/other.h5' is missing",
    ),
]
# In one process, which imports DVC once
RUN_EACH = """
import sys
from dvc.cli import main

for setting in sys.argv[1:]:
    sys.argv = ["dvc", "exp", "run", "-S", setting]
    try:
        main()
    except SystemExit as end:
        print(end.code, file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        print("\\f", end="", file=stream, flush=True)
"""


@pytest.fixture(scope="module")
def refused(small, tmp_path_factory) -> dict[str, Output]:
    """What DVC prints of each setting; nothing may change."""
    project = small.copy(tmp_path_factory.mktemp("refused"))
    before = project.read("params.yaml")
    settings = [setting for setting, _ in REFUSED]
    printed = project.run("python", "-c", RUN_EACH, *settings)
    assert project.read("params.yaml") == before
    assert changed_files(project) == ""
    parts = zip(printed.stdout.split("\f"), printed.stderr.split("\f"), strict=True)
    return dict(zip([*settings, "end"], (Output(*part) for part in parts), strict=True))


@pytest.mark.parametrize(("setting", "message"), REFUSED)
def test_wrong_parameters_get_one_line(refused, setting, message):
    output = refused[setting]
    (error,) = error_lines(output)
    assert message in error
    assert "Traceback" not in output
    assert not ran(output)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("'no':", "no:", "phantom.classes.false is a boolean"),
        ("seed: 0", "seed: 010", "seed has two meanings in YAML"),
    ],
)
def test_params_that_yaml_reads_otherwise_get_one_line(done, before, after, message):
    text = done.read("params.yaml")
    (done.path / "params.yaml").write_text(text.replace(before, after, 1))
    output = done.run("dvc", "exp", "run", ok=False)
    (error,) = error_lines(output)
    assert message in error
    assert "Traceback" not in output
    if "boolean" in message:
        assert message in done.run("python", "-m", "stages", "split", ok=False).stderr


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (None, "failed to reproduce 'ingest': [Errno 2] No such file or directory: "),
        ({}, "has 0 class folder"),
        ({"yes": 5}, "has 1 class folder"),
        ({"no": 12, "yes": 1}, "class 'yes' has 1 independent group"),
        ({"no": 12, "yes": 0}, "no usable image of class 'yes'"),
    ],
)
def test_unusable_sources_get_one_line_before_training(fresh, counts, message):
    if counts is not None:
        (fresh.path / "data/raw").mkdir()
        for label, (name, count) in enumerate(counts.items()):
            (fresh.path / "data/raw" / name).mkdir()
            seeds = range(100 * label, 100 * label + count)
            write_raw_files(fresh, {f"{name}/{seed}.png": encode_noise(seed) for seed in seeds})
    fresh.edit(data__source="data/raw")
    output = fresh.run("dvc", "repro", ok=False)
    assert message in output.stderr
    assert "Traceback" not in output
    assert not [stage for stage in ran(output) if stage.startswith(("fan-out", "train"))]


def test_results_of_another_kind_of_processor_are_trained_again(done, monkeypatch):
    """It rounds differently, so that a clone's dvc.lock may name outputs that are in no cache.

    Nothing stays in the folder of temporary files.
    """
    temporary = Path(tempfile.mkdtemp())  # a short path, for sockets
    monkeypatch.setenv("TMPDIR", str(temporary))
    lock = yaml.safe_load(done.read("dvc.lock"))
    for name, stage in lock["stages"].items():
        for out in stage["outs"] if name.startswith("train@") else []:
            out["md5"] = out["md5"][:4] + "f" * 28 + out["md5"][32:]
    (done.path / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))
    for folder in (".dvc/cache", ".dvc/tmp", "models/members", "data"):
        done.run("git", "clean", "-fdxq", folder)
    check_trained_in_parallel(done)
    temporary.rmdir()  # it is empty


TWO_GPUS = """
from brainmri.parallel import pool
from brainmri.parallel.resources import Jobs

if __name__ == "__main__":
    processes = pool.training_processes(has_gpus=True)
    runs = [pool.LocalRun("member-01")]
    assert not pool.train_in_parallel(runs, Jobs(1, "GPUs", 1), ["0", "1"], processes)
"""


def test_members_on_gpus_have_the_bytes_of_the_others(done):
    """With GPUs, processes start in another way. These GPUs do not exist: the CPU computes."""
    entries = done.locked_stages
    for path in [
        *(done.path / ".dvc/cache/runs").iterdir(),
        done.path / "models/members/member-01",
        done.path / "data/fan-out.json",
    ]:
        done.run("rm", "-r", str(path))
    stale = {**entries, "train@member-01": {"cmd": "none"}}
    (done.path / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stale}))
    (done.path / "two_gpus.py").write_text(TWO_GPUS)
    done.run("python", "-m", "two_gpus")
    assert "all 3 members are trained already" in done.run("dvc", "repro")
    assert done.locked_stages == entries


def test_members_of_a_recipe_start_from_installed_weights(done):
    """The others are not trained again, and depend on no weights."""
    weights = "data/weights/efficientnet-lite0.weights.h5"
    network = "{name: efficientnet-lite0, weights: imagenet, freeze: false}"
    output = done.reproduce("weigh", **{"+recipes.strong.network": network})
    assert "1 of 3 members to train" in output
    members = {"train@member-00", "train@member-01", "train@member-02"}
    assert members - {*skipped(output)} == {"train@member-01"}
    stages = done.locked_stages
    assert [output["path"] for output in stages["pretrained"]["outs"]] == [weights]
    depending = {
        name
        for name, stage in stages.items()
        if weights in [dependency["path"] for dependency in stage.get("deps", [])]
    }
    assert depending & members == {"train@member-01"}
    member = load_model(done.path / "models/members/member-01/model.keras")
    (inner,) = (layer for layer in member.layers if isinstance(layer, keras.Model))
    assert inner.name == "efficientnet_lite0"
    assert not ran(done.run("dvc", "repro", "weigh"))


def test_members_start_from_a_weights_file_and_depend_on_it(done):
    base = application_base("vgg16", 32, None)
    file = done.path / "data/weights/base.weights.h5"
    base.save_weights(file)
    done.run("dvc", "add", "data/weights/base.weights.h5")
    settings = {
        "members": 1,
        "train.epochs": 1,
        "network.name": "vgg16",
        "network.weights": "data/weights/base.weights.h5",
    }
    assert "train@member-00" in ran(done.reproduce("weigh", **settings))
    member = load_model(done.path / "models/members/member-00/model.keras")
    (inner,) = (layer for layer in member.layers if isinstance(layer, keras.Model))
    weights = inner.get_layer("base").get_weights()
    for expected, actual in zip(base.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(actual, expected)
    assert not ran(done.run("dvc", "repro", "weigh"))

    with h5py.File(file, "w"):
        pass
    assert re.search(r"modified: +data/weights/base", done.run("dvc", "status", "train@member-00"))
    output = done.run("dvc", "repro", ok=False)
    message = r"^error: .*base\.weights\.h5 holds no weights of vgg16"
    assert re.search(message, output.stderr, re.MULTILINE)
    assert "Traceback" not in output
