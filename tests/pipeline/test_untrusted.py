"""Files from elsewhere run no code, and have no other file read."""

import io
import json
import shutil
import struct
import tempfile
import warnings
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from dvc.repo import Repo

from brainmri import configure
from brainmri.common.command import run_command
from brainmri.common.errors import UserError
from brainmri.common.files import write_arrays
from brainmri.models.ensemble import load_ensemble
from brainmri.networks.applications import APPLICATIONS, application_base
from brainmri.networks.archive import (
    LIMITS,
    MAX_CALLS,
    check_config,
    count_stored_values,
    read_entry,
)
from brainmri.networks.builders import NETWORKS, build_network
from brainmri.networks.pretrained import load_weights
from brainmri.networks.saving import load_model
from brainmri.networks.tta import with_tta
from tests.support.checkout import ROOT

NOT_LOADED = "not a model that loads in safe mode"


class TouchWhenUnpickled:
    """An object that makes a file when it is unpickled."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def make_lambda_model(marker: Path) -> keras.Model:
    """Make a model with a Lambda layer that writes a file when it is called."""
    images, file = keras.Input((8, 8, 1)), str(marker)
    layer = keras.layers.Lambda(lambda image: [open(file, "w").close(), image][1])
    return keras.Model(images, layer(images))


def save_as_keras(folder: Path, marker: Path) -> Path:
    make_lambda_model(marker).save(folder / "model.keras")
    return folder / "model.keras"


def save_as_hdf5(folder: Path, marker: Path) -> Path:
    make_lambda_model(marker).save(folder / "model.h5")
    return folder / "model.h5"


def save_as_renamed_hdf5(folder: Path, marker: Path) -> Path:
    return save_as_hdf5(folder, marker).rename(folder / "model.keras")


def save_with_saved_model(folder: Path, marker: Path) -> Path:
    module = tf.Module()
    module.call = tf.function(
        lambda images: [tf.io.write_file(str(marker), "ran"), images][1],
        [tf.TensorSpec((None, 8, 8, 1), tf.float32)],
    )
    tf.saved_model.save(module, str(folder / "saved"), {"serving_default": module.call})
    layer = {
        "module": "keras.layers",
        "class_name": "TFSMLayer",
        "config": {"filepath": str(folder / "saved"), "call_endpoint": "serving_default"},
    }
    return save_with_layer(folder, layer)


def save_with_function_by_name(folder: Path, marker: Path) -> Path:
    function = {
        "module": "os",
        "class_name": "function",
        "config": "system",
        "registered_name": "system",
    }
    layer = {
        "module": "keras.layers",
        "class_name": "Activation",
        "config": {"activation": function},
    }
    return save_with_layer(folder, layer)


def save_with_layer(folder: Path, layer: dict) -> Path:
    """Save a model, and add a layer to its configuration only."""
    plain, changed = folder / "plain.keras", folder / "model.keras"
    images = keras.Input((8, 8, 1), name="images")
    keras.Model(images, keras.layers.Flatten(name="flat")(images)).save(plain)
    entries = read_entries(plain)
    config = json.loads(entries["config.json"])
    flat = config["config"]["layers"][1]
    added = {"registered_name": None, "name": "added", "inbound_nodes": flat["inbound_nodes"]}
    config["config"]["layers"].append(added := {**added, **layer})
    if added["inbound_nodes"]:
        config["config"]["output_layers"] = [["flat", 0, 0], ["added", 0, 0]]
    entries["config.json"] = json.dumps(config).encode()
    write_entries(changed, entries)
    return changed


def read_entries(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def write_entries(path: Path, entries: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in entries.items():
            file.writestr(name, content)


def replace_by_external(file: h5py.File, name: str, shape: tuple[int, ...], secret: Path) -> None:
    """Replace a dataset by one of float32 whose values are in another file."""
    del file[name]
    external = [(str(secret), 0, 4 * int(np.prod(shape)))]
    file.create_dataset(name, shape, np.float32, external=external)


def dataset_names(file: h5py.File) -> list[str]:
    names = []
    file.visit(names.append)
    return [name for name in names if isinstance(file[name], h5py.Dataset)]


@pytest.mark.parametrize(
    "save",
    [
        save_as_keras,
        save_as_hdf5,
        save_as_renamed_hdf5,
        save_with_saved_model,
        save_with_function_by_name,
    ],
)
@pytest.mark.parametrize("load", [load_model, load_ensemble])
def test_models_with_code_are_refused(tmp_path, save, load):
    marker = tmp_path / "ran"
    model = save(tmp_path, marker)
    marker.unlink(missing_ok=True)  # saving may have run the code
    with pytest.raises(UserError, match=NOT_LOADED):
        load(model)
    assert not marker.exists()


def test_added_layer_without_code_is_loaded(tmp_path):
    relu = {"module": "keras.layers", "class_name": "Activation", "config": {"activation": "relu"}}
    model = load_model(save_with_layer(tmp_path, relu))
    assert [type(layer) for layer in model.layers] == [
        keras.layers.InputLayer,
        keras.layers.Flatten,
        keras.layers.Activation,
    ]


def object_of(module: str, name: str, /, **config) -> dict:
    return {"module": module, "class_name": name, "registered_name": None, "config": config}


def save_with_argument(folder: Path, argument) -> Path:
    """Save a model with a layer of which a call has an argument that Keras makes an object of."""
    path = save_with_layer(folder, object_of("keras.layers", "Activation", activation="relu"))
    entries = read_entries(path)
    config = json.loads(entries["config.json"])
    config["config"]["layers"][-1]["inbound_nodes"][0]["kwargs"] = {"training": argument}
    write_entries(path, {**entries, "config.json": json.dumps(config).encode()})
    return path


@pytest.mark.parametrize(
    "argument",
    [
        object_of("keras.layers", "TFSMLayer", filepath="saved", call_endpoint="serve"),
        object_of("keras.src.ops.core", "Switch"),
        object_of("keras.layers", "StringLookup", vocabulary="/etc/passwd"),
        object_of("keras.config", "set_floatx", value="float64"),
        {**object_of("builtins", "function"), "config": "tanh", "registered_name": "tanh"},
        {**object_of("keras.utils", "function"), "config": "get_file"},
        {"class_name": "__lambda__", "config": {"value": ["4wA="]}},
        {**object_of("tensorflow", "__typespec__"), "spec_name": "TensorSpec"},
        {**object_of("keras.layers", "ReLU"), "compile_config": {"loss": "mse"}},
        {**object_of("keras.layers", "ReLU"), "module": ["keras.layers"]},
        object_of("keras.layers", "ReLU", dtype="string"),
        object_of("keras.layers", "Dense", units=1, kernel_initializer="orthogonal"),
    ],
    ids=str,
)
def test_what_no_model_here_is_made_of_is_refused(tmp_path, monkeypatch, argument):
    """In the arguments of a call too, and before Keras makes an object of anything."""
    path, made = save_with_argument(tmp_path, argument), []
    monkeypatch.setattr(keras.saving, "deserialize_keras_object", lambda *_, **__: made.append(1))
    with pytest.raises(UserError, match="not allowed"):
        load_model(path)
    assert not made


@pytest.mark.parametrize(
    "changes",
    [{}, {"build_config": {"input_shape": [None, 10**6]}, "inbound_nodes": []}],
    ids=["called", "not called"],
)
def test_parameters_that_the_weights_lack_are_not_allocated(tmp_path, changes):
    dense = object_of("keras.layers", "Dense", units=10**12)
    path = save_with_layer(tmp_path, {**dense, **changes})
    with pytest.raises(UserError, match="more parameters"):
        load_model(path)


def test_calls_without_tensors_are_refused(tmp_path):
    """Keras would compute them while it loads the model."""
    add = {**object_of("keras.src.ops.numpy", "Add", name="add"), "registered_name": "Add"}
    node = {"args": [[[1], [1]], [1, 1]], "kwargs": {}}
    with pytest.raises(UserError, match="without tensors"):
        load_model(save_with_layer(tmp_path, {**add, "inbound_nodes": [node]}))


@pytest.mark.parametrize("name", ["assets/a", "other", "config.json"])
def test_archives_of_other_entries_leave_nothing_behind(tmp_path, monkeypatch, name):
    path, temporary = tmp_path / "model.keras", tmp_path / "temporary"
    temporary.mkdir()
    images = keras.Input((8, 8, 1))
    keras.Model(images, keras.layers.Flatten()(images)).save(path)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")  # of a doubled name
        archive.writestr(name, b"0" * 10**6)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with pytest.raises(UserError, match="once each"):
        load_model(path)
    assert not [*temporary.iterdir()]


def test_entries_are_not_unpacked_beyond_their_limit(tmp_path):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("metadata.json", b" " * (LIMITS["metadata.json"] + 1))
    with zipfile.ZipFile(content) as archive, pytest.raises(ValueError, match="more than"):
        read_entry(archive, "metadata.json")


def test_compressed_entries_are_refused(tmp_path):
    """A small one could unpack to gigabytes."""
    path = save_with_layer(tmp_path, object_of("keras.layers", "ReLU"))
    entries = read_entries(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("about.json", b" " * 2**26)
        for name, content in entries.items():
            archive.writestr(name, content)
    with pytest.raises(UserError, match=r"about\.json is compressed"):
        load_model(path)


def test_entries_that_overlap_are_refused(tmp_path):
    """By the directory of the archive, about.json is where the weights are."""
    path = save_with_layer(tmp_path, object_of("keras.layers", "ReLU"))
    write_entries(path, {**read_entries(path), "about.json": b"{}"})
    with zipfile.ZipFile(path, "a") as archive:
        weights = archive.getinfo("model.weights.h5")
        entry = archive.getinfo("about.json")
        entry.header_offset, entry.CRC = weights.header_offset, weights.CRC
        entry.file_size = entry.compress_size = weights.file_size
        archive.comment = b"so that the directory is written again"
    with pytest.raises(UserError, match="no ensemble of this pipeline"):
        load_ensemble(path)


def model_config(*layers: dict) -> dict:
    return {**object_of("keras.src.models.functional", "Functional", layers=[*layers])} | {
        "registered_name": "Functional"
    }


def call_of(name: str) -> dict:
    """Return a call with the output of the layer of this name."""
    config = {"shape": [None, 64], "dtype": "float32", "keras_history": [name, 0, 0]}
    return {"args": [{"class_name": "__keras_tensor__", "config": config}], "kwargs": {}}


def called(layer: dict, times: int) -> dict:
    return {**layer, "inbound_nodes": [call_of("images")] * times}


def test_calls_are_bounded():
    """Of a layer, and of models in models, whose number grows with each level."""
    relu = object_of("keras.layers", "ReLU")
    check_config(model_config(called(relu, MAX_CALLS)))
    with pytest.raises(ValueError, match="calls more than"):
        check_config(model_config(called(relu, MAX_CALLS + 1)))
    nested = model_config(called(relu, 2))
    for _ in range(20):
        nested = model_config(called(nested, 2))
    with pytest.raises(ValueError, match="calls more than"):
        check_config(nested)


def test_arrays_that_share_their_values_are_refused(tmp_path):
    """A small file of weights would fill gigabytes of parameters."""
    path, size, names = tmp_path / "weights.h5", 2**16, "abcdefgh"
    with h5py.File(path, "w") as file:
        arrays = [file.create_dataset(name, size, np.uint8) for name in names]
        for value, array in enumerate(arrays, start=1):
            array[:] = value
        first, *others = [array.id.get_offset() for array in arrays]
    assert count_stored_values(path) == len(names) * size
    content = path.read_bytes()
    for offset in others:
        assert content.count(struct.pack("<Q", offset)) == 1
        content = content.replace(struct.pack("<Q", offset), struct.pack("<Q", first))
    content = content[: first + size]
    content = content[:40] + struct.pack("<Q", len(content)) + content[48:]  # the superblock's
    path.write_bytes(content)
    with h5py.File(path) as file:
        assert {file[name][0] for name in names} == {1}
    with pytest.raises(ValueError, match="share their values"):
        count_stored_values(path)


def test_names_from_a_model_are_no_commands_for_a_terminal(tmp_path, capsys):
    """Neither those in this project's errors nor those in Keras's own."""
    escape = "\x1b]0;x\x07\x9b2J\u202e"
    layers = (
        object_of("keras.layers", f"Lambda{escape}"),
        {**object_of("keras.layers", "ReLU"), "inbound_nodes": [call_of(escape)]},
    )
    for layer in layers:
        path = save_with_layer(tmp_path, layer)
        with pytest.raises(SystemExit) as caught:
            run_command(lambda path=path: load_model(path))
        assert "x1b]0;x" in str(caught.value)
        assert str(caught.value).isprintable()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", [*NETWORKS, *APPLICATIONS])
@pytest.mark.parametrize("precision", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_configurations_of_all_networks_are_allowed(name, precision):
    keras.config.set_dtype_policy(precision)
    try:
        model = with_tta(build_network(name, 64, 3, 1e-4, 1e-4, 0.3), "zoomed")
    finally:
        keras.config.set_dtype_policy("float32")
    check_config(json.loads(json.dumps(keras.saving.serialize_keras_object(model))))


def test_model_weights_in_another_file_are_refused(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"\x2a" * 4 * 64)
    path = tmp_path / "model.keras"
    images = keras.Input((8, 8, 1))
    dense = keras.layers.Dense(1, use_bias=False)
    keras.Model(images, dense(keras.layers.Flatten()(images))).save(path)
    load_model(path)
    entries = read_entries(path)
    weights = tmp_path / "weights.h5"
    weights.write_bytes(entries["model.weights.h5"])
    with h5py.File(weights, "a") as file:
        (name,) = dataset_names(file)
        replace_by_external(file, name, (64, 1), secret)
    entries["model.weights.h5"] = weights.read_bytes()
    write_entries(path, entries)
    with pytest.raises(UserError, match=NOT_LOADED):
        load_model(path)


def test_weights_file_with_external_values_is_refused(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"\x2a" * 4 * 32)
    base, path = application_base("mobilenet-v2", 32, None), tmp_path / "base.weights.h5"
    base.save_weights(path)
    load_weights(base, "mobilenet-v2", path)
    with h5py.File(path, "a") as file:
        name = next(name for name in dataset_names(file) if file[name].shape == (32,))
        replace_by_external(file, name, (32,), secret)
    with pytest.raises(UserError, match="its values are in other files"):
        load_weights(base, "mobilenet-v2", path)


def test_arrays_of_objects_are_neither_written_nor_read(tmp_path):
    path, marker = tmp_path / "arrays.npz", tmp_path / "ran"
    objects = np.array([TouchWhenUnpickled(marker)], object)
    with pytest.raises(ValueError, match="pickle"):
        write_arrays(path, heat=objects)
    np.savez(path, heat=objects)
    with np.load(path) as arrays, pytest.raises(ValueError, match="allow_pickle=False"):
        arrays["heat"]
    assert not marker.exists()


def test_pickles_of_dvc_are_private(tmp_path, monkeypatch):
    """Nobody else can write where DVC remembers files, as pickles."""
    monkeypatch.chdir(tmp_path)
    Repo.init(str(tmp_path), no_scm=True).close()
    shutil.copytree(ROOT / ".dvc/plots", tmp_path / ".dvc/plots")
    site_cache = tmp_path / ".dvc/site-cache"
    site_cache.mkdir()
    site_cache.chmod(0o777)
    configure.main()
    with Repo(str(tmp_path)) as repo:
        assert Path(repo.site_cache_dir).is_relative_to(site_cache)
    assert site_cache.stat().st_mode & 0o777 == 0o700
