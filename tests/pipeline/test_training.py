"""Each training option has its effect and no other; a member trains on its in-bag images alone."""

import csv
import json
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import xlogy
from sklearn import metrics as sk

from brainmri.common.errors import UserError
from brainmri.common.params import Params, validate
from brainmri.common.progress import parse_record
from brainmri.common.resources import usable_cores
from brainmri.networks.builders import build_network
from brainmri.parallel import staging
from brainmri.store.reader import RadReader
from brainmri.training import budget, fitting, member
from brainmri.training.augmentation import augment
from brainmri.training.fitting import fit, learning_rate_schedule
from brainmri.training.history import evaluation_sample
from brainmri.training.input import training_batches
from brainmri.training.member import check_weights, train_member
from brainmri.training.prediction import BATCH_SIZE, predict, read_images
from tests.support import workspace
from tests.support.workspace import NO_AUGMENTATION

PLAIN = {
    "epochs": 1,
    "batch_size": 8,
    "schedule": "constant",
    "clip_norm": None,
    "label_smoothing": 0.0,
    "class_weights": "none",
    "mixup": 0.0,
    "views": "plain",
    "augment": NO_AUGMENTATION,
}
RECIPES = ("base", "strong", "light")
STILL = 1e-30  # a learning rate that leaves the weights as they are
SIDE = workspace.SIDE


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = workspace.make(tmp_path, 2)
    made.threads = {}
    for kind in ("intra", "inter"):
        # Once TensorFlow runs in this process, they can't be set any more.
        name = f"tensorflow.config.threading.set_{kind}_op_parallelism_threads"
        monkeypatch.setattr(name, lambda count, kind=kind: made.threads.update({kind: count}))
    made.set(network__name="notebook-1", **{f"train__{key}": value for key, value in PLAIN.items()})
    for recipe in RECIPES:
        made.set(**{f"recipes__{recipe}__{key}": 0.0 for key in ("l1", "l2", "dropout")})
    return made


def settings(made, **options):
    """Return training params and the first member's, whose options begin with `member_`."""
    params = validate(made.params, Params)
    of_member = {
        key.removeprefix("member_"): value
        for key, value in options.items()
        if key.startswith("member_")
    }
    of_training = {key: value for key, value in options.items() if not key.startswith("member_")}
    changes = params.train.augment.model_copy(update=of_training.pop("augment", {}))
    train = params.train.model_copy(update={**of_training, "augment": changes})
    return train, params.ensemble["member-00"].model_copy(update=of_member)


def batches(made, in_bag, count, **options):
    """Return the first batches of a training: images, labels and weights of each."""
    with RadReader() as rad:
        dataset = training_batches(rad, in_bag, len(made.classes), *settings(made, **options))
        return [[np.asarray(part) for part in batch] for batch in dataset.take(count)]


def initial(made, l1=0.0, l2=0.0):
    keras.utils.set_random_seed(3)
    return build_network("notebook-1", SIDE, len(made.classes), l1, l2, 0.0)


def fitted(made, in_bag, out_of_bag, l1=0.0, l2=0.0, **options):
    """Return a trained network and its history."""
    model, classes = initial(made, l1, l2), len(made.classes)
    with RadReader() as rad:
        history = fit(model, rad, in_bag, out_of_bag, classes, *settings(made, **options))
    return model, history


def imbalanced(made):
    """Return sixteen rows, of which every fourth is of the first class.

    The first row is drawn twice more in place of the last two.
    """
    first, second = (np.flatnonzero(made.labels == label).tolist() for label in (0, 1))
    rows = sorted(first[:4] + second[:12])
    return [*rows[:-2], rows[0], rows[0]]


def pixels_of(made, rows):
    return made.images[rows].astype(np.float32)


def one_hot(made, rows):
    return np.eye(len(made.classes))[made.labels[rows]]


def kernels_of(model):
    return [layer.kernel.numpy() for layer in model.layers if hasattr(layer, "kernel")]


def column(history, name):
    return [metrics[name] for metrics in history]


def test_a_pass_has_each_in_bag_draw_once(made):
    """With its own label, in another order each time."""
    in_bag = imbalanced(made)
    first, second = batches(made, in_bag, 4)[:2], batches(made, in_bag, 4)[2:]
    orders = []
    for one_pass in (first, second):
        images, labels, weights = (np.concatenate(parts) for parts in zip(*one_pass, strict=True))
        rows = [
            next(row for row in in_bag if np.array_equal(image, pixels_of(made, row)))
            for image in images
        ]
        assert sorted(rows) == sorted(in_bag)
        np.testing.assert_array_equal(labels, one_hot(made, rows))
        np.testing.assert_array_equal(weights, np.ones(16))
        orders.append(rows)
    assert orders[0] != orders[1]
    assert orders[0] != in_bag


def test_batches_depend_on_the_members_seed(made):
    """And on nothing else."""
    in_bag = imbalanced(made)
    changes = {"augment": {"rotation": 10.0}, "mixup": 0.4}
    first, again, other = (
        batches(made, in_bag, 3, member_seed=seed, **changes) for seed in (1, 1, 2)
    )
    for batch, same, different in zip(first, again, other, strict=True):
        for part, same_part in zip(batch, same, strict=True):
            np.testing.assert_array_equal(part, same_part)
        assert not np.array_equal(batch[0], different[0])


def test_cache_and_batch_size_keep_the_images(made):
    in_bag = imbalanced(made)
    in_memory, read, doubled, replicated = (
        batches(made, in_bag, 2, **options)
        for options in ({"cache": "memory"}, {"cache": "none"}, {"batch_size": 16}, {"replicas": 2})
    )
    for part in range(3):
        np.testing.assert_array_equal(in_memory[0][part], read[0][part])
        both = np.concatenate([batch[part] for batch in in_memory])
        np.testing.assert_array_equal(both, doubled[0][part])
        np.testing.assert_array_equal(replicated[0][part], doubled[0][part])


def test_class_weights_change_weights_alone(made):
    in_bag = imbalanced(made)
    plain, balanced = batches(made, in_bag, 2), batches(made, in_bag, 2, class_weights="balanced")
    counts = np.bincount(made.labels[in_bag])
    assert counts.tolist() != [8, 8]
    for (images, labels, _), (same_images, same_labels, weights) in zip(
        plain, balanced, strict=True
    ):
        np.testing.assert_array_equal(images, same_images)
        np.testing.assert_array_equal(labels, same_labels)
        np.testing.assert_allclose(weights, (16 / (2 * counts))[labels.argmax(axis=1)], rtol=1e-6)


def test_mixup_leaves_weights(made):
    """And mixes images and labels in the same fractions."""
    in_bag = imbalanced(made)
    plain = batches(made, in_bag, 8, class_weights="balanced")
    mixed = batches(made, in_bag, 8, class_weights="balanced", mixup=0.4)
    fractions = []
    for (images, labels, weights), (changed, changed_labels, same_weights) in zip(
        plain, mixed, strict=True
    ):
        np.testing.assert_array_equal(weights, same_weights)
        for position in range(8):
            difference = images[position - 1] - images[position]
            projection = np.sum((changed[position] - images[position]) * difference)
            fraction = projection / max(np.sum(difference**2), 1e-9)
            expected = images[position] + fraction * difference
            np.testing.assert_allclose(changed[position], expected, atol=0.01)
            if np.any(difference):
                expected = labels[position] + fraction * (labels[position - 1] - labels[position])
                np.testing.assert_allclose(changed_labels[position], expected, atol=1e-4)
                fractions.append(fraction)
    fractions = np.array(fractions)
    assert 0.3 < fractions.max() <= 0.4
    assert fractions.min() >= 0
    assert 0.25 < np.mean(fractions > 1e-6) < 0.75


@pytest.mark.parametrize(
    "change",
    [
        {"flip": True},
        *({key: 0.3} for key in NO_AUGMENTATION if key not in ("flip", "rotation")),
        {"rotation": 20.0},
    ],
    ids=str,
)
def test_augmentation_changes_images_alone(made, change):
    """By the strength of the member's recipe."""
    in_bag, strength = imbalanced(made), 1.5
    plain = batches(made, in_bag, 2, class_weights="balanced")
    changed = batches(
        made, in_bag, 2, class_weights="balanced", augment=change, member_augment=strength
    )
    (key, value), seed = *change.items(), settings(made)[1].seed
    by_hand = {**NO_AUGMENTATION, key: value if key == "flip" else strength * value}
    for step, ((images, *rest), (images_changed, *same)) in enumerate(
        zip(plain, changed, strict=True)
    ):
        expected = augment(images, tf.constant([step, seed], tf.int64), **by_hand)
        np.testing.assert_allclose(images_changed, expected, atol=1e-3)
        assert np.abs(images_changed - images).mean() > 0.1
        for part, same_part in zip(rest, same, strict=True):
            np.testing.assert_array_equal(part, same_part)


@pytest.mark.parametrize(
    ("options", "smoothing", "balanced", "l1", "l2"),
    [
        ({}, 0, False, 0, 0),
        ({"label_smoothing": 0.2}, 0.2, False, 0, 0),
        ({"class_weights": "balanced"}, 0, True, 0, 0),
        ({"l1": 1e-3}, 0, False, 1e-3, 0),
        ({"l2": 1e-2}, 0, False, 0, 1e-2),
    ],
    ids=["plain", "label smoothing", "class weights", "l1", "l2"],
)
def test_loss_is_weighted_smoothed_cross_entropy(made, options, smoothing, balanced, l1, l2):
    """With penalties. The other metrics are plain, whatever the options."""
    in_bag, out_of_bag = imbalanced(made), [*range(len(made.labels))][-40:]
    model, history = fitted(
        made, in_bag, out_of_bag, batch_size=16, member_learning_rate=STILL, **options
    )
    [metrics] = history
    for part, rows in {"in_bag": sorted({*in_bag}), "out_of_bag": out_of_bag}.items():
        labels, probabilities = made.labels[rows], model.predict(pixels_of(made, rows), verbose=0)
        loss = sk.log_loss(labels, probabilities)
        assert metrics[f"{part}_log_loss"] == pytest.approx(loss, rel=1e-4)
        accuracy = sk.accuracy_score(labels, probabilities.argmax(axis=1))
        assert metrics[f"{part}_accuracy"] == pytest.approx(accuracy)
    assert metrics["learning_rate"] == pytest.approx(STILL)

    images, targets = pixels_of(made, in_bag), one_hot(made, in_bag)
    # By the batch's own statistics, as in training
    probabilities = np.asarray(model(images, training=True), np.float64)
    targets = targets * (1 - smoothing) + smoothing / 2
    weights = np.ones(16)
    if balanced:
        weights = 16 / (2 * np.bincount(made.labels[in_bag]))[made.labels[in_bag]]
    kernels = kernels_of(model)
    penalties = sum(l1 * np.abs(kernel).sum() + l2 * (kernel**2).sum() for kernel in kernels)
    assert len(kernels) == 3
    loss = -np.mean(weights * xlogy(targets, probabilities).sum(axis=1)) + penalties
    assert metrics["loss"] == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("clip_norm", [None, 1e-6, 1e6])
def test_first_step_is_adams(made, clip_norm):
    """Of the gradient clipped by its global norm."""
    in_bag = imbalanced(made)
    before = initial(made)
    with tf.GradientTape() as tape:
        predicted = before(pixels_of(made, in_bag), training=True)
        losses = keras.losses.categorical_crossentropy(one_hot(made, in_bag), predicted)
        loss = tf.reduce_mean(losses)
    gradients = [
        np.asarray(gradient, np.float64)
        for gradient in tape.gradient(loss, before.trainable_variables)
    ]
    norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
    factor = min(1, clip_norm / norm) if clip_norm else 1
    assert 0.01 < norm < 100
    model, _ = fitted(
        made, in_bag, in_bag, batch_size=16, clip_norm=clip_norm, member_learning_rate=0.01
    )
    pairs = zip(model.trainable_variables, initial(made).trainable_variables, strict=True)
    steps = [new.numpy() - old.numpy() for new, old in pairs]
    for step, gradient in zip(steps, gradients, strict=True):
        clipped = factor * gradient
        large = np.abs(gradient) > 1e-4 * norm  # of others, rounding decides the sign
        epsilon = 1e-7 / np.sqrt(1 - 0.999)  # Keras's, in the first step
        expected = -0.01 * clipped / (np.abs(clipped) + epsilon)
        np.testing.assert_allclose(step[large], expected[large], rtol=0.02, atol=2e-6)
    largest = max(np.abs(step).max() for step in steps)
    assert (largest < 0.0095) == (clip_norm == 1e-6)


def test_cosine_schedule():
    """It warms up for three epochs, fewer of few, and falls to zero."""

    def rates(steps, every, epochs):
        schedule = learning_rate_schedule(0.02, steps, epochs, "cosine")
        return [float(schedule(step)) for step in every]

    expected = [0.02 * step / 15 for step in range(15)]
    expected += [0.01 * (1 + np.cos(np.pi * step / 25)) for step in range(26)]
    np.testing.assert_allclose(rates(5, range(41), epochs=8), expected, atol=1e-7)
    short = rates(5, (0, 4, 5, 10), epochs=2)
    np.testing.assert_allclose(short, [0, 0.016, 0.02, 0], atol=1e-7)
    single = rates(4, (0, 2, 4), epochs=1)
    np.testing.assert_allclose(single, [0.02, 0.01, 0], atol=1e-7)
    assert learning_rate_schedule(0.02, 5, 8, "constant") == 0.02


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_schedule_is_followed(made, schedule, capsys):
    """Epoch by epoch, each of which is reported."""
    model, history = fitted(
        made,
        imbalanced(made),
        imbalanced(made),
        epochs=5,
        schedule=schedule,
        member_learning_rate=0.01,
    )
    assert int(model.optimizer.iterations) == 10  # two batches of eight, five times
    rates = [0.01] * 5
    if schedule == "cosine":
        rates = [0.005, 0.01, *(0.005 * (1 + np.cos(np.pi * step / 6)) for step in (2, 4, 6))]
    np.testing.assert_allclose(column(history, "learning_rate"), rates, atol=1e-8)
    records = [parse_record(line) for line in capsys.readouterr().out.splitlines()]
    records = [record for record in records if "epoch" in record]
    assert [record["epoch"] for record in records] == [1, 2, 3, 4, 5]
    assert {record["epochs"] for record in records} == {5}
    assert [record["metrics"] for record in records] == history


@pytest.mark.parametrize(
    ("options", "epochs"),
    [({"epochs": "auto"}, 2), ({"member_epochs": "auto"}, 2), ({"member_epochs": 3}, 3)],
    ids=["auto", "recipe's auto", "recipe's number"],
)
def test_epochs_of_a_member(made, monkeypatch, capsys, options, epochs):
    """By its in-bag images, with repetitions, or its recipe; the schedule ends with them."""
    monkeypatch.setattr(budget, "SCRATCH_EPOCHS", 4)
    monkeypatch.setattr(budget, "MAX_IMAGES", 8)  # half of the images drawn
    monkeypatch.setattr(budget, "MIN_EPOCHS", 1)
    in_bag = imbalanced(made)
    model, history = fitted(made, in_bag, in_bag, schedule="cosine", **options)
    assert len(history) == epochs
    assert int(model.optimizer.iterations) == 2 * epochs
    assert column(history, "learning_rate")[-1] == pytest.approx(0, abs=1e-8)
    records = [parse_record(line) for line in capsys.readouterr().out.splitlines()]
    assert {record["epochs"] for record in records if "epochs" in record} == {epochs}


def test_long_epochs_are_run_some_steps_at_a_time(made, monkeypatch, capsys):
    """Rounded up to a multiple of these; how many images are done is reported within an epoch."""
    monkeypatch.setattr(fitting, "MAX_STEPS_AT_ONCE", 3)
    monkeypatch.setattr(fitting, "STEPS_AT_ONCE", 2)
    monkeypatch.setattr("brainmri.training.history.PRINT_EVERY_S", 0.0)
    rows = [*range(20)]
    model, _ = fitted(made, rows, rows, batch_size=4, epochs=2)
    assert int(model.optimizer.iterations) == 2 * 6
    records = [parse_record(line) for line in capsys.readouterr().out.splitlines()]
    done = [record["images"] for record in records if "images" in record]
    assert done == [6, 13, 20, 26, 33, 40]
    assert {record["all_images"] for record in records if "images" in record} == {40}


def contradictory(made):
    """Return rows to train on, and rows of the same images with the other label.

    The loss of the latter grows as that of the former shrinks.
    """
    made.images[16:32], made.labels[16:32] = made.images[:16], 1 - made.labels[:16]
    made.store()
    return [*range(16)], [*range(16, 32)]


def test_early_stopping_keeps_the_best_weights(made):
    """And ends after its patience."""
    in_bag, out_of_bag = contradictory(made)
    options = {"epochs": 9, "member_learning_rate": 0.003}
    stopped, history = fitted(made, in_bag, out_of_bag, early_stopping=3, **options)
    _, whole = fitted(made, in_bag, out_of_bag, **options)
    losses = column(whole, "out_of_bag_log_loss")
    best = int(np.argmin(losses))
    assert best + 3 < 8
    assert len(whole) == 9
    assert len(history) == best + 1 + 3
    np.testing.assert_allclose(
        column(history, "out_of_bag_log_loss"), losses[: len(history)], rtol=1e-5
    )
    probabilities = stopped.predict(pixels_of(made, out_of_bag), verbose=0)
    loss = sk.log_loss(made.labels[out_of_bag], probabilities)
    assert loss == pytest.approx(losses[best], rel=1e-4)
    assert losses[len(history) - 1] > losses[best] * 1.05


def test_early_stopping_continues_while_the_loss_falls_a_little(made):
    rows = imbalanced(made)
    _, history = fitted(made, rows, rows, epochs=6, member_learning_rate=3e-4, early_stopping=2)
    falls = -np.diff(column(history, "out_of_bag_log_loss"))
    assert len(history) == 6
    assert 0 < falls.min() <= falls.max() < 0.1


def test_learning_rate_is_halved_on_a_plateau(made):
    """After epochs without a better out-of-bag log loss."""
    rows = contradictory(made)
    _, history = fitted(made, *rows, epochs=9, reduce_lr=2, member_learning_rate=0.003)
    rate, best, waited = 0.003, np.inf, 0
    for metrics in history:
        assert metrics["learning_rate"] == pytest.approx(rate)
        loss = metrics["out_of_bag_log_loss"]
        if loss < best - 1e-4:
            best, waited = loss, 0
        else:
            waited += 1
        if waited == 2:
            rate, waited = rate / 2, 0
    assert rate < 0.002


def test_predictions_are_in_the_order_of_rows(made):
    model, rows = initial(made), np.random.default_rng(0).permutation(len(made.labels)).tolist()
    assert len(rows) > BATCH_SIZE
    with RadReader() as rad:
        probabilities = predict(model, partial(read_images, rad), rows)
    expected = model.predict(pixels_of(made, rows), verbose=0)
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    assert probabilities.std(axis=0).min() > 1e-4


def test_evaluation_sample():
    """All in-bag images, or 64 evenly spaced ones."""
    assert evaluation_sample([7, 3, 3, 9]) == [3, 7, 9]
    rows = evaluation_sample([*range(0, 1000, 2), 4, 4])
    assert len(rows) == len({*rows}) == 64
    assert (rows[0], rows[-1]) == (0, 998)
    assert {*np.diff(rows).tolist()} <= {14, 16, 18}


PARTS = {
    "in_bag": [*range(0, 40, 2), 0, 2],
    "out_of_bag": [*range(1, 40, 2)],
    "test": [*range(40, 60)],
}


def train(made, folder="trained", **options):
    """Train member-01 on `PARTS`; return the folder."""
    made.split(PARTS["test"] + [*range(60, len(made.labels))])
    sample = {key: PARTS[key] for key in ("in_bag", "out_of_bag")}
    made.write("data/bootstrap/member-01.json", json.dumps(sample))
    made.set(**{f"train__{key}": value for key, value in options.items()})
    made.store()
    keras.backend.clear_session()  # as in a process of its own: layers are numbered from the start
    train_member("member-01", validate(made.params, Params), made.folder / folder)
    return made.folder / folder


def test_members_train_on_in_bag_images_alone(made):
    first = train(made, "first", epochs=2)
    others = PARTS["out_of_bag"] + PARTS["test"] + [*range(60, len(made.labels))]
    made.images[others], made.labels[others] = 255 - made.images[others], 1 - made.labels[others]
    second = train(made, "second", epochs=2)
    assert (first / "model.keras").read_bytes() == (second / "model.keras").read_bytes()
    made.images[PARTS["in_bag"][5]] = 255 - made.images[PARTS["in_bag"][5]]
    third = train(made, "third", epochs=2)
    made.labels[PARTS["in_bag"][7]] = 1 - made.labels[PARTS["in_bag"][7]]
    fourth = train(made, "fourth", epochs=2)
    assert len({(folder / "model.keras").read_bytes() for folder in (first, third, fourth)}) == 3


@pytest.mark.parametrize("views", ["plain", "mirrored"])
def test_files_of_a_member_are_of_its_model(made, views):
    """Predictions, metrics and history, for the member's rows."""
    folder = train(made, epochs=3, views=views)
    model = keras.saving.load_model(folder / "model.keras", safe_mode=True)
    mirrored = model.predict(made.images[:, :, ::-1].astype(np.float32), verbose=0)
    test = PARTS["test"] + [*range(60, len(made.labels))]
    probabilities = {}
    for part, rows in (("out_of_bag", PARTS["out_of_bag"]), ("test", test)):
        header, *lines = csv.reader((folder / f"{part}.csv").read_text().splitlines())
        assert header == ["row", *made.classes]
        assert [int(line[0]) for line in lines] == rows
        probabilities[part] = np.array([line[1:] for line in lines], float)
        expected = model.predict(pixels_of(made, rows), verbose=0)
        np.testing.assert_allclose(probabilities[part], expected, atol=1e-5)
        same = np.allclose(probabilities[part], mirrored[rows], atol=1e-5)
        assert same == (views == "mirrored")
    labels = made.labels[PARTS["out_of_bag"]]
    predicted = probabilities["out_of_bag"].argmax(axis=1)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["out_of_bag"] == {
        "accuracy": pytest.approx(np.mean(predicted == labels)),
        "log_loss": pytest.approx(sk.log_loss(labels, probabilities["out_of_bag"]), rel=1e-4),
        "images": len(labels),
    }
    assert (metrics["epochs"], metrics["precision"]) == (3, "float32")
    assert metrics["weights"] == sum(weights.size for weights in model.get_weights())
    history = list(csv.DictReader((folder / "history.csv").read_text().splitlines()))
    assert [line["epoch"] for line in history] == ["1", "2", "3"]
    if views == "plain":
        for part, rows in (
            ("in_bag", sorted({*PARTS["in_bag"]})),
            ("out_of_bag", PARTS["out_of_bag"]),
        ):
            of_part = model.predict(pixels_of(made, rows), verbose=0)
            loss = sk.log_loss(made.labels[rows], of_part)
            assert float(history[-1][f"{part}_log_loss"]) == pytest.approx(loss, rel=1e-3)
            accuracy = np.mean(of_part.argmax(axis=1) == made.labels[rows])
            assert float(history[-1][f"{part}_accuracy"]) == pytest.approx(accuracy, abs=1e-5)


def stand_still(made):
    """Let no step change a weight: what is trained keeps its first weights."""
    made.set(**{f"recipes__{recipe}__learning_rate": STILL for recipe in RECIPES})


def test_threads_and_seed_reach_tensorflow(made):
    stand_still(made)
    kernels = []
    for seed in (5, 6):
        made.set(seed=seed)
        model = keras.saving.load_model(train(made, threads=3) / "model.keras", safe_mode=True)
        keras.utils.set_random_seed(1000 * seed + 1)
        first = build_network("notebook-1", SIDE, 2, 0.0, 0.0, 0.0)
        kernels.append(kernels_of(model)[0])
        np.testing.assert_array_equal(kernels[-1], kernels_of(first)[0])
    assert not np.array_equal(*kernels)
    assert made.threads == {"intra": 3, "inter": usable_cores()}


def test_members_start_from_pretrained_weights(made, monkeypatch):
    """If the parameters ask for them."""
    calls = []

    def load(model, network):
        calls.append(network)
        model.get_layer("probabilities").set_weights([np.zeros((128, 2)), np.array([0.0, 3.0])])

    monkeypatch.setattr(member, "load_pretrained", load)
    stand_still(made)
    params = validate(made.params, Params)
    trained = params.ensemble["member-01"]
    network = trained.network.model_copy(
        update={"weights": "data/weights/base.h5", "freeze": False}
    )
    others = {"member-01": trained.model_copy(update={"network": network})}
    train(made)
    assert not calls
    folder = made.folder / "pretrained"
    ensemble = {**params.ensemble, **others}
    train_member("member-01", params.model_copy(update={"ensemble": ensemble}), folder)
    assert calls == [network]
    lines = (folder / "test.csv").read_text().splitlines()[1:]
    positive = np.array([float(line.split(",")[2]) for line in lines])
    np.testing.assert_allclose(positive, 1 / (1 + np.exp(-3)), rtol=1e-5)


def test_members_train_by_their_recipe(made):
    """The second member by `strong`, the second recipe."""
    made.set(
        recipes__strong__l1=0.01,
        recipes__strong__l2=0.02,
        recipes__strong__dropout=0.4,
        recipes__strong__learning_rate=0.003,
    )
    folder = train(made)
    model = keras.saving.load_model(folder / "model.keras", safe_mode=True)
    layers = {type(layer).__name__: layer for layer in model.layers}
    assert layers["Dropout"].rate == 0.4
    penalty = layers["Conv2D"].kernel_regularizer.get_config()
    assert penalty == {"l1": pytest.approx(0.01), "l2": pytest.approx(0.02)}
    last_line = (folder / "history.csv").read_text().split()[-1]
    assert float(last_line.split(",")[-1]) == pytest.approx(0.003)


def test_members_have_the_network_of_their_recipe(made):
    """Not that of the block `network`."""
    made.set(recipes__strong__network={"name": "residual", "weights": "none", "freeze": False})
    model = keras.saving.load_model(train(made) / "model.keras", safe_mode=True)
    assert model.name == "residual"
    assert made.params["network"]["name"] == "notebook-1"


def test_divergence_is_reported(made):
    """And nothing is written."""
    made.set(recipes__strong__learning_rate=1e38)
    expected = r"member-01 diverged; .*lower recipes\.strong\.learning_rate"
    with pytest.raises(UserError, match=expected):
        train(made, epochs=3)
    assert not (made.folder / "trained").exists()


def test_diverging_epochs_are_printed(made, capsys):
    """Their metrics are not numbers."""
    _, history = fitted(made, imbalanced(made), imbalanced(made), member_learning_rate=1e38)
    assert not np.isfinite(history[0]["out_of_bag_log_loss"])
    record = parse_record(capsys.readouterr().out)
    assert not np.isfinite(record["metrics"]["out_of_bag_log_loss"])


class WatchedInputs:
    """Stand-in for a member's inputs, which have changed or not when its training ends."""

    stage, changed = None, False

    def __init__(self, stage):
        WatchedInputs.stage = stage

    def check_files(self):
        if WatchedInputs.changed:
            raise UserError("params.yaml changed")


@pytest.fixture
def staged(made, monkeypatch):
    """The staging folder of member-01; its training writes a file of the member's name and seed."""

    def write_file(name, params, folder):
        folder.mkdir(parents=True)
        (folder / "trained").write_text(f"{name} {params.ensemble[name].seed}")

    def staging_dir(name):
        return made.folder / f"staging/{name}-0123.45"

    monkeypatch.setattr(staging, "StageInputs", WatchedInputs)
    monkeypatch.setattr(staging, "staging_dir", staging_dir)
    monkeypatch.setattr(member, "train_member", write_file)
    monkeypatch.setattr(WatchedInputs, "changed", False)
    return staging_dir("member-01")


def test_staging_folder_appears_after_training(staged):
    unfinished = staged.with_name(f"{staged.name}.part")
    unfinished.mkdir(parents=True)
    (unfinished / "rest").write_text("of a training that was killed")
    staging.train_into(staged, "member-01")
    assert [path.name for path in staged.parent.iterdir()] == [staged.name]
    assert [path.name for path in staged.iterdir()] == ["trained"]
    assert (staged / "trained").read_text() == "member-01 5001"
    assert WatchedInputs.stage == "train@member-01"


def test_changed_inputs_leave_no_staging_folder(staged, monkeypatch):
    """Changed before the training or meanwhile."""
    with pytest.raises(UserError) as raised:
        staging.train_into(staged.with_name("member-01-other"), "member-01")
    expected = "an input of member-01 changed before it was trained; run `dvc repro` again"
    assert str(raised.value) == expected
    assert not staged.parent.exists()
    monkeypatch.setattr(WatchedInputs, "changed", True)
    with pytest.raises(UserError, match=r"params\.yaml changed"):
        staging.train_into(staged, "member-01")
    assert not staged.exists()


def test_weights_are_checked_for_the_image_size(made, monkeypatch):
    """Each once, whatever the number of members that start from them."""
    calls = []
    monkeypatch.setattr(
        member, "load_pretrained", lambda model, network: calls.append((model, network))
    )
    check_weights()
    assert not calls
    lite = {"name": "efficientnet-lite0", "weights": "imagenet", "freeze": False}
    frozen = {**lite, "weights": "w/own.h5", "freeze": True}
    made.set(ingest__image_size=32, recipes__base__network=lite, recipes__light__network=frozen)
    assert [name["recipe"] for name in made.params["ensemble"].values()].count("base") == 2
    check_weights()
    for model, _ in calls:
        assert model.inputs[0].shape == (None, SIDE, SIDE, 1)  # of the store
        assert model.name == "efficientnet_lite0"
    networks = [network.model_dump() for _, network in calls]
    assert sorted(networks, key=str) == sorted([lite, frozen], key=str)
