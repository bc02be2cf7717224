"""Metrics of the predictions for labeled images, computed again with scikit-learn."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sk

from brainmri.common.files import format_json
from brainmri.predict import labeled
from brainmri.predict.labeled import describe_metrics, evaluate_labeled
from brainmri.predict.prediction import Prediction
from tests.support.predictions import ABOUT, prediction_of


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(labeled, "RESAMPLES", 100)


def flip(hash_: np.ndarray, bits: int) -> np.ndarray:
    """Invert the first bits of a hash."""
    return np.packbits(np.unpackbits(hash_) ^ (np.arange(256) < bits))


def to_digits(hashes: np.ndarray) -> tuple[str, ...]:
    """The hashes of an image, shape (4, 32), in hexadecimal."""
    return tuple(digits.tobytes().hex() for digits in hashes)


def labeled_images(
    hashes: np.ndarray, positive: np.ndarray, novelty: np.ndarray | None = None
) -> tuple[list[Prediction], dict[Path, int]]:
    """Predictions for images with these hashes, shape (n, 4, 32), and their true classes.

    The first half is of class "no".
    """
    predictions = [
        prediction_of(
            f"{row}.png",
            positive[row],
            row,
            0.5 if novelty is None else novelty[row],
            perceptual_hashes=to_digits(digits),
        )
        for row, digits in enumerate(hashes)
    ]
    return predictions, {
        Path(f"{row}.png"): int(2 * row >= len(hashes)) for row in range(len(hashes))
    }


def trained_on(hashes: np.ndarray, bits: int = 20) -> dict:
    """The description of an ensemble whose training images have these hashes."""
    training = {"near_duplicate_bits": bits, "perceptual_hashes": [*map(to_digits, hashes)]}
    return {**ABOUT, "training_images": training}


@pytest.fixture
def hashes() -> np.ndarray:
    return np.random.default_rng(6).integers(0, 256, (40, 4, 32), np.uint8)


@pytest.fixture
def positive() -> np.ndarray:
    """Probabilities, of which some are on the wrong side."""
    truth = np.arange(40) >= 20
    noise = np.random.default_rng(7).normal(0, 0.25, 40)
    return np.clip(0.5 + 0.2 * (2 * truth - 1) + noise, 0.01, 0.99)


def test_metrics_of_labeled_images_agree_with_scikit_learn():
    rng = np.random.default_rng(4)
    truth = rng.integers(0, 2, 40)
    positive = np.clip(0.5 + 0.2 * (2 * truth - 1) + rng.normal(0, 0.25, 40), 0.01, 0.99)
    predictions = [
        prediction_of(
            f"{row}.png",
            positive[row],
            row,
            0.8 + row / 100,
            perceptual_hashes=tuple(rng.bytes(32).hex() for _ in range(4)),
        )
        for row in range(40)
    ]
    labels = {Path(f"{row}.png"): int(truth[row]) for row in reversed(range(40))}
    evaluated = evaluate_labeled(predictions, labels, ABOUT)
    metrics = evaluated["without_near_duplicates"]
    assert metrics == evaluated["all"]
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
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    recall = {"no": np.mean(predicted[truth == 0] == 0), "yes": np.mean(predicted[truth == 1])}
    assert metrics["recall"] == pytest.approx(recall)
    decided = (positive >= 0.4).astype(int)
    rates = {
        "sensitivity": sk.recall_score(truth, decided),
        "specificity": sk.recall_score(truth, decided, pos_label=0),
        "ppv": sk.precision_score(truth, decided),
        "npv": sk.precision_score(truth, decided, pos_label=0),
    }
    rule = metrics["decision_rule"]
    assert {name: rule["rates"][name] for name in rates} == pytest.approx(rates)
    assert rule["accuracy"] == pytest.approx(sk.accuracy_score(truth, decided))
    assert (rule["name"], rule["threshold"], rule["rates"]["positive"]) == ("youden", 0.4, "yes")
    confidence = np.maximum(positive, 1 - positive)
    bins = np.digitize(confidence, np.arange(0.1, 1, 0.1))
    error = 0
    for number in np.unique(bins):
        of_bin = bins == number
        accuracy = (predicted == truth)[of_bin].mean()
        error += np.mean(of_bin) * abs(confidence[of_bin].mean() - accuracy)
    assert metrics["expected_calibration_error"] == pytest.approx(error)
    assert metrics["images"] == evaluated["images"] == 40
    assert evaluated["near_duplicates_of_training_images"] == 0
    assert evaluated["unlike_training_images"] == 19  # 1.0 is not above the limit
    assert metrics["independent_groups"] == {"no": np.sum(truth == 0), "yes": np.sum(truth == 1)}
    low, high = metrics["interval"]["accuracy"]
    assert low < expected["accuracy"] < high


def test_near_duplicates_of_labeled_images_count_as_one_group():
    """By the head's hash or by the whole image's, up to 20 bits apart."""
    rng = np.random.default_rng(5)
    hashes = rng.integers(0, 256, (14, 4, 32), np.uint8)
    hashes[1, 0] = flip(hashes[0, 0], 20)
    hashes[3, 1] = flip(hashes[2, 1], 20)
    hashes[5, 0] = flip(hashes[4, 0], 21)
    hashes[5, 1] = flip(hashes[4, 1], 21)
    predictions, labels = labeled_images(hashes, np.full(14, 0.6))
    metrics = evaluate_labeled(predictions, labels, ABOUT)
    assert metrics["all"]["independent_groups"] == {"no": 5, "yes": 7}


def test_near_duplicates_of_training_images_are_excluded(hashes, positive, capsys):
    """By either hash, up to the limit of the run that trained the ensemble."""
    training = np.random.default_rng(8).integers(0, 256, (9, 4, 32), np.uint8)
    training[0, 1] = flip(hashes[30, 1], 12)
    training[4, 0] = flip(hashes[3, 0], 13)  # above the limit
    training[5] = hashes[7]
    training[6, 0] = hashes[8, 1]  # a head is not compared with a whole image
    training[8, 0] = flip(hashes[21, 0], 1)
    predictions, labels = labeled_images(hashes, positive)
    metrics = evaluate_labeled(predictions, labels, trained_on(training, bits=12))
    near = [("7.png", 0), ("21.png", 1), ("30.png", 12)]
    assert metrics["near_duplicates"] == [{"file": file, "bits": bits} for file, bits in near]
    assert (metrics["images"], metrics["near_duplicates_of_training_images"]) == (40, 3)
    rest = [
        prediction for prediction in predictions if prediction.path.stem not in {"7", "21", "30"}
    ]
    assert metrics["without_near_duplicates"] == evaluate_labeled(rest, labels, ABOUT)["all"]
    assert metrics["without_near_duplicates"]["images"] == 37
    assert metrics["all"] == evaluate_labeled(predictions, labels, ABOUT)["all"]
    warning, *others = capsys.readouterr().err.splitlines()
    assert warning == (
        "warning: 3 of these 40 images are near duplicates of training images, such as"
        " '7.png' (0 of 256 bits), '21.png' (1 of 256 bits), '30.png' (12 of 256 bits)"
    )
    assert others == []
    # A line for each near duplicate
    text = format_json(metrics)
    assert '    {"file": "21.png", "bits": 1},\n' in text
    assert json.loads(text) == metrics


def test_metrics_without_images_unlike_the_training_images(hashes, positive):
    """Nor near duplicates of these."""
    novelty = np.where(np.arange(40) % 4 == 1, 1.1, 1.0)
    predictions, labels = labeled_images(hashes, positive, novelty)
    metrics = evaluate_labeled(predictions, labels, trained_on(hashes[:2]))
    rest = [prediction for prediction in predictions[2:] if not prediction.is_novel]
    assert metrics["unlike_training_images"] == 10
    assert metrics["without_near_duplicates_and_unlike"]["images"] == len(rest) == 29
    expected = evaluate_labeled(rest, labels, ABOUT)["all"]
    assert metrics["without_near_duplicates_and_unlike"] == expected


def test_headlines_are_described(hashes, positive):
    predictions, labels = labeled_images(hashes, positive)
    metrics = evaluate_labeled(predictions, labels, trained_on(hashes[:10]))
    headline, rates, sets, without_unlike, _, _, in_all, *_ = describe_metrics(metrics)
    assert rates.startswith("class 'yes': sensitivity ")
    assert sets.startswith("prediction sets for an error rate of 0.1: coverage of 'no' ")
    accuracy = np.mean((positive > 0.5) == (np.arange(40) >= 20))
    accuracy_of_rest = np.mean((positive > 0.5)[10:] == (np.arange(10, 40) >= 20))
    assert headline.startswith(
        "30 images without near duplicates of training images: accuracy"
        f" {accuracy_of_rest:.3f}, balanced accuracy "
    )
    assert without_unlike.startswith(
        "30 images without near duplicates and images unlike the training images"
    )
    assert in_all.startswith(f"40 images in all: accuracy {accuracy:.3f}, balanced accuracy ")


def test_only_near_duplicates_of_training_images(hashes, positive):
    """There are no metrics without them, and a line says so."""
    predictions, labels = labeled_images(hashes, positive)
    metrics = evaluate_labeled(predictions, labels, trained_on(hashes))
    assert metrics["near_duplicates_of_training_images"] == 40
    assert metrics["without_near_duplicates"] is None
    assert metrics["all"]["images"] == 40
    first, *_ = describe_metrics(metrics)
    assert first == "0 images without near duplicates of training images: no metrics"


def test_ensemble_without_hashes_of_training_images(hashes, positive, capsys):
    """Near duplicates are unknown: only the metrics of all images are there, and lines say so."""
    predictions, labels = labeled_images(hashes, positive)
    training = {"near_duplicate_bits": 20, "perceptual_hashes": None}
    metrics = evaluate_labeled(predictions, labels, {**ABOUT, "training_images": training})
    assert "no hashes of its training images (export.training_hashes: false)" in (
        capsys.readouterr().err
    )
    expected = evaluate_labeled(predictions, labels, trained_on(hashes[:0]))
    assert metrics["all"] == expected["all"]
    for key in (
        "near_duplicates",
        "near_duplicates_of_training_images",
        "without_near_duplicates",
        "without_near_duplicates_and_unlike",
    ):
        assert metrics[key] is None
    first, second, in_all, *_ = describe_metrics(metrics)
    unknown = "unknown, since this ensemble has no hashes of training images"
    assert first == f"without near duplicates of training images: {unknown}"
    assert second.endswith(f": {unknown}")
    assert in_all.startswith("40 images in all: accuracy ")


def test_metrics_of_labeled_patients(hashes, positive):
    """Slices of a patient are one group, and none is a test if one of them is a near duplicate."""
    patients = np.concatenate([np.arange(20) // 2, np.arange(20, 40) // 4 + 5])
    predictions, labels = labeled_images(hashes, positive)
    metrics = evaluate_labeled(predictions, labels, trained_on(hashes[[3]]), patients)
    assert metrics["near_duplicates_of_training_images"] == 1
    assert metrics["all"]["independent_groups"] == {"no": 10, "yes": 5}
    assert metrics["without_near_duplicates"]["independent_groups"] == {"no": 9, "yes": 5}
    assert metrics["without_near_duplicates"]["images"] == 38
    by_patient = metrics["all"]["by_patient"]
    means = [positive[patients == patient].mean() for patient in range(15)]
    is_correct = (np.array(means) > 0.5) == (np.arange(15) >= 10)
    assert (by_patient["patients"], by_patient["mixed_patients"]) == (15, 0)
    assert by_patient["accuracy"] == pytest.approx(is_correct.mean())
    assert metrics["without_near_duplicates"]["by_patient"]["patients"] == 14
    lines = list(describe_metrics(metrics))
    assert f"15 test patients: accuracy {is_correct.mean():.3f}" in "\n".join(lines)


def test_near_duplicates_join_patients(hashes, positive):
    """Two patients that share an image are no independent groups."""
    patients = np.arange(40) // 2
    hashes[5] = hashes[6]
    metrics = evaluate_labeled(*labeled_images(hashes, positive), ABOUT, patients)
    assert metrics["all"]["independent_groups"] == {"no": 9, "yes": 10}
    assert metrics["all"]["by_patient"]["independent_groups"] == {"no": 9, "yes": 10}
