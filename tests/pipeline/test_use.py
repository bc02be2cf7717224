"""Use of an exported ensemble: the model file, `brainmri.predict`, heat maps of new images."""

import contextlib
import csv
import io
import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brainmri.common.params import load_params
from brainmri.evaluation.explanations import pointing_game
from brainmri.evaluation.figures.overlays import evidence_label, panel
from brainmri.images.decoding import decode
from brainmri.images.phantom_masks import tumor_mask
from brainmri.models.ensemble import load_ensemble, member_models
from brainmri.models.heat_maps import heat_maps
from brainmri.store.reader import RadReader
from tests.support.project import Output, Project

PREDICT = ("python", "-m", "brainmri.predict")
WITHOUT_THE_PROJECT = """
import sys, numpy as np, keras, tensorflow as tf
images = np.load(sys.argv[1])
model = keras.models.load_model(sys.argv[2])
serve = tf.saved_model.load(sys.argv[3]).signatures["serving_default"]
outputs = {f"keras_{key}": value for key, value in model.predict(images, verbose=0).items()}
served = serve(images=tf.constant(images))
outputs |= {f"served_{key}": value.numpy() for key, value in served.items()}
assert not any(name.startswith(("brainmri", "stages")) for name in sys.modules)
np.savez(sys.argv[4], **outputs)
"""


def predict(project: Project, *arguments: str, ok: bool = True) -> Output:
    """Run `python -m brainmri.predict` in this process, which has imported what takes seconds.

    tests/pipeline/test_unlucky.py and tests/pipeline/test_words.py run it in its own.
    """
    stdout, stderr, status = io.StringIO(), io.StringIO(), None
    with (
        contextlib.chdir(project.path),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "argv", ["predict", *arguments])
        try:
            runpy.run_module("brainmri.predict", run_name="__main__")
        except SystemExit as end:
            status = end.code
            if isinstance(status, str):
                print(status, file=stderr)
    output = Output(stdout.getvalue(), stderr.getvalue())
    assert (not status) == ok, f"ended with {status!r}:\n{output}"
    return output


def table(project: Project, path: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(project.read(path))))


def paths_of_test_images(project: Project) -> list[str]:
    """Return the paths of the test images, in the order of plots/data/predictions.csv."""
    images = json.loads(project.read("data/rad/metadata.json"))["images"]
    return [images[row]["path"] for row in json.loads(project.read("data/split.json"))["test"]]


def test_exported_model_works_without_the_project(small, tmp_path):
    """With the outputs that `evaluate` used, from Keras and from TensorFlow Serving's format."""
    test = json.loads(small.read("data/split.json"))["test"]
    with RadReader(small.path / "data/rad/image_data.h5") as rad:
        np.save(tmp_path / "images.npy", rad.images(test))
    paths = [
        tmp_path / "images.npy",
        small.path / "models/ensemble.keras",
        small.path / "models/exported/saved_model",
        tmp_path / "outputs.npz",
    ]
    command = [sys.executable, "-c", WITHOUT_THE_PROJECT, *map(str, paths)]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    expected = np.array(
        [
            [float(row["probability of no"]), float(row["probability of yes"])]
            for row in table(small, "plots/data/predictions.csv")
        ]
    )
    files = [small.path / f"models/members/{name}/test.csv" for name in small.params["ensemble"]]
    members = [np.loadtxt(file, delimiter=",", skiprows=1)[:, 1:] for file in files]
    with np.load(tmp_path / "outputs.npz") as outputs:
        for form in ("keras", "served"):
            np.testing.assert_allclose(outputs[f"{form}_probabilities"], expected, atol=1e-5)
            np.testing.assert_allclose(
                outputs[f"{form}_members"], np.stack(members, axis=1), atol=1e-5
            )
            assert outputs[f"{form}_novelty"].shape == (len(test),)
        assert outputs["keras_novelty"].min() > 0
        np.testing.assert_allclose(outputs["served_novelty"], outputs["keras_novelty"], rtol=1e-4)


def test_exported_model_describes_itself(small):
    _, about = load_ensemble(small.path / "models/ensemble.keras")
    images = json.loads(small.read("data/rad/metadata.json"))["images"]
    training = json.loads(small.read("data/split.json"))["training"]
    assert about["classes"] == ["no", "yes"]
    assert (about["size"], about["crop"]) == (32, True)
    assert about["metrics"] == json.loads(small.read("metrics/ensemble.json"))
    hashes = [images[row]["perceptual_hashes"] for row in training]
    assert about["training_images"]["perceptual_hashes"] == sorted(hashes)
    assert sum(about["weights"].values()) == pytest.approx(1)
    assert json.loads(small.read("models/exported/saved_model/assets.extra/about.json")) == about


def test_predictions_are_those_of_evaluate(done):
    """For files, folders, patterns and lists; noise is unlike the training images."""
    expected = {
        path: float(row["probability of yes"])
        for path, row in zip(
            paths_of_test_images(done), table(done, "plots/data/predictions.csv"), strict=True
        )
    }
    paths = [f"data/phantom/{path}" for path in expected]
    by_file = done.run(*PREDICT, "--csv", *paths).stdout
    rows = list(csv.DictReader(io.StringIO(by_file)))
    assert [row["file"] for row in rows] == paths
    for row, probability in zip(rows, expected.values(), strict=True):
        assert float(row["probability of yes"]) == pytest.approx(probability, abs=1e-5)
        mutual_information, entropy = float(row["mutual_information"]), float(row["entropy"])
        assert 0 <= mutual_information <= entropy + 1e-6 <= np.log(2) + 1e-5
    (done.path / "list.txt").write_text("\n".join(paths))
    command = " ".join([*PREDICT, "--csv - < list.txt"])
    assert done.run("sh", "-c", command).stdout == by_file
    noise = np.random.default_rng(0).integers(0, 256, (200, 200), np.uint8)
    Image.fromarray(noise).save(done.path / "noise.png")
    images = ("data/phantom/yes", "data/phantom/n*/no-00*.png", "noise.png")
    output = predict(done, "--json", *images)
    records = [json.loads(line) for line in output.stdout.splitlines()]
    assert len(records) == 24 + 10 + 1
    assert records[0]["file"] == "data/phantom/yes/yes-000.png"
    assert records[-1]["unlike_training_images"] is True
    printed = predict(done, paths[0], "noise.png")
    assert paths[0] in printed
    assert f"{expected[paths[0].removeprefix('data/phantom/')]:.3f}" in printed
    assert "unlike the training images" in printed


def test_unreadable_files_do_not_stop_the_others(done):
    (done.path / "bad.jpg").write_text("<html>")
    (done.path / "empty.png").write_bytes(b"")
    files = ["bad.jpg", "data/phantom/no", "empty.png", "missing.png"]
    output = predict(done, *files, ok=False)
    assert output.stdout.count("data/phantom/no/no-0") == 24
    lines = output.stderr.splitlines()
    for name, reason in (
        ("bad.jpg", "a web page, not an image"),
        ("empty.png", "empty file"),
        ("missing.png", "No such file"),
    ):
        assert sum(f"error: {name}: {reason}" in line for line in lines) == 1
    assert "3 of 27 files could not be read" in output.stderr
    assert "Traceback" not in output


def metrics_in(output: str) -> dict:
    """The metrics that `predict` printed as JSON, after other lines."""
    return json.loads(output[output.index("{") : output.rindex("}") + 1])


def test_labeled_images_give_the_metrics_of_evaluate(done):
    test = paths_of_test_images(done)
    for path in test:
        target = done.path / "hospital" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((done.path / "data/phantom" / path).read_bytes())
    printed = metrics_in(predict(done, "--labels", "hospital").stdout)
    metrics = printed["without_near_duplicates"]
    expected = json.loads(done.read("metrics/ensemble.json"))
    for name in (
        "accuracy",
        "balanced_accuracy",
        "roc_auc",
        "log_loss",
        "f1",
        "expected_calibration_error",
    ):
        assert metrics[name] == pytest.approx(expected[name], abs=1e-4)
    assert printed["near_duplicates_of_training_images"] == 0
    assert metrics["images"] == len(test)
    output = predict(done, "--labels", "data/phantom")
    overlap = 48 - len(test)
    warning = f"warning: {overlap} of these 48 images are near duplicates of training images"
    assert warning in output.stderr
    # The last bits of a prediction depend on the batch in which it is computed.
    again = metrics_in(output.stdout)["without_near_duplicates"]
    assert rounded(again) == rounded(metrics)


def rounded(metrics: dict) -> dict:
    """Return metrics, nested as they are, with numbers of five decimals."""
    return json.loads(json.dumps(metrics), parse_float=lambda text: round(float(text), 5))


def test_labeled_images_of_one_class(done):
    output = predict(done, "--labels", "--csv", "data/phantom/no")
    missing = "no balanced accuracy, F1, ROC AUC, average precision or bootstrap intervals"
    assert f"warning: {missing}" in output.stderr
    assert "'yes' has 0" in output
    metrics = metrics_in(output.stderr)["without_near_duplicates"]
    assert metrics["roc_auc"] is metrics["balanced_accuracy"] is metrics["recall"]["yes"] is None
    assert metrics["accuracy"] == metrics["recall"]["no"]


def test_labeled_images_outside_class_folders_are_refused(done):
    (done.path / "other").mkdir()
    content = (done.path / "data/phantom/no/no-000.png").read_bytes()
    (done.path / "other/a.png").write_bytes(content)
    output = predict(done, "--labels", "other", ok=False)
    assert "error: other/a.png is in no class folder; expected folders named no, yes" in output


def test_heat_maps_of_new_images_are_those_of_test_images(done):
    """On the same scale, in plots, in models/explanations.npz and from `predict`."""
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
    predict(done, "--explain", "overlays", *paths)
    overlays = sorted((done.path / "overlays").iterdir())
    names = [f"{number:04d}-{Path(path).stem}.png" for number, path in enumerate(paths, start=1)]
    assert [path.name for path in overlays] == names
    for path, image, heat_map in zip(overlays, images, heat, strict=True):
        with Image.open(path) as overlay:
            pixels = np.asarray(overlay).astype(int)
        expected = panel(image[..., 0], heat_map, scale, evidence_label(["no", "yes"], "yes"))
        # In batches of other images sums round differently
        assert np.abs(pixels - expected).max() <= 1
        assert len(pixels) == 12 * 32
    assert np.ptp(pixels[:, -110:], axis=-1).max() > 40  # a color bar


def test_other_models_are_refused(done):
    for name, reason in (
        ("models/members/member-00/model.keras", "no ensemble of this pipeline"),
        ("missing.keras", "is missing"),
    ):
        output = predict(done, "--model", name, "data/phantom/no", ok=False)
        assert output.stderr.startswith(f"error: {name}")
        assert reason in output.stderr


def test_learning_curves_are_the_history(small):
    points = table(small, "plots/data/learning_curves.csv")
    points = [point for point in points if point["curve"] == "member-01"]
    history = table(small, "models/members/member-01/history.csv")
    assert [point["epoch"] for point in points] == [row["epoch"] for row in history] == ["1", "2"]
    for column in (
        "in_bag_log_loss",
        "in_bag_accuracy",
        "out_of_bag_log_loss",
        "out_of_bag_accuracy",
    ):
        expected = [float(row[column]) for row in history]
        assert [float(point[column]) for point in points] == expected


def test_pointing_game_is_of_the_heat_maps_that_are_drawn(small, monkeypatch):
    monkeypatch.chdir(small.path)
    explained = json.loads(small.read("metrics/explain.json"))
    model, about = load_ensemble("models/ensemble.keras")
    entries = json.loads(small.read("data/rad/metadata.json"))["images"]
    test = json.loads(small.read("data/split.json"))["test"]
    params = load_params()
    masks = {row: tumor_mask(entries[row], params.phantom.seed, params.ingest) for row in test}
    positives = [row for row, mask in masks.items() if mask is not None]
    assert {entries[row]["class"] for row in positives} == {"yes"}
    with RadReader() as rad:
        images = rad.images(positives)
    members, classes = member_models(model, about), np.ones(len(images), int)
    heat = heat_maps(members, about["weights"], images, classes)
    expected = pointing_game(heat, np.stack([masks[row] for row in positives]))
    assert explained["pointing_game"] == pytest.approx(expected, rel=1e-3)
    assert 0 < expected["chance"] < 0.15
    with np.load("models/explanations.npz", allow_pickle=False) as arrays:
        assert arrays["heat"].shape == (explained["images_drawn"], 32, 32)
        assert len(set(arrays["rows"].tolist())) == explained["images_drawn"]
        drawn = dict(zip(arrays["rows"].tolist(), arrays["heat"], strict=True))
    assert drawn.keys() & {*positives}
    for row, heat_map in zip(positives, heat, strict=True):
        if row in drawn:
            atol = 1e-4 * heat_map.max()
            np.testing.assert_allclose(drawn[row], heat_map, rtol=1e-3, atol=atol)


def test_new_images_are_decoded_as_by_ingest(small):
    with RadReader(small.path / "data/rad/image_data.h5") as rad:
        stored = rad.images([0])[0, ..., 0]
    decoded = decode(small.path / "data/phantom/no/no-000.png", 32, True)
    np.testing.assert_array_equal(decoded.pixels, stored)
