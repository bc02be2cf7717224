"""Keras models on disk: equal models give equal bytes, and loading one runs no code of its own."""

import io
import json
import re
import tempfile
import zipfile
from pathlib import Path

import keras

from stages.shared.errors import UserError
from stages.shared.files import write_bytes

NO_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip archive can hold


def save_model(model: keras.Model, path: str | Path) -> None:
    """Save a model, without its optimizer's state, the time, and addresses in memory (Keras's ids of shared objects)."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.keras"
        keras.Model(model.inputs, model.outputs, name=model.name).save(file)
        content = io.BytesIO()
        with zipfile.ZipFile(file) as dated, zipfile.ZipFile(content, "w") as undated:
            for name in dated.namelist():
                entry = dated.read(name)
                if name == "metadata.json":
                    entry = json.dumps({**json.loads(entry), "date_saved": ""}).encode()
                if name == "config.json":
                    entry = number_shared_objects(entry)
                undated.writestr(zipfile.ZipInfo(name, NO_TIME), entry)
    write_bytes(path, content.getvalue())


def number_shared_objects(config: bytes) -> bytes:
    """The configuration with the ids of shared objects numbered in order of appearance."""
    numbers: dict[bytes, int] = {}
    return re.sub(rb'(?<="shared_object_id": )\d+', lambda match: b"%d" % numbers.setdefault(match[0], len(numbers)), config)


def load_model(path: str | Path) -> keras.Model:
    """Load a model in safe mode.

    Raises
    ------
    UserError
        If the file is missing, is no Keras model, or holds code.
    """
    if not Path(path).is_file():
        raise UserError(f"{path} is missing; run `dvc repro` to make it")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (ValueError, OSError, KeyError, TypeError, zipfile.BadZipFile) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{path} is not a model that loads in safe mode ({reason}); run `dvc repro --force` to make it again"
        ) from None
