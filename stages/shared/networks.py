"""The networks, by name. Each takes grey images, n×h×w×1, levels 0 to 255, and returns class probabilities, n×classes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import h5py
import keras
import tensorflow as tf
from keras import applications, layers, regularizers

from stages.shared.errors import UserError

ZOOM = 0.1  # of views, as a share


class FusedBatchNormalization(layers.BatchNormalization):
    """Keras's batch normalisation over the last axis, computed by TensorFlow's fused kernel, which is faster in training.

    Its weights are those of Keras's layer, so a network that trained with this one can be saved with that one.
    """

    def call(self, inputs, training=None, mask=None):
        statistics = {} if training else {"mean": self.moving_mean.value, "variance": self.moving_variance.value}
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, self.gamma, self.beta, epsilon=self.epsilon, is_training=bool(training), **statistics
        )
        if training:
            for moving, current in ((self.moving_mean, mean), (self.moving_variance, variance)):
                moving.assign(moving * self.momentum + current * (1 - self.momentum))
        return outputs


def training_normalization(replicas: int) -> Callable[..., layers.BatchNormalization]:
    """Batch normalisation to train with: fast on one device, of the whole batch where it is spread over several."""
    return FusedBatchNormalization if replicas == 1 else partial(layers.BatchNormalization, synchronized=True)


def build(
    name: str, size: int, classes: int, l1: float, l2: float, dropout: float, normalization: Callable = layers.BatchNormalization
) -> keras.Model:
    """A fresh network; its weights come from Keras's random seed.

    Parameters
    ----------
    name : str
        A key of `NETWORKS` or of `APPLICATIONS`.
    size : int
        Height and width of the images, pixels.
    classes : int
        Number of classes, 2 or more.
    l1, l2 : float
        Penalties on the kernels of convolutions and dense layers; of "seed-cnn", on those of dense layers alone.
    dropout : float
        Fraction of the features dropped before the last layer, below 1; of "seed-cnn", after the first dense layer.
    normalization : callable
        Makes the batch normalisation layers; the weights fit those of a network built with another.

    Raises
    ------
    UserError
        If the network takes no images as small as these.
    """
    penalty = regularizers.L1L2(l1, l2) if l1 or l2 else None
    images = keras.Input((size, size, 1), name="images")
    features = (NETWORKS.get(name) or partial(application, name))(images, penalty, dropout, normalization)
    probabilities = layers.Dense(classes, "softmax", dtype="float32", kernel_regularizer=penalty, name="probabilities")(features)
    return keras.Model(images, probabilities, name=name.replace("-", "_"))


def application(name, images, penalty, dropout, _):
    """A network of Keras Applications without its top, as the layer `base`; grey is given to it as three equal channels."""
    module, _ = APPLICATIONS[name]
    channels = module.preprocess_input(layers.Concatenate()([images] * 3))
    features = application_base(name, images.shape[1], None)(channels)
    pooling = layers.Flatten() if name == "notebook-3" else layers.GlobalAveragePooling2D()
    return layers.Dropout(dropout)(pooling(features))


def application_base(name: str, size: int, weights: str | None) -> keras.Model:
    module, network = APPLICATIONS[name]
    try:
        return getattr(module, network)(include_top=False, weights=weights, input_shape=(size, size, 3), name="base")
    except ValueError as error:
        raise UserError(f"network.name {name} with ingest.image_size {size}: {error}") from None


def start_from(model: keras.Model, name: str, weights: str, freeze: bool) -> None:
    """Give the base of a network of Keras Applications its first weights.

    Parameters
    ----------
    model : keras.Model
        As `build` makes it for a key of `APPLICATIONS`; changed in place.
    name : str
        That key.
    weights : str
        "imagenet", which Keras downloads unless it has done so before, or the path of a file of the base's weights, as
        `save_weights` writes it or as Keras publishes them ("notop").
    freeze : bool
        Whether the base keeps them in training.

    Raises
    ------
    UserError
        If the file is missing or holds weights of something else, or if the download fails.
    """
    base = model.get_layer("base")
    if weights == "imagenet":
        try:
            base.set_weights(application_base(name, model.inputs[0].shape[1], weights).get_weights())
        except Exception as error:  # noqa: BLE001, Keras raises no other kind
            reason = str(error).split(": ", 1)[0]
            raise UserError(
                f"network.weights: imagenet can't be downloaded ({reason}); give the path of a weights file instead"
            ) from None
    else:
        load_weights(base, name, weights)
    base.trainable = not freeze


def load_weights(base: keras.Model, name: str, path: str) -> None:
    """Load a file that holds weights of the base, of all of it, and of nothing more."""
    if not Path(path).is_file():
        raise UserError(f"network.weights: {path} is missing; expected a file of {name}'s weights without its top")
    try:
        with h5py.File(path) as file:
            arrays = []
            file.visititems(lambda _, item: arrays.append(item) if isinstance(item, h5py.Dataset) else None)
            if any(array.external or array.is_virtual for array in arrays):
                raise ValueError("its values lie in other files")
            found = sorted(array.shape for array in arrays if array.dtype.kind == "f")  # others are counters and seeds
        expected = sorted(tuple(weight.shape) for weight in base.weights if "float" in weight.dtype)
        if found != expected:
            raise ValueError(f"it has {len(found)} arrays of weights, expected {len(expected)}, of certain shapes")
        base.load_weights(path)
    except Exception as error:  # noqa: BLE001  (whatever Keras and HDF5 stumble over)
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"network.weights: {path} holds no weights of {name} without its top ({reason})") from None


def averaged(model: keras.Model, views: str) -> keras.Model:
    """A model whose prediction is the mean of the given model's for several views of an image.

    Parameters
    ----------
    model : keras.Model
        As `build` makes it.
    views : {"plain", "mirrored", "zoomed"}
        The image; also its mirror image; also both a tenth larger and both a tenth smaller: these are as smooth as the images
        that a network learned from, which were turned and zoomed.
    """
    if views == "plain":
        return model
    images = keras.Input(model.inputs[0].shape[1:], name="images")
    size = images.shape[1]
    seen = [images]
    if views == "zoomed":
        rim = round(size * ZOOM / 2)
        seen += [layers.Resizing(size, size)(changed(images)) for changed in (layers.Cropping2D(rim), layers.ZeroPadding2D(rim))]
    seen += [keras.ops.flip(view, 2) for view in seen]
    mean = layers.Average(dtype="float32")([model(view) for view in seen])
    return keras.Model(images, mean, name=f"{views}_{model.name}")


def seed_cnn(images, penalty, dropout, _):
    """The original system's: four convolutions with max pooling, then two dense layers with dropout.

    Its members differ in one dropout rate, here that of the first dense layer; the second one's is fixed.

    References
    ----------
    https://github.com/A-PachecoT/brain-mri-classification
    """
    x = layers.Rescaling(1 / 255)(images)
    for filters in (32, 64, 64, 128):
        x = layers.MaxPooling2D()(layers.Conv2D(filters, 3, activation="relu")(x))
    x = layers.Dense(128, "relu", kernel_regularizer=penalty)(layers.Flatten()(x))
    x = layers.Dropout(dropout)(x)
    x = layers.Dense(64, "relu", kernel_regularizer=penalty)(x)
    return layers.Dropout(0.3)(x)


def notebook_1(images, penalty, dropout, normalization):
    """The first network of A. Bansal's notebook, which the original project cites: one wide convolution, pooled twice.

    References
    ----------
    https://www.kaggle.com/code/anibansal/brain-mri-classification, which augments the images before it splits them; here
    the split comes first.
    """
    x = layers.ZeroPadding2D(2)(layers.Rescaling(1 / 255)(images))
    x = layers.Conv2D(32, 7, kernel_regularizer=penalty)(x)
    x = layers.ReLU()(normalization()(x))
    x = layers.MaxPooling2D(4, padding="same")(layers.MaxPooling2D(4, padding="same")(x))
    x = layers.Dense(128, "relu", kernel_regularizer=penalty)(layers.Flatten()(x))
    return layers.Dropout(dropout)(x)


def notebook_2(images, penalty, dropout, _):
    """The second network of that notebook: three 9×9 convolutions with dropout after each pooling, then a dense layer."""
    x = layers.Rescaling(1 / 255)(images)
    for filters, rate in ((16, 0.45), (16, 0.25), (36, 0.25)):
        x = layers.Conv2D(filters, 9, padding="same", activation="relu", kernel_regularizer=penalty)(x)
        x = layers.Dropout(rate)(layers.MaxPooling2D()(x))
    x = layers.Dense(512, "relu", kernel_regularizer=penalty)(layers.Flatten()(x))
    return layers.Dropout(dropout)(x)


def residual(images, penalty, dropout, normalization, sides=False):
    """A small residual network: each image standardised, a strided stem, one residual block at each of three scales.

    With `sides`, what stands out against the other side of the head is given to the second block too.

    References
    ----------
    K. He, X. Zhang, S. Ren, J. Sun, "Identity Mappings in Deep Residual Networks", ECCV 2016.
    """
    x = residual_stem(images, penalty, normalization)
    x = residual_block(layers.MaxPooling2D()(x), 32, 1, penalty, normalization)
    if sides:
        x = compare_sides(x)
    for filters in (48, 96):  # multiples of 16, which CPUs compute in one go
        x = residual_block(x, filters, 2, penalty, normalization)
    return pool_both(x, dropout)


def residual_deep(images, penalty, dropout, normalization):
    """The same without pooling after the stem, and with blocks at four scales: it takes twice the time."""
    x = residual_stem(images, penalty, normalization)
    for filters, strides in ((16, 1), (32, 2), (64, 2), (128, 2)):
        x = residual_block(x, filters, strides, penalty, normalization)
    return pool_both(x, dropout)


def residual_stem(images, penalty, normalization):
    x = layers.LayerNormalization(axis=(1, 2, 3), center=False, scale=False, epsilon=1.0)(images)
    return activate(convolve(x, 16, 5, 2, penalty), normalization)


def residual_block(x, filters, strides, penalty, normalization):
    y = convolve(x, filters, 3, strides, penalty)
    y = convolve(activate(y, normalization), filters, 3, 1, penalty)
    return activate(layers.Add()([convolve(x, filters, 1, strides, penalty), y]), normalization)


def compare_sides(x):
    """The features, and by how much they exceed, smoothed, the strongest near the mirrored place: a head is nearly symmetric."""
    smooth = layers.AveragePooling2D(3, 1, "same")(x)
    other = layers.MaxPooling2D(3, 1, "same")(keras.ops.flip(smooth, 2))
    return layers.Concatenate()([x, layers.ReLU()(layers.Subtract()([smooth, other]))])


def convolve(x, filters, kernel, strides, penalty):
    return layers.Conv2D(
        filters, kernel, strides, "same", use_bias=False, kernel_regularizer=penalty, kernel_initializer="he_normal"
    )(x)


def activate(x, normalization):
    return layers.ReLU()(normalization(momentum=0.9)(x))


def pool_both(x, dropout):
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), layers.GlobalMaxPooling2D()(x)])
    return layers.Dropout(dropout)(x)


NETWORKS = {
    "residual": residual,
    "residual-sides": partial(residual, sides=True),
    "residual-deep": residual_deep,
    "seed-cnn": seed_cnn,
    "notebook-1": notebook_1,
    "notebook-2": notebook_2,
}

APPLICATIONS = {  # name: the module of Keras with its preprocessing, and what it calls the network
    "vgg16": (applications.vgg16, "VGG16"),
    "notebook-3": (applications.vgg16, "VGG16"),  # the third network of that notebook: its features are flattened, not pooled
    "resnet50": (applications.resnet50, "ResNet50"),
    "densenet121": (applications.densenet, "DenseNet121"),
    "mobilenet-v2": (applications.mobilenet_v2, "MobileNetV2"),
    "efficientnet-b0": (applications.efficientnet, "EfficientNetB0"),
}
