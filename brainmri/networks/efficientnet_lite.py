"""EfficientNet-Lite0 for transfer learning, with batch normalization folded into convolutions."""

import keras
from keras import layers

# Of ImageNet's channels red, green and blue, for levels 0 to 1
MEAN = (0.485, 0.456, 0.406)
STANDARD_DEVIATION = (0.229, 0.224, 0.225)
# Of each stage: number of blocks, kernel, stride of its first block, expansion, filters
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM_FILTERS, TOP_FILTERS = 32, 1280


def preprocess_input(images):
    """Standardize channels by ImageNet's mean and deviation; levels are 0 to 255.

    TensorFlow, where the weights come from, has (levels − 127) / 128, which is less than half of
    the contrast. Neither is measurably better here: see "Ablations" in docs/evaluation.md.
    """
    scale = [1 / (255 * deviation) for deviation in STANDARD_DEVIATION]
    offset = [-mean / deviation for mean, deviation in zip(MEAN, STANDARD_DEVIATION, strict=True)]
    return layers.Rescaling(scale, offset)(images)


def EfficientNetLite0(
    include_top: bool, weights: None, input_shape: tuple[int, int, int], name: str
) -> keras.Model:
    """Build the network without its top, as the functions of Keras Applications do.

    It differs from EfficientNet-B0 by ReLU6 instead of swish, and has no squeeze-and-excitation.
    Each convolution has a bias in place of the batch normalization that follows it in the original:
    statistics of ImageNet are kept, as is usual in fine-tuning with few images, and it takes less
    time. All layers have names, which a file of weights holds: Keras would number them by what was
    built before.

    Parameters
    ----------
    include_top : False
    weights : None
        They are random; those of ImageNet come from a file: see `conversion.imagenet`.
    input_shape : (height, width, 3)
    name : str

    Returns
    -------
    keras.Model
        From preprocessed images to features, n×⌈h/32⌉×⌈w/32⌉×1280.

    References
    ----------
    R. Liu, "Higher accuracy on vision models with EfficientNet-Lite", TensorFlow blog, 2020.
    M. Tan, Q. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
    ICML 2019.
    """
    images = keras.Input(input_shape, name="images")
    x = convolve_and_activate(images, STEM_FILTERS, 3, 2, "stem")
    for stage, (blocks, kernel, first_stride, expansion, filters) in enumerate(STAGES, 1):
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            x = inverted_residual(x, kernel, stride, expansion, filters, f"block{stage}{block + 1}")
    features = convolve_and_activate(x, TOP_FILTERS, 1, 1, "top")
    return keras.Model(images, features, name=name)


def inverted_residual(x, kernel, stride, expansion, filters, name):
    """Expand channels, convolve each of them, project; add the input if the shape is the same."""
    channels = x.shape[-1]
    y = x
    if expansion > 1:
        y = convolve_and_activate(y, channels * expansion, 1, 1, f"{name}_expand")
    y = layers.DepthwiseConv2D(kernel, stride, "same", name=f"{name}_depthwise")(y)
    y = layers.ReLU(6.0, name=f"{name}_activation")(y)
    y = layers.Conv2D(filters, 1, name=f"{name}_project")(y)
    if stride > 1 or channels != filters:
        return y
    return layers.Add(name=f"{name}_sum")([y, x])


def convolve_and_activate(x, filters, kernel, stride, name):
    """Convolve, and apply ReLU6."""
    x = layers.Conv2D(filters, kernel, stride, "same", name=f"{name}_convolution")(x)
    return layers.ReLU(6.0, name=f"{name}_activation")(x)
