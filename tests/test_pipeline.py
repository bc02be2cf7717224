"""The commands that people type, against the real DVC and the real TensorFlow on a small copy of the project."""

import csv
import html
import json
import re
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import yaml
from conftest import SMALL, check_trained_in_parallel, ran, skipped
from PIL import Image
from sklearn import metrics as sk

from stages.shared.models import load_model
from stages.shared.networks import application_base
from stages.shared.params import load_params
from stages.shared.voting import calibrate

ALL = [
    "data/dvc.yaml:phantom",
    "ingest",
    "split",
    "bootstrap-sample",
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
PICTURES = ["confusion", "learning_curves", "roc_precision_recall", "reliability", "members", "gallery", "explanations"]


def test_second_repro_runs_nothing_and_leaves_a_clean_tree(done):
    output = done.run("dvc", "repro")
    assert not ran(output)
    assert skipped(output) == ALL
    assert "up to date" in done.run("dvc", "status")
    assert done.run("git", "status", "--porcelain").stdout == ""
    done.edit(fan_out__jobs=1)
    assert skipped(done.run("dvc", "repro")) == ALL


def test_growing_trains_the_new_members_only_and_shrinking_trains_none(done):
    lock = done.read("dvc.lock")
    grown = done.experiment("evaluate", members=5)
    assert {"train@member-00", "train@member-01", "train@member-02"} <= set(skipped(grown))
    assert "2 of 5 members to train" in grown
    assert len(json.loads(done.read("models/weights.json"))["members"]) == 5

    back = done.experiment("evaluate", members=3)
    assert "all 3 members are trained already" in back
    assert not [stage for stage in ran(back) if stage.startswith("train")]
    assert len(json.loads(done.read("models/weights.json"))["members"]) == 3
    assert sorted(path.name for path in (done.path / "models/members").iterdir()) == ["member-00", "member-01", "member-02"]
    assert done.read("dvc.lock") == lock


def test_another_voting_scheme_trains_nothing(done):
    assert ran(done.experiment("evaluate", **{"weigh.scheme": "auc"})) == ["weigh", "evaluate"]
    shown = done.run("dvc", "params", "diff")
    assert re.search(r"weigh\.scheme\s+\S*\s*log_loss\s+\S*\s*auc", shown)
    assert "log_loss" in done.run("dvc", "metrics", "diff", "--all")


def test_a_recipe_retrains_only_the_members_that_use_it(done):
    second = list(done.params["recipes"])[1]
    output = done.experiment("evaluate", **{f"recipes.{second}.l2": 0.01})
    assert "1 of 3 members to train" in output
    assert {"train@member-00", "train@member-02"} <= set(skipped(output))
    assert "train@member-01" not in skipped(output)


def test_the_fraction_of_a_recipe_draws_and_retrains_only_the_members_that_use_it(done):
    samples = sorted((done.path / "data/bootstrap").iterdir())
    before = {path.name: path.read_bytes() for path in samples}
    second = list(done.params["recipes"])[1]
    output = done.experiment("evaluate", **{f"recipes.{second}.fraction": 0.5})
    assert "1 of 3 members to train" in output
    assert {"train@member-00", "train@member-02"} <= set(skipped(output))
    after = {path.name: path.read_bytes() for path in samples}
    assert [name for name in before if before[name] != after[name]] == ["member-01.json"]
    split, sample = (json.loads(done.read(f"data/{name}.json")) for name in ("split", "bootstrap/member-01"))
    assert len(sample["in_bag"]) == pytest.approx(len(split["training"]) / 2, abs=1)


def test_a_preset_is_trained_queued_and_left_again(done):
    committed = done.read("params.yaml")
    few = {"ingest.image_size": 48, "train.epochs": 2, "evaluate.resamples": 100}
    output = done.experiment("evaluate", preset="original", **few)
    assert "3 of 3 members to train" in output
    params = done.params
    assert (params["network"]["name"], list(params["recipes"])) == ("seed-cnn", ["first", "second", "third"])
    samples = [json.loads(done.read(f"data/bootstrap/member-{index:02d}.json"))["in_bag"] for index in range(3)]
    training = len(json.loads(done.read("data/split.json"))["training"])
    assert [len(sample) / training for sample in samples] == pytest.approx([0.8, 0.9, 1.0], abs=0.03)
    done.run("git", "checkout", "params.yaml")
    assert done.read("params.yaml") == committed
    queue = ("dvc", "exp", "run", "--queue", "-S")
    done.run(*queue, "preset=original,notebook-2")
    done.run(*queue, "preset=original", "-S", "recipes.third.l2=0.5")
    assert done.run("dvc", "queue", "status").stdout.count("Queued") == 3
    assert "recipes.base is unknown" in done.run(*queue, "preset=original", "-S", "recipes.base.l2=0.5", ok=False).stderr
    assert done.read("params.yaml") == committed


def test_metrics_are_complete_and_shown(done):
    metrics = json.loads(done.read("metrics/ensemble.json"))
    with open(done.path / "plots/data/predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    labels, predicted = (np.array([row[column] == "yes" for row in rows]) for column in ("class", "predicted"))
    positive = np.array([float(row["probability of yes"]) for row in rows])
    figures = {
        "accuracy": np.mean(labels == predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "roc_auc": sk.roc_auc_score(labels, positive),
        "average_precision": sk.average_precision_score(labels, positive),
        "f1": sk.f1_score(labels, predicted),
        "log_loss": sk.log_loss(labels, positive),
        "brier_score": sk.brier_score_loss(labels, positive),
        "test_images": len(rows),
    }
    assert {name: metrics[name] for name in figures} == pytest.approx(figures)
    assert metrics["recall"] == pytest.approx({"no": np.mean(~predicted[~labels]), "yes": np.mean(predicted[labels])})
    assert 0 <= metrics["expected_calibration_error"] <= 1
    assert list(metrics["interval"]) == ["accuracy", "balanced_accuracy", "roc_auc"]
    for name, (low, high) in metrics["interval"].items():
        assert 0 <= low <= metrics[name] <= high <= 1
    for other in ("best_member", "mean_member", "uniform_vote"):
        assert {"accuracy", "balanced_accuracy", "roc_auc", "log_loss"} <= set(metrics[other])
    shown = done.run("dvc", "metrics", "show")
    assert "metrics/ensemble.json" in shown
    assert "balanced_accuracy" in shown


def test_one_positive_test_image_gives_null_and_a_reason(done):
    """No ROC AUC of one image's rank, in any file or line; DVC compares what is left."""
    split, metadata = json.loads(done.read("data/split.json")), json.loads(done.read("data/rad/metadata.json"))
    positives = [row for row in split["test"] if metadata["images"][row]["class"] == "yes"]
    split["test"] = [row for row in split["test"] if row not in positives[1:]]
    split["training"] = sorted(split["training"] + positives[1:])
    (done.path / "data/split.json").write_text(json.dumps(split))
    for table in (done.path / "models/members").glob("*/test.csv"):
        header, *lines = table.read_text().splitlines(keepends=True)
        kept = [line for line in lines if int(line.split(",")[0]) in split["test"]]
        table.unlink()  # it may be a link into DVC's cache
        table.write_text("".join([header, *kept]))
    output = done.run("python", "-W", "error", "-m", "stages.evaluate")
    assert "roc auc: none; mean member none\n" in output.stdout
    assert "95 % interval " not in output
    reason = "ROC AUC, average precision or 95 % intervals: expected 5 or more independent groups of test images of each class;"
    assert f"no {reason}" in output
    assert "'yes' has 1" in output
    metrics = json.loads(done.read("metrics/ensemble.json"))
    assert metrics["interval"] == {"accuracy": None, "balanced_accuracy": None, "roc_auc": None}
    for voter in (metrics, metrics["best_member"], metrics["mean_member"], metrics["uniform_vote"]):
        assert voter["roc_auc"] is None
        assert 0 <= voter["balanced_accuracy"] <= 1
    assert metrics["recall"]["yes"] in (0, 1)

    done.run("python", "-m", "stages.report")
    page, card = html.unescape(done.read("plots/report.html")), done.read("docs/model-card.md")
    assert f"No {reason}" in page
    assert "<div>ROC AUC<b>none</b>no interval</div>" in page
    assert f"No {reason}" in card
    assert "| ROC AUC | none |  |" in card
    assert "ROC AUC none." in card
    assert "None" not in card

    changes = json.loads(done.run("dvc", "metrics", "diff", "--json").stdout)["metrics/ensemble.json"]
    assert changes["roc_auc"]["new"] is None
    assert 0 <= changes["roc_auc"]["old"] <= 1
    assert changes["test_images"] == {"old": 10, "new": len(split["test"]), "diff": len(split["test"]) - 10}
    assert re.search(r"ensemble.json\s+roc_auc\s+[\d.]+\s+-\s+-\n", done.run("dvc", "metrics", "diff").stdout)
    assert "balanced_accuracy" in done.run("dvc", "metrics", "show")
    done.run("dvc", "plots", "show")


def test_plots_are_pictures_and_data_that_dvc_draws(done):
    for name in PICTURES:
        with Image.open(done.path / f"plots/{name}.png") as picture:
            assert min(picture.size) > 300
    done.run("dvc", "plots", "show")
    page = done.read("dvc_plots/index.html")
    assert page.count("vegaEmbed('#") >= 6
    assert page.count("<img") >= len(PICTURES)
    done.experiment("evaluate", **{"weigh.scheme": "uniform"})
    done.run("dvc", "plots", "diff", "HEAD", "workspace", "--targets", "plots/data/roc.csv")
    assert "workspace" in done.read("dvc_plots/index.html")


def test_members_vote_as_their_models_predict(done, monkeypatch):
    """The saved models, loaded in safe mode without the project's code, give the probabilities that were voted with."""
    monkeypatch.chdir(done.path)
    params = load_params()
    split = json.loads(done.read("data/split.json"))
    told = json.loads(done.read("models/weights.json"))
    weights, calibration = told["members"], told["calibrations"]["ensemble"]
    from stages.shared.rad import RadReader

    with RadReader() as rad:
        images = rad.images(split["test"])
    votes = sum(
        weights[name]["weight"]
        * keras.saving.load_model(f"models/members/{name}/model.keras", safe_mode=True).predict(images, verbose=0)
        for name in params.ensemble
    )
    with open("plots/data/predictions.csv", newline="") as file:
        told = np.array([[float(row["probability of no"]), float(row["probability of yes"])] for row in csv.DictReader(file)])
    np.testing.assert_allclose(calibrate(votes, **calibration), told, atol=1e-5)
    assert calibration["temperature"] != 1


def test_out_of_bag_images_are_strangers_to_their_member(done):
    split = json.loads(done.read("data/split.json"))
    assert sorted(split["test"] + split["training"]) == list(range(48))
    for name in done.params["ensemble"]:
        sample = json.loads(done.read(f"data/bootstrap/{name}.json"))
        assert sample["in_bag"]
        assert sample["out_of_bag"]
        assert set(sample["in_bag"]) | set(sample["out_of_bag"]) <= set(split["training"])
        assert not set(sample["in_bag"]) & set(sample["out_of_bag"])


def test_a_fresh_clone_ends_with_equal_bytes_whatever_jobs(fresh, small):
    (fresh.path / "params.yaml").write_text(small.read("params.yaml"))
    fresh.edit(fan_out__jobs=1)
    assert "1 at a time" in fresh.run("dvc", "repro")
    assert fresh.read("dvc.lock") == small.read("dvc.lock")
    assert "up to date" in fresh.run("dvc", "status")
    changed = fresh.run("git", "status", "--porcelain").stdout.splitlines()
    assert " M params.yaml" in changed
    assert not [line for line in changed if line.startswith("??")]


def test_no_output_holds_a_path_of_this_machine(small):
    """Not even the first two folders of the path in which the pipeline ran."""
    above = str(Path(*small.path.parts[:3])).encode()
    files = [path for folder in ("data", "models", "metrics", "plots") for path in (small.path / folder).rglob("*")]
    files = [path for path in files if path.is_file()]
    assert {small.path / "models/ensemble.keras", small.path / "plots/report.html"} <= {*files}
    for path in [*files, small.path / "dvc.lock"]:
        assert above not in path.read_bytes(), path


def test_members_typed_by_hand_stop_with_one_line_and_train_nothing(done):
    before = sorted((done.path / "models/members").rglob("*"))
    done.edit(members=9)
    output = done.run("dvc", "repro", ok=False)
    line = next(line for line in output.stderr.splitlines() if line.startswith("error: "))
    assert "members: 9" in line
    assert "dvc exp run" in line
    assert "Traceback" not in output
    assert not [stage for stage in ran(output) if stage.startswith(("train", "fan-out"))]
    assert sorted((done.path / "models/members").rglob("*")) == before
    done.edit(members=3)
    assert {"fan-out", "train@member-00", "train@member-01", "train@member-02"} <= set(skipped(done.run("dvc", "repro")))


def test_a_failing_member_is_named_and_the_others_are_kept(done):
    done.edit(train__label_smoothing=0.1)  # all three are to be trained
    second = list(done.params["recipes"])[1]
    output = done.run("dvc", "exp", "run", "-S", f"recipes.{second}.learning_rate=1e30", ok=False)
    assert "3 of 3 members to train" in output
    assert "training failed: member-01;" in output.stderr
    assert f"member-01 diverged; expected finite predictions: lower recipes.{second}.learning_rate" in output
    assert "Traceback" not in output
    again = done.run("dvc", "repro", ok=False)
    assert "1 of 3 members to train" in again


def test_four_classes_go_through_with_every_picture_and_metric(fresh):
    kinds = {"phantom.classes.no": 16, "phantom.classes.yes": 0}
    kinds |= {f"phantom.classes.{kind}": 16 for kind in ("glioma", "meningioma", "pituitary")}
    fresh.experiment(**{**SMALL, "members": 2, **kinds, "split.folds": 3, "network.name": "notebook-2"})
    metrics = json.loads(fresh.read("metrics/ensemble.json"))
    assert list(metrics["recall"]) == ["glioma", "meningioma", "no", "pituitary"]
    assert 0 <= metrics["roc_auc"] <= 1
    for name in PICTURES:
        assert (fresh.path / f"plots/{name}.png").stat().st_size > 5000
    curves = {row["curve"] for row in csv.DictReader(fresh.read("plots/data/roc.csv").splitlines())}
    assert curves == set(metrics["recall"])


def test_own_images_by_dvc_import_from_a_git_repository(fresh, tmp_path):
    """As the README shows: `dvc import` of data/raw, the commit recorded, the built-in data not drawn."""
    other = tmp_path / "other"
    for name, level in (("no", 60), ("yes", 200)):
        (other / "data/raw" / name).mkdir(parents=True)
        for index in range(6):
            noise = np.random.default_rng([level, index]).integers(0, level, (40, 40), np.uint8)
            Image.fromarray(noise).save(other / f"data/raw/{name}/{index}.png")
    (other / "data/raw/yes/notes.txt").write_text("no image")
    (other / "data/raw/yes/.hidden").write_text("hidden")
    fresh.run("git", "init", "-q", str(other))
    fresh.run("git", "-C", str(other), "add", "-A")
    fresh.run("git", "-C", str(other), "-c", "user.name=T", "-c", "user.email=t@example.org", "commit", "-qm", "Images")
    fresh.run("dvc", "import", str(other), "data/raw", "-o", "data/raw")
    assert yaml.safe_load(fresh.read("data/raw.dvc"))["deps"][0]["repo"]["rev_lock"]
    fresh.edit(data__source="data/raw")
    output = fresh.run("dvc", "repro", "split")
    assert "left out: 'yes/notes.txt': not an image of a known format" in output
    assert "hidden" not in output
    assert json.loads(fresh.read("metrics/ingest.json")) == {"images": 12, "rejected": 1, "classes": {"no": 6, "yes": 6}}
    assert "phantom" not in output
    assert not (fresh.path / "data/phantom").exists()
    changed = fresh.run("git", "status", "--porcelain").stdout
    assert "data/raw.dvc" in changed
    assert "raw" not in changed.replace("data/raw.dvc", "")


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("members=0", "members is 0; expected a number greater"),
        ("members=-1", "members is -1"),
        ("members=2.5", "members is 2.5; expected a valid integer"),
        ("members=five", "members is 'five'"),
        ("network.name=resnet9000", "network.name is 'resnet9000'; expected 'residual', 'residual-sides', 'residual-deep'"),
        ("weigh.scheme=best", "weigh.scheme is 'best'; expected 'uniform'"),
        ("+recipes.base.droput=0.5", "recipes.base.droput is unknown; did you mean dropout?"),
        ("ingest.croop=false", "ingest.croop is unknown; did you mean ingest.crop?"),
        ("membrs=9", "membrs is unknown; did you mean members?"),
        ("preset=orignal", "preset is 'orignal'; expected one of notebook-1, notebook-2, notebook-3, original"),
        ("+preset=original", "+preset=original: expected preset=original, without +"),
        ("recipes.bsae.l2=0.1", "recipes.bsae is unknown; did you mean recipes.base?"),
        ("members.count=9", "members.count is unknown"),
        ("~recipes.lihgt", "recipes.lihgt is unknown; did you mean recipes.light?"),
        ("ensemble.member-00.l2=0.1", "`ensemble` is derived; set recipes, seed, members or network.weights instead"),
        ("recipes.base.dropout=1.5", "recipes.base.dropout is 1.5; expected a number less than 1"),
        ("split.fold=5", "fold is 5; expected 0 to 4"),
        ("data.source=data/nowhere", "data.source: 'data/nowhere' is not there; expected a folder of class folders"),
    ],
)
def test_wrong_parameters_get_one_line_and_change_nothing(done, setting, told):
    before = done.read("params.yaml")
    output = done.run("dvc", "exp", "run", "-S", setting, ok=False)
    errors = [line for line in output.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert told in errors[0]
    assert "Traceback" not in output
    assert not ran(output)
    assert done.read("params.yaml") == before
    assert done.run("git", "status", "--porcelain").stdout == ""


@pytest.mark.parametrize(
    ("before", "after", "reported"),
    [
        ("'no':", "no:", "phantom.classes.false is a boolean"),
        ("seed: 0", "seed: 010", "seed has two meanings in YAML"),
    ],
)
def test_params_that_yaml_reads_otherwise_get_one_line(done, before, after, reported):
    text = done.read("params.yaml")
    (done.path / "params.yaml").write_text(text.replace(before, after, 1))
    output = done.run("dvc", "exp", "run", ok=False)
    errors = [line for line in output.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert reported in errors[0]
    if "boolean" in reported:
        assert reported in done.run("python", "-m", "stages.split", ok=False).stderr
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        (None, "failed to reproduce 'ingest': [Errno 2] No such file or directory: "),
        ({}, "has 0 class folder"),
        ({"yes": 5}, "has 1 class folder"),
        ({"no": 12, "yes": 1}, "class 'yes' has 1 independent image"),
        ({"no": 12, "yes": 0}, "no usable image in class folder 'yes'"),
    ],
)
def test_unusable_sources_get_one_line_before_any_training(fresh, classes, told):
    for name, count in (classes or {}).items():
        (fresh.path / "data/raw" / name).mkdir(parents=True)
        for index in range(count):
            noise = np.random.default_rng([index, len(name)]).integers(0, 256, (30, 30), np.uint8)
            Image.fromarray(noise).save(fresh.path / f"data/raw/{name}/{index}.png")
    if classes == {}:
        (fresh.path / "data/raw").mkdir()
    fresh.edit(data__source="data/raw")
    output = fresh.run("dvc", "repro", ok=False)
    assert told in output.stderr
    assert "Traceback" not in output
    assert not [stage for stage in ran(output) if stage.startswith(("fan-out", "train"))]


def test_results_that_another_machine_committed_are_trained_once_where_they_differ(done):
    """Another kind of processor rounds differently, so a clone's dvc.lock may tell of outputs that are not in any cache."""
    lock = yaml.safe_load(done.read("dvc.lock"))
    for name, stage in lock["stages"].items():
        for out in stage["outs"] if name.startswith("train@") else []:
            out["md5"] = out["md5"][:4] + "f" * 28 + out["md5"][32:]
    (done.path / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))
    for folder in (".dvc/cache", ".dvc/tmp", "models/members", "data"):
        done.run("git", "clean", "-fdxq", folder)
    check_trained_in_parallel(done)


def test_members_trained_before_an_interruption_are_not_trained_again(done):
    """`fan-out` may be stopped after some members: what they gave waits until DVC comes to it."""
    done.edit(train__label_smoothing=0.1)
    done.run("dvc", "repro", "fan-out")
    assert len(list((done.path / ".dvc/tmp/members").iterdir())) == 3
    (done.path / "data/fan-out.json").unlink()
    output = done.run("dvc", "repro", "evaluate")
    assert "all 3 members are trained already" in output
    assert output.count("was trained beside the others") == 3
    assert not list((done.path / ".dvc/tmp/members").iterdir())


def test_members_that_get_a_gpu_each_end_with_the_bytes_of_the_others(done):
    """Where there are GPUs, members start as processes of their own kind. Those named here do not exist: the CPU computes."""
    lock = yaml.safe_load(done.read("dvc.lock"))["stages"]
    for path in [
        *(done.path / ".dvc/cache/runs").iterdir(),
        done.path / "models/members/member-01",
        done.path / "data/fan-out.json",
    ]:
        done.run("rm", "-r", str(path))
    (done.path / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": {**lock, "train@member-01": {"cmd": "none"}}}))
    script = "from stages.engines import local\nfrom stages.shared.machine import Jobs\n"
    script += "if __name__ == '__main__':\n    runs, processes = [local.LocalRun('member-01')], local.training_processes(True)\n"
    script += "    assert not local.train_side_by_side(runs, Jobs(1, 'GPUs', 1), ['0', '1'], processes)\n"
    (done.path / "two_gpus.py").write_text(script)
    done.run("python", "-m", "two_gpus")
    assert "all 3 members are trained already" in done.run("dvc", "repro")
    assert yaml.safe_load(done.read("dvc.lock"))["stages"] == lock


def test_members_start_from_a_weights_file_and_depend_on_it(done):
    base, file = application_base("mobilenet-v2", 32, None), done.path / "data/weights/base.weights.h5"
    base.save_weights(file)
    done.run("dvc", "add", "data/weights/base.weights.h5")
    settings = {"members": 1, "network.name": "mobilenet-v2", "network.weights": "data/weights/base.weights.h5"}
    assert "train@member-00" in ran(done.experiment("evaluate", **settings))
    member = load_model(done.path / "models/members/member-00/model.keras")
    (inner,) = (layer for layer in member.layers if isinstance(layer, keras.Model))
    for given, kept in zip(base.get_weights(), inner.get_layer("base").get_weights(), strict=True):
        np.testing.assert_array_equal(given, kept)
    assert not ran(done.run("dvc", "repro", "evaluate"))

    base.set_weights([weight + 0.1 for weight in base.get_weights()])
    base.save_weights(file)
    assert "train@member-00" in ran(done.run("dvc", "repro", "evaluate"))

    done.run("git", "add", "-A")
    done.run("git", "commit", "-q", "-m", "From weights")
    with h5py.File(file, "w"):
        pass
    output = done.run("dvc", "repro", ok=False)
    assert re.search(r"^error: .*base\.weights\.h5 holds no weights of mobilenet-v2", output.stderr, re.MULTILINE)
    assert "Traceback" not in output
    missing = done.run("dvc", "exp", "run", "-S", "network.weights=data/weights/other.h5", ok=False)
    assert "'data/weights/other.h5' is not there" in missing.stderr
