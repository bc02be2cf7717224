"""Keras models on disk: equal models give equal bytes, and loading one runs no code of its own."""

import json
import re
import tempfile
import warnings
import zipfile
from pathlib import Path

import keras

from brainmri.common.errors import UserError
from brainmri.common.files import to_json, write_bytes, zip_entries
from brainmri.networks.archive import ABOUT, load_archive


def save_model(model: keras.Model, path: str | Path, about: dict | None = None) -> None:
    """Save a model without what differs between equal models.

    These are the optimizer's state, the time, and addresses in memory (Keras's ids of shared
    objects).

    Parameters
    ----------
    model : keras.Model
    path : str or Path
        Of the file, which is a zip archive.
    about : dict, optional
        What a user of the model must know. Keras ignores this entry of the archive;
        `ensemble.load_ensemble` reads it.
    """
    if model.compiled:
        model = keras.Model(model.inputs, model.outputs, name=model.name)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.keras"
        model.save(file)
        entries = read_entries(file)
    if about:
        entries[ABOUT] = json.dumps(about, indent=2, allow_nan=False).encode()
    write_bytes(path, zip_entries(entries))


def read_entries(file: Path) -> dict[str, bytes]:
    """Read the entries of a model's archive, without the time and addresses in memory."""
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    metadata = {**json.loads(entries["metadata.json"]), "date_saved": ""}
    entries["metadata.json"] = to_json(metadata).encode()
    entries["config.json"] = number_shared_objects(entries["config.json"])
    return entries


def number_shared_objects(config: bytes) -> bytes:
    """Return the configuration with the ids of shared objects numbered in order of appearance."""
    numbers: dict[bytes, int] = {}
    return re.sub(
        rb'(?<="shared_object_id": )\d+',
        lambda match: b"%d" % numbers.setdefault(match[0], len(numbers)),
        config,
    )


def load_model(path: str | Path) -> keras.Model:
    """Load a model in safe mode, after what `archive` checks.

    Raises
    ------
    UserError
        If the file is missing, is no Keras model, lacks weights, or has something that models of
        this project don't have.
    """
    if not Path(path).is_file():
        raise UserError(f"{path} is missing; run `dvc repro` to make it")
    if Path(path).suffix != ".keras":  # Keras reads older formats without regard to safe mode
        raise UserError(
            f"{path} is not a model that loads in safe mode; expected a file that ends in .keras"
        )
    try:
        with warnings.catch_warnings():
            # Keras only warns of missing weights.
            warnings.simplefilter("error", UserWarning)
            return load_archive(path)
    except Exception as error:  # noqa: BLE001, Keras, HDF5 and TensorFlow raise any kind
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{path} is not a model that loads in safe mode ({reason});"
            " run `dvc repro --force` to make it again"
        ) from None
