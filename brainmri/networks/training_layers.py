"""Layers to train with: they compute as Keras's, whose weights they have, but faster on a CPU."""

import keras
import tensorflow as tf
from keras import layers

WIDE_KERNEL = 5  # pixels; the gradient of narrower ones takes oneDNN no longer than TensorFlow


class FusedBatchNormalization(layers.BatchNormalization):
    """Batch normalization over the last axis by TensorFlow's fused kernel."""

    def call(self, inputs, training=None, mask=None):
        statistics = {}
        if not training:
            statistics["mean"] = self.moving_mean.value
            statistics["variance"] = self.moving_variance.value
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            self.gamma,
            self.beta,
            epsilon=self.epsilon,
            is_training=bool(training),
            **statistics,
        )
        if training:
            for moving, current in ((self.moving_mean, mean), (self.moving_variance, variance)):
                moving.assign(moving * self.momentum + current * (1 - self.momentum))
        return outputs


class FastConv2D(layers.Conv2D):
    """Convolution whose gradient by the bias is a matrix product; see `add_bias`."""

    def call(self, inputs):
        outputs = tf.nn.conv2d(inputs, self.kernel, self.strides, self.padding.upper())
        return self.activation(add_bias(outputs, self.bias) if self.use_bias else outputs)


class FastDepthwiseConv2D(layers.DepthwiseConv2D):
    """Depthwise convolution with faster gradients; see `add_bias` and `wide_convolution`."""

    def call(self, inputs):
        is_wide = self.kernel_size[0] >= WIDE_KERNEL
        convolve = wide_convolution if is_wide else tf.nn.depthwise_conv2d
        outputs = convolve(inputs, self.kernel, [1, *self.strides, 1], self.padding.upper())
        return self.activation(add_bias(outputs, self.bias) if self.use_bias else outputs)


def add_bias(x, bias):
    """Add one value to each channel of n×h×w×c.

    TensorFlow would compute the gradient by the bias with that by the kernel, in one operation of
    oneDNN that takes longer than the latter and a matrix product.
    """

    @tf.custom_gradient
    def add(x, bias):
        def gradients(upstream):
            rows = tf.reshape(upstream, (-1, upstream.shape[-1]))
            sums = tf.matmul(tf.ones((1, tf.shape(rows)[0])), rows)
            return upstream, tf.reshape(sums, (-1,))

        return tf.nn.bias_add(x, bias), gradients

    return add(x, tf.convert_to_tensor(bias))  # custom gradients take no variables


def wide_convolution(inputs, kernel, strides: list[int], padding: str):
    """Convolve n×h×w×c by k×k×c×m, as `tf.nn.depthwise_conv2d`.

    The gradient by the kernel is computed by TensorFlow, to which oneDNN leaves the padding
    "EXPLICIT", and faster.
    """

    @tf.custom_gradient
    def convolve(inputs, kernel):
        def gradients(upstream):
            of_inputs = tf.nn.depthwise_conv2d_backprop_input(
                tf.shape(inputs), kernel, upstream, strides, padding
            )
            of_kernel = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
                input=inputs,
                filter_sizes=kernel.shape,
                out_backprop=upstream,
                strides=strides,
                padding="EXPLICIT",
                explicit_paddings=explicit_paddings(inputs.shape, kernel.shape, strides, padding),
            )
            return of_inputs, of_kernel

        return tf.nn.depthwise_conv2d(inputs, kernel, strides, padding), gradients

    return convolve(inputs, tf.convert_to_tensor(kernel))


def explicit_paddings(inputs, kernel, strides: list[int], padding: str) -> list[int]:
    """Return the padding before and after each axis of n×h×w×c; shapes are those of tensors."""
    paddings = [0] * 8
    if padding == "SAME":
        for axis in (1, 2):
            steps = -(-inputs[axis] // strides[axis]) - 1
            missing = max(steps * strides[axis] + kernel[axis - 1] - inputs[axis], 0)
            paddings[2 * axis : 2 * axis + 2] = missing // 2, missing - missing // 2
    return paddings


def copy_to_train(model: keras.Model, replicas: int) -> keras.Model:
    """Copy a network with layers that train faster, or over several devices.

    Over several devices, batch normalization is that of the whole batch.

    Parameters
    ----------
    model : keras.Model
    replicas : int
        Devices over which each batch is spread.

    Returns
    -------
    keras.Model
        Its weights are in the same order, and random: see `copy_weights`.
    """
    faster = {layers.Conv2D: FastConv2D, layers.DepthwiseConv2D: FastDepthwiseConv2D}
    if tf.config.list_physical_devices("GPU"):  # there cuDNN convolves, not oneDNN
        faster = {}

    def copy(layer):
        kind, config = type(layer), layer.get_config()
        if kind is layers.BatchNormalization:
            if replicas > 1:
                return kind.from_config({**config, "synchronized": True})
            kind = FusedBatchNormalization
        elif kind in faster and is_plain(layer):
            kind = faster[kind]
        return kind.from_config(config)

    return keras.models.clone_model(model, clone_function=copy, recursive=True)


def is_plain(layer: layers.Conv2D | layers.DepthwiseConv2D) -> bool:
    """Whether a convolution has what `FastConv2D` and `FastDepthwiseConv2D` can compute."""
    return (
        layer.compute_dtype == "float32"
        and layer.data_format == "channels_last"
        and getattr(layer, "groups", 1) == 1
        and set(layer.dilation_rate) == {1}
        and len({*layer.kernel_size}) == 1
        and len({*layer.strides}) == 1
    )
