"""Files between stages: written atomically, with the mode that the umask leaves, JSON in a fixed
layout; read and checked, with one clear line on failure.
"""

import io
import json
import os
import secrets
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from brainmri.common.errors import UserError

Shape = TypeVar("Shape")
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip archive can hold
COMPACT = json.JSONEncoder(allow_nan=False)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file atomically; its folder is made if it is missing."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)
        raise


def write_json(path: str | Path, content: Mapping) -> None:
    """Write JSON as `format_json` lays it out."""
    write_bytes(path, (format_json(content) + "\n").encode())


def format_json(content: Mapping) -> str:
    """Format JSON in a fixed layout: two spaces of indent, a line for each item of a list of
    lists or objects, lists of numbers on one line, no NaN.
    """
    return _format(content, "")


def to_json(content: object) -> str:
    """Return JSON on one line, in ASCII.

    Raises
    ------
    ValueError
        If it holds NaN or an infinite number, for which JSON has no words.
    """
    return COMPACT.encode(content)


def write_arrays(path: str | Path, **arrays: np.ndarray) -> None:
    """Write a file that `numpy.load` reads without pickle; equal arrays give equal bytes.

    `numpy.savez` asks for headers that differ between versions of Python.
    """
    write_bytes(path, zip_entries({f"{name}.npy": _npy(array) for name, array in arrays.items()}))


def zip_entries(entries: Mapping[str, bytes]) -> bytes:
    """Return a zip archive of the entries: not compressed, all of the same time, so that equal
    entries give equal bytes.
    """
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, entry in entries.items():
            archive.writestr(zipfile.ZipInfo(name, ZIP_EPOCH), entry)
    return content.getvalue()


def read_json(path: str | Path, shape: type[Shape]) -> Shape:
    """Read and check a JSON file.

    Parameters
    ----------
    path : str or Path
    shape : type
        A TypedDict, checked strictly; unknown keys are dropped.

    Raises
    ------
    UserError
        If the file is missing, is not JSON, or has another shape.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run `dvc repro` to make it") from None
    return parse_json(content, shape, path)


def parse_json(content: bytes, shape: type[Shape], path: str | Path) -> Shape:
    """Parse and check the content of a JSON file; see `read_json`."""
    repair = "run `dvc repro --force` to make it again"
    try:
        return TypeAdapter(shape).validate_python(load_json(content.decode()), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or "the whole file"
        raise UserError(
            f"{path} has unexpected content ({key}: {first['msg']}); {repair}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); {repair}") from None


def load_json(text: str) -> object:
    """Load JSON; NaN and infinite numbers, which it may not hold, are a `ValueError`."""
    return json.loads(text, parse_constant=_refuse)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    return content.getvalue()


def _format(value, indent: str) -> str:
    inner = indent + "  "
    if isinstance(value, dict) and value:
        items = [
            f"{inner}{json.dumps(str(key))}: {_format(item, inner)}" for key, item in value.items()
        ]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        items = [inner + COMPACT.encode(item) for item in value]
        return "[\n" + ",\n".join(items) + f"\n{indent}]"
    return COMPACT.encode(value)
