"""What `predict` and the app make of the ensemble's output: recomputed here with NumPy, SciPy and scikit-learn.

The network is a stand-in whose outputs are known, so each test takes a moment.
"""

import csv
import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from sklearn import metrics as sk

import predict.__main__ as command
from predict import prediction
from predict.prediction import Prediction, overlays, predictions
from stages.shared import pictures
from stages.shared.errors import UserError
from stages.shared.images import Picture

WEIGHTS = {"member-00": 0.5, "member-01": 0.3, "member-02": 0.2}
ABOUT = {
    "classes": ["no", "yes"],
    "size": 16,
    "crop": False,
    "weights": WEIGHTS,
    "threshold": 0.4,
    "heat_scale": 2.5,
    "training_images": {"sha256_prefixes": []},
}


def picture_of(level: int, **changes) -> Picture:
    picture = Picture(np.full((16, 16), level, np.uint8), f"{level:064x}", "0" * 64, "0" * 64, 16, 16, "L", (0, 255))
    return replace(picture, **changes)


def output_for(levels: np.ndarray) -> dict[str, np.ndarray]:
    """What the stand-in gives for images of these mean levels; the calibrated probabilities are not the members' mean."""
    first = np.stack([levels / 256, np.sqrt(levels / 256), 1 - levels / 300], axis=1)
    calibrated = 1 / (1 + np.exp(-(levels - 99.5) / 20))
    return {
        "members": np.stack([1 - first, first], axis=2).astype(np.float32),
        "probabilities": np.stack([1 - calibrated, calibrated], axis=1).astype(np.float32),
        "novelty": (levels / 100).astype(np.float32),
    }


@pytest.fixture
def batches(monkeypatch):
    """The batches of images that the stand-in was given."""
    given = []

    def compute(images: np.ndarray) -> dict[str, np.ndarray]:
        given.append(images)
        return output_for(images.mean(axis=(1, 2, 3)))

    monkeypatch.setattr(prediction, "predictor", lambda model: compute)
    return given


def colored(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(pixels[..., np.newaxis], 3, axis=2)


def prediction_of(path: str, positive: float, level: int = 0, novelty: float = 0.5, **picture) -> Prediction:
    return Prediction(Path(path), picture_of(level, **picture), np.array([1 - positive, positive]), 0.6, 0.2, novelty)


def test_each_picture_gets_its_own_figures_over_several_batches(batches):
    levels = np.random.default_rng(0).permutation(200)[:70]
    results = list(predictions([(Path(f"{level}.png"), picture_of(level)) for level in levels], None, ABOUT))
    assert [result.path.name for result in results] == [f"{level}.png" for level in levels]
    assert [result.picture.pixels[0, 0] for result in results] == levels.tolist()
    assert [batch.shape for batch in batches] == [(32, 16, 16, 1), (32, 16, 16, 1), (6, 16, 16, 1)]
    expected, weights = output_for(levels), np.array([0.5, 0.3, 0.2])
    mean_vote = np.average(expected["members"], axis=1, weights=weights)
    entropy = stats.entropy(mean_vote, axis=1)
    mutual_information = entropy - stats.entropy(expected["members"], axis=2) @ weights
    np.testing.assert_allclose([result.probabilities for result in results], expected["probabilities"], rtol=1e-6)
    np.testing.assert_allclose([result.entropy for result in results], entropy, rtol=1e-5)
    np.testing.assert_allclose([result.mutual_information for result in results], mutual_information, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose([result.novelty for result in results], expected["novelty"], rtol=1e-6)


def test_members_that_agree_have_no_mutual_information(monkeypatch):
    same = {"members": np.full((1, 3, 2), 0.5), "probabilities": np.array([[0.5, 0.5]]), "novelty": np.array([-1e-9])}
    monkeypatch.setattr(prediction, "predictor", lambda model: lambda images: same)
    (result,) = predictions([(Path("a.png"), picture_of(9))], None, ABOUT)
    assert result.entropy == pytest.approx(np.log(2))
    assert 0 <= result.mutual_information < 1e-9
    assert result.novelty == 0
    same["members"] = np.array([[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]])  # certain, and they disagree about all
    (result,) = predictions([(Path("a.png"), picture_of(9))], None, ABOUT)
    assert result.mutual_information == pytest.approx(result.entropy) == pytest.approx(np.log(2))


@pytest.mark.parametrize(("classes", "asked"), [(["no", "yes"], [1, 1]), (["a", "b", "c"], [2, 0])])
def test_overlays_ask_for_the_finding_and_draw_each_image_with_its_own_map(monkeypatch, classes, asked):
    calls, drawn = [], []

    def heat_maps(*arguments):
        calls.append(arguments)
        return np.stack([np.full((16, 16), 0.1), np.full((16, 16), 0.2)])

    monkeypatch.setattr(prediction, "heat_maps", heat_maps)
    monkeypatch.setattr(prediction, "members_of", lambda model, about: {"of": model})
    monkeypatch.setattr(pictures, "panel", lambda *arguments: drawn.append(arguments) or len(drawn))
    probabilities = [np.array([0.1, 0.3, 0.6]), np.array([0.8, 0.1, 0.1])] if len(classes) == 3 else [np.array([0.9, 0.1])] * 2
    batch = [Prediction(Path("x.png"), picture_of(n + 1), probabilities[n], 0.0, 0.0, 0.0) for n in range(2)]
    assert overlays(batch, "model", {**ABOUT, "classes": classes}) == [1, 2]
    ((members, weights, images, explained),) = calls
    assert (members, weights) == ({"of": "model"}, WEIGHTS)
    assert images.shape == (2, 16, 16, 1)
    assert explained.tolist() == asked
    for number, (image, heat, scale, label) in enumerate(drawn, start=1):
        assert np.all(image == number)
        assert np.all(heat == number / 10)
        assert scale == 2.5
        assert ("yes" in label) == (len(classes) == 2)


def test_fields_of_a_prediction():
    fields = command.fields(prediction_of("a/b.png", 0.7, novelty=1.2), ["no", "yes"])
    assert fields == {
        "file": "a/b.png",
        "class": "yes",
        "probability of no": 0.3,
        "probability of yes": 0.7,
        "entropy": 0.6,
        "mutual_information": 0.2,
        "novelty": 1.2,
        "unlike_training_images": True,
    }
    at_the_limit = command.fields(prediction_of("a.png", 0.2, novelty=1.0), ["no", "yes"])
    assert (at_the_limit["class"], at_the_limit["unlike_training_images"]) == ("no", False)


def test_columns_of_the_table_are_in_the_order_of_the_head(capsys):
    command.write_table([prediction_of("a.png", 0.7), prediction_of("b.png", 0.1, novelty=1.3)], ["no", "yes"])
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["file", "class", "no", "yes", "entropy", "mutual", "inf."]
    assert first.split() == ["a.png", "yes", "0.300", "0.700", "0.600", "0.200"]
    assert second.split()[:6] == ["b.png", "no", "0.900", "0.100", "0.600", "0.200"]
    assert "unlike the training images (1.3)" in second
    probabilities = np.array([0.02, 0.03, 0.3, 0.05, 0.06, 0.4, 0.04, 0.05, 0.05])
    command.write_table([Prediction(Path("a.png"), None, probabilities, 0.6, 0.2, 0.1)], list("abcdefghi"))
    assert capsys.readouterr().out.splitlines()[1].split() == ["a.png", "f", "0.400", "c", "0.300", "0.600", "0.200"]


def test_the_label_is_the_innermost_folder_of_a_class():
    for path, label in {"yes/a.png": 1, "no/a.png": 0, "no/yes/a.png": 1, "yes/no/deep/a.png": 0, "yes/no": 1}.items():
        assert command.label_of(Path(path), ["no", "yes"]) == label
    assert command.label_of(Path("e\u0301/a.png"), ["no", "\u00e9"]) == 1
    with pytest.raises(UserError, match="lies in no folder of a class"):
        command.label_of(Path("other/no.png"), ["no", "yes"])


def test_files_are_those_of_folders_patterns_and_lists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("in/b.png", "in/deep/a.png", "in/.hidden.png", "in/.git/c.png", "in/Thumbs.db", "two.png", ".own.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def files(*paths):
        return [str(path) for path in command.find_files(paths)]

    assert files("in") == ["in/b.png", "in/deep/a.png"]
    assert files("two.png", "in", "missing.png") == ["two.png", "in/b.png", "in/deep/a.png", "missing.png"]
    assert files("in/*.png") == ["in/b.png"]
    assert files("**/*.png") == ["in/b.png", "in/deep/a.png", "two.png"]
    assert files(".own.png", "in/.git/*") == [".own.png", "in/.git/c.png"]
    assert files("none*.png") == ["none*.png"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"two.png\n\n-\nin/b.png\n")))
    assert files("-") == ["two.png", "in/b.png"]


def test_figures_of_labelled_images_are_scikit_learns(capsys):
    rng = np.random.default_rng(4)
    truth = rng.integers(0, 2, 40)
    positive = np.clip(0.5 + 0.2 * (2 * truth - 1) + rng.normal(0, 0.25, 40), 0.01, 0.99)
    read = [
        prediction_of(
            f"{n}.png", positive[n], n, 0.8 + n / 100, perceptual_hash=rng.bytes(32).hex(), whole_hash=rng.bytes(32).hex()
        )
        for n in range(40)
    ]
    labels = {Path(f"{n}.png"): int(truth[n]) for n in reversed(range(40))}
    for n, start in {7: "f" * 16, 8: "f" * 15 + "e"}.items():
        read[n] = replace(read[n], picture=replace(read[n].picture, sha256=start.ljust(64, "1")))
    about = {**ABOUT, "training_images": {"sha256_prefixes": ["a" * 16, "f" * 16]}}
    figures = command.evaluated(read, labels, about)
    predicted = (positive > 0.5).astype(int)
    expected = {
        "accuracy": sk.accuracy_score(truth, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, predicted),
        "roc_auc": sk.roc_auc_score(truth, positive),
        "average_precision": sk.average_precision_score(truth, positive),
        "f1": sk.f1_score(truth, predicted),
        "log_loss": sk.log_loss(truth, positive),
        "brier_score": sk.brier_score_loss(truth, positive),
    }
    assert {name: figures[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert figures["recall"] == pytest.approx({"no": np.mean(predicted[truth == 0] == 0), "yes": np.mean(predicted[truth == 1])})
    assert figures["at_threshold"] == pytest.approx(
        {
            "threshold": 0.4,
            "sensitivity": np.mean(positive[truth == 1] >= 0.4),
            "specificity": np.mean(positive[truth == 0] < 0.4),
        }
    )
    confidence, bins = np.maximum(positive, 1 - positive), np.digitize(np.maximum(positive, 1 - positive), np.arange(0.1, 1, 0.1))
    error = sum(
        np.mean(bins == b) * abs(confidence[bins == b].mean() - (predicted == truth)[bins == b].mean()) for b in np.unique(bins)
    )
    assert figures["expected_calibration_error"] == pytest.approx(error)
    assert figures["images"] == 40
    assert figures["learned_from"] == 1
    assert "warning: 1 of 40 images are among those that it learned from" in capsys.readouterr().err
    assert figures["unlike_training_images"] == 19  # 1.0 is not above the limit
    assert figures["independent_groups"] == {"no": np.sum(truth == 0), "yes": np.sum(truth == 1)}
    low, high = figures["interval"]["accuracy"]
    assert low < expected["accuracy"] < high


def test_near_duplicates_count_as_one_group_of_labelled_images():
    """Of the head's or of the whole image's hash, up to 20 bits apart."""
    rng = np.random.default_rng(5)
    hashes = rng.integers(0, 256, (14, 2, 32), np.uint8)

    def flipped(of: np.ndarray, bits: int) -> np.ndarray:
        return np.packbits(np.unpackbits(of) ^ (np.arange(256) < bits))

    hashes[1, 0] = flipped(hashes[0, 0], 20)
    hashes[3, 1] = flipped(hashes[2, 1], 20)
    hashes[5, 0], hashes[5, 1] = flipped(hashes[4, 0], 21), flipped(hashes[4, 1], 21)
    read = [
        prediction_of(f"{n}.png", 0.6, n, perceptual_hash=head.tobytes().hex(), whole_hash=whole.tobytes().hex())
        for n, (head, whole) in enumerate(hashes)
    ]
    labels = {Path(f"{n}.png"): int(n >= 7) for n in range(14)}
    figures = command.evaluated(read, labels, ABOUT)
    assert figures["independent_groups"] == {"no": 5, "yes": 7}


@pytest.fixture
def folders(tmp_path, monkeypatch, batches):
    """Images of known mean levels in two class folders, one file that is no image, and the stand-in for a model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "load_ensemble", lambda path: (path, ABOUT))
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
        command.main()


def test_predictions_and_figures_belong_to_their_files_though_one_can_not_be_read(folders, monkeypatch, capsys):
    run(monkeypatch, "--csv", "--labels", "no", "yes", "no/a.png")
    output = capsys.readouterr()
    lines = list(csv.DictReader(io.StringIO(output.out)))
    assert [line["file"] for line in lines] == ["no/a.png", "no/c.png", "yes/a.png", "yes/b.png", "yes/c.png"]
    expected = output_for(np.array([39.5, 119.5, 179.5, 59.5, 199.5]))
    np.testing.assert_allclose([float(line["probability of yes"]) for line in lines], expected["probabilities"][:, 1], atol=1e-5)
    np.testing.assert_allclose([float(line["novelty"]) for line in lines], expected["novelty"], atol=1e-3)
    assert [line["class"] for line in lines] == ["no", "yes", "yes", "no", "yes"]
    assert "error: no/b.png: not an image" in output.err
    figures = json.loads(output.err[output.err.index("{") :])
    assert figures["accuracy"] == pytest.approx(3 / 5)
    assert figures["recall"] == pytest.approx({"no": 1 / 2, "yes": 2 / 3})
    assert figures["images"] == 5
    assert figures["unlike_training_images"] == 3


def test_predictions_as_json_lines_are_those_of_the_csv(folders, monkeypatch, capsys):
    run(monkeypatch, "--csv", "no", "yes")
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    run(monkeypatch, "--json", "no", "yes")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [{key: str(value) for key, value in line.items()} for line in lines] == table


def test_explained_images_are_numbered_and_named_as_their_files_over_several_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "BATCH", 3)
    monkeypatch.setattr(command, "overlays", lambda batch, model, about: [colored(entry.picture.pixels) for entry in batch])
    batch = [prediction_of(f"in/{chr(ord('g') - n)}.png", 0.5, 10 * n) for n in range(7)]
    assert list(command.explained(iter(batch), None, ABOUT, tmp_path)) == batch
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"{n + 1:04d}-{chr(ord('g') - n)}.png" for n in range(7)]
    for n, name in enumerate(names):
        with Image.open(tmp_path / name) as image:
            assert np.all(np.asarray(image) == 10 * n)


@pytest.fixture(scope="module")
def app():
    pytest.importorskip("gradio")
    import app.__main__ as page

    return page


def test_the_app_tells_of_each_file_what_predict_does(folders, batches, app, monkeypatch):
    monkeypatch.setattr(app, "overlays", lambda results, model, about: [result.path.name for result in results])
    monkeypatch.setattr(app, "MAX_FILES", 4)
    files = [str(folders / name) for name in ("yes/b.png", "no/b.png", "no/c.png", "yes/c.png", "yes/a.png")]
    table, gallery = app.tell(files, None, ABOUT)
    assert batches[0].shape == (3, 16, 16, 1)
    assert gallery == [("b.png", "b.png: no 0.88"), ("c.png", "c.png: yes 0.73"), ("c.png", "c.png: yes 0.99")]
    head, *rows = table.split("<tr>")[1:]
    assert [row[4 : row.index("</td>")] for row in rows] == ["b.png", "c.png", "c.png", "b.png", "a.png"]
    assert ["unlike the training images" in row for row in rows] == [False, True, True, False, False]
    assert ["can't be read" in row for row in rows] == [False, False, False, True, True]
    assert "more than 4 images at once" in rows[4]
    assert "value='0.8808'" in rows[0].partition("yes")[0]
    assert "value='0.1192'" in rows[0].partition("yes")[2]
    assert head.index("entropy") < head.index("mutual information")
    assert app.tell([], None, ABOUT) == app.tell(None, None, ABOUT) == ("", [])


def test_the_apps_table_shows_entropy_before_mutual_information_and_warns_above_the_limit(app):
    rows = app.as_table([prediction_of("a.png", 0.3, novelty=1.0), prediction_of("b.png", 0.3, novelty=1.1)], [], ["no", "yes"])
    assert rows.count("<td>0.600</td><td>0.200</td>") == 2
    assert rows.count("unlike the training images") == 1


@pytest.fixture
def crops(folders, batches):
    """Checks that an image was given whole at first, then cut to the head."""
    canvas = np.zeros((64, 64), np.uint8)
    canvas[8:40, 16:48] = 100 + np.arange(32)
    Image.fromarray(canvas).save(folders / "canvas.png")
    yield ({**ABOUT, "crop": crop} for crop in (False, True))
    whole, head = (batch[0, ..., 0] for batch in batches)
    assert np.median(whole) == 0
    assert head.min() > 50


def test_images_are_cut_to_the_head_where_the_ensemble_learned_from_such(crops, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["predict", "canvas.png"])
    for about in crops:
        monkeypatch.setattr(command, "load_ensemble", lambda path, about=about: (path, about))
        command.main()


def test_the_apps_images_are_cut_to_the_head_where_the_ensemble_learned_from_such(crops, app, monkeypatch):
    monkeypatch.setattr(app, "overlays", lambda results, model, about: results)
    for about in crops:
        app.tell(["canvas.png"], None, about)


def test_the_apps_examples_are_slices_of_their_kind_that_no_run_learns_from(tmp_path, app):
    from stages.shared.phantoms import KINDS, draw

    paths = [Path(path) for path in app.make_examples(tmp_path / "examples")]
    kinds = ["healthy", "glioma", "meningioma", "pituitary"]
    assert [path.stem for path in paths] == [f"{kind} {number}" for number in (1, 2) for kind in kinds]
    for path in (paths[1], paths[2], paths[4]):
        kind, number = path.stem.replace("healthy", "no").split()
        drawn = draw(kind, np.random.default_rng([1000, KINDS.index(kind), int(number) - 1]))
        with Image.open(path) as image:
            np.testing.assert_array_equal(np.asarray(image), drawn.image)
