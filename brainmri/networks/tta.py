"""Test-time augmentation: predictions as the mean over several views of an image."""

import keras
from keras import layers

ZOOM = 0.1  # of the zoomed views, a fraction


def with_tta(model: keras.Model, views: str) -> keras.Model:
    """Build a model that predicts the mean of another model's predictions over views of an image.

    Parameters
    ----------
    model : keras.Model
        As `build_network` builds it.
    views : {"plain", "mirrored", "zoomed"}
        The image; also its mirror image; also both a tenth larger and both a tenth smaller. Resized
        views are as smooth as the images in training, which are rotated and zoomed.
    """
    if views == "plain":
        return model
    images = keras.Input(model.inputs[0].shape[1:], name="images")
    inputs = views_of(images, views)
    # As one batch: a network that is called once is traced and saved once. Not in training, which
    # `Resizing` is by default, and after it Keras takes all else for training too.
    predictions = model(keras.ops.concatenate(inputs), training=False)
    mean = mean_of_views(predictions, len(inputs))
    return keras.Model(images, mean, name=f"{views}_{model.name}")


def mean_of_views(predictions, number: int):
    """Return the mean over views: from (number·n)×classes, view by view, to n×classes."""
    by_view = keras.ops.reshape(predictions, (number, -1, predictions.shape[-1]))
    return keras.ops.mean(by_view, 0)


def single_view(model: keras.Model) -> keras.Model:
    """Return the model that predicts of one view, of one that `with_tta` has built or not."""
    networks = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.Model) and len(layer.output.shape) == 2
    ]
    return networks[0] if networks else model


def views_of(images, views: str) -> list:
    """Return the views of images, n×h×w×1 each; see `with_tta`."""
    if views == "plain":
        return [images]
    size = images.shape[1]
    inputs = [images]
    if views == "zoomed":
        margin = round(size * ZOOM / 2)
        for zoom in (layers.Cropping2D(margin), layers.ZeroPadding2D(margin)):
            inputs.append(layers.Resizing(size, size)(zoom(images)))
    return inputs + [keras.ops.flip(view, 2) for view in inputs]
