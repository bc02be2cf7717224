"""Features of images by a frozen network, computed once for all members, folds and seeds."""

import hashlib
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from brainmri.common.dependencies import hash_path, stage_dependencies
from brainmri.common.files import write_json
from brainmri.common.params import Network, Params, read_params
from brainmri.common.progress import progress
from brainmri.common.resources import usable_cores
from brainmri.features.reader import ABOUT, FEATURES
from brainmri.networks.builders import build_network
from brainmri.networks.pretrained import check_weights_exist, load_pretrained
from brainmri.networks.tta import views_of
from brainmri.store.reader import RadReader
from brainmri.training.augmentation import augment

SEED = 0  # of the augmented views: they are the same for all ensembles
HASHES = "hashes.npy"
WITHOUT_EFFECT = (Path("brainmri/common"), Path("brainmri/store"))  # on features


def update_features(network: Network, params: Params, rad: RadReader) -> int:
    """Write a network's features of all images in the store; compute those that are not there yet.

    Parameters
    ----------
    network : Network
        Frozen. Its folder `features` is replaced as a whole by one with `features.npy` (float32,
        n×views×k), `hashes.npy` (SHA-256 of each image's pixels, uint8, n×32) and `about.json`
        (what the features depend on besides).
    params : Params
    rad : RadReader

    Returns
    -------
    int
        Number of images whose features were computed.
    """
    folder = Path(network.features)
    about = describe(network, params, rad.shape[1])
    former, former_rows = read_former(folder, about)
    hashes = [hashlib.sha256(rad.images([row]).tobytes()).digest() for row in range(len(rad))]
    first_rows: dict[bytes, int] = {}
    for row, digest in enumerate(hashes):
        first_rows.setdefault(digest, row)
    missing = [row for digest, row in first_rows.items() if digest not in former_rows]
    if missing:
        compute = compile_features(network, params, rad.shape[1])
    shape = former.shape[1:] if former_rows else compute(rad.images([0])[0]).shape

    unfinished = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    features = np.lib.format.open_memmap(
        unfinished / FEATURES, "w+", np.float32, (len(rad), *shape)
    )

    def fill(row: int) -> None:
        features[row] = compute(rad.images([row])[0])

    with ThreadPoolExecutor(usable_cores()) as pool:
        label = f"features of {network.name}"
        for _ in progress(pool.map(fill, missing), len(missing), label):
            pass
    for row, digest in enumerate(hashes):
        if digest in former_rows:
            features[row] = former[former_rows[digest]]
        else:
            features[row] = features[first_rows[digest]]
    features.flush()
    np.save(unfinished / HASHES, np.array([[*digest] for digest in hashes], np.uint8))
    write_json(unfinished / ABOUT, about)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    return len(missing)


def describe(network: Network, params: Params, size: int) -> dict:
    """Return what the features depend on besides the pixels."""
    check_weights_exist(network.name, network.weights_file)
    return {
        "network": network.name,
        "weights": network.weights,
        "weights_file": hash_path(Path(network.weights_file)),
        "size": size,
        "augmented_views": params.features.views,
        "augment": params.train.augment.model_dump(),
        "prediction_views": params.train.views,
        "code": code_hash(),
        "packages": f"TensorFlow {tf.__version__} Keras {keras.__version__}",
    }


def code_hash() -> str:
    """Return a hash of the code that computes features, as dvc.yaml lists it.

    What it lists of data, parameters and the store changes no feature of known pixels.
    """
    paths, _ = stage_dependencies("features", read_params())
    digests = [
        hash_path(path)
        for path in paths
        if not path.is_relative_to("data") and path not in WITHOUT_EFFECT
    ]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def read_former(folder: Path, about: dict) -> tuple[np.ndarray | None, dict[bytes, int]]:
    """Read former features: mapped into memory, and the row of each image by its pixels' hash.

    There are none if they are missing, damaged, or of something else than `about`.
    """
    try:
        if json.loads((folder / ABOUT).read_bytes()) != about:
            return None, {}
        hashes = np.load(folder / HASHES, allow_pickle=False)
        features = np.load(folder / FEATURES, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None, {}
    if len(hashes) != len(features):
        return None, {}
    return features, {digest.tobytes(): row for row, digest in enumerate(hashes)}


def compile_features(
    network: Network, params: Params, size: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from an image to the features of its views.

    Each image is a batch of its own, so that its features do not depend, in the last bits, on which
    other images are computed with it.

    Returns
    -------
    callable
        From uint8, shape (size, size, 1), to float32, shape (views, k): first those with which
        predictions are made (see `with_tta`), then the augmented ones.
    """
    model = build_network(network.name, size, 2, 0.0, 0.0, 0.0)
    load_pretrained(model, network)
    extract = keras.Model(model.inputs, model.layers[-2].input)  # before dropout and the last layer
    # As constants, weights of batch normalization are multiplied into those of convolutions
    trainable, others = (
        [variable.numpy() for variable in variables]
        for variables in (extract.trainable_variables, extract.non_trainable_variables)
    )
    augmentation = params.train.augment.model_dump()

    @tf.function(input_signature=[tf.TensorSpec((size, size, 1), tf.uint8)], autograph=False)
    def compute(image: tf.Tensor) -> tf.Tensor:
        images = tf.cast(image[None], tf.float32)
        views = views_of(images, params.train.views)
        for number in range(params.features.views):
            views.append(augment(images, (number, SEED), **augmentation))
        weights = [*map(tf.constant, trainable)], [*map(tf.constant, others)]
        return extract.stateless_call(*weights, tf.concat(views, 0), training=False)[0]

    return lambda image: compute(image).numpy()
