"""From the ensemble to its use: one model file, predictions for new images, explanations, the report."""

import csv
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import Project
from PIL import Image

from predict.__main__ import NAME_WIDTH, write_table
from predict.prediction import Prediction
from stages.shared.explanations import heat_maps
from stages.shared.images import decode
from stages.shared.models import load_ensemble
from stages.shared.names import columns, shorten_all
from stages.shared.networks import averaged, build
from stages.shared.novelty import fit_novelty, novelty_model, thumbnailer, unexplained
from stages.shared.rad import RadReader

WITHOUT_THE_PROJECT = """
import sys, numpy as np, keras, tensorflow as tf
images = np.load(sys.argv[1])
model = keras.models.load_model(sys.argv[2])
served = tf.saved_model.load(sys.argv[3]).signatures["serving_default"](images=tf.constant(images))
assert not any(name.startswith("stages") for name in sys.modules)
np.savez(sys.argv[4], **{f"keras_{key}": value for key, value in model.predict(images, verbose=0).items()},
         **{f"served_{key}": value.numpy() for key, value in served.items()})
"""


def table(project: Project, path: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(project.read(path))))


def test_the_one_file_predicts_as_evaluate_did_without_this_project(small, tmp_path):
    told = table(small, "plots/data/predictions.csv")
    test = json.loads(small.read("data/split.json"))["test"]
    with RadReader(small.path / "data/rad/image_data.h5") as rad:
        np.save(tmp_path / "images.npy", rad.images(test))
    files = [tmp_path / "images.npy", *(small.path / "models" / name for name in ("ensemble.keras", "saved_model"))]
    command = [sys.executable, "-c", WITHOUT_THE_PROJECT, *map(str, files), str(tmp_path / "told.npz")]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    with np.load(tmp_path / "told.npz") as arrays:
        expected = np.array([[float(line[f"probability of {name}"]) for name in ("no", "yes")] for line in told])
        members = np.stack(
            [
                np.loadtxt(small.path / f"models/members/{name}/test.csv", delimiter=",", skiprows=1)[:, 1:]
                for name in small.params["ensemble"]
            ],
            axis=1,
        )
        for way in ("keras", "served"):
            np.testing.assert_allclose(arrays[f"{way}_probabilities"], expected, atol=1e-5)
            np.testing.assert_allclose(arrays[f"{way}_members"], members, atol=1e-5)
            assert arrays[f"{way}_novelty"].shape == (len(test),)


def test_the_one_file_tells_what_a_user_must_know(small):
    _, about = load_ensemble(small.path / "models/ensemble.keras")
    metadata, split = json.loads(small.read("data/rad/metadata.json")), json.loads(small.read("data/split.json"))
    assert about["classes"] == ["no", "yes"]
    assert (about["size"], about["crop"]) == (32, True)
    assert about["metrics"] == json.loads(small.read("metrics/ensemble.json"))
    known = {metadata["images"][row]["sha256"][:16] for row in split["training"]}
    assert set(about["training_images"]["sha256_prefixes"]) == known
    assert sum(about["weights"].values()) == pytest.approx(1)
    assert json.loads(small.read("models/saved_model/assets.extra/about.json")) == about


def test_exported_twice_it_is_the_same_bytes(done):
    lock = done.read("dvc.lock")
    done.run("dvc", "repro", "--force", "--single-item", "export")
    done.run("dvc", "repro", "--force", "--single-item", "explain")
    done.run("dvc", "repro", "--force", "--single-item", "report")
    assert done.read("dvc.lock") == lock


def test_predictions_for_files_folders_patterns_and_lists_are_those_of_evaluate(done):
    told = {line["path"]: float(line["probability of yes"]) for line in table(done, "plots/data/predictions.csv")}
    paths = [f"data/phantom/{path}" for path in told]
    by_file = done.run("python", "-m", "predict", "--csv", *paths).stdout
    lines = list(csv.DictReader(io.StringIO(by_file)))
    assert [line["file"] for line in lines] == paths
    for line, expected in zip(lines, told.values(), strict=True):
        assert float(line["probability of yes"]) == pytest.approx(expected, abs=1e-5)
        assert 0 <= float(line["mutual_information"]) <= float(line["entropy"]) + 1e-6 <= np.log(2) + 1e-5
    (done.path / "list.txt").write_text("\n".join(paths))
    assert done.run("sh", "-c", "python -m predict --csv - < list.txt").stdout == by_file
    folder = done.run("python", "-m", "predict", "--json", "data/phantom/yes", "data/phantom/n*/no-00*.png")
    lines = folder.stdout.splitlines()
    assert len(lines) == 24 + 10
    assert json.loads(lines[0])["file"] == "data/phantom/yes/yes-000.png"
    shown = done.run("python", "-m", "predict", paths[0])
    assert paths[0] in shown
    assert f"{told[paths[0].removeprefix('data/phantom/')]:.3f}" in shown


def test_a_bad_file_is_one_line_and_does_not_stop_the_rest(done):
    (done.path / "bad.jpg").write_text("<html>")
    (done.path / "empty.png").write_bytes(b"")
    told = done.run("python", "-m", "predict", "bad.jpg", "data/phantom/no", "empty.png", "missing.png", ok=False)
    assert told.count("data/phantom/no/no-0") == 24
    for name, reason in (("bad.jpg", "not an image"), ("empty.png", "empty file"), ("missing.png", "No such file")):
        assert sum(f"error: {name}: {reason}" in line for line in told.splitlines()) == 1
    assert "3 of 27 files could not be read" in told
    assert "Traceback" not in told


def test_pictures_of_something_else_are_told(done):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200), np.uint8)
    Image.fromarray(noise).save(done.path / "noise.png")
    assert "unlike the training images" in done.run("python", "-m", "predict", "noise.png")
    assert json.loads(done.run("python", "-m", "predict", "--json", "noise.png").stdout)["unlike_training_images"] is True


def test_labelled_folders_give_the_figures_of_evaluate(done):
    test = table(done, "plots/data/predictions.csv")
    for line in test:
        target = done.path / "hospital" / line["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((done.path / "data/phantom" / line["path"]).read_bytes())
    told = done.run("python", "-m", "predict", "--labels", "hospital")
    figures, expected = json.loads(told.stdout[told.stdout.index("{") :]), json.loads(done.read("metrics/ensemble.json"))
    for name in ("accuracy", "balanced_accuracy", "roc_auc", "log_loss", "f1", "expected_calibration_error"):
        assert figures[name] == pytest.approx(expected[name], abs=1e-4)
    assert figures["learned_from"] == 0
    assert figures["images"] == len(test)
    known = done.run("python", "-m", "predict", "--labels", "data/phantom")
    assert f"warning: {48 - len(test)} of 48 images are among those that it learned from" in known
    alone = done.run("python", "-m", "predict", "--labels", "--csv", "hospital/no")
    assert "warning: no balanced accuracy, F1, ROC AUC, average precision or 95 % intervals" in alone
    assert "'yes' has 0" in alone
    figures = json.loads(alone[alone.index("{") : alone.rindex("}") + 1])
    assert figures["roc_auc"] is figures["balanced_accuracy"] is figures["recall"]["yes"] is None
    assert figures["accuracy"] == figures["recall"]["no"]
    (done.path / "other").mkdir()
    (done.path / "other/one.png").write_bytes((done.path / "data/phantom/no/no-000.png").read_bytes())
    assert "error: other/one.png lies in no folder of a class; expected folders named no, yes" in done.run(
        "python", "-m", "predict", "--labels", "other", ok=False
    )


def test_the_table_fits_a_terminal_at_any_number_of_classes_and_any_name(capsys):
    for classes in (
        ["no", "yes"],
        ["脑胶质瘤" * 9, "a" * 67, "no"],
        [f"a class with a long name, number {n}" for n in range(100)],
    ):
        probabilities = np.linspace(1, 2, len(classes))
        prediction = Prediction(Path("x.png"), None, probabilities / probabilities.sum(), 0.1, 0.05, 0.5)
        write_table([prediction], classes)
        head, line = capsys.readouterr().out.splitlines()
        assert columns(head) == columns(line) < 180
        assert f"{probabilities[-1] / probabilities.sum():.3f}" in line
    assert shorten_all(classes, NAME_WIDTH)[-1] in line
    assert shorten_all(classes, NAME_WIDTH)[-2] in line  # the next most probable


def test_overlays_are_written_for_new_images(done):
    done.run("python", "-m", "predict", "--explain", "seen", "data/phantom/yes/yes-000.png", "data/phantom/no/no-000.png")
    drawn = sorted((done.path / "seen").iterdir())
    assert [path.name for path in drawn] == ["0001-yes-000.png", "0002-no-000.png"]
    with Image.open(drawn[0]) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    plain, warm = np.split(pixels, 2, axis=1)
    plain = plain[:, :-6]  # the seam is blurred
    assert np.ptp(plain, axis=-1).max() <= 2  # grey
    assert np.ptp(warm, axis=-1).max() > 40  # coloured


def test_models_that_are_no_exported_ensemble_are_refused(done):
    for name, reason in (
        ("models/members/member-00/model.keras", "no ensemble of this pipeline"),
        ("missing.keras", "is missing"),
    ):
        told = done.run("python", "-m", "predict", "--model", name, "data/phantom/no", ok=False)
        assert told.stderr.startswith(f"error: {name}")
        assert reason in told.stderr
    path = done.path / "models/ensemble.keras"
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries["about.json"] = entries["about.json"].replace(b'"no"', b'"no", "third"', 1)
    with zipfile.ZipFile(done.path / "other.keras", "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    assert "no ensemble of this pipeline" in done.run(
        "python", "-m", "predict", "--model", "other.keras", "data/phantom/no", ok=False
    )


def test_heat_lies_where_the_class_is_seen():
    keras.utils.set_random_seed(3)
    places = np.random.default_rng(0).integers(0, 24, (96, 2))
    images = np.random.default_rng(1).integers(0, 60, (96, 32, 32, 1)).astype(np.uint8)
    labels = np.arange(96) % 2
    for image, (y, x), label in zip(images, places, labels, strict=True):
        if label:
            image[y : y + 8, x : x + 8] += 150
    network = build("residual", 32, 2, 0.0, 0.0, 0.0)
    network.compile("adam", "sparse_categorical_crossentropy")
    network.fit(images.astype(np.float32), labels, epochs=12, batch_size=16, verbose=0)
    members = {"a": averaged(network, "mirrored"), "b": network}
    bright = labels == 1
    heat = heat_maps(members, {"a": 0.5, "b": 0.5}, images[bright], np.ones(48, int))
    assert heat.shape == (48, 32, 32)
    assert heat.min() >= 0
    assert heat.max() <= 1.001
    hottest = np.stack(np.unravel_index(heat.reshape(48, -1).argmax(axis=1), (32, 32)), axis=1)
    inside = np.all((hottest >= places[bright] - 2) & (hottest < places[bright] + 10), axis=1)
    assert inside.mean() > 0.8


def test_explanations_are_checked_against_the_tumours_of_synthetic_slices(small):
    told = json.loads(small.read("metrics/explain.json"))
    positives = sum(line["class"] == "yes" for line in table(small, "plots/data/predictions.csv"))
    assert told["in_tumours"]["images"] == positives
    assert 0 <= told["in_tumours"]["heat"] <= 1
    assert 0 < told["in_tumours"]["random_map"] < 0.15
    with np.load(small.path / "models/explanations.npz", allow_pickle=False) as arrays:
        assert arrays["heat"].shape == (told["images_drawn"], 32, 32)
        assert len(set(arrays["rows"].tolist())) == told["images_drawn"]


def test_novelty_is_the_same_in_the_model_and_warns_of_as_many_images_as_it_should():
    images = np.random.default_rng(0).normal(size=(400, 5)) @ np.random.default_rng(1).normal(size=(5, 40 * 40))
    images = np.clip(images * 12 + 120 + np.random.default_rng(2).normal(size=images.shape) * 4, 0, 255)
    images = images.reshape(400, 40, 40, 1).astype(np.float32)
    thumbnails = thumbnailer((40, 40, 1)).predict(images, verbose=0).astype(float)
    fitted = fit_novelty(thumbnails[:300], 0.1)
    novelty = novelty_model((40, 40, 1), *fitted).predict(images, verbose=0)
    np.testing.assert_allclose(novelty, unexplained(thumbnails, *fitted[:2]) / fitted[2], rtol=1e-4)
    assert 0 < np.mean(novelty[300:] > 1) < 0.25
    noise = np.random.default_rng(3).integers(0, 256, (20, 40, 40, 1)).astype(np.float32)
    assert novelty_model((40, 40, 1), *fitted).predict(noise, verbose=0).min() > 1


def test_new_images_are_decoded_as_ingest_decodes_them(small):
    with RadReader(small.path / "data/rad/image_data.h5") as rad:
        stored = rad.images([0])[0, ..., 0]
    np.testing.assert_array_equal(decode(small.path / "data/phantom/no/no-000.png", 32, True).pixels, stored)
