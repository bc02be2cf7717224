"""Train one member of the ensemble on its sample, whatever else trains in parallel."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from brainmri.common.errors import UserError
from brainmri.common.files import write_json
from brainmri.common.params import Member, Params, load_params
from brainmri.evaluation.predictions import write_predictions
from brainmri.features.reader import FeatureReader
from brainmri.networks.builders import build_head, build_network
from brainmri.networks.pretrained import copy_weights, load_pretrained
from brainmri.networks.saving import save_model
from brainmri.networks.training_layers import copy_to_train
from brainmri.networks.tta import with_tta
from brainmri.sampling.files import read_sample, read_split
from brainmri.store.metadata import read_metadata
from brainmri.store.reader import RadReader
from brainmri.training.devices import Devices, configure_devices
from brainmri.training.fitting import fit, fit_to_examples
from brainmri.training.history import write_history
from brainmri.training.input import Examples, feature_batches
from brainmri.training.prediction import compile_prediction, evaluate, predict, read_images


def train_member(name: str, params: Params, folder: Path) -> None:
    """Train a member, and write its model, history, predictions and metrics into a folder.

    Parameters
    ----------
    name : str
        Such as "member-00", a key of the parameter `ensemble`.
    params : Params
    folder : Path
        For `model.keras`, `history.csv`, class probabilities (`out_of_bag.csv`, `test.csv`) and
        `metrics.json`.

    Raises
    ------
    UserError
        If an input is missing or damaged, or if the training diverges.
    """
    member, train = params.ensemble[name], params.train
    classes = read_metadata()["classes"]
    is_frozen = member.network.is_frozen
    # The features of a frozen network are computed in 32 bits, and so must what is saved
    precision = "float32" if is_frozen else train.precision
    optimize = member.network.is_fine_tuned
    devices = configure_devices(train.threads, member.seed, precision, train.replicas, optimize)
    with RadReader() as rad:
        split = read_split(len(rad))
        in_bag, out_of_bag = read_sample(name, split["training"])
        rows_of = {"out_of_bag": out_of_bag, "test": split["test"]}
        train_model = train_on_features if is_frozen else partial(train_network, devices)
        model, history, predict = train_model(rad, in_bag, out_of_bag, len(classes), params, member)
        predictions = {part: predict(rows) for part, rows in rows_of.items()}
        labels = rad.labels[out_of_bag]
    if not all(np.isfinite(probabilities).all() for probabilities in predictions.values()):
        raise UserError(
            f"{name} diverged; expected finite predictions:"
            f" lower recipes.{member.recipe}.learning_rate"
        )

    save_model(model, folder / "model.keras")
    for part, probabilities in predictions.items():
        write_predictions(folder / f"{part}.csv", rows_of[part], probabilities, classes)
    write_history(folder / "history.csv", history)
    metrics = {
        "out_of_bag": {
            **evaluate(labels, predictions["out_of_bag"]),
            "images": len(out_of_bag),
        },
        "epochs": len(history),
        "weights": model.count_params(),
        "precision": devices.precision,
    }
    write_json(folder / "metrics.json", metrics)


class Trained(NamedTuple):
    """A trained member.

    Attributes
    ----------
    model : keras.Model
        From images to class probabilities, with test-time augmentation; its layers are Keras's,
        so that it can be saved.
    history : list of dict of str to float
        See `fit`.
    predict : callable
        From rows of the store to the model's predictions: float32, shape (rows, classes).
    """

    model: keras.Model
    history: list[dict[str, float]]
    predict: Callable[[list[int]], np.ndarray]


def train_network(
    devices: Devices,
    rad: RadReader,
    in_bag: list[int],
    out_of_bag: list[int],
    classes: int,
    params: Params,
    member: Member,
) -> Trained:
    """Build and train a member's network."""
    model = build_member(rad.shape[1], classes, member)
    if member.network.is_pretrained:
        load_pretrained(model, member.network)
    with devices.scope():
        trained = copy_to_train(model, params.train.replicas)
        copy_weights(model, trained)
        history = fit(trained, rad, in_bag, out_of_bag, classes, params.train, member)
    copy_weights(trained, model)
    model = with_tta(model, params.train.views)
    read = partial(read_images, rad)
    return Trained(model, history, partial(predict, compile_prediction(model), read))


def train_on_features(
    rad: RadReader,
    in_bag: list[int],
    out_of_bag: list[int],
    classes: int,
    params: Params,
    member: Member,
) -> Trained:
    """Train the last layer of a frozen network on the features of its images."""
    train = params.train
    features = FeatureReader(member.network.features, len(rad), train.views)
    features.check_weights(member.network.weights_file)
    head = build_head(features.width, classes, member.l1, member.l2, member.dropout)
    of_views = features.of_views(in_bag)
    batches = feature_batches(of_views, rad.labels[in_bag], classes, train, member)
    examples = Examples(batches, features.of_images, rad.labels, in_bag, out_of_bag)
    history = fit_to_examples(head, examples, train, member)
    network = build_member(rad.shape[1], classes, member)
    load_pretrained(network, member.network)
    output = network.get_layer("probabilities")
    output.set_weights(head.get_layer("probabilities").get_weights())

    def predict_from_features(rows: list[int]) -> np.ndarray:
        views = features.of_prediction(rows)
        probabilities = head.predict_on_batch(views.reshape(-1, features.width))
        return probabilities.reshape(*views.shape[:2], classes).mean(axis=1)

    return Trained(with_tta(network, train.views), history, predict_from_features)


def build_member(size: int, classes: int, member: Member) -> keras.Model:
    """Build a member's network; see `build_network`."""
    of_member = (member.l1, member.l2, member.dropout)
    return build_network(member.network.name, size, classes, *of_member)


def check_weights() -> None:
    """Load all pretrained weights that members start from; Keras downloads them, if need be.

    Raises
    ------
    UserError
        See `build_network` and `load_pretrained`.
    """
    params = load_params()
    networks = {member.network for member in params.ensemble.values()}
    with RadReader() as rad:
        size = rad.shape[1]
    for network in networks:
        if network.is_pretrained:
            load_pretrained(build_network(network.name, size, 2, 0.0, 0.0, 0.0), network)
