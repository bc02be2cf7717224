"""Predictions of `brainmri.predict` and the app, computed again with SciPy and scikit-learn.

The network is a stand-in whose outputs are known, so each test takes a moment.
"""

import csv
import io
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from brainmri.app import __main__ as app_command
from brainmri.app import predictions as app
from brainmri.app.examples import write_examples
from brainmri.common.command import run_command
from brainmri.common.errors import UserError
from brainmri.evaluation.names import columns, shorten_all
from brainmri.images.phantoms import KINDS, draw
from brainmri.predict import __main__ as command
from brainmri.predict import inference, overlays
from brainmri.predict.files import GivenPath, label_files, list_files
from brainmri.predict.inference import predict_images
from brainmri.predict.output import NAME_WIDTH, print_table, record_of
from brainmri.predict.overlays import draw_overlays, write_overlays
from tests.support.predictions import (
    ABOUT,
    WEIGHTS,
    image_of,
    load_stand_in,
    outputs_of,
    prediction_of,
)
from tests.support.trees import make_tree


@pytest.fixture
def batches(monkeypatch):
    """The batches of images that the stand-in gets."""
    images_of_batches = []

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        images_of_batches.append(images)
        return outputs_of(images.mean(axis=(1, 2, 3)))

    monkeypatch.setattr(inference, "batch_predictor", lambda model: predict)
    return images_of_batches


def colored(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(pixels[..., np.newaxis], 3, axis=2)


def test_predictions_over_several_batches(batches):
    """Each image gets its own."""
    levels = np.random.default_rng(0).permutation(200)[:70]
    images = [(Path(f"{level}.png"), image_of(level)) for level in levels]
    predictions = list(predict_images(images, None, ABOUT, "m.keras"))
    assert [prediction.path.name for prediction in predictions] == [
        f"{level}.png" for level in levels
    ]
    assert [prediction.image.pixels[0, 0] for prediction in predictions] == levels.tolist()
    assert [batch.shape for batch in batches] == [(32, 16, 16, 1), (32, 16, 16, 1), (6, 16, 16, 1)]
    expected, weights = outputs_of(levels), np.array([0.5, 0.3, 0.2])
    mean_vote = np.average(expected["members"], axis=1, weights=weights)
    expected["entropy"] = stats.entropy(mean_vote, axis=1)
    expected["mutual_information"] = (
        expected["entropy"] - stats.entropy(expected["members"], axis=2) @ weights
    )
    for name, rtol in {"probabilities": 1e-6, "novelty": 1e-6, "entropy": 1e-5}.items():
        values = [getattr(prediction, name) for prediction in predictions]
        np.testing.assert_allclose(values, expected[name], rtol=rtol)
    values = [prediction.mutual_information for prediction in predictions]
    np.testing.assert_allclose(values, expected["mutual_information"], rtol=1e-3, atol=1e-6)


def test_mutual_information_of_members_that_agree_or_disagree(monkeypatch):
    outputs = {
        "members": np.full((1, 3, 2), 0.5),
        "probabilities": np.array([[0.5, 0.5]]),
        "novelty": np.array([-1e-9]),
    }
    monkeypatch.setattr(inference, "batch_predictor", lambda model: lambda images: outputs)
    (prediction,) = predict_images([(Path("a.png"), image_of(9))], None, ABOUT, "m.keras")
    assert prediction.entropy == pytest.approx(np.log(2))
    assert 0 <= prediction.mutual_information < 1e-9
    assert prediction.novelty == 0
    # Each member is certain, and they disagree
    outputs["members"] = np.array([[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]])
    (prediction,) = predict_images([(Path("a.png"), image_of(9))], None, ABOUT, "m.keras")
    assert prediction.mutual_information == pytest.approx(np.log(2))
    assert prediction.entropy == pytest.approx(np.log(2))


@pytest.mark.parametrize("key", ["members", "probabilities", "novelty"])
def test_outputs_that_are_not_finite_are_an_error(monkeypatch, key):
    outputs = outputs_of(np.array([9.0]))
    outputs[key] = np.full_like(outputs[key], np.nan)
    monkeypatch.setattr(inference, "batch_predictor", lambda model: lambda images: outputs)
    with pytest.raises(UserError, match=r"^m\.keras predicts values that are not finite"):
        list(predict_images([(Path("a.png"), image_of(9))], None, ABOUT, "m.keras"))


@pytest.mark.parametrize(
    ("classes", "explained"), [(["no", "yes"], [1, 1]), (["a", "b", "c"], [2, 0])]
)
def test_overlays_are_of_each_image_and_its_own_heat_map(monkeypatch, classes, explained):
    calls, drawn = [], []

    def heat_maps(*arguments):
        calls.append(arguments)
        return np.stack([np.full((16, 16), 0.1), np.full((16, 16), 0.2)])

    monkeypatch.setattr(overlays, "heat_maps", heat_maps)
    monkeypatch.setattr(overlays, "member_models", lambda model, about: {"member": model})
    monkeypatch.setattr(overlays, "panel", lambda *arguments: drawn.append(arguments) or len(drawn))
    batch = [
        replace(prediction_of("x.png", 0.5, number), label=label)
        for number, label in ((1, 2 if len(classes) == 3 else 0), (2, 0))
    ]
    assert draw_overlays(batch, "model", {**ABOUT, "classes": classes}) == [1, 2]
    ((members, weights, images, targets),) = calls
    assert (members, weights) == ({"member": "model"}, WEIGHTS)
    assert images.shape == (2, 16, 16, 1)
    assert targets.tolist() == explained
    for number, (image, heat, scale, label) in enumerate(drawn, start=1):
        assert np.all(image == number)
        assert np.all(heat == number / 10)
        assert scale == 2.5
        assert ("yes" in label) == (len(classes) == 2)


def test_overlay_files_over_several_batches(tmp_path, monkeypatch, capsys):
    """They are numbered, and named as the images."""
    monkeypatch.setattr(overlays, "BATCH_SIZE", 3)
    monkeypatch.setattr(
        overlays,
        "draw_overlays",
        lambda batch, model, about: [colored(prediction.image.pixels) for prediction in batch],
    )
    letters = "gfedcba"
    predictions = [
        prediction_of(f"in/{letter}.png", 0.5, 10 * number) for number, letter in enumerate(letters)
    ]
    assert list(write_overlays(iter(predictions), None, ABOUT, tmp_path)) == predictions
    assert capsys.readouterr().err == ""
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"{number:04d}-{letter}.png" for number, letter in enumerate(letters, start=1)]
    for number, name in enumerate(names):
        with Image.open(tmp_path / name) as image:
            assert np.all(np.asarray(image) == 10 * number)
    assert list(write_overlays(iter(predictions[:1]), None, ABOUT, tmp_path)) == predictions[:1]
    assert "has 7 overlays of an earlier run; some may remain" in capsys.readouterr().err


def test_record_of_a_prediction():
    record = record_of(prediction_of("a/b.png", 0.7, novelty=1.2), ["no", "yes"])
    assert record == {
        "file": "a/b.png",
        "class": "yes",
        "probability of no": 0.3,
        "probability of yes": 0.7,
        "prediction_set": ["no", "yes"],
        "decision": "unsure: unlike the training images",
        "entropy": 0.6,
        "mutual_information": 0.2,
        "novelty": 1.2,
        "unlike_training_images": True,
    }
    at_the_limit = record_of(prediction_of("a.png", 0.2, novelty=1.0), ["no", "yes"])
    assert (at_the_limit["class"], at_the_limit["unlike_training_images"]) == ("no", False)


def test_table_columns(capsys):
    predictions = [prediction_of("a.png", 0.7), prediction_of("b.png", 0.1, novelty=1.3)]
    print_table(predictions, ["no", "yes"])
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["file", "class", "no", "yes", "entropy", "mutual", "inf.", "decision"]
    assert first.split() == [
        "a.png",
        "yes",
        "0.300",
        "0.700",
        "0.600",
        "0.200",
        "unsure:",
        "no,",
        "yes",
    ]
    assert second.split()[:6] == ["b.png", "no", "0.900", "0.100", "0.600", "0.200"]
    assert second.endswith("  unsure: unlike the training images (1.3)")


def test_table_columns_of_many_classes(capsys):
    probabilities = np.array([0.02, 0.03, 0.3, 0.05, 0.06, 0.4, 0.04, 0.05, 0.05])
    prediction = replace(prediction_of("a.png", 0.5), probabilities=probabilities, label=5)
    without_sets = replace(prediction, label=2, prediction_set=None)
    print_table([replace(prediction, prediction_set=(5,)), without_sets], list("abcdefghi"))
    _, line, second = capsys.readouterr().out.splitlines()
    assert line.split() == ["a.png", "f", "0.400", "c", "0.300", "0.600", "0.200", "f"]
    assert second.split() == ["a.png", "c", "0.300", "f", "0.400", "0.600", "0.200"]


@pytest.mark.parametrize(
    "classes",
    [
        ["no", "yes"],
        ["脑胶质瘤" * 9, "a" * 67, "no"],
        [f"a class with a long name, number {number}" for number in range(100)],
    ],
    ids=["short", "long", "many"],
)
def test_table_fits_a_terminal(capsys, classes):
    probabilities = np.linspace(1, 2, len(classes))
    probabilities /= probabilities.sum()
    prediction = prediction_of("x.png", 0.5)
    print_table([replace(prediction, probabilities=probabilities, label=len(classes) - 1)], classes)
    header, line = capsys.readouterr().out.splitlines()
    assert header.index("decision") == line.index("unsure") or not classes[0].isascii()
    assert columns(header) <= columns(line) < 190
    assert f"{probabilities[-1]:.3f}" in line
    names = shorten_all(classes, NAME_WIDTH)
    assert names[-1] in line
    if len(classes) == 100:
        assert names[-2] in line  # the next most probable


@pytest.mark.parametrize("path", ["a.png", "脑部/图像.png", f"{'脑' * 40}.png", f"{'a' * 60}.png"])
def test_columns_start_below_their_names(capsys, path):
    print_table([prediction_of(path, 0.5)], ["no", "yes"])
    header, line = capsys.readouterr().out.splitlines()
    decision = line.index("unsure")
    assert columns(line[:decision]) == header.index("decision")


def test_label_is_the_outermost_class_folder(tmp_path, monkeypatch, capsys):
    """As `ingest` has it: a folder of a patient may be named as a class."""
    monkeypatch.chdir(tmp_path)

    def labels(given: str | list[str], *paths: str) -> list[int]:
        for path in paths:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).touch()
        given = [given] if isinstance(given, str) else given
        return [*label_files(list_files(given), ["no", "yes"]).values()]

    assert labels("a", "a/no/1.png", "a/no/yes/2.png", "a/yes/no/3.png") == [0, 0, 1]
    for ambiguous in ("a/yes/no/3.png", str(tmp_path / "a/yes/no/3.png"), "a/yes/*/*.png", "a/yes"):
        with pytest.raises(UserError, match=r"a/yes/no/3\.png is in folders of two classes"):
            labels(ambiguous)
    assert labels("a/no/*.png") == [0]
    assert capsys.readouterr().err == ""
    assert labels("b/yes/deep", "b/yes/deep/1.png", "b/yes/deep/er/2.png") == [1, 1]
    assert capsys.readouterr().err == (
        "labels: 2 of 2 images are 'yes', by the name of a folder above the given paths\n"
    )
    assert labels("b/no/yes", "b/no/yes/1.png") == [1]
    assert labels("b", "b/README.txt", "b/1.png") == [0, 1, 1]
    with pytest.raises(UserError, match=r"^c/uncertain/1\.png is in no class folder; expected"):
        labels("c", "c/yes/1.png", "c/uncertain/1.png")
    with pytest.raises(UserError, match=r"^other/no\.png is in no class folder"):
        labels("other", "other/no.png")
    inner = ("d/yes/no/1.png", "d/yes/yes/2.png", "d/yes/README.txt")
    with pytest.raises(UserError, match=r"^d has images in a folder of class 'yes' alone, in fold"):
        labels("d", *inner[:2])
    assert labels("d/yes", *inner) == labels(["d/yes/no", "d/yes/yes"]) == [0, 1]
    assert labels(["d/yes/no", "a"]) == [0, 0, 0, 1]
    with pytest.raises(UserError, match=r"^d/yes/no/1\.png is in folders of two classes"):
        labels("d/yes/*/*.png")
    decomposed = Path("e\u0301/a.png")
    files = {decomposed: GivenPath(str(decomposed))}
    assert label_files(files, ["no", "\u00e9"]) == {decomposed: 1}


def labels_of(path: str) -> list[int]:
    return [*label_files(list_files([path]), ["no", "yes"]).values()]


@pytest.mark.parametrize("given", ["{}", "./{}", ".//{}", "x/../{}", "{root}//{}"])
def test_labels_do_not_depend_on_how_a_path_is_written(tmp_path, monkeypatch, capsys, given):
    names = ("x/README", "yes/README", "yes/1.png", "a/no/1.png", "a/README", "no/yes/1.png")
    make_tree(tmp_path, *names)
    monkeypatch.chdir(tmp_path)

    def labels(path: str) -> list[int]:
        return labels_of(given.format(path, root=tmp_path))

    for ambiguous in ("no/yes/1.png", "no/yes/*.png", "no"):
        with pytest.raises(UserError, match=r"no/yes/1\.png is in folders of two classes"):
            labels(ambiguous)
    assert labels("yes/*.png") == [1]
    assert labels("yes") == [1, 1]
    assert capsys.readouterr().err.startswith("labels: 2 of 2 images are 'yes', by the name")
    assert labels("a") == [0]
    assert capsys.readouterr().err.endswith("a/README is in no class folder\n")


def test_labels_in_and_above_the_current_folder(tmp_path, monkeypatch, capsys):
    make_tree(tmp_path, "a/no/1.png", "a/README", "no/2.png", "no/yes/1.png", "yes/3.png")
    monkeypatch.chdir(tmp_path / "a")
    for folder in (".", "../a"):
        assert labels_of(folder) == [0]
        assert capsys.readouterr().err.endswith("README is in no class folder\n")
    monkeypatch.chdir(tmp_path / "no")
    with pytest.raises(UserError, match=r"yes/1\.png is in folders of two classes"):
        labels_of(".")
    monkeypatch.chdir(tmp_path / "no/yes")
    assert labels_of("../2.png") == [0]
    assert labels_of("../../yes") == [1]


def test_paths_stand_for_files_folders_patterns_and_lists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "in/b.png",
        "in/deep/a.png",
        "in/.hidden.png",
        "in/.git/c.png",
        "in/Thumbs.db",
        "two.png",
        ".own.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def files(*paths: str) -> list[str]:
        return list(map(str, list_files(paths)))

    assert files("in") == ["in/b.png", "in/deep/a.png"]
    several = files("two.png", "in", "missing.png")
    assert several == ["two.png", "in/b.png", "in/deep/a.png", "missing.png"]
    assert files("in/*.png") == ["in/b.png"]
    assert files("**/*.png") == ["in/b.png", "in/deep/a.png", "two.png"]
    assert files(".own.png", "in/.git/*") == [".own.png", "in/.git/c.png"]
    assert files("none*.png") == ["none*.png"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"two.png\n\n-\nin/b.png\n")))
    assert files("-") == ["two.png", "in/b.png"]
    deep = Path("in/deep")
    below = list_files(["in/deep", "in", "two.png", "in/*.png", str(tmp_path / "in/../two.png")])
    assert list(below.values()) == [("a.png", deep), ("b.png", Path("in")), ("two.png", None)]
    several = list_files(["./in/de*", ".//in/*.png", "."])
    assert [*several.values()][:2] == [("a.png", deep), (".//in/b.png", None)]
    assert [*several.values()][2:] == [("two.png", Path())]
    (tmp_path / "in/link").symlink_to(tmp_path / "in/deep")
    assert files("in") == ["in/b.png", "in/deep/a.png", "in/link"]  # to be reported as unread


def test_folders_that_cannot_be_listed_are_files_that_cannot_be_read(tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir()
    (tmp_path / "a.png").touch()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert {*list_files([str(tmp_path)])} == {tmp_path / "a.png", tmp_path / "locked"}


@pytest.fixture
def folders(tmp_path, monkeypatch, batches):
    """Images of known mean levels in two class folders, and a file that is no image."""
    monkeypatch.chdir(tmp_path)
    load_stand_in(monkeypatch, ABOUT)
    for name in ("no", "yes"):
        (tmp_path / name).mkdir()
    for path, level in {"no/a": 40, "no/c": 120, "yes/a": 180, "yes/b": 60, "yes/c": 200}.items():
        levels = level + np.arange(-4, 4).repeat(32).reshape(16, 16)
        Image.fromarray(levels.astype(np.uint8)).save(tmp_path / f"{path}.png")
    (tmp_path / "no/b.png").write_text("no image")
    return tmp_path


def run(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["predict", *arguments])
    with pytest.raises(SystemExit, match="1 of 6 files could not be read"):
        run_command(command.main)


def test_predictions_belong_to_their_files(folders, monkeypatch, capsys):
    """Even if one of these can't be read."""
    run(monkeypatch, "--csv", "--labels", "no", "yes", "no/a.png")
    output = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(output.out)))
    files = ["no/a.png", "no/c.png", "yes/a.png", "yes/b.png", "yes/c.png"]
    assert [row["file"] for row in rows] == files
    expected = outputs_of(np.array([39.5, 119.5, 179.5, 59.5, 199.5]))
    probabilities = [float(row["probability of yes"]) for row in rows]
    np.testing.assert_allclose(probabilities, expected["probabilities"][:, 1], atol=1e-5)
    novelty = [float(row["novelty"]) for row in rows]
    np.testing.assert_allclose(novelty, expected["novelty"], atol=1e-3)
    assert [row["class"] for row in rows] == ["no", "yes", "yes", "no", "yes"]
    assert "error: no/b.png: not an image" in output.err
    printed = json.loads(output.err[output.err.index("{") : output.err.rindex("}") + 1])
    metrics = printed["without_near_duplicates"]
    assert metrics["accuracy"] == pytest.approx(3 / 5)
    assert metrics["recall"] == pytest.approx({"no": 1 / 2, "yes": 2 / 3})
    assert metrics["images"] == 5
    assert printed["unlike_training_images"] == 3
    assert not output.err.endswith("}\n")  # the headlines come after the long list


def test_json_lines_have_the_values_of_the_csv(folders, monkeypatch, capsys):
    run(monkeypatch, "--csv", "no", "yes")
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    run(monkeypatch, "--json", "no", "yes")
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for record in records:
        record["prediction_set"] = "; ".join(record["prediction_set"])
    assert [{key: str(value) for key, value in record.items()} for record in records] == rows


def test_no_file_is_an_error(folders, monkeypatch):
    (folders / "empty").mkdir()
    monkeypatch.setattr(sys, "argv", ["predict", "empty"])
    with pytest.raises(SystemExit, match=r"^error: no file in empty; expected images"):
        run_command(command.main)


def test_labels_need_class_folders(folders, monkeypatch):
    Image.new("L", (16, 16)).save(folders / "other.png")
    monkeypatch.setattr(sys, "argv", ["predict", "--labels", "no/a.png", "other.png"])
    with pytest.raises(SystemExit, match=r"^error: other\.png is in no class folder"):
        run_command(command.main)


@pytest.fixture
def without_overlays(monkeypatch):
    """In place of an overlay, the name of the image."""
    monkeypatch.setattr(
        app,
        "draw_overlays",
        lambda predictions, model, about: [prediction.path.name for prediction in predictions],
    )


@pytest.mark.usefixtures("without_overlays")
def test_app_knows_patients_of_several_folders(folders, batches, capsys):
    """Each upload is in a folder of its own, which the user did not choose."""
    names = [str(folders / name) for name in ("yes/c.png", "no/c.png")]
    _, patients, _ = app.predict_files(names, None, ABOUT, "m.keras", r"([a-z])\.png")
    assert len(patients.rows) == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("text", ["0", "-5", "65536", "x", "1.5"])
def test_app_refuses_what_is_no_port(text, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["app", "--port", text])
    with pytest.raises(SystemExit):
        app_command.parse_arguments()
    assert (
        f"argument --port: {text!r}; expected a number from 1 to 65535" in capsys.readouterr().err
    )
    monkeypatch.setattr(sys, "argv", ["app", "--port", "7860"])
    assert app_command.parse_arguments().port == 7860


@pytest.mark.usefixtures("without_overlays")
def test_app_table_and_gallery(folders, batches, monkeypatch):
    """They have the predictions of `predict`, and a reason for each file that has none."""
    monkeypatch.setattr(app, "MAX_FILES", 4)
    names = ("yes/b.png", "no/b.png", "no/c.png", "yes/c.png", "yes/a.png")
    table, patients, gallery = app.predict_files(
        [str(folders / name) for name in names], None, ABOUT, "m.keras"
    )
    assert batches[0].shape == (3, 16, 16, 1)
    assert patients == app.EMPTY
    assert gallery == [
        ("b.png", "b.png: no 0.88"),
        ("c.png", "c.png: yes 0.73"),
        ("c.png", "c.png: yes 0.99"),
    ]
    assert table.header == [
        *("image", "decision", "no", "yes"),
        *("entropy, nats", "mutual information, nats", "novelty"),
    ]
    names, decisions, no, yes, *_ = zip(*table.rows, strict=True)
    assert names == ("b.png", "c.png", "c.png", "b.png", "a.png")
    is_novel = ["unlike the training images" in decision for decision in decisions]
    assert is_novel == [False, True, True, False, False]
    is_unreadable = ["can't be read" in decision for decision in decisions]
    assert is_unreadable == [False, False, False, True, True]
    assert "more than 4 images at once" in decisions[4]
    assert (no[0], yes[0]) == (0.881, 0.119)
    rows = list(csv.DictReader(io.StringIO(table.csv.decode())))
    assert [Path(row["file"]).name for row in rows] == list(names[:3])
    assert float(rows[0]["probability of no"]) == pytest.approx(0.8808, abs=1e-4)


@pytest.mark.parametrize("files", [[], None])
def test_app_without_files(files):
    assert app.predict_files(files, None, ABOUT, "m.keras") == (app.EMPTY, app.EMPTY, [])


def test_app_table_warns_of_novelty():
    predictions = [
        prediction_of("a.png", 0.3, novelty=1.0),
        prediction_of("b.png", 0.3, novelty=1.1),
    ]
    table = app.tabulate_images(predictions, [], ABOUT)
    assert table.rows == [
        ["a.png", "unsure: no, yes", 0.7, 0.3, 0.6, 0.2, 1.0],
        ["b.png", "unsure: unlike the training images", 0.7, 0.3, 0.6, 0.2, 1.1],
    ]


@pytest.fixture
def crops(folders, batches):
    """Descriptions of two ensembles, of whole images and of heads; checks the cropping."""
    canvas = np.zeros((64, 64), np.uint8)
    canvas[8:40, 16:48] = 100 + np.arange(32)
    Image.fromarray(canvas).save(folders / "canvas.png")
    yield ({**ABOUT, "crop": crop} for crop in (False, True))
    whole, head = (batch[0, ..., 0] for batch in batches)
    assert np.median(whole) == 0
    assert head.min() > 50


def test_images_are_cropped_as_for_training(crops, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["predict", "canvas.png"])
    for about in crops:
        load_stand_in(monkeypatch, about)
        run_command(command.main)


def test_app_images_are_cropped_as_for_training(crops, monkeypatch):
    monkeypatch.setattr(app, "draw_overlays", lambda predictions, model, about: predictions)
    for about in crops:
        app.predict_files(["canvas.png"], None, about, "m.keras")


def test_app_examples_are_in_no_training_set(tmp_path):
    paths = [Path(path) for path in write_examples(tmp_path / "examples")]
    kinds = ["healthy", "glioma", "meningioma", "pituitary"]
    names = [f"{kind} {number}" for number in (1, 2) for kind in kinds]
    assert [path.stem for path in paths] == names
    for path in (paths[1], paths[2], paths[4]):
        kind, number = path.stem.replace("healthy", "no").split()
        rng = np.random.default_rng([1000, KINDS.index(kind), int(number) - 1])
        with Image.open(path) as image:
            np.testing.assert_array_equal(np.asarray(image), draw(kind, rng).image)
