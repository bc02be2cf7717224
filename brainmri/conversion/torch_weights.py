"""Read a file of PyTorch's weights without PyTorch, and without running what the file may hold."""

import collections
import math
import os
import pickle
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from brainmri.common.errors import UserError

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
# What reading any bytes may raise
DAMAGED = (
    OSError,
    pickle.UnpicklingError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
)
STORAGE_TYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


def read_torch_weights(path: Path) -> dict[str, np.ndarray]:
    """Read the tensors of a state dictionary as PyTorch saved them until version 1.6.

    The file is five pickles (a magic number, the version of the protocol, sizes of integers, the
    state dictionary, the keys of its storages) and the bytes of the storages.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict of str to ndarray of float32 or int64

    Raises
    ------
    UserError
        If the file is missing or damaged, or holds anything but dense tensors in a dictionary.
    """
    try:
        with open(path, "rb") as file:
            return _read_tensors(file)
    except DAMAGED as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{path} is no file of PyTorch's weights ({reason});"
            " expected a state dictionary of the format before PyTorch 1.6"
        ) from None


@dataclass(frozen=True)
class _Tensor:
    """A tensor whose storage has not been read yet; offset and strides are in elements."""

    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
    """Makes ordered dictionaries and tensors; everything else is refused by its name.

    Attributes
    ----------
    storages : dict of str to (dtype, int)
        Type and number of elements of each storage, by key.
    """

    def __init__(self, file: BinaryIO):
        super().__init__(file)
        self.storages: dict[str, tuple[np.dtype, int]] = {}

    def find_class(self, module: str, name: str):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda key, offset, shape, strides, *_: _Tensor(key, offset, shape, strides)
        if module == "torch" and name in STORAGE_TYPES:
            return STORAGE_TYPES[name]
        raise pickle.UnpicklingError(f"it asks for {f'{module}.{name}'!r}")

    def persistent_load(self, description: tuple) -> str:
        _, dtype, key, _, elements, _ = description
        self.storages[key] = np.dtype(dtype), elements
        return key


def _read_tensors(file: BinaryIO) -> dict[str, np.ndarray]:
    if (_unpickle(file), _unpickle(file)) != (MAGIC_NUMBER, PROTOCOL_VERSION):
        raise ValueError("its first bytes are others")
    _unpickle(file)
    unpickler = _Unpickler(file)
    tensors = unpickler.load()
    if not isinstance(tensors, dict):
        raise ValueError("it is no dictionary")
    size = os.fstat(file.fileno()).st_size
    arrays = {}
    for key in _unpickle(file):
        dtype, elements = unpickler.storages[key]
        (stored,) = struct.unpack("<q", file.read(8).ljust(8, b"\0"))
        if stored != elements or not 0 <= elements * dtype.itemsize <= size - file.tell():
            raise ValueError(f"storage {key!r} is cut short")
        arrays[key] = np.frombuffer(file.read(elements * dtype.itemsize), dtype)
    return {name: _as_array(tensor, arrays) for name, tensor in tensors.items()}


def _unpickle(file: BinaryIO):
    return _Unpickler(file).load()


def _as_array(tensor: _Tensor, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Return a tensor as an array of its own."""
    if not isinstance(tensor, _Tensor):
        raise ValueError("it holds more than tensors")
    storage = arrays[tensor.storage]
    last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.strides, strict=True))
    is_inside = tensor.offset + max(last, math.prod(tensor.shape) - 1) < len(storage)
    if min(tensor.offset, last, *tensor.shape, *tensor.strides) < 0 or not is_inside:
        raise ValueError("a tensor is larger than its storage")
    strides = [step * storage.itemsize for step in tensor.strides]
    return np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides).copy()
