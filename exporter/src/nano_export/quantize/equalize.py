r"""Divides an activation's channels by a scale, and multiplies the weights that read them: ``x W = (x / s) (s W)``.

The division costs nothing where it can be folded into what computes the activation. The places, in this order:

    norm        x = LayerNormalization(h, weight, bias):  weight / s, bias / s
    affine      x = h * weight + bias, as a group norm ends:  weight / s, bias / s
    product     x = h V + b, also through an attention, whose output is linear in its values, and through the values
                of a gated layer:  V / s, b / s.  The values of a cross-attention are an input of the graph: they are
                divided in the graph that computes them.
    quantizer   x is a feature map [B, C, h, w]:  it is quantized with a scale for each channel, and read with one.
                Its bytes may be moved and gathered on the way to the layer; OpenVINO multiplies in float where they
                are moved alone.
    multiply    x * (1 / s), one more operator

Weights are scaled one by one while the file is written.

A constant is taken from the channels in the same way, before the division: ``x W = (x - c) W + c W``. A norm, an affine
and the bias of values in an attention take it for nothing, since an attention's weights sum to 1; and the layers that
read the activation add ``c W`` to their biases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from nano_export.graph.passes import initializer
from nano_export.quantize.calibration import channel_axis
from nano_export.quantize.layers import WEIGHT_INPUT, Layer, bias_of, reader_of, weight_of
from nano_runtime.arrays import F32

__all__ = [
    "Place",
    "can_shift",
    "divide",
    "divide_output",
    "leave_out",
    "map_before",
    "place_of",
    "scale_columns",
    "shift",
]

Place: TypeAlias = Literal["norm", "affine", "product", "input", "quantizer", "multiply"]

_MOVES = ("Reshape", "Transpose")


def place_of(source: ir.Value, layers: Sequence[Layer]) -> Place:
    """Return the place at which an activation would be divided; ``input``: in the graph that computes the values.

    Args:
        source: the activation.
        layers: all layers that read it by a quantized product.
    """
    alone = {use.node for use in source.uses()} == {reader_of(layer) for layer in layers}
    if alone and not source.is_graph_output():
        if _norm_of(source) is not None:
            return "norm"
        if _affine_of(source) is not None:
            return "affine"
        values = _values_of(source)
        if isinstance(values, ir.Node):
            return "product"
        if values is not None:
            return "input"
    found = map_before(source)
    if found is None or (found[1] and not (alone and all(reader_of(layer) is not layer.node for layer in layers))):
        return "multiply"
    return "quantizer"


def divide(model: ir.Model, source: ir.Value, layers: Sequence[Layer], scale: F32) -> tuple[Place, str]:
    """Divide an activation, and multiply the weights of all layers that read it, in place.

    Args:
        model: float.
        source: the activation; for the place ``quantizer``, its quantizer has to divide it.
        layers: that read it.
        scale: float32 [C].

    Returns:
        The place, and for ``input`` the name of the graph input that ``divide_output`` must divide elsewhere.
    """
    place = place_of(source, layers)
    for layer in layers:
        _scale_rows(model.graph, layer, scale)
    inverse = np.reciprocal(scale)
    name = ""
    if place == "norm" and (norm := _norm_of(source)) is not None:
        for index in range(1, len(norm.inputs)):
            _scale_constant(model.graph, norm, index, inverse)
    elif place == "affine" and (affine := _affine_of(source)) is not None:
        for node, index in affine:
            _scale_constant(model.graph, node, index, inverse)
    elif place in {"product", "input"}:
        values = _values_of(source)
        if isinstance(values, ir.Node):
            scale_columns(model.graph, values, inverse)
        elif values is not None:
            name = str(values.name)
    elif place == "multiply":
        _insert(model.graph, source, layers, "Mul", inverse)
    return place, name


def divide_output(model: ir.Model, name: str, scale: F32) -> None:
    """Divide an output [B, heads, tokens, d], the values of a cross-attention, by a scale, float32 [heads * d].

    Raises:
        ValueError: the output is not a product whose heads were split.
    """
    output = next(value for value in model.graph.outputs if value.name == name)
    product = _linear_before(output)
    if product is None:
        raise ValueError(f"{name} is not a product")
    scale_columns(model.graph, product, np.reciprocal(scale))


def can_shift(source: ir.Value, layers: Sequence[Layer], *, anywhere: bool = False) -> bool:
    """Return whether a constant can be taken from an activation.

    Args:
        source: the activation.
        layers: all layers that read it by a quantized product. None may see the edge of a picture: the zeros there
            would have to be shifted, too.
        anywhere: whether a subtraction may be put where nothing takes the constant for nothing.
    """
    if not all(_reads_one_place(layer) for layer in layers):
        return False
    place = place_of(source, layers)
    return _shift_of(source, place) is not None or (anywhere and place in {"multiply", "quantizer"})


def shift(model: ir.Model, source: ir.Value, layers: Sequence[Layer], offset: F32) -> ir.Value:
    """Take a constant from an activation, and add what it makes to the outputs of all layers that read it, in place.

    Args:
        model: float.
        source: the activation; ``can_shift`` allows it.
        layers: that read it.
        offset: float32 [C].

    Returns:
        The activation that the layers read now.
    """
    found = _shift_of(source, place_of(source, layers))
    for layer in layers:
        _add_to_output(model.graph, layer.node, offset @ layer.matrices(len(offset))[0])
    if found is None:
        return _insert(model.graph, source, layers, "Sub", offset)
    _change_constant(model.graph, *found, np.subtract, offset)
    return source


def leave_out(graph: ir.Graph, node: ir.Node, offset: F32) -> None:
    """Let a convolution make its output without a constant, float32 [C], and add that behind it, in place."""
    output, readers = node.outputs[0], list(node.outputs[0].uses())
    _add_to_output(graph, node, -offset)
    constant = initializer(graph, f"{node.name}.constant", offset.reshape(-1, 1, 1))
    add = ir.node("Add", [output, constant], name=f"{node.name}/Constant")
    whole = add.outputs[0]
    whole.name, whole.shape, whole.type = f"{output.name}.whole", output.shape, output.type
    graph.insert_after(node, add)
    for use in readers:
        use.node.replace_input_with(use.idx, whole)


def map_before(source: ir.Value) -> tuple[ir.Value, list[ir.Node]] | None:
    """Return the feature map [B, C, h, w], or [B, C, hw], that an activation's rows are, and the nodes between.

    The nodes, last first, only move values, and each is read by the next one alone. None: it is no such map.
    """
    if source.shape is None:
        return None
    channels = list(source.shape)[channel_axis(source)]
    if channel_axis(source) == 1:
        return source, []
    found, nodes, value = None, list[ir.Node](), source
    while (node := value.producer()) is not None and node.op_type in _MOVES and node.inputs[0] is not None:
        if value is not source and not _alone(value):
            break
        nodes.append(node)
        value = node.inputs[0]
        if any(moved.op_type == "Transpose" for moved in nodes) and _is_map(value, channels):
            found = value, list(nodes)
    return found


def scale_columns(graph: ir.Graph, node: ir.Node, factor: F32) -> None:
    """Multiply what a layer makes, channel by channel: its weight's columns and its bias."""
    index = WEIGHT_INPUT[node.op_type]
    shape = (-1, 1, 1, 1) if node.op_type == "Conv" else (1, -1)
    _replace_constant(graph, node, index, factor.reshape(shape))
    if (bias := bias_of(node)) is not None:
        _scale_constant(graph, *bias, factor)


def _is_map(value: ir.Value, channels: object) -> bool:
    return value.shape is not None and len(value.shape) > 2 and value.shape[1] == channels  # noqa: PLR2004 - [B, C, ...]


def _alone(value: ir.Value) -> bool:
    """Return whether one node reads a value, and nobody else."""
    return len(list(value.uses())) == 1 and not value.is_graph_output()


def _norm_of(value: ir.Value) -> ir.Node | None:
    """Return the layer norm that a value comes from, if each channel has a weight of its own there."""
    node = value.producer()
    if node is None or node.op_type != "LayerNormalization" or value.shape is None:
        return None
    constants = [None if given is None else given.const_value for given in node.inputs[1:]]
    one_each = all(constant is not None and constant.size == value.shape[-1] for constant in constants)
    return node if one_each else None


def _affine_of(value: ir.Value) -> list[tuple[ir.Node, int]] | None:
    """Return the two nodes ``h * weight + bias`` that an activation comes from, each with its constant's index."""
    node = value.producer()
    while node is not None and node.op_type in _MOVES and node.inputs[0] is not None and _alone(node.inputs[0]):
        node = node.inputs[0].producer()
    if node is None or node.op_type != "Add" or (shift := _vector(node)) is None:
        return None
    product = node.inputs[1 - shift]
    factor = None if product is None or not _alone(product) else product.producer()
    if factor is None or factor.op_type != "Mul" or (index := _vector(factor)) is None:
        return None
    return [(node, shift), (factor, index)]


def _reads_one_place(layer: Layer) -> bool:
    """Return whether a layer is a product at each place alone."""
    shape = weight_of(layer.node).shape.numpy()
    if layer.node.op_type == "Conv":
        return set(shape[2:]) == {1} and not any(layer.node.attributes.get_ints("pads", []))
    return reader_of(layer) is layer.node


def _shift_of(source: ir.Value, place: Place) -> tuple[ir.Node, int] | None:
    """Return the node that adds a constant to each channel of an activation, and which input the constant is."""
    if place == "norm" and (norm := _norm_of(source)) is not None:
        return (norm, 2) if len(norm.inputs) > 2 else None  # noqa: PLR2004 (ONNX: X, Scale, B)
    if place == "affine" and (affine := _affine_of(source)) is not None:
        return affine[0]
    node = source.producer()
    if place == "product" and node is not None and node.op_type != "Mul":  # a gate would change the constant
        values = _values_of(source)
        return bias_of(values) if isinstance(values, ir.Node) else None
    return None


def _add_to_output(graph: ir.Graph, node: ir.Node, constant: F32) -> None:
    """Add a constant to each channel of a layer's output: to its bias, or by one more operator."""
    if (bias := bias_of(node)) is not None:
        _change_constant(graph, *bias, np.add, constant)
        return
    if node.op_type == "Conv":
        node.resize_inputs(3)
        node.replace_input_with(2, initializer(graph, f"{node.name}.shift", constant))
        return
    output = node.outputs[0]
    add = ir.node("Add", [output, initializer(graph, f"{node.name}.shift", constant)], name=f"{node.name}/Shift")
    shifted = add.outputs[0]
    shifted.name, shifted.shape, shifted.type = f"{output.name}.shifted", output.shape, output.type
    for use in list(output.uses()):
        if use.node is not add:
            use.node.replace_input_with(use.idx, shifted)
    graph.insert_after(node, add)


def _vector(node: ir.Node) -> int | None:
    """Return which input of a node is a constant [C, 1, ...]: one number for each channel of a feature map."""
    for index, value in enumerate(node.inputs):
        if value is not None and value.const_value is not None:
            shape = list(value.const_value.shape.numpy())
            if len(shape) > 1 and shape[0] == math.prod(shape):
                return index
    return None


def _values_of(source: ir.Value) -> ir.Node | ir.Value | None:
    """Return the layer whose output's channels are the activation's, all that is between being linear; or an input."""
    node = source.producer()
    if node is not None and node.op_type == "Mul":  # values * gelu(gate)
        for value in node.inputs:
            gate = None if value is None else value.producer()
            if value is not None and gate is not None and gate.op_type in {"Add", "MatMul"} and _alone(value):
                return _linear_before(value)
        return None
    value = source
    while (node := value.producer()) is not None and node.op_type in _MOVES and node.inputs[0] is not None:
        value = node.inputs[0]
        if not _alone(value):
            return None
    if node is None or node.op_type != "MatMul" or node.inputs[1] is None or node.inputs[1].const_value is not None:
        return None
    softmax = None if node.inputs[0] is None else node.inputs[0].producer()
    values = node.inputs[1]
    if softmax is None or softmax.op_type != "Softmax" or not _alone(values):
        return None
    return values if values.is_graph_input() else _linear_before(values)


def _linear_before(value: ir.Value) -> ir.Node | None:
    """Return the layer that a value is the output of, its heads split or not; None if something else reads it."""
    node, adds = value.producer(), list[ir.Node]()
    while node is not None and node.op_type in (*_MOVES, "Add"):
        index = 0
        if node.op_type == "Add":
            constants = [
                i for i, given in enumerate(node.inputs) if given is not None and given.const_value is not None
            ]
            if len(constants) != 1:
                return None
            index = 1 - constants[0]
            adds.append(node)
        before = node.inputs[index]
        if before is None or not _alone(before):
            return None
        node = before.producer()
    if node is None or node.op_type != "MatMul" or node.inputs[1] is None or node.inputs[1].const_value is None:
        return None
    bias = bias_of(node)
    return node if adds == ([] if bias is None else [bias[0]]) else None  # whatever else is added would stay undivided


def _insert(graph: ir.Graph, source: ir.Value, layers: Sequence[Layer], operator: str, constant: F32) -> ir.Value:
    """Let the layers read the result of an operator with one number for each channel, and return it."""
    if source.shape is None:
        raise ValueError(f"{source.name} has no shape")
    shape = [-1] + [1] * (len(source.shape) - 1 - channel_axis(source))
    name = f"{source.name}.{operator.lower()}"
    node = ir.node(operator, [source, initializer(graph, f"{name}.by", constant.reshape(shape))], name=name)
    output = node.outputs[0]
    output.name, output.shape, output.type = f"{name}.out", source.shape, source.type
    readers = [reader_of(layer) for layer in layers]
    graph.insert_before(next(other for other in graph if other in readers), node)
    for reader in readers:
        reader.replace_input_with(0, output)
    return output


def _scale_rows(graph: ir.Graph, layer: Layer, scale: F32) -> None:
    """Multiply the rows of a layer's weight that read each channel."""
    node = layer.node
    index = WEIGHT_INPUT[node.op_type]
    if node.op_type == "Conv":
        _replace_constant(graph, node, index, scale.reshape(1, -1, 1, 1))
        return
    weight = node.inputs[index]
    rows = 0 if weight is None or weight.const_value is None else weight.const_value.shape.numpy()[0]
    _replace_constant(graph, node, index, np.tile(scale, rows // len(scale))[:, np.newaxis])


def _scale_constant(graph: ir.Graph, node: ir.Node, index: int, factor: F32) -> None:
    """Multiply a constant of one number per channel."""
    _replace_constant(graph, node, index, factor.reshape(_constant_of(node, index).shape.numpy()))


def _change_constant(graph: ir.Graph, node: ir.Node, index: int, change: np.ufunc, other: F32) -> None:
    """Change a constant of one number per channel by another."""
    numbers = _constant_of(node, index).numpy()
    changed = change(numbers, other.reshape(numbers.shape)).astype(np.float32)
    node.replace_input_with(index, initializer(graph, _free_name(graph, f"{node.name}.{index}.shifted"), changed))


def _replace_constant(graph: ir.Graph, node: ir.Node, index: int, factor: F32) -> None:
    """Let a node read a constant times a factor; the product is computed only when it is written."""
    source, name = _constant_of(node, index), _free_name(graph, f"{node.name}.{index}.scaled")
    lazy = ir.LazyTensor(
        lambda: ir.Tensor((source.numpy() * factor).astype(np.float32), name=name),
        dtype=ir.DataType.FLOAT,
        shape=ir.Shape(source.shape.numpy()),
        name=name,
    )
    node.replace_input_with(index, initializer(graph, name, lazy))


def _constant_of(node: ir.Node, index: int) -> ir.TensorProtocol:
    """Return a constant input of a node.

    Raises:
        ValueError: it is none.
    """
    value = node.inputs[index]
    if value is None or value.const_value is None:
        raise ValueError(f"{node.name}: input {index} is not constant")
    return value.const_value


def _free_name(graph: ir.Graph, name: str) -> str:
    while name in graph.initializers:
        name += ".again"
    return name
