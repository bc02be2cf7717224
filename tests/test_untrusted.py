"""Files that a user may get from elsewhere run no code, and have no other file read."""

import json
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from dvc_data.hashfile.cache import Cache, DiskError

from stages.shared.errors import UserError
from stages.shared.models import load_ensemble, load_model
from stages.shared.networks import application_base, load_weights


class Touches:
    """Unpickled, it makes a file."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def lambda_layer(folder: Path, ran: Path) -> keras.Model:
    images, file = keras.Input((8, 8, 1)), str(ran)
    return keras.Model(images, keras.layers.Lambda(lambda image: [open(file, "w").close(), image][1])(images))


def as_keras(folder: Path, ran: Path) -> Path:
    lambda_layer(folder, ran).save(folder / "model.keras")
    return folder / "model.keras"


def as_hdf5(folder: Path, ran: Path) -> Path:
    lambda_layer(folder, ran).save(folder / "model.h5")
    return folder / "model.h5"


def as_hdf5_renamed(folder: Path, ran: Path) -> Path:
    return as_hdf5(folder, ran).rename(folder / "model.keras")


def with_saved_model(folder: Path, ran: Path) -> Path:
    served = tf.Module()
    served.call = tf.function(
        lambda images: [tf.io.write_file(str(ran), "ran"), images][1], [tf.TensorSpec((None, 8, 8, 1), tf.float32)]
    )
    tf.saved_model.save(served, str(folder / "saved"), {"serving_default": served.call})
    layer = {
        "module": "keras.layers",
        "class_name": "TFSMLayer",
        "config": {"filepath": str(folder / "saved"), "call_endpoint": "serving_default"},
    }
    return with_layer(folder, layer)


def with_any_function(folder: Path, ran: Path) -> Path:
    touch = {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"}
    return with_layer(folder, {"module": "keras.layers", "class_name": "Activation", "config": {"activation": touch}})


def with_layer(folder: Path, layer: dict) -> Path:
    """A model of one more layer, which is told in its configuration only."""
    plain, changed = folder / "plain.keras", folder / "model.keras"
    keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()]).save(plain)
    with zipfile.ZipFile(plain) as whole, zipfile.ZipFile(changed, "w") as written:
        config = json.loads(whole.read("config.json"))
        config["config"]["layers"].insert(1, {"registered_name": None, **layer})
        written.writestr("config.json", json.dumps(config))
        for name in ("metadata.json", "model.weights.h5"):
            written.writestr(name, whole.read(name))
    return changed


@pytest.mark.parametrize("make", [as_keras, as_hdf5, as_hdf5_renamed, with_saved_model, with_any_function])
@pytest.mark.parametrize("load", [load_model, load_ensemble])
def test_a_model_with_code_is_refused(tmp_path, make, load):
    ran = tmp_path / "ran"
    model = make(tmp_path, ran)
    ran.unlink(missing_ok=True)  # making it may have run it
    with pytest.raises(UserError, match="not a model that loads in safe mode"):
        load(model)
    assert not ran.exists()


def test_a_model_of_one_more_layer_without_code_is_loaded(tmp_path):
    relu = {"module": "keras.layers", "class_name": "Activation", "config": {"activation": "relu"}}
    loaded = load_model(with_layer(tmp_path, relu))
    assert [type(layer) for layer in loaded.layers] == [keras.layers.Activation, keras.layers.Flatten]


def test_weights_that_lie_in_another_file_are_not_read(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"\x2a" * 4 * 64)
    model = tmp_path / "model.keras"
    keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(1, use_bias=False)]).save(model)
    load_model(model)
    with zipfile.ZipFile(model) as whole:
        entries = {name: whole.read(name) for name in whole.namelist()}
    (tmp_path / "weights.h5").write_bytes(entries["model.weights.h5"])
    with h5py.File(tmp_path / "weights.h5", "a") as file:
        (place,) = [name for name in names_in(file) if isinstance(file[name], h5py.Dataset)]
        del file[place]
        file.create_dataset(place, (64, 1), np.float32, external=[(str(secret), 0, 4 * 64)])
    entries["model.weights.h5"] = (tmp_path / "weights.h5").read_bytes()
    with zipfile.ZipFile(model, "w") as changed:
        for name, content in entries.items():
            changed.writestr(name, content)
    with pytest.raises(UserError, match="not a model that loads in safe mode"):
        load_model(model)


def test_a_weights_file_has_no_other_file_read(tmp_path):
    (tmp_path / "secret").write_bytes(b"\x2a" * 4 * 32)
    base, path = application_base("mobilenet-v2", 32, None), tmp_path / "base.weights.h5"
    base.save_weights(path)
    load_weights(base, "mobilenet-v2", path)
    with h5py.File(path, "a") as file:
        place = next(name for name in names_in(file) if isinstance(file[name], h5py.Dataset) and file[name].shape == (32,))
        del file[place]
        file.create_dataset(place, (32,), np.float32, external=[(str(tmp_path / "secret"), 0, 4 * 32)])
    with pytest.raises(UserError, match="its values lie in other files"):
        load_weights(base, "mobilenet-v2", path)


def names_in(file: h5py.File) -> list[str]:
    names = []
    file.visit(names.append)
    return names


def test_an_array_of_objects_is_neither_written_nor_read(tmp_path):
    from stages.explain import write_arrays

    with pytest.raises(ValueError, match="pickle"):
        write_arrays(tmp_path / "arrays.npz", heat=np.array([Touches(tmp_path / "ran")], object))
    np.savez(tmp_path / "arrays.npz", heat=np.array([Touches(tmp_path / "ran")], object))
    with np.load(tmp_path / "arrays.npz") as arrays, pytest.raises(ValueError, match="allow_pickle=False"):
        arrays["heat"]
    assert not (tmp_path / "ran").exists()


def test_what_dvc_keeps_of_files_can_not_run_code(tmp_path):
    plain = {"links": (7, "1.5"), "flag": True, "entry": {"meta": {"size": 3}, "hash": None}}
    with Cache(str(tmp_path / "known")) as known:
        for key, value in plain.items():
            known[key] = value
        assert {key: known[key] for key in plain} == plain
        known["planted"] = Touches(tmp_path / "ran")
        with pytest.raises(DiskError):
            known["planted"]
    assert not (tmp_path / "ran").exists()
