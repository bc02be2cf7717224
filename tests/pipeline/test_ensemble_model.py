"""The ensemble as one model: it votes as its members predict, and anything else is refused."""

import json
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from brainmri.common.errors import UserError
from brainmri.common.files import zip_entries
from brainmri.models.ensemble import (
    batch_predictor,
    build_ensemble_model,
    load_ensemble,
    member_models,
)
from brainmri.models.serving import save_serving
from brainmri.networks.builders import build_network
from brainmri.networks.saving import load_model, save_model

HEADLINES = {"accuracy": 1.0, "balanced_accuracy": None, "roc_auc": None, "log_loss": 0.25}
# In another order than the members
WEIGHTS = {"member-02": 0.2, "member-00": 0.5, "member-01": 0.3}
ABOUT = {
    "classes": ["a", "b", "c"],
    "size": 16,
    "crop": True,
    "preprocessing": "none",
    "weights": WEIGHTS,
    "weighting_scheme": "log_loss",
    "calibration": {"temperature": 1.7, "biases": [0.0, 0.5, -1.0]},
    "decision": {
        "positive": None,
        "rule": {"name": "argmax", "threshold": None, "costs": None},
        "patient_rule": None,
        "prevalence": None,
        "error": 0.1,
        "images": {name: [{"out_of_bag": [1], "probabilities": [0.5]}] for name in ("a", "b", "c")},
        "patients": None,
    },
    "heat_scale": 1.5,
    "novelty": {"warn_above": 1.0, "of_test_images": {"images": 2, "fraction": 0.5}},
    "training_images": {
        "count": 1,
        "sha256": "ab",
        "near_duplicate_bits": 20,
        "perceptual_hashes": [["0" * 64, "f" * 64, "1" * 64, "e" * 64]],
    },
    "metrics": {
        **HEADLINES,
        "average_precision": None,
        "f1": 1.0,
        "brier_score": 0.5,
        "expected_calibration_error": 0.0,
        "recall": {"a": 1.0, "b": 1.0, "c": None},
        "interval": {"accuracy": None, "balanced_accuracy": None, "roc_auc": None},
        "independent_groups": {"a": 1, "b": 1, "c": 0},
        "decision_rule": {"name": "argmax", "threshold": None, "accuracy": 1.0},
        "test_images": 2,
        "best_member": {"name": "member-00", **HEADLINES},
        "mean_member": HEADLINES,
        "uniform_vote": HEADLINES,
    },
    "disclaimer": "none",
}


def test_vote_of_the_members(tmp_path):
    """Whatever the number of images."""
    names, weights = ("member-00", "member-01", "member-02"), (0.5, 0.3, 0.2)
    members = {}
    for index, name in enumerate(names):
        keras.utils.set_random_seed(index)
        save_model(build_network("residual", 32, 2, 0.0, 0.0, 0.1), tmp_path / f"{name}.keras")
        members[name] = load_model(tmp_path / f"{name}.keras")
    ensemble = build_ensemble_model(members, dict(zip(names, weights, strict=True)))
    ensemble.save(tmp_path / "ensemble.keras")
    for model in (ensemble, load_model(tmp_path / "ensemble.keras")):
        predict = batch_predictor(model)
        for count in (1, 33, 70):
            images = np.random.default_rng(count).integers(0, 256, (count, 32, 32, 1), np.uint8)
            each = [
                np.reshape(member.predict(images.astype(np.float32), verbose=0), (count, 2))
                for member in members.values()
            ]
            outputs = predict(images)
            np.testing.assert_allclose(outputs["members"], np.stack(each, 1), atol=1e-5)
            vote = np.tensordot(weights, each, 1)
            np.testing.assert_allclose(outputs["probabilities"], vote, atol=1e-5)


def small_member(number: int) -> keras.Model:
    """Build a network of one layer for images of 16 pixels and three classes."""
    images = keras.Input((16, 16, 1), name="images")
    kernel = keras.initializers.VarianceScaling(0.001, seed=number)
    layer = keras.layers.Dense(3, "softmax", kernel_initializer=kernel, name="probabilities")
    features = keras.layers.Dropout(0.5)(keras.layers.Flatten()(images))
    return keras.Model(images, layer(features), name=f"small_{number}")


@pytest.fixture(scope="module")
def calibrated():
    """Members, and their ensemble with a calibration and a measure of novelty."""
    members = {f"member-{number:02d}": small_member(number) for number in range(3)}
    images = keras.Input((16, 16, 1))
    novelty = keras.Model(images, keras.ops.mean(images, axis=(1, 2, 3)) / 100)
    return members, build_ensemble_model(members, WEIGHTS, 1.7, [0.0, 0.5, -1.0], novelty)


def test_weights_and_calibration_are_applied(calibrated, tmp_path):
    """By the model, by the saved one and by the one for TensorFlow Serving."""
    members, ensemble = calibrated
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 1), np.uint8)
    each = np.stack(
        [member.predict(images.astype(np.float32), verbose=0) for member in members.values()],
        axis=1,
    )
    mean = 0.5 * each[:, 0] + 0.3 * each[:, 1] + 0.2 * each[:, 2]
    scores = mean ** (1 / 1.7) * np.exp([0.0, 0.5, -1.0])
    expected = {
        "probabilities": scores / scores.sum(axis=1, keepdims=True),
        "members": each,
        "novelty": images.mean(axis=(1, 2, 3)) / 100,
    }
    assert np.abs(expected["probabilities"] - mean).max() > 0.05
    (tmp_path / "served").mkdir()
    (tmp_path / "served/old").touch()
    save_serving(ensemble, tmp_path / "served", ABOUT)
    signatures = tf.saved_model.load(str(tmp_path / "served")).signatures
    served = signatures["serving_default"](images=tf.constant(images))
    save_model(ensemble, tmp_path / "ensemble.keras", ABOUT)
    loaded, about = load_ensemble(tmp_path / "ensemble.keras")
    for outputs in (batch_predictor(ensemble)(images), served, batch_predictor(loaded)(images)):
        assert set(outputs) == set(expected)
        for key, values in expected.items():
            np.testing.assert_allclose(outputs[key], values, atol=1e-5)
    assert about == ABOUT
    assert json.loads((tmp_path / "served/assets.extra/about.json").read_text()) == ABOUT
    assert not (tmp_path / "served/old").exists()
    for name, member in member_models(loaded, about).items():
        votes = member.predict(images.astype(np.float32), verbose=0)
        np.testing.assert_allclose(votes, each[:, list(members).index(name)], atol=1e-5)


def test_vote_of_certain_members_is_finite(calibrated):
    members, _ = calibrated
    certain = keras.models.clone_model(members["member-00"])
    biases = np.array([500.0, 0.0, 0.0])
    certain.get_layer("probabilities").set_weights([np.zeros((256, 3)), biases])
    predict = batch_predictor(build_ensemble_model({"a": certain}, {"a": 1.0}))
    outputs = predict(np.zeros((1, 16, 16, 1), np.uint8))
    np.testing.assert_allclose(outputs["probabilities"], [[1, 0, 0]], atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"size": 32},
        {"crop": "yes"},
        {"classes": ["a", "b"]},
        {"classes": ["a", "b", 3]},
        {"weights": {**WEIGHTS, "member-00": 0.6}},
        {"weights": {"member-00": 0.5, "member-01": 0.5}},
        {"weights": {**WEIGHTS, "member-02": 0.1, "member-03": 0.1}},
        {"classes": ["a", "b", "b"]},
        {"weights": {"member-00": 1.2, "member-01": -0.1, "member-02": -0.1}},
        {"calibration": {"temperature": 0.0, "biases": [0.0, 0.0, 0.0]}},
        {"calibration": {"temperature": 1.0, "biases": [0.0, 0.0]}},
        {"decision": {**ABOUT["decision"], "positive": "d"}},
        {"decision": {**ABOUT["decision"], "images": {"a": [], "b": []}}},
        {"heat_scale": 0.0},
        {"training_images": {}},
        {"training_images": {**ABOUT["training_images"], "near_duplicate_bits": 257}},
        {"training_images": {**ABOUT["training_images"], "perceptual_hashes": []}},
        {
            "training_images": {
                **ABOUT["training_images"],
                "perceptual_hashes": [["0" * 64, "f" * 64]],
            }
        },
        {
            "training_images": {
                **ABOUT["training_images"],
                "perceptual_hashes": [["0", "f", "1", "e"]],
            }
        },
    ],
    ids=str,
)
def test_other_about_is_refused(calibrated, tmp_path, change):
    """An about.json that does not fit the model, or lacks something."""
    save_model(calibrated[1], tmp_path / "ensemble.keras", {**ABOUT, **change})
    with pytest.raises(UserError, match="no ensemble of this pipeline"):
        load_ensemble(tmp_path / "ensemble.keras")


@pytest.mark.parametrize("about", ["encrypted", "nested"])
def test_unreadable_about_is_refused(calibrated, tmp_path, about):
    path = tmp_path / "ensemble.keras"
    save_model(calibrated[1], path, ABOUT)
    if about == "nested":
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        path.write_bytes(zip_entries({**entries, "about.json": b"[" * 10**6}))
    else:
        content = bytearray(path.read_bytes())
        # The flags of the last entry, in its own header and in the archive's directory
        content[content.rindex(b"PK\x03\x04") + 6] |= 1
        content[content.rindex(b"PK\x01\x02") + 8] |= 1
        path.write_bytes(content)
    with pytest.raises(UserError, match="no ensemble of this pipeline"):
        load_ensemble(path)


def test_weights_that_are_not_finite_are_refused(calibrated, tmp_path):
    members, _ = calibrated
    broken = keras.models.clone_model(members["member-00"])
    broken.get_layer("probabilities").set_weights([np.full((256, 3), np.nan), np.zeros(3)])
    images = keras.Input((16, 16, 1))
    novelty = keras.Model(images, keras.ops.mean(images, axis=(1, 2, 3)) / 100)
    ensemble = build_ensemble_model({**members, "member-00": broken}, WEIGHTS, novelty=novelty)
    save_model(ensemble, tmp_path / "ensemble.keras", ABOUT)
    with pytest.raises(UserError, match="has weights that are not finite"):
        load_ensemble(tmp_path / "ensemble.keras")
