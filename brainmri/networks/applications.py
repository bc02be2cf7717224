"""EfficientNet-Lite0 and networks of Keras Applications as feature extractors of gray images."""

import keras
from keras import applications, layers

from brainmri.common.errors import UserError
from brainmri.networks import efficientnet_lite

# By name: the module, which has the preprocessing, and its function that builds the network
APPLICATIONS = {
    "vgg16": (applications.vgg16, "VGG16"),
    # The notebook's third network, whose features are flattened; see `application_features`
    "notebook-3": (applications.vgg16, "VGG16"),
    "resnet50": (applications.resnet50, "ResNet50"),
    "densenet121": (applications.densenet, "DenseNet121"),
    "mobilenet-v2": (applications.mobilenet_v2, "MobileNetV2"),
    "efficientnet-b0": (applications.efficientnet, "EfficientNetB0"),
    "efficientnet-lite0": (efficientnet_lite, "EfficientNetLite0"),
}

# Of batch normalization that trains from scratch. Keras's MobileNetV2 has 0.999: after hundreds of
# steps, its statistics are still halfway those that it starts with, and predictions useless.
MOMENTUM = 0.9


def application_features(name, images, penalty, dropout):
    """Compute the features of a network without its top, the layer `base`.

    The network takes gray images as three equal channels.
    """
    module, _ = APPLICATIONS[name]
    channels = module.preprocess_input(layers.Concatenate()([images] * 3))
    features = application_base(name, images.shape[1], None)(channels)
    pooled = layers.Flatten()(features) if name == "notebook-3" else pool_features(features)
    return layers.Dropout(dropout)(pooled)


def pool_features(x):
    """Concatenate global average pooling and global max pooling."""
    average = layers.GlobalAveragePooling2D()(x)
    maximum = layers.GlobalMaxPooling2D()(x)
    return layers.Concatenate()([average, maximum])


def application_base(name: str, size: int, weights: str | None) -> keras.Model:
    """Build a network without its top.

    Parameters
    ----------
    name : str
        A key of `APPLICATIONS`.
    size : int
        Height and width of the images, pixels.
    weights : {"imagenet", None}
        The weights that Keras publishes, which it downloads, or random ones.

    Raises
    ------
    UserError
        If the network takes no images as small as these.
    """
    module, network = APPLICATIONS[name]
    build = getattr(module, network)
    try:
        base = build(include_top=False, weights=weights, input_shape=(size, size, 3), name="base")
    except ValueError as error:
        raise UserError(f"network.name {name} with ingest.image_size {size}: {error}") from None
    for layer in base.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = MOMENTUM
    return base
