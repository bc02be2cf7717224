"""A Keras model as an ONNX graph: what `archive` lets models be made of, an operator for each.

Converters that trace TensorFlow don't do for these models: Keras's own, which calls tf2onnx, keeps
dropout as in training, has no antialiased resize, and rounds 128 pixels of a zoomed view to 127.
"""

import math
from collections.abc import Callable

import keras
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from brainmri.common.errors import UserError

OPSET, IR_VERSION = 18, 10  # of 2023 and 2024: runtimes of phones and browsers lag behind
TO_CHANNELS_FIRST, TO_CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
CHANNELS_FIRST_AXIS = {0: 0, 1: 2, 2: 3, 3: 1}


class Tensor:
    """A tensor of the graph.

    Attributes
    ----------
    name : str
    shape : tuple of (int or None)
        As Keras has it. In the graph, tensors of four axes have the channels second, which ONNX's
        convolutions expect.
    """

    def __init__(self, name: str, shape: tuple):
        self.name = name
        self.shape = tuple(shape)

    @property
    def rank(self) -> int:
        return len(self.shape)

    def axis(self, axis: int) -> int:
        """Return the axis in the graph of an axis in Keras."""
        axis %= self.rank
        return CHANNELS_FIRST_AXIS[axis] if self.rank == 4 else axis


class Graph:
    """Nodes and constants; what is computed twice, such as members' views of an image, is one node.

    Attributes
    ----------
    nodes : list of onnx.NodeProto
    constants : list of onnx.TensorProto
    """

    def __init__(self):
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._names: dict[tuple, str] = {}

    def add(self, operator: str, *inputs: str, **attributes) -> str:
        """Add a node with one output; return the output's name."""
        key = (operator, inputs, repr(sorted(attributes.items())))
        if key not in self._names:
            self._names[key] = f"{operator.lower()}_{len(self.nodes)}"
            name = self._names[key]
            self.nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return self._names[key]

    def constant(self, values, dtype=np.float32) -> str:
        """Add a constant; return its name."""
        array = np.asarray(np.asarray(values), dtype, order="C")
        key = ("constant", array.dtype.str, array.shape, array.tobytes())
        if key not in self._names:
            self._names[key] = f"constant_{len(self.constants)}"
            self.constants.append(numpy_helper.from_array(array, self._names[key]))
        return self._names[key]

    def integers(self, *values: int) -> str:
        """Add a constant list of integers, which shapes and axes are; return its name."""
        return self.constant(values, np.int64)


def to_onnx(model: keras.Model, metadata: dict[str, str]) -> bytes:
    """Convert a model of uint8 images, n×h×w×1, with a dictionary of outputs.

    Parameters
    ----------
    model : keras.Model
    metadata : dict of str to str
        The file's `metadata_props`.

    Returns
    -------
    bytes
        Of the file, the same for the same model.

    Raises
    ------
    UserError
        If it has a layer that no model of this project has.
    """
    graph = Graph()
    shape = model.inputs[0].shape
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", *shape[1:]])
    first = graph.add("Transpose", "images", perm=TO_CHANNELS_FIRST)
    outputs = _convert_model(graph, model, Tensor(first, shape))
    described = []
    for name, output in outputs.items():
        graph.nodes.append(helper.make_node("Identity", [output.name], [name], name))
        form = ["n", *output.shape[1:]]
        described.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, form))
    content = helper.make_graph(graph.nodes, model.name, [images], described, graph.constants)
    opset = helper.make_opsetid("", OPSET)
    file = helper.make_model(content, opset_imports=[opset], ir_version=IR_VERSION)
    helper.set_model_props(file, metadata)
    onnx.checker.check_model(file, full_check=True)
    return file.SerializeToString(deterministic=True)


def load_onnx(file: bytes | str) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Return a function from images to the outputs of a file, computed on one core.

    Parameters
    ----------
    file : bytes or str
        The file's content, or its path.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, {"images": images}), strict=True))


def _convert_model(graph: Graph, model: keras.Model, images: Tensor):
    """Convert the layers of a model; return its outputs in its own structure."""
    # The one way that Keras has to go through a graph; its `clone_model` does so, too.
    return model._run_through_graph(
        [images], operation_fn=lambda operation: _converter(graph, operation)
    )


def _converter(graph: Graph, operation: keras.Operation) -> Callable[..., Tensor]:
    """Return a function from the tensors that a layer or operation takes to the one it returns."""

    def convert(*arguments, **settings):
        if isinstance(operation, keras.Model):
            return _convert_model(graph, operation, arguments[0])
        kind = type(operation).__name__
        if kind not in CONVERTERS:
            raise UserError(
                f"export.formats: an ONNX file can't hold the layer {operation.name} ({kind});"
                " expected layers of this project's networks"
            )
        name = CONVERTERS[kind](graph, operation, *arguments)
        symbolic = keras.tree.map_structure(
            lambda value: keras.KerasTensor(value.shape) if isinstance(value, Tensor) else value,
            (arguments, settings),
        )
        output = operation.compute_output_spec(*symbolic[0], **symbolic[1])
        return Tensor(name, output.shape)

    return convert


def _axes(x: Tensor, axes: int | list[int]) -> list[int]:
    return [x.axis(axis) for axis in ([axes] if isinstance(axes, int) else axes)]


def _unsupported(operation: keras.Operation, what: str) -> UserError:
    return UserError(
        f"export.formats: an ONNX file can't hold the layer {operation.name} with {what};"
        " expected layers as this project's networks have them"
    )


def _constant(graph: Graph, values, rank: int) -> str:
    """Add a constant that broadcasts with a tensor of a rank."""
    array = np.asarray(values, np.float32)
    if rank == 4 and array.ndim:
        array = array.reshape((1,) * (4 - array.ndim) + array.shape).transpose(TO_CHANNELS_FIRST)
    return graph.constant(array)


def _activate(graph: Graph, operation: keras.Operation, name: str) -> str:
    activation = operation.activation.__name__
    if activation == "linear":
        return name
    if activation == "silu":
        return graph.add("Mul", name, graph.add("Sigmoid", name))
    if activation == "softmax":
        return graph.add("Softmax", name, axis=-1)
    return graph.add({"relu": "Relu", "sigmoid": "Sigmoid"}[activation], name)


def _pads(layer: keras.layers.Layer, x: Tensor, kernel, dilations=(1, 1)) -> list[int]:
    """Return the padding as TensorFlow has it: an odd pixel is at the end."""
    if layer.padding == "valid":
        return [0, 0, 0, 0]
    totals = []
    for length, extent, stride, dilation in zip(
        x.shape[1:3], kernel, layer.strides, dilations, strict=True
    ):
        covered = (math.ceil(length / stride) - 1) * stride + (extent - 1) * dilation + 1
        totals.append(max(covered - length, 0))
    starts = [total // 2 for total in totals]
    return starts + [total - start for total, start in zip(totals, starts, strict=True)]


def _convolution(graph: Graph, layer, x: Tensor) -> str:
    kernel = np.asarray(layer.kernel)
    extent, dilations = kernel.shape[:2], tuple(layer.dilation_rate)
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        groups = kernel.shape[2]
        kernel = kernel.transpose(2, 3, 0, 1).reshape(-1, 1, *extent)
    else:
        groups = layer.groups
        kernel = kernel.transpose(3, 2, 0, 1)
    inputs = [x.name, graph.constant(kernel)]
    if layer.use_bias:
        inputs.append(graph.constant(layer.bias))
    convolved = graph.add(
        "Conv",
        *inputs,
        kernel_shape=extent,
        strides=tuple(layer.strides),
        dilations=dilations,
        pads=_pads(layer, x, extent, dilations),
        group=groups,
    )
    return _activate(graph, layer, convolved)


def _pooling(operator: str) -> Callable[..., str]:
    def convert(graph: Graph, layer, x: Tensor) -> str:
        return graph.add(
            operator,
            x.name,
            kernel_shape=tuple(layer.pool_size),
            strides=tuple(layer.strides),
            pads=_pads(layer, x, layer.pool_size),
        )

    return convert


def _global_pooling(operator: str) -> Callable[..., str]:
    def convert(graph: Graph, layer, x: Tensor) -> str:
        return graph.add(operator, x.name, graph.integers(2, 3), keepdims=int(layer.keepdims))

    return convert


def _dense(graph: Graph, layer, x: Tensor) -> str:
    if x.rank != 2:
        raise _unsupported(layer, f"{x.rank} axes")
    inputs = [x.name, graph.constant(layer.kernel)]
    if layer.use_bias:
        inputs.append(graph.constant(layer.bias))
    return _activate(graph, layer, graph.add("Gemm", *inputs))


def _batch_normalization(graph: Graph, layer, x: Tensor) -> str:
    channels = x.shape[-1]
    scale = layer.gamma if layer.scale else np.ones(channels)
    offset = layer.beta if layer.center else np.zeros(channels)
    values = (scale, offset, layer.moving_mean, layer.moving_variance)
    constants = [graph.constant(value) for value in values]
    return graph.add("BatchNormalization", x.name, *constants, epsilon=float(layer.epsilon))


def _layer_normalization(graph: Graph, layer, x: Tensor) -> str:
    if layer.center or layer.scale:
        raise _unsupported(layer, "weights")
    axes = graph.integers(*_axes(x, layer.axis))
    centered = graph.add("Sub", x.name, graph.add("ReduceMean", x.name, axes))
    variance = graph.add("ReduceMean", graph.add("Mul", centered, centered), axes)
    variance = graph.add("Add", variance, graph.constant(layer.epsilon))
    return graph.add("Div", centered, graph.add("Sqrt", variance))


def _normalization(graph: Graph, layer, x: Tensor) -> str:
    deviation = np.maximum(np.sqrt(np.asarray(layer.variance)), keras.config.epsilon())
    centered = graph.add("Sub", x.name, _constant(graph, layer.mean, x.rank))
    return graph.add("Div", centered, _constant(graph, deviation, x.rank))


def _rescaling(graph: Graph, layer, x: Tensor) -> str:
    scaled = graph.add("Mul", x.name, _constant(graph, layer.scale, x.rank))
    return graph.add("Add", scaled, _constant(graph, layer.offset, x.rank))


def _relu(graph: Graph, layer, x: Tensor) -> str:
    if layer.negative_slope or layer.threshold:
        raise _unsupported(layer, "a slope or threshold")
    if layer.max_value is None:
        return graph.add("Relu", x.name)
    return graph.add("Clip", x.name, graph.constant(0.0), graph.constant(layer.max_value))


def _cropping(graph: Graph, layer, x: Tensor) -> str:
    (top, bottom), (left, right) = layer.cropping
    starts = graph.integers(top, left)
    ends = graph.integers(x.shape[1] - bottom, x.shape[2] - right)
    return graph.add("Slice", x.name, starts, ends, graph.integers(2, 3))


def _zero_padding(graph: Graph, layer, x: Tensor) -> str:
    (top, bottom), (left, right) = layer.padding
    return graph.add("Pad", x.name, graph.integers(0, 0, top, left, 0, 0, bottom, right))


def _resizing(graph: Graph, layer, x: Tensor) -> str:
    if layer.antialias or layer.interpolation != "bilinear" or layer.crop_to_aspect_ratio:
        raise _unsupported(layer, "antialiasing or an interpolation that is not bilinear")
    size = graph.integers(layer.height, layer.width)
    mode = {"mode": "linear", "coordinate_transformation_mode": "half_pixel", "axes": (2, 3)}
    return graph.add("Resize", x.name, "", "", size, **mode)


def _flip(graph: Graph, operation, x: Tensor) -> str:
    last, before_first = graph.integers(-1), graph.integers(np.iinfo(np.int64).min)
    axis = graph.integers(x.axis(operation.axis))
    return graph.add("Slice", x.name, last, before_first, axis, last)


def _item(graph: Graph, operation, x: Tensor, key) -> str:
    if x.rank == 4 and key[0] is Ellipsis and isinstance(key[1], int):
        return graph.add("Gather", x.name, graph.constant(key[1], np.int64), axis=1)  # a channel
    raise _unsupported(operation, f"the index {key}")


def _reshape(graph: Graph, operation, x: Tensor) -> str:
    if isinstance(operation, keras.layers.Layer):
        return _reshape_to(graph, x, [0, *operation.target_shape])
    return _reshape_to(graph, x, operation.newshape)


def _flatten(graph: Graph, layer, x: Tensor) -> str:
    return _reshape_to(graph, x, [0, math.prod(x.shape[1:])])


def _reshape_to(graph: Graph, x: Tensor, shape: list[int]) -> str:
    name = graph.add("Transpose", x.name, perm=TO_CHANNELS_LAST) if x.rank == 4 else x.name
    name = graph.add("Reshape", name, graph.integers(*shape))
    return graph.add("Transpose", name, perm=TO_CHANNELS_FIRST) if len(shape) == 4 else name


def _concatenate(graph: Graph, operation, tensors: list[Tensor]) -> str:
    names = [tensor.name for tensor in tensors]
    return graph.add("Concat", *names, axis=tensors[0].axis(operation.axis))


def _stack(graph: Graph, operation, tensors: list[Tensor]) -> str:
    rank = tensors[0].rank
    axis = operation.axis % (rank + 1)
    if rank == 3:
        if axis != rank:
            raise _unsupported(operation, f"axis {axis}")
        axis = 1  # of channels
    names = [graph.add("Unsqueeze", tensor.name, graph.integers(axis)) for tensor in tensors]
    return graph.add("Concat", *names, axis=axis)


def _mean(graph: Graph, operation, x: Tensor) -> str:
    axes = graph.integers(*_axes(x, operation.axis))
    return graph.add("ReduceMean", x.name, axes, keepdims=int(operation.keepdims))


def _elementwise(operator: str) -> Callable[..., str]:
    def convert(graph: Graph, operation, *operands) -> str:
        if isinstance(operands[0], list):
            operands = operands[0]
        rank = max(operand.rank for operand in operands if isinstance(operand, Tensor))
        names = [
            operand.name if isinstance(operand, Tensor) else _constant(graph, operand, rank)
            for operand in operands
        ]
        result = names[0]
        for name in names[1:]:
            result = graph.add(operator, result, name)
        return result

    return convert


def _cast(graph: Graph, operation, x: Tensor) -> str:
    if operation.dtype != "float32":
        raise _unsupported(operation, operation.dtype)
    return graph.add("Cast", x.name, to=TensorProto.FLOAT)


# By the class of the layer or operation, of `archive.LAYERS` and `archive.OPERATIONS`
CONVERTERS = {
    "Activation": lambda graph, layer, x: _activate(graph, layer, x.name),
    "Add": _elementwise("Add"),
    "AveragePooling2D": _pooling("AveragePool"),
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "Concatenate": _concatenate,
    "Conv2D": _convolution,
    "Cropping2D": _cropping,
    "Dense": _dense,
    "DepthwiseConv2D": _convolution,
    "Dropout": lambda graph, layer, x: x.name,
    "Flatten": _flatten,
    "Flip": _flip,
    "GetItem": _item,
    "GlobalAveragePooling2D": _global_pooling("ReduceMean"),
    "GlobalMaxPooling2D": _global_pooling("ReduceMax"),
    "LayerNormalization": _layer_normalization,
    "Log": lambda graph, operation, x: graph.add("Log", x.name),
    "Maximum": _elementwise("Max"),
    "MaxPooling2D": _pooling("MaxPool"),
    "Mean": _mean,
    "Multiply": _elementwise("Mul"),
    "Normalization": _normalization,
    "ReLU": _relu,
    "Rescaling": _rescaling,
    "Reshape": _reshape,
    "Resizing": _resizing,
    "Square": lambda graph, operation, x: graph.add("Mul", x.name, x.name),
    "Stack": _stack,
    "Subtract": _elementwise("Sub"),
    "TrueDivide": _elementwise("Div"),
    "ZeroPadding2D": _zero_padding,
}
