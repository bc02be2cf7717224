"""Each training option has its effect and no other, and a member is trained on its in-bag images alone."""

import csv
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import workspace
from scipy.special import xlogy
from sklearn import metrics as sk

from stages.shared import training
from stages.shared.augmentation import augment
from stages.shared.batches import training_batches, validation_batches
from stages.shared.errors import UserError
from stages.shared.networks import build
from stages.shared.params import Params, check
from stages.shared.rad import RadReader
from stages.shared.training import check_weights, evaluation_sample, fit, fit_and_write, learning_rate, predict, train_member

OFF = {"flip": False, "rotation": 0.0, "shift": 0.0, "zoom": 0.0, "contrast": 0.0, "brightness": 0.0, "erase": 0.0}
PLAIN = {
    "epochs": 1,
    "batch_size": 8,
    "schedule": "constant",
    "clip_norm": None,
    "label_smoothing": 0.0,
    "class_weights": "none",
    "mixup": 0.0,
    "views": "plain",
    "augment": OFF,
}
STILL = 1e-30  # a learning rate that leaves the weights as they are
SIDE = workspace.SIDE


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = workspace.make(tmp_path, 2)
    made.threads = {}
    for kind in ("intra", "inter"):  # TensorFlow may be running in this process, when they can't be set any more
        name = f"tensorflow.config.threading.set_{kind}_op_parallelism_threads"
        monkeypatch.setattr(name, lambda count, kind=kind: made.threads.update({kind: count}))
    made.set(network__name="notebook-1", **{f"train__{key}": value for key, value in PLAIN.items()})
    for recipe in ("base", "strong", "light"):
        made.set(**{f"recipes__{recipe}__{key}": 0.0 for key in ("l1", "l2", "dropout")})
    return made


def settings(made, **options):
    """The training parameters, and those of the first member, changed; the member's begin with `member_`."""
    params = check(made.params, Params)
    of_member = {key.removeprefix("member_"): value for key, value in options.items() if key.startswith("member_")}
    of_training = {key: value for key, value in options.items() if not key.startswith("member_")}
    changes = params.train.augment.model_copy(update=of_training.pop("augment", {}))
    train = params.train.model_copy(update={**of_training, "augment": changes})
    return train, params.ensemble["member-00"].model_copy(update=of_member)


def batches(made, in_bag, count, **options):
    """The first batches of a training: images, labels and weights of each."""
    with RadReader() as rad:
        dataset = training_batches(rad, in_bag, len(made.classes), *settings(made, **options)).take(count)
        return [[np.asarray(part) for part in batch] for batch in dataset]


def initial(made, l1=0.0, l2=0.0):
    keras.utils.set_random_seed(3)
    return build("notebook-1", SIDE, len(made.classes), l1, l2, 0.0)


def fitted(made, in_bag, out_of_bag, l1=0.0, l2=0.0, **options):
    model = initial(made, l1, l2)
    with RadReader() as rad:
        return model, fit(model, rad, in_bag, out_of_bag, len(made.classes), *settings(made, **options))


def imbalanced(made):
    """Sixteen rows: every fourth is of the first class, and the first row is drawn twice more in place of the last two."""
    first, second = (np.flatnonzero(made.labels == label).tolist() for label in (0, 1))
    rows = sorted(first[:4] + second[:12])
    return [*rows[:-2], rows[0], rows[0]]


def pixels_of(made, rows):
    return made.images[rows].astype(np.float32)


def one_hot(made, rows):
    return np.eye(len(made.classes))[made.labels[rows]]


def kernels_of(model):
    return [layer.kernel.numpy() for layer in model.layers if hasattr(layer, "kernel")]


def test_a_pass_gives_each_in_bag_draw_once_with_its_own_label(made):
    in_bag = imbalanced(made)
    first, second = batches(made, in_bag, 4)[:2], batches(made, in_bag, 4)[2:]
    orders = []
    for one_pass in (first, second):
        images, labels, weights = (np.concatenate(parts) for parts in zip(*one_pass, strict=True))
        rows = [next(row for row in in_bag if np.array_equal(image, pixels_of(made, row))) for image in images]
        assert sorted(rows) == sorted(in_bag)
        np.testing.assert_array_equal(labels, one_hot(made, rows))
        np.testing.assert_array_equal(weights, np.ones(16))
        orders.append(rows)
    assert orders[0] != orders[1]
    assert orders[0] != in_bag


def test_batches_depend_on_the_members_seed_alone(made):
    in_bag = imbalanced(made)
    changes = {"augment": {"rotation": 10.0}, "mixup": 0.4}
    one, again, other = (batches(made, in_bag, 3, member_seed=seed, **changes) for seed in (1, 1, 2))
    for batch, same, different in zip(one, again, other, strict=True):
        for part, same_part in zip(batch, same, strict=True):
            np.testing.assert_array_equal(part, same_part)
        assert not np.array_equal(batch[0], different[0])


def test_pixels_from_the_disk_and_larger_batches_hold_the_same_images(made):
    in_bag = imbalanced(made)
    held, read, doubled, replicated = (
        batches(made, in_bag, 2, **options)
        for options in ({"cache": "memory"}, {"cache": "none"}, {"batch_size": 16}, {"replicas": 2})
    )
    for part in range(3):
        np.testing.assert_array_equal(held[0][part], read[0][part])
        np.testing.assert_array_equal(np.concatenate([batch[part] for batch in held]), doubled[0][part])
        np.testing.assert_array_equal(replicated[0][part], doubled[0][part])


def test_class_weights_change_the_weights_alone(made):
    in_bag = imbalanced(made)
    plain, balanced = batches(made, in_bag, 2), batches(made, in_bag, 2, class_weights="balanced")
    counts = np.bincount(made.labels[in_bag])
    assert counts.tolist() != [8, 8]
    for (images, labels, _), (same_images, same_labels, weights) in zip(plain, balanced, strict=True):
        np.testing.assert_array_equal(images, same_images)
        np.testing.assert_array_equal(labels, same_labels)
        np.testing.assert_allclose(weights, (16 / (2 * counts))[labels.argmax(axis=1)], rtol=1e-6)


def test_mixup_mixes_images_and_labels_in_the_same_fractions_and_leaves_weights(made):
    in_bag = imbalanced(made)
    plain, mixed = (
        batches(made, in_bag, 8, class_weights="balanced"),
        batches(made, in_bag, 8, class_weights="balanced", mixup=0.4),
    )
    fractions = []
    for (images, labels, weights), (changed, changed_labels, same_weights) in zip(plain, mixed, strict=True):
        np.testing.assert_array_equal(weights, same_weights)
        for place in range(8):
            before = images[place - 1] - images[place]
            fraction = np.sum((changed[place] - images[place]) * before) / max(np.sum(before**2), 1e-9)
            np.testing.assert_allclose(changed[place], images[place] + fraction * before, atol=0.01)
            expected = labels[place] + fraction * (labels[place - 1] - labels[place])
            if np.any(before):
                np.testing.assert_allclose(changed_labels[place], expected, atol=1e-4)
                fractions.append(fraction)
    fractions = np.array(fractions)
    assert 0.3 < fractions.max() <= 0.4
    assert fractions.min() >= 0
    assert 0.25 < np.mean(fractions > 1e-6) < 0.75


@pytest.mark.parametrize(
    "change", [{"flip": True}, *({key: 0.3} for key in OFF if key not in ("flip", "rotation")), {"rotation": 20.0}], ids=str
)
def test_each_augmentation_changes_images_alone_by_the_recipes_strength(made, change):
    in_bag, strength = imbalanced(made), 1.5
    plain = batches(made, in_bag, 2, class_weights="balanced")
    changed = batches(made, in_bag, 2, class_weights="balanced", augment=change, member_augment=strength)
    (key, value), seed = *change.items(), settings(made)[1].seed
    by_hand = {**OFF, key: value if key == "flip" else strength * value}
    for step, ((images, *rest), (images_changed, *same)) in enumerate(zip(plain, changed, strict=True)):
        expected = augment(images, tf.constant([step, seed], tf.int64), **by_hand)
        np.testing.assert_allclose(images_changed, expected, atol=1e-3)
        assert np.abs(images_changed - images).mean() > 0.1
        for part, same_part in zip(rest, same, strict=True):
            np.testing.assert_array_equal(part, same_part)


def test_validation_images_are_in_order_and_as_they_are(made):
    rows = [*range(90, 10, -1)]
    with RadReader() as rad:
        parts = list(validation_batches(rad, rows, len(made.classes), "auto"))
    images, labels = (np.concatenate([np.asarray(batch[part]) for batch in parts]) for part in (0, 1))
    np.testing.assert_array_equal(images, pixels_of(made, rows))
    np.testing.assert_array_equal(labels, one_hot(made, rows))


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
def test_the_loss_is_the_weighted_smoothed_cross_entropy_with_penalties(made, options, smoothing, balanced, l1, l2):
    in_bag, out_of_bag = imbalanced(made), np.flatnonzero(made.labels >= 0)[-40:].tolist()
    model, history = fitted(made, in_bag, out_of_bag, batch_size=16, member_learning_rate=STILL, **options)
    [(epoch, *measures)] = history
    assert epoch == 1
    for place, rows in ((1, sorted({*in_bag})), (3, out_of_bag)):  # plain log loss and accuracy, whatever the options
        probabilities = model.predict(pixels_of(made, rows), verbose=0)
        assert measures[place] == pytest.approx(sk.log_loss(made.labels[rows], probabilities), rel=1e-4)
        assert measures[place + 1] == pytest.approx(sk.accuracy_score(made.labels[rows], probabilities.argmax(axis=1)))
    assert measures[5] == pytest.approx(STILL)

    images, targets = pixels_of(made, in_bag), one_hot(made, in_bag)
    trained = np.asarray(model(images, training=True), np.float64)  # by the batch's own statistics, as in training
    targets = targets * (1 - smoothing) + smoothing / 2
    weights = 16 / (2 * np.bincount(made.labels[in_bag]))[made.labels[in_bag]] if balanced else np.ones(16)
    kernels = kernels_of(model)
    penalties = sum(l1 * np.abs(kernel).sum() + l2 * (kernel**2).sum() for kernel in kernels)
    assert len(kernels) == 3
    loss = -np.mean(weights * xlogy(targets, trained).sum(axis=1)) + penalties
    assert measures[0] == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("clip_norm", [None, 1e-6, 1e6])
def test_a_step_is_adams_of_the_gradient_clipped_by_its_global_norm(made, clip_norm):
    in_bag = imbalanced(made)
    before = initial(made)
    with tf.GradientTape() as tape:
        predicted = before(pixels_of(made, in_bag), training=True)
        loss = tf.reduce_mean(keras.losses.categorical_crossentropy(one_hot(made, in_bag), predicted))
    gradients = [np.asarray(one, np.float64) for one in tape.gradient(loss, before.trainable_variables)]
    norm = np.sqrt(sum((one**2).sum() for one in gradients))
    factor = min(1, clip_norm / norm) if clip_norm else 1
    assert 0.01 < norm < 100
    model, _ = fitted(made, in_bag, in_bag, batch_size=16, clip_norm=clip_norm, member_learning_rate=0.01)
    moved = [
        new.numpy() - old.numpy() for new, old in zip(model.trainable_variables, initial(made).trainable_variables, strict=True)
    ]
    for step, gradient in zip(moved, gradients, strict=True):
        clipped = factor * gradient
        large = np.abs(gradient) > 1e-4 * norm  # of others, rounding decides the sign
        expected = -0.01 * clipped / (np.abs(clipped) + 1e-7 / np.sqrt(1 - 0.999))  # at first, by Keras's epsilon
        np.testing.assert_allclose(step[large], expected[large], rtol=0.02, atol=2e-6)
    largest = max(np.abs(step).max() for step in moved)
    assert (largest < 0.0095) == (clip_norm == 1e-6)


def test_a_cosine_warms_up_for_three_epochs_and_falls_to_zero(made):
    train, _ = settings(made, epochs=8, schedule="cosine")
    rate = learning_rate(0.02, 5, train)
    rates = [float(rate(step)) for step in range(41)]
    expected = [0.02 * step / 15 for step in range(15)]
    expected += [0.01 * (1 + np.cos(np.pi * step / 25)) for step in range(26)]
    np.testing.assert_allclose(rates, expected, atol=1e-7)
    short = learning_rate(0.02, 5, settings(made, epochs=2, schedule="cosine")[0])
    np.testing.assert_allclose([float(short(step)) for step in (0, 4, 5, 10)], [0, 0.016, 0.02, 0], atol=1e-7)
    single = learning_rate(0.02, 4, settings(made, epochs=1, schedule="cosine")[0])
    np.testing.assert_allclose([float(single(step)) for step in (0, 2, 4)], [0.02, 0.01, 0], atol=1e-7)
    assert learning_rate(0.02, 5, settings(made, epochs=8, schedule="constant")[0]) == 0.02


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_schedule_is_followed_epoch_by_epoch(made, schedule, capsys):
    model, history = fitted(made, imbalanced(made), imbalanced(made), epochs=5, schedule=schedule, member_learning_rate=0.01)
    assert int(model.optimizer.iterations) == 10  # two batches of eight, five times
    rates = (
        [0.01] * 5 if schedule == "constant" else [0.005, 0.01, *(0.005 * (1 + np.cos(np.pi * step / 6)) for step in (2, 4, 6))]
    )
    np.testing.assert_allclose([epoch[-1] for epoch in history], rates, atol=1e-8)
    assert [epoch[0] for epoch in history] == [1, 2, 3, 4, 5]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [f"epoch {number} of 5" for number in range(1, 6)]
    assert lines[0].endswith(f"learning rate {rates[0]:.4f}")


def contradictory(made):
    """Rows to train on, and rows of the same images with the other label: their loss grows as the others' shrinks."""
    made.images[16:32], made.labels[16:32] = made.images[:16], 1 - made.labels[:16]
    made.store()
    return [*range(16)], [*range(16, 32)]


def test_early_stopping_ends_after_its_patience_and_keeps_the_best_weights(made):
    rows = contradictory(made)
    options = {"epochs": 9, "member_learning_rate": 0.003}
    stopped, history = fitted(made, *rows, early_stopping=3, **options)
    _, through = fitted(made, *rows, **options)
    losses = [epoch[4] for epoch in through]
    best = int(np.argmin(losses))
    assert best + 3 < 8
    assert len(through) == 9
    assert len(history) == best + 1 + 3
    np.testing.assert_allclose([epoch[4] for epoch in history], losses[: len(history)], rtol=1e-5)
    probabilities = stopped.predict(pixels_of(made, rows[1]), verbose=0)
    assert sk.log_loss(made.labels[rows[1]], probabilities) == pytest.approx(losses[best], rel=1e-4)
    assert losses[len(history) - 1] > losses[best] * 1.05


def test_early_stopping_goes_on_while_the_loss_falls_a_little(made):
    rows = imbalanced(made)
    _, history = fitted(made, rows, rows, epochs=6, member_learning_rate=1e-4, early_stopping=2)
    falls = -np.diff([epoch[4] for epoch in history])
    assert len(history) == 6
    assert 0 < falls.min() <= falls.max() < 0.1


def test_the_learning_rate_is_halved_after_epochs_without_a_better_out_of_bag_loss(made):
    rows = contradictory(made)
    _, history = fitted(made, *rows, epochs=9, reduce_lr=2, member_learning_rate=0.003)
    rate, best, waited = 0.003, np.inf, 0
    for *_, loss, _, shown in history:
        assert shown == pytest.approx(rate)
        better = loss < best - 1e-4
        best, waited = (loss, 0) if better else (best, waited + 1)
        if waited == 2:
            rate, waited = rate / 2, 0
    assert rate < 0.002


def test_predictions_are_in_the_order_of_their_rows(made):
    model, rows = initial(made), np.random.default_rng(0).permutation(len(made.labels)).tolist()
    assert len(rows) > 64  # more than a batch
    with RadReader() as rad:
        probabilities = predict(model, rad, rows)
    np.testing.assert_allclose(probabilities, model.predict(pixels_of(made, rows), verbose=0), atol=1e-6)
    assert probabilities.std(axis=0).min() > 1e-4


def test_learning_curves_are_of_all_in_bag_images_or_of_64_evenly_spaced():
    assert evaluation_sample([7, 3, 3, 9]) == [3, 7, 9]
    rows = evaluation_sample([*range(0, 1000, 2), 4, 4])
    assert len(rows) == len({*rows}) == 64
    assert (rows[0], rows[-1]) == (0, 998)
    assert {*np.diff(rows).tolist()} <= {14, 16, 18}


PARTS = {"in_bag": [*range(0, 40, 2), 0, 2], "out_of_bag": [*range(1, 40, 2)], "test": [*range(40, 60)]}


def train(made, folder="trained", **options):
    """Train member-01 on rows by part; return the folder."""
    made.split(PARTS["test"] + [*range(60, len(made.labels))])
    made.write("data/bootstrap/member-01.json", json.dumps({key: PARTS[key] for key in ("in_bag", "out_of_bag")}))
    made.set(**{f"train__{key}": value for key, value in options.items()})
    made.store()
    keras.backend.clear_session()  # as in a process of its own: layers are numbered from the start
    fit_and_write("member-01", check(made.params, Params), made.folder / folder)
    return made.folder / folder


def test_a_member_is_trained_on_its_in_bag_images_alone(made):
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
def test_a_member_writes_the_predictions_of_its_model_for_its_rows(made, views):
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
        np.testing.assert_allclose(probabilities[part], model.predict(pixels_of(made, rows), verbose=0), atol=1e-5)
        same = np.allclose(probabilities[part], mirrored[rows], atol=1e-5)
        assert same == (views == "mirrored")
    truth = made.labels[PARTS["out_of_bag"]]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["out_of_bag"] == {
        "accuracy": pytest.approx(np.mean(probabilities["out_of_bag"].argmax(axis=1) == truth)),
        "log_loss": pytest.approx(sk.log_loss(truth, probabilities["out_of_bag"]), rel=1e-4),
        "images": len(truth),
    }
    assert (metrics["epochs"], metrics["precision"]) == (3, "float32")
    assert metrics["weights"] == sum(weights.size for weights in model.get_weights())
    history = list(csv.DictReader((folder / "history.csv").read_text().splitlines()))
    assert [line["epoch"] for line in history] == ["1", "2", "3"]
    if views == "plain":
        for part, rows in (("in_bag", sorted({*PARTS["in_bag"]})), ("out_of_bag", PARTS["out_of_bag"])):
            of_part = model.predict(pixels_of(made, rows), verbose=0)
            assert float(history[-1][f"{part}_log_loss"]) == pytest.approx(sk.log_loss(made.labels[rows], of_part), rel=1e-3)
            accuracy = np.mean(of_part.argmax(axis=1) == made.labels[rows])
            assert float(history[-1][f"{part}_accuracy"]) == pytest.approx(accuracy, abs=1e-5)


def test_threads_and_the_members_seed_reach_tensorflow(made):
    """Steps of no length leave the weights that the seed gives."""
    made.set(**{f"recipes__{name}__learning_rate": STILL for name in ("base", "strong", "light")})
    kernels = []
    for seed in (5, 6):
        made.set(seed=seed)
        model = keras.saving.load_model(train(made, threads=3) / "model.keras", safe_mode=True)
        keras.utils.set_random_seed(1000 * seed + 1)
        first = build("notebook-1", SIDE, 2, 0.0, 0.0, 0.0)
        kernels.append(kernels_of(model)[0])
        np.testing.assert_array_equal(kernels[-1], kernels_of(first)[0])
    assert not np.array_equal(*kernels)
    assert made.threads == {"intra": 3, "inter": 3}


def test_a_member_starts_from_the_weights_that_were_asked_for(made, monkeypatch):
    def load(model, name, weights, freeze):
        started.append((name, weights, freeze))
        model.get_layer("probabilities").set_weights([np.zeros((128, 2)), np.array([0.0, 3.0])])

    started = []
    monkeypatch.setattr(training, "start_from", load)
    made.set(**{f"recipes__{recipe}__learning_rate": STILL for recipe in ("base", "strong", "light")})
    params = check(made.params, Params)
    network = params.network.model_copy(update={"weights": "data/weights/base.h5", "freeze": False})
    train(made)
    assert not started
    fit_and_write("member-01", params.model_copy(update={"network": network}), made.folder / "started")
    assert started == [("notebook-1", "data/weights/base.h5", False)]
    lines = (made.folder / "started/test.csv").read_text().splitlines()[1:]
    positive = np.array([float(line.split(",")[2]) for line in lines])
    np.testing.assert_allclose(positive, 1 / (1 + np.exp(-3)), rtol=1e-5)


def test_penalties_dropout_and_learning_rate_are_those_of_the_members_recipe(made):
    """Of `strong`, the second recipe, for the second member."""
    made.set(
        recipes__strong__l1=0.01, recipes__strong__l2=0.02, recipes__strong__dropout=0.4, recipes__strong__learning_rate=0.003
    )
    model = keras.saving.load_model(train(made) / "model.keras", safe_mode=True)
    layers = {type(layer).__name__: layer for layer in model.layers}
    assert layers["Dropout"].rate == 0.4
    assert layers["Conv2D"].kernel_regularizer.get_config() == {"l1": pytest.approx(0.01), "l2": pytest.approx(0.02)}
    assert float((made.folder / "trained/history.csv").read_text().split()[-1].split(",")[-1]) == pytest.approx(0.003)


def test_a_member_that_diverges_is_reported_and_nothing_is_written(made):
    made.set(recipes__strong__learning_rate=1e38)
    with pytest.raises(UserError, match=r"member-01 diverged; .*lower recipes\.strong\.learning_rate"):
        train(made, epochs=3)
    assert not (made.folder / "trained").exists()


class Watched:
    """The inputs of a member, which have changed or not when its training ends."""

    stage, changed = None, False

    def __init__(self, stage):
        Watched.stage = stage

    def check_files(self):
        if Watched.changed:
            raise UserError("params.yaml changed")


@pytest.fixture
def staged(made, monkeypatch):
    """The folder of member-01, whose training is replaced by a file of the member's name and seed."""

    def leave_file(name, params, folder):
        folder.mkdir(parents=True)
        (folder / "trained").write_text(f"{name} {params.ensemble[name].seed}")

    folder = made.folder / "scratch/member-01-0123.45"
    monkeypatch.setattr(training, "Inputs", Watched)
    monkeypatch.setattr(training, "scratch", lambda name: made.folder / f"scratch/{name}-0123.45")
    monkeypatch.setattr(training, "fit_and_write", leave_file)
    monkeypatch.setattr(Watched, "changed", False)
    return folder


def test_a_members_folder_is_there_when_its_training_has_ended(staged):
    unfinished = staged.with_name(f"{staged.name}.part")
    unfinished.mkdir(parents=True)
    (unfinished / "left").write_text("by a training that was killed")
    train_member("member-01", staged)
    assert [path.name for path in staged.parent.iterdir()] == [staged.name]
    assert {path.name: path.read_text() for path in staged.iterdir()} == {"trained": "member-01 5001"}
    assert Watched.stage == "train@member-01"


def test_a_member_whose_inputs_changed_has_no_folder(staged, monkeypatch):
    with pytest.raises(UserError) as raised:
        train_member("member-01", staged.with_name("member-01-other"))
    assert str(raised.value) == "an input of member-01 changed before it was trained; run `dvc repro` again"
    assert not staged.parent.exists()
    monkeypatch.setattr(Watched, "changed", True)
    with pytest.raises(UserError, match=r"params\.yaml changed"):
        train_member("member-01", staged)
    assert not staged.exists()


def test_first_weights_are_tried_on_a_network_for_the_images(made, monkeypatch):
    tried = []
    monkeypatch.setattr(training, "start_from", lambda model, **network: tried.append((model, network)))
    made.set(network__name="notebook-1")
    check_weights()
    [(model, network)] = tried
    assert model.inputs[0].shape == (None, SIDE, SIDE, 1)
    assert model.name == "notebook_1"
    assert network == made.params["network"]
