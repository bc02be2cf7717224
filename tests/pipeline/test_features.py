"""Frozen networks: features are computed once, and members on them predict as their networks do."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from brainmri.common.errors import UserError
from brainmri.common.params import load_params
from brainmri.features.computation import update_features
from brainmri.features.reader import VIEWS, FeatureReader
from brainmri.models.ensemble import batch_predictor, build_ensemble_model, member_models
from brainmri.models.heat_maps import heat_maps
from brainmri.networks.applications import application_base
from brainmri.networks.saving import load_model, save_model
from brainmri.store.reader import RadReader
from brainmri.training.member import train_member
from stages import features
from tests.support import workspace
from tests.support.checkout import ROOT

NETWORK = "efficientnet-lite0"
SIDE = 32
AUGMENTED = 2


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A store of images of noise, and params of members with a frozen network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(workspace, "SIDE", SIDE)
    for kind in ("intra", "inter"):  # which can't be set once TensorFlow runs
        name = f"tensorflow.config.threading.set_{kind}_op_parallelism_threads"
        monkeypatch.setattr(name, lambda count: None)
    made = workspace.make(tmp_path, 2, members=2)
    for file in ("dvc.yaml", "data/dvc.yaml"):
        made.write(file, (ROOT / file).read_text())
    for folder in ("brainmri", "stages"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    Path("data/weights").mkdir()
    keras.utils.set_random_seed(1)
    application_base(NETWORK, SIDE, None).save_weights("data/weights/base.weights.h5")
    network = {"name": NETWORK, "weights": "data/weights/base.weights.h5", "freeze": True}
    made.set(network=network, features__views=AUGMENTED, train__epochs=3, train__views="mirrored")
    return made


def compute() -> tuple[int, np.ndarray]:
    """Update the features; return how many images were computed, and the features of all."""
    params = load_params()
    with RadReader() as rad:
        computed = update_features(params.network, params, rad)
        return computed, FeatureReader(params.network.features, len(rad), "mirrored").of_views(
            range(len(rad))
        )


def files() -> dict[str, bytes]:
    folder = Path(load_params().network.features)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_features_of_known_images_are_not_computed_again(made):
    """Nor are those of equal images; with a new image all are as if computed from scratch."""
    made.images[3] = made.images[7]
    made.store()
    first, before = compute()
    assert first == len(made.images) - 1
    np.testing.assert_array_equal(before[3], before[7])
    assert compute()[0] == 0
    made.images[5] = 255 - made.images[5]
    made.images[[0, 1]] = made.images[[1, 0]]
    made.store()
    again, after = compute()
    assert again == 1
    np.testing.assert_array_equal(after[[0, 1]], before[[1, 0]])
    assert not np.array_equal(after[5], before[5])
    grown = files()
    shutil.rmtree("data/features")
    compute()
    assert files() == grown


def test_features_of_other_parameters_or_weights_are_computed_again(made):
    compute()
    for values in (
        {"features__views": 3},
        {"train__augment__rotation": 90.0},
        {"train__views": "plain"},
    ):
        made.set(**values)
        assert compute()[0] == len(made.images)
    file = load_params().network.weights_file
    keras.utils.set_random_seed(2)
    application_base(NETWORK, SIDE, None).save_weights(file)  # of the same name
    assert compute()[0] == len(made.images)
    Path(file).unlink()
    with pytest.raises(UserError, match=r"base\.weights\.h5 is missing; expected a file of"):
        compute()


def test_features_by_other_packages_are_computed_again(made, monkeypatch):
    compute()
    monkeypatch.setattr(keras, "__version__", "0.0.1")
    assert compute()[0] == len(made.images)


@pytest.mark.parametrize("file", ["networks/tta.py", "features/computation.py"])
def test_features_of_other_code_are_computed_again(made, file):
    compute()
    Path("brainmri").unlink()
    shutil.copytree(ROOT / "brainmri", "brainmri", ignore=shutil.ignore_patterns("__pycache__"))
    assert compute()[0] == 0
    with open(f"brainmri/{file}", "a") as code:
        code.write("# changed")
    assert compute()[0] == len(made.images)


def test_members_and_recipes_share_features(made):
    """Nothing that concerns a single member changes them."""
    compute()
    before = files()
    made.set(members=4, seed=9, recipes__base__dropout=0.1, weigh__scheme="auc")
    assert compute()[0] == 0
    assert files() == before


def test_damaged_features_are_an_error_of_one_line(made):
    """Or features of other images."""
    compute()
    folder = load_params().network.features
    with pytest.raises(UserError, match="features of other images"):
        FeatureReader(folder, 3, "plain")
    (Path(folder) / "features.npy").write_bytes(b"no array")
    with pytest.raises(UserError, match="missing or damaged; run `dvc repro --force features`"):
        FeatureReader(folder, len(made.images), "plain")


def test_other_files_among_the_features_are_removed(made, capsys):
    """Features of former networks, and files that a file manager leaves behind."""
    compute()
    kept = files()
    made.write("data/features/former/features.npy", "")
    made.write("data/features/.DS_Store", "")
    features.main()
    folder = load_params().network.features
    assert f"{folder}: 0 images computed" in capsys.readouterr().out
    assert [*map(str, Path("data/features").iterdir())] == [folder]
    assert files() == kept


def test_members_refuse_features_by_other_weights(made):
    """DVC computes features again for a change in data/weights, not of a file elsewhere."""
    compute()
    file, folder = load_params().network.weights_file, load_params().network.features
    features = FeatureReader(folder, len(made.images), "plain")
    features.check_weights(file)
    keras.utils.set_random_seed(2)
    application_base(NETWORK, SIDE, None).save_weights(file)
    with pytest.raises(UserError, match=r"features by other weights than those in .*base"):
        features.check_weights(file)


@pytest.fixture
def trained(made):
    """The folder, and two members that were trained on features."""
    made.set(train__precision="mixed_bfloat16")  # of training; features are computed in 32 bits
    made.split([*range(10)])
    rows = [*range(10, len(made.images))]
    params = load_params()
    compute()
    for name in params.ensemble:
        sample = {"in_bag": rows[:40], "out_of_bag": rows[40:]}
        made.write(f"data/bootstrap/{name}.json", json.dumps(sample))
        (made.folder / name).mkdir()
        train_member(name, params, made.folder / name)
    members = {name: load_model(made.folder / name / "model.keras") for name in params.ensemble}
    return made, members


def test_member_predicts_as_its_network_does(trained):
    """With the views of test-time augmentation, whatever the precision of training; the base is as
    it was, the last layer is not.
    """
    made, members = trained
    predictions = {}
    for name, model in members.items():
        table = (made.folder / name / "test.csv").read_text().splitlines()[1:]
        predictions[name] = np.array([line.split(",")[1:] for line in table], float)
        images = made.images[:10].astype(np.float32)
        np.testing.assert_allclose(model.predict(images, verbose=0), predictions[name], atol=2e-5)
    assert not np.allclose(predictions["member-00"], predictions["member-01"], atol=1e-3)
    metrics = json.loads((made.folder / "member-00/metrics.json").read_bytes())
    assert metrics["precision"] == "float32"
    base = application_base(NETWORK, SIDE, None)
    base.load_weights("data/weights/base.weights.h5")
    network = next(layer for layer in members["member-00"].layers if hasattr(layer, "layers"))
    for weights, expected in zip(
        network.get_layer("base").get_weights(), base.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(weights, expected)


def test_exported_ensemble_holds_a_frozen_network_once(trained, tmp_path):
    """Its predictions and heat maps are those of the members."""
    made, members = trained
    weights = {"member-00": 0.25, "member-01": 0.75}
    apart = build_ensemble_model(members, weights)
    frozen = dict.fromkeys(members, "shared")
    shared = build_ensemble_model(members, weights, frozen=frozen, views="mirrored")
    head = 2 * (2 * 1280 * 2 + 2)
    base = application_base(NETWORK, SIDE, None).count_params()
    assert shared.count_params() == apart.count_params() - base < base + 2 * head
    save_model(shared, tmp_path / "ensemble.keras")
    loaded = load_model(tmp_path / "ensemble.keras")
    images = made.images[:3]
    expected, predicted = batch_predictor(apart)(images), batch_predictor(loaded)(images)
    np.testing.assert_allclose(predicted["members"], expected["members"], atol=1e-6)
    np.testing.assert_allclose(predicted["probabilities"], expected["probabilities"], atol=1e-6)
    classes = np.array([1, 0, 1])
    maps = heat_maps(member_models(loaded, {"weights": weights}), weights, images, classes)
    np.testing.assert_allclose(maps, heat_maps(members, weights, images, classes), atol=1e-6)


def test_numbers_of_views(made):
    """Those of test-time augmentation come first."""
    for views, number in VIEWS.items():
        made.set(train__views=views)
        assert compute()[1].shape == (len(made.images), number + AUGMENTED, 2 * 1280)
