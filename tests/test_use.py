"""From the ensemble to its use: one model file, predictions for new images, explanations, the report."""

import base64
import csv
import hashlib
import html
import io
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import yaml
from conftest import ROOT, Project, ran
from PIL import Image
from scipy.ndimage import uniform_filter
from scipy.signal import correlate2d
from sklearn.decomposition import PCA
from workspace import write_store

from predict.__main__ import NAME_WIDTH, write_table
from predict.prediction import Prediction
from stages import explain, export, report
from stages.explain import choose, pointing_game, tumour
from stages.shared import explanations as explanations_of
from stages.shared.explanations import explained_classes, heat_maps, heat_scale, with_features
from stages.shared.images import decode, frame, head_box
from stages.shared.models import load_ensemble, load_model, members_of, predictor, save_model
from stages.shared.names import columns, shorten_all
from stages.shared.networks import NETWORKS, averaged, build
from stages.shared.novelty import fit_novelty, novelty_model, thumbnailer, unexplained
from stages.shared.params import Inputs, check, derive_ensemble, load_params
from stages.shared.phantoms import draw_numbered, to_png
from stages.shared.pictures import evidence_label, explanations, overlay, panel
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
        assert arrays["keras_novelty"].min() > 0
        np.testing.assert_allclose(arrays["served_novelty"], arrays["keras_novelty"], rtol=1e-4)


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
    for stage in ("export", "explain", "report"):
        assert ran(done.run("dvc", "repro", "--force", "--single-item", stage)) == [stage]
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
    assert told.stdout.count("data/phantom/no/no-0") == 24
    for name, reason in (("bad.jpg", "not an image"), ("empty.png", "empty file"), ("missing.png", "No such file")):
        assert sum(f"error: {name}: {reason}" in line for line in told.stderr.splitlines()) == 1
    assert "3 of 27 files could not be read" in told.stderr
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
    assert f"warning: {48 - len(test)} of 48 images are among those that it learned from" in known.stderr
    alone = done.run("python", "-m", "predict", "--labels", "--csv", "hospital/no")
    assert "warning: no balanced accuracy, F1, ROC AUC, average precision or 95 % intervals" in alone.stderr
    assert "'yes' has 0" in alone
    figures = json.loads(alone.stderr[alone.stderr.index("{") : alone.stderr.rindex("}") + 1])
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


def test_new_images_are_explained_as_test_images_are(done):
    """The same map, on the same scale, in plots, in models/explanations.npz and from `predict`."""
    _, about = load_ensemble(done.path / "models/ensemble.keras")
    metadata = json.loads(done.read("data/rad/metadata.json"))
    with np.load(done.path / "models/explanations.npz", allow_pickle=False) as arrays:
        heat, rows, scale = arrays["heat"], arrays["rows"], float(arrays["scale"])
        assert set(arrays["classes"].tolist()) == {1}  # evidence for "yes", in images of "no" too
    assert scale == about["heat_scale"]
    with RadReader(done.path / "data/rad/image_data.h5") as rad:
        images, labels = rad.images(rows), rad.labels[rows]
    assert set(labels.tolist()) == {0, 1}
    paths = [f"data/phantom/{metadata['images'][row]['path']}" for row in rows]
    done.run("python", "-m", "predict", "--explain", "explained", *paths)
    drawn = sorted((done.path / "explained").iterdir())
    assert [path.name for path in drawn] == [f"{n + 1:04d}-{Path(path).stem}.png" for n, path in enumerate(paths)]
    for path, image, warmth in zip(drawn, images, heat, strict=True):
        with Image.open(path) as picture:
            pixels = np.asarray(picture).astype(int)
        expected = panel(image[..., 0], warmth, scale, evidence_label(["no", "yes"]))
        assert np.abs(pixels - expected).max() <= 1  # in batches of other images sums round differently
        assert len(pixels) == 12 * 32
    assert np.ptp(pixels[:, -110:], axis=-1).max() > 40  # a color bar


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


@pytest.fixture(scope="module")
def bright_square():
    """Images of noise, half of them with a bright square, where it is, labels, and a network that tells them apart."""
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
    return images, places, labels, network


def test_heat_lies_where_the_finding_is_and_nowhere_without_one(bright_square):
    images, places, labels, network = bright_square
    members = {"a": averaged(network, "mirrored"), "b": network}
    heat = heat_maps(members, {"a": 0.5, "b": 0.5}, images, np.ones(96, int))
    assert heat.shape == (96, 32, 32)
    assert heat.min() >= 0
    bright = labels == 1
    hottest = np.stack(np.unravel_index(heat[bright].reshape(48, -1).argmax(axis=1), (32, 32)), axis=1)
    inside = np.all((hottest >= places[bright] - 2) & (hottest < places[bright] + 10), axis=1)
    assert inside.mean() > 0.8
    peaks = heat.max(axis=(1, 2))
    assert np.median(peaks[~bright]) < np.median(peaks[bright]) / 5
    log_odds = np.diff(np.log(network.predict(images.astype(np.float32), verbose=0)))[bright, 0]
    total = 100 * heat[bright].mean(axis=(1, 2))  # per 1 % of the image, over all of it
    assert 0.7 < np.mean(total) / np.mean(log_odds) < 1.3


def test_heat_is_evidence_in_log_odds_also_of_a_network_that_is_certain(bright_square):
    images, _, labels, network = bright_square
    bright = images[labels == 1][:8]
    heat = heat_maps({"a": network}, {"a": 1.0}, bright, np.ones(8, int))
    certain = keras.models.clone_model(network)
    certain.set_weights(network.get_weights())
    last = certain.get_layer("probabilities")
    last.set_weights([100 * values for values in last.get_weights()])
    assert certain.predict(bright.astype(np.float32), verbose=0)[:, 1].min() > 1 - 1e-6
    of_certain = heat_maps({"a": certain}, {"a": 1.0}, bright, np.ones(8, int))
    np.testing.assert_allclose(of_certain, 100 * heat, rtol=1e-3, atol=1e-3 * of_certain.max())
    half = heat_maps({"a": network, "b": network}, {"a": 0.25, "b": 0.75}, bright, np.ones(8, int))
    np.testing.assert_allclose(half, heat, rtol=1e-4, atol=1e-4 * heat.max())


@pytest.mark.parametrize("name", [*NETWORKS, "mobilenet-v2"])
def test_every_network_can_be_explained_when_it_was_loaded(tmp_path, name):
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 1)).astype(np.uint8)
    save_model(averaged(build(name, 64, 3, 0.0, 0.0, 0.0), "zoomed"), tmp_path / "model.keras")
    keras.backend.clear_session()  # layers made now would be named as those of the file are
    heat = heat_maps({"a": load_model(tmp_path / "model.keras")}, {"a": 1.0}, image, np.array([2]))
    assert heat.shape == (1, 64, 64)
    assert np.isfinite(heat).all()


def pooling_network(seed, classes=3):
    """One convolution of 16×16 places, pooled."""
    keras.utils.set_random_seed(seed)
    images = keras.Input((16, 16, 1), name="images")
    features = keras.layers.Conv2D(5, 3, padding="same", activation="relu", name="fine")(keras.layers.Rescaling(1 / 255)(images))
    head = keras.layers.Dense(classes, "softmax", kernel_initializer="random_normal", name="probabilities")
    head.kernel_initializer.stddev = 5.0
    pooled = keras.layers.Dropout(0.5)(keras.layers.GlobalAveragePooling2D()(features))
    return keras.Model(images, head(pooled))


def two_scale_network(seed):
    """The same, with a linear convolution to 2×2 places before the pooling."""
    keras.utils.set_random_seed(seed)
    images = keras.Input((16, 16, 1), name="images")
    fine = keras.layers.Conv2D(5, 3, padding="same", activation="relu", name="fine")(keras.layers.Rescaling(1 / 255)(images))
    last = keras.layers.Conv2D(6, 8, 8, name="last")(fine)
    head = keras.layers.Dense(3, "softmax", kernel_initializer="random_normal", name="probabilities")
    head.kernel_initializer.stddev = 5.0
    return keras.Model(images, head(keras.layers.GlobalAveragePooling2D()(last)))


def map_by_hand(network, image, asked):
    """The evidence of a network of those two kinds, worked out with NumPy and SciPy from its weights."""
    kernel, bias = network.get_layer("fine").get_weights()
    channels = [correlate2d(image[..., 0] / 255, kernel[:, :, 0, k], "same") + bias[k] for k in range(5)]
    fine = np.maximum(np.stack(channels, -1), 0)
    head, offset = network.get_layer("probabilities").get_weights()
    is_pooled = len(head) == 5
    if is_pooled:
        last = fine
    else:
        coarse, coarse_bias = network.get_layer("last").get_weights()
        patches = fine.reshape(2, 8, 2, 8, 5)
        last = np.einsum("aybxk,yxkm->abm", patches, coarse) + coarse_bias
    logits = last.mean(axis=(0, 1)) @ head + offset
    others = np.exp(np.where(np.arange(len(logits)) == asked, -np.inf, logits))
    of_pooled = head[:, asked] - head @ (others / others.sum())  # gradient of the log-odds
    places = amounts = np.maximum(last @ of_pooled / last[..., 0].size, 0)
    if not is_pooled:
        of_fine = np.tile(coarse @ of_pooled / 4, (2, 2, 1))
        places = np.maximum((fine * of_fine).sum(axis=-1), 0)
    neighbours = uniform_filter(np.ones(places.shape), 3, mode="constant")
    places = uniform_filter(places, 3, mode="constant") / neighbours
    return places / max(places.sum(), 1e-12) * amounts.sum() * places.size / 100


def test_heat_is_the_weighted_evidence_for_the_class_asked_about_in_both_mirrors():
    images = np.random.default_rng(0).integers(0, 256, (18, 16, 16, 1), np.uint8)
    asked = np.arange(18) % 3
    members = {"a": pooling_network(1), "b": two_scale_network(2)}
    heat = heat_maps(members, {"b": 0.7, "a": 0.3}, images, asked)
    expected = np.zeros((18, 16, 16))
    for name, weight in {"a": 0.3, "b": 0.7}.items():
        for row, (image, label) in enumerate(zip(images, asked, strict=True)):
            mirrored = map_by_hand(members[name], image[:, ::-1], label)[:, ::-1]
            expected[row] += weight / 2 * (map_by_hand(members[name], image, label) + mirrored)
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(heat, expected, rtol=1e-3, atol=1e-4 * expected.max())


def test_places_are_told_by_the_deepest_features_of_every_fourth_pixel_or_finer():
    explained, head = with_features(averaged(build("residual", 64, 2, 0.0, 0.0, 0.0), "mirrored"))
    fine, last, pooled = explained.outputs
    assert (fine.shape[1:3], last.shape[1:3]) == ((16, 16), (4, 4))
    assert pooled.shape[1] == head.kernel.shape[0] == 2 * last.shape[3]


class LevelStore:
    """Stands in for the store: each image has its row as its level."""

    labels = np.arange(200) % 3

    def images(self, rows):
        return np.broadcast_to(np.array(rows, np.uint8)[:, None, None, None], (len(rows), 8, 8, 1))


def test_the_scale_is_what_the_hottest_places_of_a_tenth_of_the_findings_exceed(monkeypatch):
    calls = []

    def hottest_in_a_corner(members, weights, images, classes):
        calls.append((members, weights, images[:, 0, 0, 0].tolist(), classes.tolist()))
        heat = np.zeros(images.shape[:3])
        heat[:, 2, 7] = images[:, 2, 7, 0] / 10
        return heat

    monkeypatch.setattr(explanations_of, "heat_maps", hottest_in_a_corner)
    rows = list(range(100, 150))
    spread = [100 + round(49 * step / 23) for step in range(24)]
    assert heat_scale("members", "weights", LevelStore(), rows) == pytest.approx(np.quantile(spread, 0.9) / 10)
    assert calls == [("members", "weights", spread, [row % 3 for row in spread])]
    assert heat_scale("members", "weights", LevelStore(), [7, 9]) == pytest.approx(0.88)
    assert heat_scale("members", "weights", LevelStore(), [0]) > 0  # a scale divides


def test_explained_class():
    np.testing.assert_array_equal(explained_classes(np.array([[0.9, 0.1], [0.2, 0.8]])), [1, 1])
    np.testing.assert_array_equal(explained_classes(np.array([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]])), [0, 2])


def test_pointing_game():
    masks = np.zeros((4, 4, 4), bool)
    masks[:, :2, :2] = True
    heat = np.zeros((4, 4, 4))
    heat[0, 0, 0], heat[0, 3, 3] = 3, 1  # hit, three quarters of the heat inside
    heat[1, 3, 3] = 5  # miss
    heat[2, 1, 1] = 0.1  # hit, all of it
    expected = {"images": 4, "accuracy": 0.5, "energy": (0.75 + 0 + 1 + 0) / 4, "chance": 0.25}  # the last map has no heat
    assert pointing_game(heat, masks) == pytest.approx(expected)


def test_shown_images_are_the_surest_right_of_each_class_the_surest_wrong_and_the_least_certain():
    cases = [  # true class, predicted class, how sure
        (0, 0, 0.95),
        (1, 0, 0.85),
        (0, 0, 0.99),
        (1, 1, 0.90),
        (0, 1, 0.97),
        (1, 1, 0.80),
        (1, 0, 0.60),
        (0, 0, 0.51),
        (1, 1, 0.55),
    ]
    labels = np.array([true for true, _, _ in cases])
    probabilities = np.array([[sure, 1 - sure] if predicted == 0 else [1 - sure, sure] for _, predicted, sure in cases])
    assert choose(labels, probabilities, 6) == [2, 3, 4, 1, 7, 8]
    assert choose(labels, probabilities, 7) == [2, 3, 0, 4, 1, 6, 7]
    assert choose(labels, probabilities, 20) == [2, 3, 0, 5, 8, 7, 4, 1, 6]
    right = np.array([0, 2, 3, 5, 7, 8])
    assert choose(labels[right], probabilities[right], 5) == [1, 2, 4, 5, 3]  # none is wrong: more of the least certain


@pytest.mark.parametrize("crop", [False, True])
def test_the_tumor_is_where_it_was_drawn_as_the_store_holds_the_image(crop):
    drawn = draw_numbered("glioma", 3, 5)
    image = {"path": "glioma/glioma-003.png", "sha256": hashlib.sha256(to_png(drawn.image)).hexdigest()}
    params = SimpleNamespace(phantom=SimpleNamespace(seed=5), ingest=SimpleNamespace(crop=crop, image_size=128))
    mask = tumour(image, params)
    left, upper, right, lower = head_box(Image.fromarray(drawn.image)) if crop else (0, 0, *drawn.image.shape[::-1])
    part = Image.fromarray(255 * drawn.tumour[upper:lower, left:right].astype(np.uint8))
    scale = 128 / max(part.size)
    part = part.resize([round(scale * side) for side in part.size], Image.Resampling.BOX)
    expected = np.zeros((128, 128), bool)
    top, first = (128 - part.height) // 2, (128 - part.width) // 2
    expected[top : top + part.height, first : first + part.width] = np.asarray(part) > 127
    assert np.sum(mask & expected) > 0.85 * np.sum(mask | expected) > 20
    others = [{"path": name} for name in ("no/no-003.png", "glioma/other-003.png", "glioma/glioma-x3.png", "glioma/glioma.png")]
    others += [{"path": "glioma/glioma-004.png"}, {"sha256": "0" * 64}]
    assert [tumour({**image, **change}, params) for change in others] == [None] * 6
    params.phantom.seed = 6
    assert tumour(image, params) is None


def test_tumor_outline_is_drawn_where_it_is_known():
    images, heat = np.full((2, 32, 32), 90, np.uint8), np.zeros((2, 32, 32))
    mask = np.zeros((32, 32), bool)
    mask[8:20, 8:20] = True
    for outlines, expected in (([None, None], 0), ([None, mask], 40), ([np.zeros_like(mask), None], 0)):
        content = explanations(images, heat, 1.0, "evidence", outlines, ["a", "b"], [False, True])
        pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
        left, middle = np.split(pixels[:, : int(pixels.shape[1] * 0.9) // 2 * 2], 2, axis=1)
        cyan = [np.sum(np.abs(half - (0, 0xE5, 0xFF)).max(axis=-1) < 60) for half in (left, middle)]
        assert cyan[0] == 0
        assert cyan[1] > expected if expected else cyan[1] == 0


def test_overlays_share_a_scale():
    image = np.full((1, 3), 100, np.uint8)
    dark, half, bright = overlay(image, np.array([[0.0, 1.0, 2.0]]), 2.0)[0].astype(int)
    assert np.ptp(dark) == 0  # grey, without color
    assert dark.max() <= 100
    assert bright.sum() > half.sum() > dark.sum()
    np.testing.assert_array_equal(overlay(image, np.array([[0.0, 1.0, 9.0]]), 2.0)[0], [dark, half, bright])
    np.testing.assert_array_equal(overlay(image, np.array([[0.0, 1.0, 2.0]]), 100.0)[0, 0], dark)


def test_learning_curves_hold_both_log_losses(small):
    drawn = [line for line in table(small, "plots/data/learning_curves.csv") if line["curve"] == "member-01"]
    logged = table(small, "models/members/member-01/history.csv")
    assert [line["epoch"] for line in drawn] == [line["epoch"] for line in logged] == ["1", "2"]
    for column in ("in_bag_log_loss", "in_bag_accuracy", "out_of_bag_log_loss", "out_of_bag_accuracy"):
        assert [float(line[column]) for line in drawn] == [float(line[column]) for line in logged]


def test_explanations_are_checked_against_the_tumors_of_synthetic_slices(small, monkeypatch):
    """The metric is of the maps that are drawn."""
    monkeypatch.chdir(small.path)
    explained = json.loads(small.read("metrics/explain.json"))
    model, about = load_ensemble("models/ensemble.keras")
    metadata, split = json.loads(small.read("data/rad/metadata.json")), json.loads(small.read("data/split.json"))
    masks = {row: tumour(metadata["images"][row], load_params()) for row in split["test"]}
    positives = [row for row, mask in masks.items() if mask is not None]
    assert {metadata["images"][row]["class"] for row in positives} == {"yes"}
    with RadReader() as rad:
        images = rad.images(positives)
    heat = heat_maps(members_of(model, about), about["weights"], images, np.ones(len(images), int))
    expected = pointing_game(heat, np.stack([masks[row] for row in positives]))
    assert explained["pointing_game"] == pytest.approx(expected, rel=1e-3)
    assert 0 < expected["chance"] < 0.15
    with np.load("models/explanations.npz", allow_pickle=False) as arrays:
        assert arrays["heat"].shape == (explained["images_drawn"], 32, 32)
        assert len(set(arrays["rows"].tolist())) == explained["images_drawn"]
        drawn = dict(zip(arrays["rows"].tolist(), arrays["heat"], strict=True))
    assert drawn.keys() & {*positives}
    for row, warmth in zip(positives, heat, strict=True):
        if row in drawn:
            np.testing.assert_allclose(drawn[row], warmth, rtol=1e-3, atol=1e-4 * warmth.max())


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


def limit_by_hand(thumbnails, false_alarms):
    """The limit of what 20 principal components leave unexplained of images that are left out, by scikit-learn."""
    fold, errors = np.arange(len(thumbnails)) % 5, []
    for number in range(5):
        learned = thumbnails[fold != number]
        errors.append(unexplained_by_hand(thumbnails[fold == number], learned))
    return np.quantile(np.concatenate(errors), 1 - false_alarms)


def unexplained_by_hand(thumbnails, learned):
    components = PCA(min(20, len(learned) // 2), svd_solver="full").fit(learned)
    return np.mean((thumbnails - components.inverse_transform(components.transform(thumbnails))) ** 2, axis=1)


@pytest.mark.parametrize("count", [103, 13])
def test_novelty_is_what_scikit_learns_components_leave_unexplained(count):
    rng = np.random.default_rng(0)
    thumbnails = rng.normal(size=(count, 30)) @ rng.normal(size=(30, 64)) + 0.3 * rng.normal(size=(count, 64)) + 5
    mean, components, limit = fit_novelty(thumbnails, 0.1)
    assert limit == pytest.approx(limit_by_hand(thumbnails, 0.1))
    assert len(components) == min(20, count // 2)
    others = rng.normal(size=(9, 64)) + 5
    np.testing.assert_allclose(unexplained(others, mean, components), unexplained_by_hand(others, thumbnails), rtol=1e-6)


def thumbnails_by_hand(images):
    """Images scaled to 32×32 by Pillow, with zero mean and, but for noise on flat ones, unit variance."""
    small = [
        np.asarray(Image.fromarray(image[..., 0].astype(np.float32)).resize((32, 32), Image.Resampling.BILINEAR))
        for image in images
    ]
    flat = np.reshape(small, (len(images), -1))
    return (flat - flat.mean(axis=1, keepdims=True)) / np.sqrt(flat.var(axis=1, keepdims=True) + 25)


@pytest.mark.parametrize("side", [16, 32, 64])
def test_thumbnails_tell_nothing_of_brightness_and_contrast(side):
    images = np.random.default_rng(0).integers(0, 256, (3, side, side, 1)).astype(np.float32)
    images[2] = 100 + images[2] / 255  # nearly flat
    thumbnails = thumbnailer((side, side, 1)).predict(images, verbose=0)
    np.testing.assert_allclose(thumbnails, thumbnails_by_hand(images), atol=5e-3)


def test_new_images_are_decoded_as_ingest_decodes_them(small):
    with RadReader(small.path / "data/rad/image_data.h5") as rad:
        stored = rad.images([0])[0, ..., 0]
    np.testing.assert_array_equal(decode(small.path / "data/phantom/no/no-000.png", 32, True).pixels, stored)


CLASSES, WEIGHTS = ["no", "yes"], {"member-00": 0.5, "member-01": 0.3, "member-02": 0.2}
TEST = [2, 5, 8, 9, 13, 16, 17, 20, 23]  # rows; 12 to 23 have tumors
CALIBRATION = {"temperature": 0.6, "biases": [0.0, 0.4]}
FIGURES = {
    "accuracy": 0.811,
    "balanced_accuracy": 0.812,
    "roc_auc": 0.813,
    "average_precision": 0.814,
    "f1": 0.815,
    "log_loss": 0.416,
    "brier_score": 0.117,
    "expected_calibration_error": 0.018,
    "recall": {"no": 0.621, "yes": 0.622},
    "interval": {"accuracy": [0.701, 0.901], "balanced_accuracy": [0.702, 0.902], "roc_auc": [0.703, 0.903]},
    "independent_groups": {"no": 31, "yes": 32},
    "at_threshold": {"threshold": 0.451, "sensitivity": 0.652, "specificity": 0.553},
    "test_images": 9,
    "best_member": {"name": "member-02", "accuracy": 0.521, "balanced_accuracy": 0.522, "roc_auc": 0.523, "log_loss": 0.524},
    "mean_member": {"accuracy": 0.531, "balanced_accuracy": 0.532, "roc_auc": 0.533, "log_loss": 0.534},
    "uniform_vote": {"accuracy": 0.541, "balanced_accuracy": 0.542, "roc_auc": 0.543, "log_loss": 0.544},
}


class Workspace:
    """What the stages before `export` leave: 24 synthetic slices of 16 pixels, and three members that have learned nothing."""

    def __init__(self, path: Path):
        self.path = path
        content = yaml.safe_load((ROOT / "params.yaml").read_text())
        content |= {"members": 3, "export": {"false_alarms": 0.25}, "explain": {"images": 6}}
        content["ingest"]["image_size"] = 16
        content.pop("ensemble")
        content["ensemble"] = derive_ensemble(check(content, Inputs))
        (path / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        kinds = [("no" if row < 12 else "yes", row % 12) for row in range(24)]
        self.slices = [draw_numbered(kind, number, 0) for kind, number in kinds]
        images = [Image.fromarray(drawn.image) for drawn in self.slices]
        self.pixels = np.stack([frame(image, head_box(image), 16) for image in images])[..., np.newaxis]
        self.labels = np.array([0] * 12 + [1] * 12)
        self.hashes = [hashlib.sha256(to_png(drawn.image)).hexdigest() for drawn in self.slices]
        self.training = [row for row in range(24) if row not in TEST]
        facts = {
            "perceptual_hash": "0" * 64,
            "whole_hash": "0" * 64,
            "width": 9,
            "height": 9,
            "mode": "L",
            "levels": [0.0, 255.0],
        }
        described = [
            {"path": f"{kind}/{kind}-{number:03d}.png", "class": kind, "sha256": digest, **facts}
            for (kind, number), digest in zip(kinds, self.hashes, strict=True)
        ]
        rejected = [{"path": "no/bad.png", "reason": "empty file"}]
        self.write("data/rad/metadata.json", {"classes": CLASSES, "images": described, "rejected": rejected})
        groups = [row if row != 4 else 3 for row in range(24)]
        self.write("data/split.json", {"test": TEST, "training": self.training, "groups": groups})
        write_store(path, self.pixels, self.labels.tolist(), 2)
        self.members = {name: pooling_network(seed, 2) for seed, name in enumerate(WEIGHTS)}
        for index, (name, member) in enumerate(self.members.items()):
            save_model(member, path / f"models/members/{name}/model.keras")
            out_of_bag = {"accuracy": 0.911 + index / 1000, "log_loss": 0.231 + index / 1000, "images": 41 + index}
            self.write(f"metrics/members/{name}.json", {"out_of_bag": out_of_bag})
        identity = {"temperature": 1.0, "biases": [0.0, 0.0]}
        calibrations = {"ensemble": CALIBRATION, "uniform vote": identity, **dict.fromkeys(WEIGHTS, identity)}
        weights = {name: {"score": 0.7, "weight": weight} for name, weight in WEIGHTS.items()}
        vote = {"scheme": "log_loss", "calibrations": calibrations, "threshold": 0.35, "members": weights}
        self.write("models/weights.json", vote)
        self.write("metrics/ensemble.json", FIGURES)

    def write(self, name: str, content: dict) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_text(json.dumps(content))

    def read(self, name: str) -> dict:
        return json.loads((self.path / name).read_text())

    def votes(self, rows: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """What each member gives these images, and the calibrated vote."""
        images = self.pixels[rows].astype(np.float32)
        each = np.stack([member.predict(images, verbose=0) for member in self.members.values()], axis=1)
        scores = np.average(each, axis=1, weights=list(WEIGHTS.values())) ** (1 / 0.6) * np.exp([0.0, 0.4])
        return each, scores / scores.sum(axis=1, keepdims=True)

    def heat(self, rows: list[int]) -> np.ndarray:
        return heat_maps(self.members, WEIGHTS, self.pixels[rows], np.ones(len(rows), int))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A workspace in which `export` and `explain` have run, and what `explain` let be drawn."""
    with pytest.MonkeyPatch.context() as patch:
        workspace = Workspace(tmp_path_factory.mktemp("workspace"))
        patch.chdir(workspace.path)
        patch.setattr(export, "set_up", lambda *_: None)  # before anything of TensorFlow's
        export.main()
        draw, workspace.drawn = explain.pictures.explanations, []
        patch.setattr(explain.pictures, "explanations", lambda *given: workspace.drawn.append(given) or draw(*given))
        explain.main()
        yield workspace


def test_the_exported_model_votes_calibrated_and_knows_its_training_images(exported):
    model, about = load_ensemble(exported.path / "models/ensemble.keras")
    outputs, (each, expected) = predictor(model)(exported.pixels), exported.votes(list(range(24)))
    np.testing.assert_allclose(outputs["members"], each, atol=1e-5)
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-5)
    thumbnails = thumbnails_by_hand(exported.pixels)
    learned = thumbnails[exported.training]
    novelty = unexplained_by_hand(thumbnails, learned) / limit_by_hand(learned, 0.25)
    np.testing.assert_allclose(outputs["novelty"], novelty, rtol=5e-3)
    warned = {"images": 9, "share": pytest.approx(np.mean(novelty[TEST] > 1))}
    assert 0 < warned["share"].expected < 1
    assert exported.read("metrics/export.json") == {"novelty_warnings_of_test_images": warned}
    hashes = sorted(exported.hashes[row] for row in exported.training)
    assert about["training_images"] == {
        "count": 15,
        "sha256": hashlib.sha256("\n".join(hashes).encode()).hexdigest(),
        "sha256_prefixes": [digest[:16] for digest in hashes],
    }
    findings = [row for row in exported.training if row >= 12]
    assert about["heat_scale"] == pytest.approx(np.quantile(exported.heat(findings).max(axis=(1, 2)), 0.9), rel=1e-4)
    expected = {"classes": CLASSES, "size": 16, "crop": True, "weights": WEIGHTS, "weighed_by": "log_loss", "metrics": FIGURES}
    expected |= {"calibration": CALIBRATION, "threshold": 0.35, "novelty": {"warn_above": 1.0, "of_test_images": warned}}
    assert {key: about[key] for key in expected} == expected


def test_explanations_are_of_the_images_that_they_are_drawn_beside(exported):
    _, probabilities = exported.votes(TEST)
    predicted, labels = probabilities.argmax(axis=1), exported.labels[TEST]
    masks = {row: tumour(exported.read("data/rad/metadata.json")["images"][row], load_params()) for row in TEST}
    assert [row for row, mask in masks.items() if mask is not None] == [row for row in TEST if row >= 12]
    ((images, heat, scale, label, outlines, captions, wrong),) = exported.drawn
    with np.load(exported.path / "models/explanations.npz", allow_pickle=False) as arrays:
        rows = arrays["rows"].tolist()
        np.testing.assert_array_equal(arrays["heat"], heat)
        assert arrays["scale"] == scale == load_ensemble(exported.path / "models/ensemble.keras")[1]["heat_scale"]
        assert arrays["classes"].tolist() == [1] * 6
    assert rows == [TEST[place] for place in choose(labels, probabilities, 6)]
    np.testing.assert_array_equal(images, exported.pixels[rows, ..., 0])
    np.testing.assert_allclose(heat, exported.heat(rows), rtol=1e-3, atol=1e-4 * heat.max())
    assert label.startswith("evidence for yes,")
    for row, outline, caption, is_wrong in zip(rows, outlines, captions, wrong, strict=True):
        place = TEST.index(row)
        if row < 12:
            assert outline is None
        else:
            np.testing.assert_array_equal(outline, masks[row])
        guess = CLASSES[predicted[place]]
        assert caption == f"true {CLASSES[row >= 12]}, predicted {guess} {probabilities[place].max():.2f}"
        assert is_wrong == (guess != CLASSES[row >= 12])
    assert len({*wrong}) == 2


def test_the_pointing_game_is_of_all_test_images_with_a_tumor(exported):
    rows = [row for row in TEST if row >= 12]
    masks = [tumour(exported.read("data/rad/metadata.json")["images"][row], load_params()) for row in rows]
    heat = exported.heat(rows)
    hits = [mask.flat[warmth.argmax()] and warmth.max() > 0 for mask, warmth in zip(masks, heat, strict=True)]
    expected = {
        "images": 5,
        "accuracy": np.mean(hits),
        "energy": np.mean([warmth[mask].sum() / max(warmth.sum(), 1e-9) for mask, warmth in zip(masks, heat, strict=True)]),
        "chance": np.mean(masks),
    }
    assert exported.read("metrics/explain.json") == {"images_drawn": 6, "pointing_game": pytest.approx(expected, rel=1e-3)}


def cells(page: str, tag: str = "td") -> list[list[str]]:
    """The cells of a page's tables, row by row."""
    rows = [re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", row) for row in re.findall("<tr>(.*?)</tr>", page)]
    return [[html.unescape(cell) for cell in row] for row in rows if row]


@pytest.fixture(scope="module")
def reported(exported):
    """The page and the model card of that workspace."""
    for place, name in enumerate(report.PICTURES):
        wide = name == "confusion"
        (exported.path / "plots").mkdir(exist_ok=True)
        Image.new("L", (1700 if wide else 300, 20 + place)).save(exported.path / f"plots/{name}.png")
    game = {"images": 5, "accuracy": 0.61, "energy": 0.32, "chance": 0.03}
    exported.write("metrics/explain.json", {"images_drawn": 6, "pointing_game": game})
    exported.write("metrics/export.json", {"novelty_warnings_of_test_images": {"images": 9, "share": 0.222}})
    report.main()
    return (exported.path / "plots/report.html").read_text(), (exported.path / "docs/model-card.md").read_text()


def test_the_report_shows_each_figure_under_its_name(reported):
    page, rows = reported[0], cells(reported[0])
    for line in (
        ["accuracy", "0.811"],
        ["balanced accuracy", "0.812"],
        ["ROC AUC", "0.813"],
        ["average precision", "0.814"],
        ["F1", "0.815"],
        ["log loss, nats", "0.416"],
        ["Brier score", "0.117"],
        ["expected calibration error", "0.018"],
        ["sensitivity at threshold 0.451", "0.652"],
        ["specificity at threshold 0.451", "0.553"],
        ["no", "0.621", "31"],
        ["yes", "0.622", "32"],
        ["the ensemble", "0.811", "0.812", "0.813", "0.416"],
        ["uniform vote", "0.541", "0.542", "0.543", "0.544"],
        ["best member by out-of-bag log loss (member-02)", "0.521", "0.522", "0.523", "0.524"],
        ["mean member", "0.531", "0.532", "0.533", "0.534"],
        ["member-00", "0.500", "0.911", "0.231", "41"],
        ["member-01", "0.300", "0.912", "0.232", "42"],
        ["member-02", "0.200", "0.913", "0.233", "43"],
        ["no", "12", "8", "4"],
        ["yes", "12", "7", "5"],
        ["no/bad.png", "empty file"],
        ["members", "3"],
        ["ingest.image_size", "16"],
        ["recipes.strong.augment", "1.3"],
        ["train.early_stopping", "null"],
    ):
        assert line in rows, line
    heads = cells(page, "th")
    for head in (
        ["class", "recall", "independent groups of test images"],
        ["test images", "accuracy", "balanced accuracy", "ROC AUC", "log loss, nats"],
        ["out-of-bag images", "weight", "accuracy", "log loss, nats", "images"],
        ["class", "images", "to learn from", "to test on"],
    ):
        assert head in heads
    for card in ("accuracy<b>0.811</b>95 % interval 0.701 to 0.901", "ROC AUC<b>0.813</b>95 % interval 0.703 to 0.903"):
        assert f"<div>{card}</div>" in page
    for sentence in (
        "They learned from 15 images of <code>data/phantom</code> and were tested on 9 others",
        "24 images in 23 groups of near duplicates",
        "of 5 synthetic test slices with a tumor, the hottest point is in the tumor in 61%; 32% of the heat is, against 3% by",
        "Of the 9 test images it would warn of 22.2%",
    ):
        assert sentence in page


def test_the_report_holds_each_picture_above_its_caption(exported, reported):
    figures = re.findall(
        r'<figure( class=wide)?><img alt="[^"]*" src="data:image/png;base64,([^"]*)"><figcaption>(.*?)</', reported[0]
    )
    assert len(figures) == len(report.PICTURES) == 7
    for (wide, content, caption), (name, text) in zip(figures, report.PICTURES.items(), strict=True):
        assert base64.b64decode(content) == (exported.path / f"plots/{name}.png").read_bytes()
        assert html.unescape(caption) == text
        assert bool(wide) == (name == "confusion")


def test_the_model_card_shows_each_figure_under_its_name(reported):
    card = reported[1]
    for line in (
        "| accuracy | 0.811 | 0.701 to 0.901 |",
        "| balanced accuracy | 0.812 | 0.702 to 0.902 |",
        "| ROC AUC | 0.813 | 0.703 to 0.903 |",
        "| average precision | 0.814 |  |",
        "| expected calibration error | 0.018 |  |",
        "| recall of no | 0.621 | |",
        "| recall of yes | 0.622 | |",
    ):
        assert line in card.splitlines()
    words = " ".join(card.split())
    for sentence in (
        "3 CNNs (`residual-sides`), trained from scratch, each on a sample (`bootstrap`) of the training images",
        "weighed by `log_loss`, calibrated on out-of-bag votes",
        "of 16×16 pixels",
        "24 images (12 no, 12 yes), 1 files left out. 15 to learn from, 9 to test on (fold 0 of 5)",
        "Mean member: accuracy 0.531, ROC AUC 0.533.",
        "falsely of 22.2% of the 9 test images",
        "In 61% of the 5 synthetic test slices with a tumor their hottest point is in it.",
    ):
        assert sentence in words
