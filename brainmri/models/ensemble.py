"""The ensemble as one Keras model."""

import functools
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from brainmri.common.errors import UserError
from brainmri.common.files import parse_json
from brainmri.evaluation.log_loss import MIN_PROBABILITY
from brainmri.evaluation.results import fits_decision
from brainmri.models.about import About
from brainmri.models.formats import concatenate
from brainmri.networks.archive import read_entry
from brainmri.networks.saving import ABOUT, load_model
from brainmri.networks.tta import mean_of_views, single_view, views_of

BATCH_SIZE = 32


def build_ensemble_model(
    members: dict[str, keras.Model],
    weights: dict[str, float],
    temperature: float = 1.0,
    biases: Sequence[float] | None = None,
    novelty: keras.Model | None = None,
    frozen: Mapping[str, str] | None = None,
    views: str = "plain",
) -> keras.Model:
    """Build one model of all members, which predict a batch in parallel.

    Parameters
    ----------
    members : dict of str to keras.Model
        By name; all take images of one size, n×h×w×1, and return class probabilities.
    weights : dict of str to float
        The members' voting weights, which sum to 1.
    temperature : float
        Of the vote's calibration; see `evaluation.calibration.calibrate`.
    biases : sequence of float, length classes
        Of the calibration; None: all 0.
    novelty : keras.Model, optional
        See `novelty.novelty_model`.
    frozen : mapping of str to str, optional
        A name of the network of each member that has a frozen one: members with the same name share
        it, so that the model holds and computes it once.
    views : {"plain", "mirrored", "zoomed"}
        With which these members predict; see `with_tta`.

    Returns
    -------
    keras.Model
        From uint8 images as the store holds them to a dictionary: `probabilities` (n, classes), the
        weighted mean of the members, calibrated; `members` (n, members, classes), the probabilities
        of each of them; `novelty` (n,), if there is such a model.
    """
    shape = next(iter(members.values())).inputs[0].shape[1:]
    images = keras.Input(shape, dtype="uint8", name="images")
    gray = keras.ops.cast(images, "float32")
    features = {}  # of the views, by the name of a frozen network
    votes = []
    for name, model in members.items():
        if name not in (frozen or {}):
            votes.append(keras.Model(model.inputs, model.outputs[0], name=name)(gray))
            continue
        network, shared = single_view(model), frozen[name]
        if shared not in features:
            extract = keras.Model(network.inputs, network.layers[-1].input, name=shared)
            of_gray = views_of(gray, views)
            features[shared] = extract(keras.ops.concatenate(of_gray), training=False), len(of_gray)
        of_views, number = features[shared]
        # `member_models` finds the network by this name.
        pooled = keras.Input(of_views.shape[1:], name=shared)
        head = keras.Model(pooled, network.get_layer("probabilities")(pooled), name=name)
        votes.append(mean_of_views(head(of_views), number))
    mean = sum(vote * weights[name] for name, vote in zip(members, votes, strict=True))
    classes = mean.shape[-1]
    calibration = keras.layers.Dense(classes, "softmax", name="calibration")
    outputs = {
        "probabilities": calibration(keras.ops.log(keras.ops.maximum(mean, MIN_PROBABILITY)))
    }
    bias = np.zeros(classes) if biases is None else np.array(biases)
    calibration.set_weights([np.eye(classes) / temperature, bias])
    outputs["members"] = keras.ops.stack(votes, 1)
    if novelty:
        outputs["novelty"] = novelty(gray)
    return keras.Model(images, outputs, name="ensemble")


def load_ensemble(path: str | Path) -> tuple[keras.Model, About]:
    """Load an exported ensemble in safe mode.

    Raises
    ------
    UserError
        If the file is missing, is no Keras model, holds code, is not an ensemble of this pipeline,
        or has weights that are not finite.
    """
    model = load_model(path)
    mismatch = UserError(
        f"{path} is a Keras model, but no ensemble of this pipeline;"
        " expected what `dvc repro export` writes"
    )
    try:
        with zipfile.ZipFile(path) as archive:
            about = parse_json(read_entry(archive, ABOUT), About, path)
    except (OSError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile, UserError):
        raise mismatch from None
    if not _fits(model, about):
        raise mismatch
    if not all(np.isfinite(array).all() for array in model.get_weights()):
        raise UserError(
            f"{path} has weights that are not finite; run `dvc repro --force` to make it again"
        )
    return model, about


def _fits(model: keras.Model, about: About) -> bool:
    """Return whether a model has the inputs, outputs and members that its about.json describes."""
    classes, size, members = len(about["classes"]), about["size"], len(about["weights"])
    expected = {"probabilities": (classes,), "members": (members, classes), "novelty": ()}
    if abs(sum(about["weights"].values()) - 1) > 1e-3 or len(set(about["classes"])) != classes:
        return False
    if len(about["calibration"]["biases"]) != classes:
        return False
    if not fits_decision(about["decision"], about["classes"], [*about["weights"].values()]):
        return False
    if [list(tensor.shape) for tensor in model.inputs] != [[None, size, size, 1]]:
        return False
    try:
        member_models(model, about)
        outputs = model.compute_output_spec(model.inputs[0])
        return {key: tuple(tensor.shape[1:]) for key, tensor in outputs.items()} == expected
    except Exception:  # noqa: BLE001, Keras raises any kind for a graph that can't be computed
        return False


def member_models(model: keras.Model, about: About) -> dict[str, keras.Model]:
    """Return the members of a loaded ensemble, by name: from images to class probabilities.

    Those with a frozen network are without test-time augmentation.
    """
    return {name: _member_model(model, model.get_layer(name)) for name in about["weights"]}


def _member_model(model: keras.Model, member: keras.Model) -> keras.Model:
    if len(member.inputs[0].shape) == 4:
        return member
    extract = model.get_layer(member.inputs[0].name)
    return keras.Model(extract.inputs, member.get_layer("probabilities")(extract.outputs[0]))


@functools.cache
def batch_predictor(model: keras.Model) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Return a function from images to the outputs of an ensemble, computed batch by batch.

    The images are uint8, n×h×w×1. Keras's own `predict` spends more time on each call than a small
    network computes.
    """
    images = tf.TensorSpec(model.inputs[0].shape, tf.uint8)
    compute = tf.function(lambda batch: model(batch, training=False), [images], autograph=False)

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        starts = range(0, len(images), BATCH_SIZE)
        batches = [compute(images[start : start + BATCH_SIZE]) for start in starts]
        return concatenate(batches)

    return predict
