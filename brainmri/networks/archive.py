"""Models from elsewhere: what a `.keras` file holds is checked before Keras makes objects of it.

Keras's safe mode refuses code in a file, but makes an object of any public class or function of
Keras that a file names, some of which read files, download, or change settings.
"""

import contextlib
import json
import math
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import NoneType

import h5py
import keras

# No public API of Keras counts parameters before it allocates them, or shares objects.
from keras.src.backend.common import global_state
from keras.src.backend.common.variables import initialize_all_variables
from keras.src.saving.serialization_lib import ObjectSharingScope

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
ABOUT = "about.json"  # what a user of the model must know; Keras doesn't write it
LIMITS = {CONFIG: 2**26, METADATA: 2**12, WEIGHTS: 2**32, ABOUT: 2**26}  # bytes
MAX_CALLS = 100_000  # of layers, those in a model within the model for each of its calls

# Module, class and registered name of all that the models of this project are made of
LAYERS = (
    "Activation",
    "Add",
    "AveragePooling2D",
    "BatchNormalization",
    "Concatenate",
    "Conv2D",
    "Cropping2D",
    "Dense",
    "DepthwiseConv2D",
    "Dropout",
    "Flatten",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling2D",
    "InputLayer",
    "LayerNormalization",
    "MaxPooling2D",
    "Multiply",
    "Normalization",
    "ReLU",
    "Rescaling",
    "Reshape",
    "Resizing",
    "Subtract",
    "ZeroPadding2D",
)
OPERATIONS = (
    "Add",
    "Concatenate",
    "Flip",
    "GetItem",
    "Log",
    "Maximum",
    "Mean",
    "Multiply",
    "Reshape",
    "Square",
    "Stack",
    "Subtract",
    "TrueDivide",
)
INITIALIZERS = ("GlorotUniform", "HeNormal", "Ones", "VarianceScaling", "Zeros")
ALLOWED = {
    *(("keras.layers", name, None) for name in LAYERS),
    *(("keras.src.ops.numpy", name, name) for name in OPERATIONS),
    *(("keras.initializers", name, None) for name in INITIALIZERS),
    ("keras.src.ops.core", "Cast", "Cast"),
    ("keras.src.models.functional", "Functional", "Functional"),
    ("keras.regularizers", "L1L2", None),
    ("keras", "DTypePolicy", None),
    (None, "__ellipsis__", None),
    (None, "__keras_tensor__", None),
    (None, "__tensor__", None),
}
ACTIVATIONS = {"linear", "relu", "sigmoid", "silu", "softmax"}
DTYPES = {"float32", "float16", "bfloat16", "mixed_float16", "mixed_bfloat16", "uint8", "int32"}
NAMING_KEYS = ("module", "class_name", "registered_name")  # by which Keras finds a class
# Settings that no model of this project has, and that make Keras allocate, or compile
UNUSED_KEYS = ("compile_config", "quantization_config", "lora_rank", "mean", "variance")
OBJECTS = ("_initializer", "_regularizer", "_constraint")  # keys that end so hold no names


def load_archive(path: str | Path) -> keras.Model:
    """Load a `.keras` file of which every part was checked first.

    Raises
    ------
    ValueError
        If it has something that the models of this project don't have. Keras, HDF5 and zipfile
        raise any other kind.
    """
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
        check_entries(archive)
        config = json.loads(read_entry(archive, CONFIG))
        check_config(config)
        weights = Path(folder) / WEIGHTS
        with weights.open("wb") as file:
            for block in read_blocks(archive, WEIGHTS):
                file.write(block)
        with limit_parameters(count_stored_values(weights)), ObjectSharingScope():
            model = keras.saving.deserialize_keras_object(config, safe_mode=True)
        if not isinstance(model, keras.Model):
            raise ValueError(f"{CONFIG} is of no model")
        model.load_weights(weights)
    return model


def check_entries(archive: zipfile.ZipFile) -> None:
    """Check that an archive has the entries of a model, once each, and not compressed.

    Raises
    ------
    ValueError
    """
    names = archive.namelist()
    if sorted({*names, ABOUT}) != sorted(LIMITS) or len(names) != len(set(names)):
        raise ValueError(f"expected {CONFIG}, {METADATA} and {WEIGHTS} in it, once each")
    for entry in archive.infolist():
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{entry.filename} is compressed, which Keras doesn't do")


def read_entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read an entry of at most `LIMITS[name]` bytes; see `read_blocks`."""
    return b"".join(read_blocks(archive, name))


def read_blocks(archive: zipfile.ZipFile, name: str) -> Iterator[bytes]:
    """Read an entry block by block.

    Raises
    ------
    ValueError
        If it is longer than `LIMITS[name]`, whatever its header says.
    """
    size = 0
    with archive.open(name) as entry:
        while block := entry.read(2**22):
            size += len(block)
            if size > LIMITS[name]:
                raise ValueError(f"{name} has more than {LIMITS[name]} bytes")
            yield block


def check_config(config: dict) -> None:
    """Check that a configuration names nothing but what this project's models are made of.

    Keras makes objects at any depth of it, in the arguments of layers and operations too.

    Raises
    ------
    ValueError
    """
    pending = [config]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            check_object(value)
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    if count_calls(config) > MAX_CALLS:
        raise ValueError(f"{CONFIG} calls more than {MAX_CALLS} layers")


def check_object(value: dict) -> None:
    """Check an object of a configuration, but not those in it."""
    if not value.keys().isdisjoint(NAMING_KEYS) or "spec_name" in value:
        names = tuple(value.get(key) for key in NAMING_KEYS)
        if not all(isinstance(name, str | NoneType) for name in names) or names not in ALLOWED:
            raise ValueError(f"{CONFIG} names {describe(value)}, which is not allowed")
    if value.get("class_name") == "DTypePolicy":
        check_name(value["config"], "name", DTYPES)
    elif isinstance(value.get("dtype"), str):
        check_name(value, "dtype", DTYPES)
    if "activation" in value:
        check_name(value, "activation", ACTIVATIONS)
    for key, item in value.items():
        if key in UNUSED_KEYS and item:
            raise ValueError(f"{CONFIG} has {key}, which is not allowed")
        if key.endswith(OBJECTS) and not isinstance(item, dict | NoneType):
            raise ValueError(f"{CONFIG} has {key} {item!r}, which is not allowed")
    for node in value.get("inbound_nodes", []):
        # Keras would compute an operation on plain numbers, and all their broadcast values, here.
        if not has_tensor([node["args"], node["kwargs"]]):
            raise ValueError(f"{CONFIG} has a call without tensors")


def check_name(value: dict, key: str, allowed: set[str]) -> None:
    if not isinstance(value[key], str) or value[key] not in allowed:
        raise ValueError(f"{CONFIG} has {key} {value[key]!r}, which is not allowed")


def describe(value: dict) -> str:
    """Return the module and class that an object names; of a function, also its name."""
    names = [value.get("module"), value.get("class_name"), value.get("spec_name")]
    if isinstance(value.get("config"), str):
        names.append(value["config"])
    if value.get("registered_name") not in names:
        names.append(value["registered_name"])
    return " ".join(str(name) for name in names if name) or "a class without a name"


def has_tensor(value: list | dict) -> bool:
    """Return whether arguments have a tensor of the model, at any depth."""
    if isinstance(value, dict):
        return value.get("class_name") == "__keras_tensor__" or has_tensor([*value.values()])
    return isinstance(value, list) and any(map(has_tensor, value))


def count_calls(config: dict) -> int:
    """Count the calls of layers in a model, those in the models within it each time."""
    return sum(
        len(layer["inbound_nodes"]) * (count_calls(layer) if "layers" in layer["config"] else 1)
        for layer in config["config"]["layers"]
    )


def count_stored_values(path: Path) -> int:
    """Count the values in a file of weights, which must hold every one.

    Raises
    ------
    ValueError
        If it has links, objects, or values that are compressed or somewhere else.
    """
    arrays: list[tuple[int, int]] = []  # number of values, bytes

    def check_link(name: str, link: h5py.HardLink) -> None:
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"{WEIGHTS} has links")

    def count(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        is_stored = not (item.external or item.is_virtual) and item.dtype.kind in "fiub"
        if not is_stored or item.shape is None or item.id.get_storage_size() != item.nbytes:
            raise ValueError(f"{WEIGHTS} has arrays whose values are not simply stored in it")
        arrays.append((item.size, item.nbytes))

    with h5py.File(path) as file:
        file.visititems_links(check_link)
        file.visititems(count)
    sizes, lengths = map(sum, zip((0, 0), *arrays, strict=True))
    if lengths > path.stat().st_size:
        raise ValueError(f"{WEIGHTS} has arrays that share their values")
    return sizes


@contextlib.contextmanager
def limit_parameters(limit: int) -> Iterator[None]:
    """Allocate the parameters of the models built in this context at its end, if they are few.

    Raises
    ------
    ValueError
        If they are more than the limit.
    """
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
        variables = global_state.get_global_attribute("uninitialized_variables", [])
        sizes = [math.prod(variable.shape) for variable in variables]
        # A file may lack the states of random generators, two values each.
        if sum(size for size in sizes if size > 2) > limit:
            raise ValueError(f"{CONFIG} has more parameters than {WEIGHTS}")
        initialize_all_variables()
    finally:
        global_state.set_global_attribute("uninitialized_variables", [])
