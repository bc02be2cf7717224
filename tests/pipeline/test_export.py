"""The exported ensemble and its heat maps, from members and weights that are known."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from pydantic import TypeAdapter

from brainmri.common.params import load_params
from brainmri.evaluation.explanations import choose_examples
from brainmri.evaluation.figures import grids
from brainmri.images.phantom_masks import tumor_mask
from brainmri.models.about import TrainingImages
from brainmri.models.ensemble import batch_predictor, load_ensemble
from brainmri.models.export import describe_training_images
from brainmri.models.heat_maps import heat_maps
from brainmri.networks.saving import save_model
from stages import explain, export
from tests.support.evaluated_run import (
    CALIBRATION,
    CLASSES,
    DECISION,
    FIRST_TUMOR,
    METRICS,
    TEST,
    TRAINING,
    WEIGHTS,
    EvaluatedRun,
)
from tests.support.novelty import limit_by_hand, thumbnails_by_hand, unexplained_by_hand
from tests.support.tiny_networks import pooling_network

TUMORS = [row for row in TEST if row >= FIRST_TUMOR]


class ExportedRun(EvaluatedRun):
    """The same with three members of random weights.

    Attributes
    ----------
    drawn : list of tuple
        The arguments with which `explain` drew heat maps.
    """

    def __init__(self, path):
        super().__init__(path)
        self.drawn = []
        self.members = {name: pooling_network(seed, 2) for seed, name in enumerate(WEIGHTS)}
        for name, member in self.members.items():
            save_model(member, path / f"models/members/{name}/model.keras")

    def votes(self, rows: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """The members' probabilities, shape (n, members, classes), and the calibrated vote."""
        images = self.pixels[rows].astype(np.float32)
        members = np.stack(
            [member.predict(images, verbose=0) for member in self.members.values()], axis=1
        )
        mean = np.average(members, axis=1, weights=list(WEIGHTS.values()))
        scores = mean ** (1 / CALIBRATION["temperature"]) * np.exp(CALIBRATION["biases"])
        return members, scores / scores.sum(axis=1, keepdims=True)

    def heat(self, rows: list[int]) -> np.ndarray:
        """Heat maps of the evidence for "yes"."""
        return heat_maps(self.members, WEIGHTS, self.pixels[rows], np.ones(len(rows), int))

    def masks(self) -> dict[int, np.ndarray | None]:
        """The tumor masks of the test images, by row."""
        images, params = self.read("data/rad/metadata.json")["images"], load_params()
        return {row: tumor_mask(images[row], params.phantom.seed, params.ingest) for row in TEST}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Iterator[ExportedRun]:
    """A run in which `export` and `explain` have run; it is the current folder."""
    with pytest.MonkeyPatch.context() as patch:
        run = ExportedRun(tmp_path_factory.mktemp("run"))
        patch.chdir(run.path)
        # TensorFlow takes settings of devices only before its first operation
        patch.setattr("brainmri.training.devices.configure_devices", lambda **_: None)
        export.main()
        draw = grids.draw_heat_maps

        def draw_and_record(*arguments):
            run.drawn.append(arguments)
            return draw(*arguments)

        patch.setattr(grids, "draw_heat_maps", draw_and_record)
        explain.main()
        yield run


def test_exported_outputs(run):
    model, _ = load_ensemble(run.path / "models/ensemble.keras")
    outputs = batch_predictor(model)(run.pixels)
    members, probabilities = run.votes(list(range(len(run.pixels))))
    np.testing.assert_allclose(outputs["members"], members, atol=1e-5)
    np.testing.assert_allclose(outputs["probabilities"], probabilities, atol=1e-5)
    np.testing.assert_allclose(outputs["novelty"], novelty_by_hand(run), rtol=5e-3)


def novelty_by_hand(run: ExportedRun) -> np.ndarray:
    thumbnails = thumbnails_by_hand(run.pixels)
    training = thumbnails[TRAINING]
    groups = [run.read("data/split.json")["groups"][row] for row in TRAINING]
    return unexplained_by_hand(thumbnails, training) / limit_by_hand(training, groups, 0.25)


@pytest.mark.parametrize(("bits", "exported"), [(7, 7), (0, 0), (None, 20)])
def test_exported_near_duplicate_bits(run, bits, exported):
    """A run with a random split has near duplicates of training images, too."""
    images = run.read("data/rad/metadata.json")["images"]
    training = describe_training_images(images, bits)
    assert training["near_duplicate_bits"] == exported


def test_hashes_of_training_images_can_stay_at_home(run):
    images = run.read("data/rad/metadata.json")["images"]
    training = describe_training_images(images, 20, with_hashes=False)
    assert training["perceptual_hashes"] is None
    assert TypeAdapter(TrainingImages).validate_python(training, strict=True) == training
    assert not any(image["perceptual_hashes"][0] in str(training) for image in images)


def test_exported_description(run):
    _, about = load_ensemble(run.path / "models/ensemble.keras")
    fraction = np.mean(novelty_by_hand(run)[TEST] > 1)
    assert 0 < fraction < 1
    warnings = {"images": 9, "fraction": pytest.approx(fraction)}
    metrics = run.read("metrics/export.json")
    assert metrics["novelty_warnings_of_test_images"] == warnings
    assert [*metrics["largest_difference"]] == ["saved_model", "onnx", "litert"]
    hashes = sorted(run.hashes[row] for row in TRAINING)
    assert about["training_images"] == {
        "count": 15,
        "sha256": hashlib.sha256("\n".join(hashes).encode()).hexdigest(),
        "near_duplicate_bits": 20,
        "perceptual_hashes": sorted(4 * [sha256[::-1]] for sha256 in hashes),
    }
    findings = [row for row in TRAINING if row >= FIRST_TUMOR]
    hottest = run.heat(findings).max(axis=(1, 2))
    assert about["heat_scale"] == pytest.approx(np.quantile(hottest, 0.9), rel=1e-4)
    expected = {
        "classes": CLASSES,
        "size": 16,
        "crop": True,
        "weights": WEIGHTS,
        "weighting_scheme": "log_loss",
        "metrics": METRICS,
        "calibration": CALIBRATION,
        "decision": DECISION,
        "novelty": {"warn_above": 1.0, "of_test_images": warnings},
    }
    assert {key: about[key] for key in expected} == expected
    assert "Not for clinical use" in about["disclaimer"]


def test_explained_images(run):
    """Each image is drawn beside its own heat map, outline and caption."""
    _, probabilities = run.votes(TEST)
    predicted = (probabilities[:, 1] >= DECISION["rule"]["threshold"]).astype(int)
    assert np.any(predicted != probabilities.argmax(axis=1))
    masks = run.masks()
    assert [row for row, mask in masks.items() if mask is not None] == TUMORS
    ((images, heat, scale, label, outlines, captions, is_wrong),) = run.drawn
    with np.load(run.path / "models/explanations.npz", allow_pickle=False) as arrays:
        rows = arrays["rows"].tolist()
        np.testing.assert_array_equal(arrays["heat"], heat)
        assert arrays["scale"] == scale
        assert arrays["classes"].tolist() == [1] * 6
    assert scale == load_ensemble(run.path / "models/ensemble.keras")[1]["heat_scale"]
    examples = choose_examples(
        run.labels[TEST], predicted, probabilities[range(len(TEST)), predicted], 6
    )
    assert rows == [TEST[position] for position in examples]
    np.testing.assert_array_equal(images, run.pixels[rows, ..., 0])
    np.testing.assert_allclose(heat, run.heat(rows), rtol=1e-3, atol=1e-4 * heat.max())
    assert label.startswith("evidence for yes,")
    for index, row in enumerate(rows):
        position = TEST.index(row)
        true, guess = CLASSES[run.labels[row]], CLASSES[predicted[position]]
        confidence = probabilities[position, predicted[position]]
        assert captions[index] == f"true {true}, predicted {guess} (p = {confidence:.2f})"
        assert is_wrong[index] == (guess != true)
        if row < FIRST_TUMOR:
            assert outlines[index] is None
        else:
            np.testing.assert_array_equal(outlines[index], masks[row])
    assert len({*is_wrong}) == 2


def test_no_image_and_no_map_is_kept(run, tmp_path, monkeypatch):
    shutil.copytree(run.path, tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["explain"]["images"] = 0
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    explain.main()
    expected = run.read("metrics/explain.json")
    assert json.loads(Path("metrics/explain.json").read_text()) == {**expected, "images_drawn": 0}
    with np.load("models/explanations.npz", allow_pickle=False) as arrays:
        assert [arrays[key].size for key in ("heat", "rows", "classes")] == [0, 0, 0]
    with Image.open("plots/explanations.png") as figure:
        assert figure.height < 100


def test_pointing_game_of_test_images_with_a_tumor(run):
    masks = [run.masks()[row] for row in TUMORS]
    heat = run.heat(TUMORS)
    hits, energies = [], []
    for mask, heat_map in zip(masks, heat, strict=True):
        hits.append(mask.flat[heat_map.argmax()] and heat_map.max() > 0)
        energies.append(heat_map[mask].sum() / max(heat_map.sum(), 1e-9))
    expected = {
        "images": 5,
        "accuracy": np.mean(hits),
        "energy": np.mean(energies),
        "chance": np.mean(masks),
    }
    assert run.read("metrics/explain.json") == {
        "images_drawn": 6,
        "pointing_game": pytest.approx(expected, rel=1e-3),
    }
