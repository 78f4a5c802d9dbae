"""Writes convolutions of small feature maps as matrix products (im2col), which engines compute faster.

    x [B, C, h, w] -> tokens [B, hw, C] -> Pad, a pixel of zeros -> Gather, k*k pixels for each of the output
      -> [B, h'w', k*k*C] -> MatMul [k*k*C, C'] -> Add bias -> [B, C', h', w']

``qdq`` quantizes before Pad. So Gather copies bytes, k*k times, and the pixel of zeros is the zero point.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from nano_export.graph.passes import initializer
from nano_export.quantize.plan import Rule, rule_for

__all__ = ["Gathering", "gathering_before", "lower_convolutions", "seen_pixels"]

# ONNX's defaults for the attributes of a two-dimensional convolution.
_GEOMETRY = {"dilations": [1, 1], "strides": [1, 1], "pads": [0, 0, 0, 0]}


class Gathering:
    """The nodes that lay out the pixels of a lowered convolution: for each output, all that its kernel covers."""

    def __init__(self, pad: ir.Node, gather: ir.Node, reshape: ir.Node) -> None:
        self.pad, self.gather, self.reshape = pad, gather, reshape

    @property
    def source(self) -> ir.Value:
        """The pixels, float [B, hw, C]."""
        if (value := self.pad.inputs[0]) is None:
            raise ValueError(f"{self.pad.name} has no input")
        return value

    def gather_bytes(self, quantized: ir.Value, zero_point: ir.Value) -> ir.Value:
        """Lay out the quantized pixels instead; return the result, uint8 [B, h'w', k*k*C]."""
        self.pad.replace_input_with(0, quantized)
        self.pad.resize_inputs(3)
        self.pad.replace_input_with(2, zero_point)
        for node in (self.pad, self.gather, self.reshape):
            node.outputs[0].type = ir.TensorType(ir.DataType.UINT8)
        return self.reshape.outputs[0]


def lower_convolutions(model: ir.Model, rules: tuple[Rule, ...]) -> int:
    """Rewrite the convolutions that a rule selects, in place; return how many.

    Args:
        model: float, all sizes numbers but the batch.
        rules: of this component; ``Rule.product_up_to`` selects.

    Raises:
        ValueError: such a convolution has groups or dilations, or no constant weight.
    """
    lowered = 0
    for node in list(model.graph):
        if node.op_type != "Conv" or (rule := rule_for(rules, str(node.name))) is None:
            continue
        if math.prod(_shape(node.outputs[0])[2:]) <= rule.product_up_to:
            _lower(model.graph, node)
            lowered += 1
    RemoveUnusedNodesPass()(model)
    return lowered


def gathering_before(value: ir.Value) -> Gathering | None:
    """Return the nodes that laid out an activation; None unless a lowered convolution larger than 1x1 reads it."""
    nodes: list[ir.Node] = []
    for expected in ("Reshape", "Gather", "Pad"):
        producer = value.producer()
        if producer is None or producer.op_type != expected or producer.inputs[0] is None:
            return None
        nodes.append(producer)
        value = producer.inputs[0]
    reshape, gather, pad = nodes
    return Gathering(pad, gather, reshape)


def _lower(graph: ir.Graph, node: ir.Node) -> None:
    """Insert the nodes of the module's docstring before a convolution, and move its readers behind them."""
    geometry = {name: node.attributes.get_ints(name, default) for name, default in _GEOMETRY.items()}
    if node.attributes.get_int("group", 1) != 1 or set(geometry["dilations"]) != {1}:
        raise ValueError(f"{node.name}: groups and dilations are not lowered")
    source, weight, *biases = node.inputs
    if source is None or weight is None:
        raise ValueError(f"{node.name}: an input is missing")
    batch, channels, *sizes = _shape(source)
    _, made, *target = _shape(node.outputs[0])
    kernel = _shape(weight)[2:]
    pixels, outputs, taps = math.prod(sizes), math.prod(target), math.prod(kernel)

    def write(operator: str, inputs: list[ir.Value | None], shape: list[Any], **attributes: Any) -> ir.Value:  # noqa: ANN401 - as ONNX has them
        new = ir.node(operator, inputs, attributes=attributes)
        count = sum(other.op_type == operator for other in written)
        new.name = f"{node.name}/{operator}" + (f".{count + 1}" if count else "")
        written.append(new)
        value = new.outputs[0]
        value.name, value.shape, value.type = f"{new.name}.out", ir.Shape(shape), ir.TensorType(ir.DataType.FLOAT)
        return value

    def integers(name: str, numbers: list[int] | NDArray[np.int64]) -> ir.Value:
        return initializer(graph, name, np.asarray(numbers, np.int64))

    def reshape(value: ir.Value, *shape: int) -> ir.Value:
        target_shape = integers("shape_" + "_".join(map(str, (0, *shape))), [0, *shape])
        return write("Reshape", [value, target_shape], [batch, *shape])

    written: list[ir.Node] = []
    value = write("Transpose", [reshape(source, channels, pixels)], [batch, pixels, channels], perm=[0, 2, 1])
    if taps > 1:
        name = "seen_" + "_".join(map(str, (*sizes, *kernel, *geometry["strides"], *geometry["pads"])))
        seen = integers(name, seen_pixels(sizes, target, kernel, geometry["strides"], geometry["pads"]).reshape(-1))
        value = write("Pad", [value, integers("pads_one_pixel", [0, 0, 0, 0, 1, 0])], [batch, pixels + 1, channels])
        value = write("Gather", [value, seen], [batch, outputs * taps, channels], axis=1)
        value = reshape(value, outputs, taps * channels)
    value = write("MatMul", [value, _matrix(graph, weight, f"{node.name}/MatMul.weight")], [batch, outputs, made])
    if biases and biases[0] is not None:
        value = write("Add", [value, biases[0]], [batch, outputs, made])
    value = write("Transpose", [value], [batch, made, outputs], perm=[0, 2, 1])
    value = reshape(value, made, *target)
    graph.insert_before(node, written)
    node.outputs[0].replace_all_uses_with(value, replace_graph_outputs=True)


def seen_pixels(
    source: Sequence[int], target: Sequence[int], kernel: Sequence[int], strides: Sequence[int], pads: Sequence[int]
) -> NDArray[np.int64]:
    """Return the pixel of the source that each weight of a kernel meets, int64 [target pixels, kernel's weights].

    Pixels are counted row by row; the number after the last stands for all pixels outside.

    Args:
        source: height and width of the feature map.
        target: of the convolved one.
        kernel: height and width.
        strides: by rows and columns.
        pads: top, left, bottom, right, as ONNX orders them.
    """
    rows = np.arange(target[0])[:, None] * strides[0] + np.arange(kernel[0]) - pads[0]  # [target rows, kernel rows]
    columns = np.arange(target[1])[:, None] * strides[1] + np.arange(kernel[1]) - pads[1]
    row, column = rows[:, None, :, None], columns[None, :, None, :]
    inside = (row >= 0) & (row < source[0]) & (column >= 0) & (column < source[1])
    seen = np.where(inside, row * source[1] + column, source[0] * source[1])
    return seen.reshape(target[0] * target[1], kernel[0] * kernel[1]).astype(np.int64)


def _matrix(graph: ir.Graph, weight: ir.Value, name: str) -> ir.Value:
    """Register a kernel [C', C, k, k] as a matrix [k*k*C, C'], rearranged only when it is read."""
    kernel = weight.const_value
    if kernel is None:
        raise ValueError(f"{weight.name} is not constant")
    made, channels, *sizes = _shape(weight)
    shape = [math.prod(sizes) * channels, made]
    laid_out = ir.LazyTensor(
        lambda: ir.Tensor(np.ascontiguousarray(kernel.numpy().transpose(2, 3, 1, 0).reshape(shape)), name=name),
        dtype=kernel.dtype,
        shape=ir.Shape(shape),
        name=name,
    )
    return initializer(graph, name, laid_out)


def _shape(value: ir.Value | None) -> list[Any]:
    """Return the sizes of a value: numbers, but for the batch."""
    if value is None or value.shape is None or not all(isinstance(size, int) for size in value.shape[1:]):
        raise ValueError(f"the shape of {value} is unknown")
    return list(value.shape)
