"""The pipeline on a set that can be learned, and on the same set with shuffled labels.

What it reports is recomputed from its inputs by scikit-learn and NumPy, and by none of the
project's own functions.
"""

import csv
import fcntl
import functools
import json
import os
import shutil

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as sk
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from brainmri.evaluation.weighting import NOISE
from brainmri.store.reader import RadReader
from tests.support.learnable import write_images
from tests.support.project import Project

FOLDS, FOLD, SEED, MEMBERS = 4, 1, 3, 4
FRACTION = 0.35  # few draws, so that most images are out-of-bag to some member
SETTINGS = {
    "preset": "scratch",
    "data.source": "data/raw",
    "seed": SEED,
    "members": MEMBERS,
    "ingest.image_size": 32,
    "ingest.crop": False,
    "bootstrap.scheme": "bootstrap",
    "network.name": "residual-sides",
    "split.folds": FOLDS,
    "split.fold": FOLD,
    "train.epochs": 16,
    "train.mixup": 0.0,
    "train.label_smoothing": 0.0,
    "train.views": "plain",
    "evaluate.resamples": 400,
    **{f"recipes.{name}.augment": 0.0 for name in ("base", "strong", "light")},
    **{f"recipes.{name}.fraction": FRACTION for name in ("base", "strong", "light")},
}
CLASSES = ["no", "yes"]


def pipeline_run(small: Project, tmp_path_factory, shuffled: bool) -> Project:
    """Run the pipeline once for all tests, none of which changes the project."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / f"learnable-{shuffled}"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            shutil.rmtree(folder / "project", ignore_errors=True)
            project = small.copy(folder)
            write_images(project.path / "data/raw", shuffled)
            if shuffled:
                project.reproduce("export", **SETTINGS)
            else:
                project.reproduce("evaluate", **SETTINGS | {"members": 3})
            (folder / "done").touch()
    return Project(folder / "project")


@pytest.fixture(scope="session")
def learned(small, tmp_path_factory) -> Project:
    return pipeline_run(small, tmp_path_factory, shuffled=False)


@pytest.fixture(scope="session")
def shuffled(small, tmp_path_factory) -> Project:
    return pipeline_run(small, tmp_path_factory, shuffled=True)


class Rows:
    """Path, label, group and pixels of each row of the store, from the image files alone."""

    def __init__(self, project: Project):
        root = project.path / "data/raw"
        paths = sorted(path.relative_to(root) for path in root.rglob("*.png"))
        self.paths = [path.as_posix() for path in paths]
        self.labels = np.array([CLASSES.index(path.parts[0]) for path in paths])
        self.groups = np.array([int(path.name[:2]) for path in paths])
        images = [Image.open(root / path) for path in paths]
        resized = [image.resize((32, 32), Image.Resampling.BICUBIC) for image in images]
        self.pixels = np.stack([np.asarray(image) for image in resized])


class Run(Rows):
    """The same, with the files that the pipeline wrote."""

    def __init__(self, project: Project):
        super().__init__(project)
        self.project = project
        self.metadata = json.loads(project.read("data/rad/metadata.json"))
        self.split = json.loads(project.read("data/split.json"))
        self.names = [f"member-{index:02d}" for index in range(project.params["members"])]
        self.samples = {
            name: json.loads(project.read(f"data/bootstrap/{name}.json")) for name in self.names
        }
        self.weights = json.loads(project.read("models/weights.json"))
        self.metrics = json.loads(project.read("metrics/ensemble.json"))

    def predictions(self, name: str, part: str) -> tuple[list[int], np.ndarray]:
        """Return rows and class probabilities of a member's out-of-bag or test images."""
        content = self.project.read(f"models/members/{name}/{part}.csv")
        header, *lines = csv.reader(content.splitlines())
        assert header == ["row", *CLASSES]
        return [int(line[0]) for line in lines], np.array([line[1:] for line in lines], float)

    def calibrated(self, voter: str, votes: np.ndarray) -> np.ndarray:
        calibration = self.weights["calibrations"][voter]
        scores = votes ** (1 / calibration["temperature"]) * np.exp(calibration["biases"])
        return scores / scores.sum(axis=1, keepdims=True)

    def test_votes(self) -> dict[str, np.ndarray]:
        """Return calibrated probabilities of the test images, by voter."""
        of_members = {name: self.predictions(name, "test")[1] for name in self.names}
        weights = self.member_weights()
        votes = {
            "ensemble": np.average(list(of_members.values()), axis=0, weights=weights),
            "uniform vote": np.mean(list(of_members.values()), axis=0),
            **of_members,
        }
        return {voter: self.calibrated(voter, vote) for voter, vote in votes.items()}

    def member_weights(self) -> list[float]:
        return [self.weights["members"][name]["weight"] for name in self.names]

    def out_of_bag_votes(self, weights: list[float]) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows that are out-of-bag for some member, and those members' weighted mean."""
        votes, total = np.zeros((len(self.labels), 2)), np.zeros(len(self.labels))
        for name, weight in zip(self.names, weights, strict=True):
            rows, probabilities = self.predictions(name, "out_of_bag")
            for row, values in zip(rows, probabilities, strict=True):
                votes[row] += weight * values
                total[row] += weight
        rows = np.flatnonzero(total)
        return rows, votes[rows] / total[rows, None]

    def sharpness_gain(self) -> float:
        """Compare the effective number of voters of the vote with that of out-of-bag votes."""
        weights = np.array(self.member_weights())
        votes = np.zeros((len(weights), len(self.labels)))
        for number, name in enumerate(self.names):
            votes[number, self.predictions(name, "out_of_bag")[0]] = weights[number]
        votes = votes[:, votes.any(axis=0)]
        out_of_bag = votes.sum(axis=0) ** 2 / (votes**2).sum(axis=0)
        return (1 + NOISE / out_of_bag.mean()) / (1 + NOISE * (weights**2).sum())

    def predict(self, name: str, rows: list[int]) -> np.ndarray:
        """Predict class probabilities of these rows by a member's model."""
        return self.of_models[name][rows]

    @functools.cached_property
    def of_models(self) -> dict[str, np.ndarray]:
        """Class probabilities of all images by each member's model."""
        images, predicted = self.pixels[..., None].astype("float32"), {}
        for name in self.names:
            path = self.project.path / f"models/members/{name}/model.keras"
            model = keras.saving.load_model(path, safe_mode=True)
            predicted[name] = model.predict(images, verbose=0)
        return predicted


@pytest.fixture(scope="session")
def run(shuffled) -> Run:
    """The run on shuffled labels, whose metrics are not all 1."""
    return Run(shuffled)


def test_learnable_set_is_learned(learned):
    run = Run(learned)
    assert run.metrics["accuracy"] >= 0.95
    assert run.metrics["roc_auc"] >= 0.98
    rows, votes = run.out_of_bag_votes([1 / 3] * 3)
    assert roc_auc_score(run.labels[rows], votes[:, 1]) >= 0.95


def test_shuffled_labels_are_not_learned(run):
    """Any leak of held-out images, or of near duplicates, lifts one of these above chance."""
    assert 0.3 <= run.metrics["roc_auc"] <= 0.7
    rows, votes = run.out_of_bag_votes([1 / MEMBERS] * MEMBERS)
    assert len(rows) > 100
    assert 0.3 <= roc_auc_score(run.labels[rows], votes[:, 1]) <= 0.7
    for name in run.names:  # members have memorized their own images, so that a leak would show
        in_bag = sorted(set(run.samples[name]["in_bag"]))
        probabilities = run.predict(name, in_bag)
        assert roc_auc_score(run.labels[in_bag], probabilities[:, 1]) >= 0.9


def test_rows_are_the_files(run):
    assert [image["path"] for image in run.metadata["images"]] == run.paths
    assert [image["class"] for image in run.metadata["images"]] == [
        CLASSES[label] for label in run.labels
    ]
    with RadReader(run.project.path / "data/rad/image_data.h5") as rad:
        np.testing.assert_array_equal(rad.images(range(len(rad)))[..., 0], run.pixels)
        np.testing.assert_array_equal(rad.labels, run.labels)


def test_split_is_a_stratified_group_fold(run):
    groups = np.array(run.split["groups"])
    for group in np.unique(run.groups):  # of near duplicates, and of no others
        assert len(set(groups[run.groups == group])) == 1
    assert len(set(groups)) == len(set(run.groups)) == 70
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=SEED)
    training, test = list(splitter.split(run.labels, run.labels, groups))[FOLD]
    assert run.split["test"] == test.tolist()
    assert run.split["training"] == training.tolist()
    assert not set(run.groups[test]) & set(run.groups[training])


def test_samples_are_stratified_draws_with_replacement(run):
    training = np.array(run.split["training"])
    for index, name in enumerate(run.names):
        rng = np.random.default_rng(1000 * SEED + index)
        while True:
            of_class = [np.flatnonzero(run.labels[training] == label) for label in (0, 1)]
            drawn = [rng.choice(images, round(FRACTION * len(images))) for images in of_class]
            in_bag = training[np.sort(np.concatenate(drawn))]
            out_of_bag = [row for row in training if run.groups[row] not in set(run.groups[in_bag])]
            if len(set(run.labels[out_of_bag])) == 2:
                break
        assert run.samples[name] == {"in_bag": in_bag.tolist(), "out_of_bag": out_of_bag}
    assert len({tuple(sample["in_bag"]) for sample in run.samples.values()}) == MEMBERS


@pytest.mark.parametrize("part", ["out_of_bag", "test"])
def test_members_predict_the_images_of_their_rows(run, part):
    for name in run.names:
        rows, probabilities = run.predictions(name, part)
        expected = {"out_of_bag": run.samples[name]["out_of_bag"], "test": run.split["test"]}
        assert rows == expected[part]
        np.testing.assert_allclose(probabilities, run.predict(name, rows), atol=1e-5)


def test_members_report_their_out_of_bag_images(run):
    for name in run.names:
        rows, probabilities = run.predictions(name, "out_of_bag")
        reported = json.loads(run.project.read(f"metrics/members/{name}.json"))["out_of_bag"]
        assert reported["images"] == len(rows)
        accuracy = np.mean(probabilities.argmax(axis=1) == run.labels[rows])
        assert reported["accuracy"] == pytest.approx(accuracy)
        loss = sk.log_loss(run.labels[rows], probabilities)
        assert reported["log_loss"] == pytest.approx(loss, rel=1e-4)


def test_weights_follow_the_out_of_bag_log_loss(run):
    scores = {}
    for name in run.names:
        rows, probabilities = run.predictions(name, "out_of_bag")
        scores[name] = np.exp(-sk.log_loss(run.labels[rows], probabilities))
    for name, score in scores.items():
        member = run.weights["members"][name]
        assert member["score"] == pytest.approx(score, rel=1e-4)
        assert member["weight"] == pytest.approx(score / sum(scores.values()), rel=1e-4)
    assert len({round(score, 4) for score in scores.values()}) > 1


def test_calibration_minimizes_the_penalized_log_loss(run):
    """Of out-of-bag votes; then the vote is sharpened, since it has more members."""
    rows, votes = run.out_of_bag_votes(run.member_weights())
    labels = run.labels[rows]

    def objective(log_temperature: float, bias: float) -> float:
        scores = votes ** np.exp(-log_temperature) * np.exp([0, bias])
        likelihood = (scores / scores.sum(axis=1, keepdims=True))[np.arange(len(labels)), labels]
        return -np.log(likelihood).sum() + (log_temperature / 0.5) ** 2 / 2 + bias**2 / 2

    calibration = run.weights["calibrations"]["ensemble"]
    gain = run.sharpness_gain()
    best = np.log(calibration["temperature"] * gain), calibration["biases"][1] / gain
    assert calibration["biases"][0] == 0
    for step in (-0.05, 0.05):
        assert objective(*best) < objective(best[0] + step, best[1])
        assert objective(*best) < objective(best[0], best[1] + step)


def test_metrics_are_scikit_learns(run):
    labels = run.labels[run.split["test"]]
    probabilities = run.test_votes()["ensemble"]
    predicted = probabilities.argmax(axis=1)
    expected = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "roc_auc": sk.roc_auc_score(labels, probabilities[:, 1]),
        "average_precision": sk.average_precision_score(labels, probabilities[:, 1]),
        "f1": sk.f1_score(labels, predicted),
        "log_loss": sk.log_loss(labels, probabilities),
        "brier_score": sk.brier_score_loss(labels, probabilities[:, 1]),
    }
    for name, value in expected.items():
        assert run.metrics[name] == pytest.approx(value, abs=1e-5), name
    assert run.metrics["test_images"] == len(labels)
    recalls = sk.recall_score(labels, predicted, average=None)
    assert list(run.metrics["recall"].values()) == pytest.approx(recalls)
    confidence, is_correct = probabilities.max(axis=1), predicted == labels
    error = 0.0
    for low in np.arange(0, 1, 0.1):
        inside = (confidence >= low) & ((confidence < low + 0.1) | (low > 0.85))
        if inside.any():
            error += inside.mean() * abs(confidence[inside].mean() - is_correct[inside].mean())
    assert run.metrics["expected_calibration_error"] == pytest.approx(error, abs=1e-5)


def test_voters_to_compare_with(run):
    """The best member by out-of-bag log loss, the mean member and the uniform vote."""
    labels, votes = run.labels[run.split["test"]], run.test_votes()
    losses = {}
    for name in run.names:
        rows, probabilities = run.predictions(name, "out_of_bag")
        losses[name] = sk.log_loss(run.labels[rows], probabilities)
    best = min(losses, key=losses.get)
    assert run.metrics["best_member"]["name"] == best
    voters_of = {
        "best_member": [best],
        "mean_member": run.names,
        "uniform_vote": ["uniform vote"],
    }
    for key, voters in voters_of.items():
        predicted = [votes[voter].argmax(axis=1) for voter in voters]
        accuracy = np.mean([sk.accuracy_score(labels, classes) for classes in predicted])
        loss = np.mean([sk.log_loss(labels, votes[voter]) for voter in voters])
        assert run.metrics[key]["accuracy"] == pytest.approx(accuracy)
        assert run.metrics[key]["log_loss"] == pytest.approx(loss, abs=1e-5)


def test_tables_have_classes_and_votes(run):
    test, votes = run.split["test"], run.test_votes()
    rows = list(csv.DictReader(run.project.read("plots/data/predictions.csv").splitlines()))
    images = json.loads(run.project.read("data/rad/metadata.json"))["images"]
    assert [row["image"] for row in rows] == [images[row]["sha256"][:12] for row in test]
    assert [row["class"] for row in rows] == [CLASSES[label] for label in run.labels[test]]
    assert [row["predicted"] for row in rows] == [
        CLASSES[label] for label in votes["ensemble"].argmax(axis=1)
    ]
    probabilities = np.array(
        [[row["probability of no"], row["probability of yes"]] for row in rows], float
    )
    np.testing.assert_allclose(probabilities, votes["ensemble"], atol=1e-5)
    table = list(csv.DictReader(run.project.read("plots/data/votes.csv").splitlines()))
    for voter in ("uniform vote", *run.names):
        lines = [line for line in table if line["voter"] == voter]
        assert [int(line["row"]) for line in lines] == test
        assert [int(line["group"]) for line in lines] == [run.split["groups"][row] for row in test]
        probabilities = [float(line["probability of yes"]) for line in lines]
        np.testing.assert_allclose(probabilities, votes[voter][:, 1], atol=1e-5)


def test_predictions_of_files_are_the_vote(run):
    """By the exported model."""
    test = run.split["test"][:12]
    files = [f"data/raw/{run.paths[row]}" for row in test]
    output = run.project.run("python", "-m", "brainmri.predict", "--json", *files).stdout
    lines = [json.loads(line) for line in output.splitlines()]
    votes = run.test_votes()["ensemble"][:12]
    assert [line["file"] for line in lines] == files
    assert [line["class"] for line in lines] == [CLASSES[vote.argmax()] for vote in votes]
    probabilities = [[line["probability of no"], line["probability of yes"]] for line in lines]
    np.testing.assert_allclose(probabilities, votes, atol=1e-4)
