"""Pretrained weights: from a file, or downloaded by Keras."""

from pathlib import Path

import h5py
import keras
import numpy as np
from keras import layers

from brainmri.common.errors import UserError
from brainmri.common.params import KERAS_APPLICATIONS, Network
from brainmri.networks.applications import application_base

# What Keras publishes as the variance of EfficientNet's inputs is their deviation, by whose root it
# divides once more, unless weights are of a file:
# https://github.com/tensorflow/tensorflow/issues/49930
EFFICIENTNET_DEVIATION = (0.229, 0.224, 0.225)
EARLY_DIVISOR = 4  # of the images' height, for the smallest outputs of layers that are early


def load_pretrained(model: keras.Model, network: Network) -> None:
    """Load pretrained weights into the base of a network, and freeze all of it, or its early layers
    and its batch normalization.

    Parameters
    ----------
    model : keras.Model
        As `build_network` builds it for a key of `APPLICATIONS`; changed in place.
    network : Network
        Its `weights` are a file of the base's weights, as `save_weights` writes it or as Keras
        publishes them ("notop"); or "imagenet", which Keras downloads for networks of its own
        unless it has done so before.

    Raises
    ------
    UserError
        If the file is missing or has weights of something else, or if the download fails.
    """
    base = model.get_layer("base")
    if network.weights == "imagenet" and network.name in KERAS_APPLICATIONS:
        download_weights(base, network.name)
    else:
        load_weights(base, network.name, network.weights_file)
    if network.name == "efficientnet-b0":
        for layer in normalizations(base):
            if np.allclose(np.ravel(layer.adapt_variance), EFFICIENTNET_DEVIATION):
                layer.adapt_variance.assign(np.square(EFFICIENTNET_DEVIATION, dtype=np.float32))
                layer.finalize_state()
    base.trainable = not network.is_frozen
    for layer in base.layers:
        is_early = layer.output.shape[1] * EARLY_DIVISOR >= base.input_shape[1]
        if isinstance(layer, layers.BatchNormalization) or (network.freeze == "early" and is_early):
            layer.trainable = False  # statistics of batch normalization from few images are poor


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Copy all weights of a network to another one with the same layers.

    Keras's `Normalization`, as EfficientNet has it, computes with copies of its weights, which
    `set_weights` leaves as they are.
    """
    target.set_weights(source.get_weights())
    for layer in normalizations(target):
        layer.finalize_state()


def normalizations(model: keras.Model) -> list[layers.Normalization]:
    """Return the layers of a network, and of networks in it, that normalize its inputs."""
    inner = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    return [
        *(layer for layer in model.layers if isinstance(layer, layers.Normalization)),
        *(layer for network in inner for layer in normalizations(network)),
    ]


def download_weights(base: keras.Model, name: str) -> None:
    """Copy Keras's weights of ImageNet, which it downloads unless it has done so before."""
    size = base.input_shape[1]
    try:
        copy_weights(application_base(name, size, "imagenet"), base)
    except Exception as error:  # noqa: BLE001, Keras raises no other kind
        reason = str(error).split(": ", 1)[0]
        raise UserError(
            f"network.weights: imagenet can't be downloaded ({reason});"
            " give the path of a weights file instead"
        ) from None


def load_weights(base: keras.Model, name: str, path: str) -> None:
    """Load a file that has all weights of the base, and no others.

    Raises
    ------
    UserError
        If the file is missing, refers to other files, or has other weights.
    """
    check_weights_exist(name, path)
    try:
        check_weights_file(base, path)
        base.load_weights(path)
    except Exception as error:  # noqa: BLE001, Keras and HDF5 raise any kind
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"network.weights: {path} holds no weights of {name} without its top ({reason})"
        ) from None


def check_weights_exist(name: str, path: str) -> None:
    """Check that there is a weights file.

    Raises
    ------
    UserError
    """
    if not Path(path).is_file():
        raise UserError(
            f"network.weights: {path} is missing;"
            f" expected a file of {name}'s weights without its top"
        )


def check_weights_file(base: keras.Model, path: str) -> None:
    """Check that a file has arrays of the shapes of a base's weights, and refers to no other file.

    Raises
    ------
    ValueError
    """
    arrays = []

    def collect(_: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            arrays.append(item)

    with h5py.File(path) as file:
        file.visititems(collect)
        if any(array.external or array.is_virtual for array in arrays):
            raise ValueError("its values are in other files")
        # Arrays of integers are counters and seeds.
        shapes = sorted(array.shape for array in arrays if array.dtype.kind == "f")
    expected = sorted(tuple(weight.shape) for weight in base.weights if "float" in weight.dtype)
    if shapes != expected:
        raise ValueError(
            f"it has {len(shapes)} arrays of weights, expected {len(expected)}, of certain shapes"
        )
