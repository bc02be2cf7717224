"""Files between stages: JSON written atomically and in one form, read back with one clear line where it fails."""

import json
import os
import tempfile
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from stages.shared.errors import UserError

Shape = TypeVar("Shape")
ONE_LINE = json.JSONEncoder(allow_nan=False)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file whole or not at all; its folder is made if it is missing."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        os.unlink(temporary)
        if isinstance(error, OSError):
            error.filename = str(path)
        raise


def write_json(path: str | Path, content: dict) -> None:
    """Write JSON in its one form: two spaces of indent, lists of numbers on one line, no NaN."""
    write_bytes(path, (_format(content, "") + "\n").encode())


def read_json(path: str | Path, shape: type[Shape]) -> Shape:
    """Read a JSON file of a shape that is known.

    Parameters
    ----------
    path : str or Path
        Of the file.
    shape : type
        A TypedDict, whose types are taken strictly; keys that it does not know are left out of what is returned.

    Raises
    ------
    UserError
        If the file is missing, is no JSON, or has another shape.
    """
    again = "run `dvc repro --force` to make it again"
    try:
        return TypeAdapter(shape).validate_python(json.loads(Path(path).read_text("utf-8")), strict=True)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run `dvc repro` to make it") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "all of it"
        raise UserError(f"{path} is not what it should be ({where}: {first['msg']}); {again}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); {again}") from None


def _format(value, indent: str) -> str:
    inner = indent + "  "
    if isinstance(value, dict) and value:
        items = [f"{inner}{json.dumps(str(key))}: {_format(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        items = [inner + ONE_LINE.encode(item) for item in value]
        return "[\n" + ",\n".join(items) + f"\n{indent}]"
    return ONE_LINE.encode(value)
