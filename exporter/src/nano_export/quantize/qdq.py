r"""Writes a plan into a graph as pairs of QuantizeLinear and DequantizeLinear (QDQ), a form that both engines fuse.

    w8a8 Conv     x -> Q -> DQ \\                                w8 MatMul    x ------------\\
                  W int8 -> DQ > Conv -> Q -> DQ -> ...                       W int8 -> DQ > MatMul -> ...
                  b int32 -> DQ/

    w8a8 MatMul   x -> Q -> DQ \\
                  W int8 -> DQ > MatMul -> ...

onnxruntime fuses a Conv into QLinearConv only if its output is quantized. A MatMul needs none: it becomes
MatMulIntegerToFloat, whose result is float. With a DequantizeLinear at the weight alone it becomes MatMulNBits. A table
is dequantized row by row after the look-up, never as a whole. OpenVINO reads the same graph as FakeQuantize and
compressed weights.

Weights are converted one by one while the file is written: only one at a time is in memory beside the mapped source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from nano_export.graph.passes import initializer
from nano_export.quantize.convolutions import gathering_before
from nano_export.quantize.plan import Rule, Scheme, scheme_for

__all__ = ["WEIGHT_LIMIT", "Range", "quantize", "quantized_weight", "tensors_to_calibrate"]

# Weights use [-63, 63]. Without VNNI, engines add two u8 x s8 products in 16 bits: 2 * 255 * 127 saturates, and
# 2 * 255 * 63 does not. On such a processor the full range cost 13 dB of a UNet call's PSNR; half the range costs 1 dB
# everywhere (bench/LOG.md, 2026-11-23), and the picture is the same on every machine.
WEIGHT_LIMIT = 63
"""The largest of the integers that stand for weights; the smallest is its negative."""

_WEIGHT_INPUT = {"Conv": 1, "MatMul": 1, "Gemm": 1, "Gather": 0}
# The axis of the output channels, which have a scale each; rows of an embedding table are its "channels".
_CHANNEL_AXIS = {"Conv": 0, "MatMul": 1, "Gemm": 0, "Gather": 0}


@dataclass(frozen=True)
class Range:
    """The smallest and the largest value of a tensor during calibration."""

    low: float
    high: float

    def uint8_parameters(self) -> tuple[np.float32, np.uint8]:
        """Return scale and zero point of the asymmetric uint8 grid that covers the range and contains 0 exactly.

        Zero must be exact because convolutions pad with it. Jacob et al. 2018 (arXiv:1712.05877), section 3.
        """
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        scale = np.float32((high - low) / 255.0) if high > low else np.float32(1.0)
        return scale, np.uint8(np.clip(np.round(-low / scale), 0, 255))


def tensors_to_calibrate(model: ir.Model, rules: tuple[Rule, ...]) -> list[str]:
    """Return the names of the activations whose ranges ``quantize`` needs."""
    names: dict[str, None] = {}
    for node in model.graph:
        if _scheme(node, rules) == "w8a8":
            names[str(_activation(node).name)] = None
            if node.op_type == "Conv":
                names[str(node.outputs[0].name)] = None
    return list(names)


def quantize(model: ir.Model, rules: tuple[Rule, ...], ranges: Mapping[str, Range]) -> dict[Scheme, int]:
    """Rewrite ``model`` in place according to ``rules``; return how many nodes each scheme got.

    Args:
        model: float32; weights may lie in a mapped file.
        rules: of this component.
        ranges: of every tensor that ``tensors_to_calibrate`` names.

    Raises:
        KeyError: a range is missing.
    """
    graph = model.graph
    dequantized: dict[str, ir.Value] = {}
    counts: dict[Scheme, int] = {"w8a8": 0, "w8": 0, "float": 0}
    for node in list(graph):
        scheme = _scheme(node, rules)
        if scheme is None:
            continue
        counts[scheme] += 1
        if scheme == "float":
            continue
        if node.op_type == "Gather":
            _quantize_table(graph, node)
            continue
        if scheme == "w8a8":
            _quantize_input(graph, node, ranges, dequantized)
        _quantize_weight(graph, node, ranges if scheme == "w8a8" else None)
        if scheme == "w8a8" and node.op_type == "Conv":
            _quantize_output(graph, node, ranges[str(node.outputs[0].name)])
    RemoveUnusedNodesPass()(model)  # the float weights
    return counts


def quantized_weight(weight: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantize symmetrically per channel: ``weight ~ q * scale``, q int8 in [-63, 63], scales float32 [channels]."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    scale = _weight_scale(weight, axis)
    q = np.round(weight / np.expand_dims(scale, others))
    return np.clip(q, -WEIGHT_LIMIT, WEIGHT_LIMIT).astype(np.int8), scale


def _weight_scale(weight: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Return the largest |w| / 63 per channel; 1 for a channel of zeros."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.maximum(weight.max(axis=others), -weight.min(axis=others))
    return np.where(largest > 0, largest / np.float32(WEIGHT_LIMIT), np.float32(1.0)).astype(np.float32)


def _scheme(node: ir.Node, rules: tuple[Rule, ...]) -> Scheme | None:
    """Return the scheme of a node with a constant weight; None for all others."""
    position = _WEIGHT_INPUT.get(node.op_type)
    if position is None or len(node.inputs) <= position:
        return None
    weight = node.inputs[position]
    if weight is None or weight.const_value is None or weight.const_value.dtype != ir.DataType.FLOAT:
        return None
    return scheme_for(rules, str(node.name))


def _activation(node: ir.Node) -> ir.Value:
    """Return the value to quantize for a layer: its input, or the pixels that the input was gathered from."""
    value = node.inputs[0]
    if value is None or value.name is None:
        raise ValueError(f"{node.name} has no named input")
    gathering = gathering_before(value)
    return value if gathering is None else gathering.source


def _quantize_input(
    graph: ir.Graph, node: ir.Node, ranges: Mapping[str, Range], dequantized: dict[str, ir.Value]
) -> None:
    """Insert Q and DQ before a layer; readers of an activation share them, but gathered bytes have their own DQ.

    ``dequantized`` maps the name of each float value to its dequantized form; new ones are added.
    """
    source = _activation(node)
    name = str(source.name)
    gathering = None if node.inputs[0] is None else gathering_before(node.inputs[0])
    if name not in dequantized:
        reader = node if gathering is None else gathering.pad
        ready = _is_dequantized(source)  # as a convolution's output is
        dequantized[name] = source if ready else _quantize_activation(graph, source, ranges[name], before=reader)
    value = dequantized[name]
    if gathering is not None and (producer := value.producer()) is not None:
        quantized, scale, zero_point = producer.inputs
        if quantized is None or scale is None or zero_point is None:
            raise ValueError(f"{producer.name} has no zero point")
        gathered = gathering.gather_bytes(quantized, zero_point)
        value = _dequantize(graph, node, [gathered, scale, zero_point], None, gathered.shape)
    node.replace_input_with(0, value)


def _is_dequantized(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type == "DequantizeLinear"


def _quantize_activation(graph: ir.Graph, value: ir.Value, extent: Range, before: ir.Node) -> ir.Value:
    """Insert Q and DQ of an activation in front of ``before``, and return the dequantized value."""
    scale, zero_point = extent.uint8_parameters()
    grid = [
        initializer(graph, f"{value.name}.scale", np.asarray(scale)),
        initializer(graph, f"{value.name}.zero_point", np.asarray(zero_point)),
    ]
    quantize_node = ir.node("QuantizeLinear", [value, *grid], name=f"{value.name}/QuantizeLinear")
    dequantize_node = ir.node(
        "DequantizeLinear", [quantize_node.outputs[0], *grid], name=f"{value.name}/DequantizeLinear"
    )
    _describe(quantize_node.outputs[0], f"{value.name}.u8", value.shape, ir.DataType.UINT8)
    _describe(dequantize_node.outputs[0], f"{value.name}.dq", value.shape, ir.DataType.FLOAT)
    graph.insert_before(before, [quantize_node, dequantize_node])
    return dequantize_node.outputs[0]


def _quantize_output(graph: ir.Graph, node: ir.Node, extent: Range) -> None:
    """Insert Q and DQ behind a node, and let all its readers read the dequantized value."""
    value = node.outputs[0]
    readers = [(use.node, use.idx) for use in value.uses()]
    if not readers:
        return  # an output of the graph, which stays float
    following = readers[0][0]
    for reader, _ in readers:
        if _position(graph, reader) < _position(graph, following):
            following = reader
    result = _quantize_activation(graph, value, extent, before=following)
    for reader, index in readers:
        reader.replace_input_with(index, result)


def _position(graph: ir.Graph, node: ir.Node) -> int:
    return next(i for i, other in enumerate(graph) if other is node)


def _quantize_weight(graph: ir.Graph, node: ir.Node, ranges: Mapping[str, Range] | None) -> None:
    """Store a weight as int8 with a DequantizeLinear; with ``ranges``, a convolution's bias as int32 as well."""
    position, axis = _WEIGHT_INPUT[node.op_type], _CHANNEL_AXIS[node.op_type]
    weight, int8, scale_value, scale = _int8_constant(graph, node, position, axis)
    zero_point = initializer(graph, f"{weight.name}.zero_point", np.zeros(scale.shape, np.int8))
    node.replace_input_with(position, _dequantize(graph, node, [int8, scale_value, zero_point], axis, weight.shape))
    bias = node.inputs[2] if node.op_type == "Conv" and len(node.inputs) > 2 else None  # noqa: PLR2004 (ONNX: X, W, B)
    if ranges is not None and bias is not None and bias.const_value is not None:
        activation = node.inputs[0]
        produced_by = activation.producer() if activation is not None else None
        if produced_by is None or produced_by.inputs[1] is None or produced_by.inputs[1].const_value is None:
            raise ValueError(f"{node.name}: the activation has no scale")
        bias_scale = (scale * produced_by.inputs[1].const_value.numpy()).astype(np.float32)
        q = np.round(bias.const_value.numpy().astype(np.float64) / bias_scale)
        limit = np.iinfo(np.int32).max
        inputs = [
            initializer(graph, f"{node.name}.bias.int32", np.clip(q, -limit, limit).astype(np.int32)),
            initializer(graph, f"{node.name}.bias.scale", bias_scale),
            initializer(graph, f"{node.name}.bias.zero_point", np.zeros(bias_scale.shape, np.int32)),
        ]
        node.replace_input_with(2, _dequantize(graph, node, inputs, 0, bias.shape))


def _int8_constant(
    graph: ir.Graph, node: ir.Node, position: int, axis: int
) -> tuple[ir.Value, ir.Value, ir.Value, NDArray[np.float32]]:
    """Register the int8 form of a constant, converted only when it is written; return (float, int8, scale, scales)."""
    weight = node.inputs[position]
    if weight is None or weight.const_value is None:
        raise ValueError(f"{node.name} has no constant weight")
    source = weight.const_value
    name = f"{weight.name}.int8"
    scale = _weight_scale(source.numpy(), axis)
    lazy = ir.LazyTensor(
        lambda: ir.Tensor(quantized_weight(source.numpy(), axis)[0], name=name),
        dtype=ir.DataType.INT8,
        shape=ir.Shape(source.shape.numpy()),
        name=name,
    )
    return weight, initializer(graph, name, lazy), initializer(graph, f"{weight.name}.scale", scale), scale


def _quantize_table(graph: ir.Graph, node: ir.Node) -> None:
    """Look up int8 rows and their scales, and multiply: Gather(W) --> Cast(Gather(W int8)) * Gather(scales)."""
    weight, int8, _, scale = _int8_constant(graph, node, 0, 0)
    column = initializer(graph, f"{weight.name}.scale_column", scale.reshape(-1, 1))
    output = node.outputs[0]
    rows = ir.node("Gather", [int8, node.inputs[1]], name=f"{node.name}.int8")
    scales = ir.node("Gather", [column, node.inputs[1]], name=f"{node.name}.scale")
    cast = ir.node("Cast", [rows.outputs[0]], attributes={"to": ir.DataType.FLOAT}, name=f"{node.name}.cast")
    multiply = ir.node("Mul", [cast.outputs[0], scales.outputs[0]], name=f"{node.name}.dequantize")
    for new in (rows, scales, cast, multiply):
        new.outputs[0].name = f"{new.name}.out"
    multiply.outputs[0].shape, multiply.outputs[0].type = output.shape, output.type
    graph.insert_before(node, [rows, scales, cast, multiply])
    for use in list(output.uses()):
        use.node.replace_input_with(use.idx, multiply.outputs[0])


def _dequantize(
    graph: ir.Graph, before: ir.Node, inputs: list[ir.Value], axis: int | None, shape: ir.Shape | None
) -> ir.Value:
    """Insert a DequantizeLinear, with a scale per channel along ``axis``, or one for all for None."""
    attributes = {} if axis is None else {"axis": axis}
    node = ir.node("DequantizeLinear", inputs, attributes=attributes, name=f"{inputs[0].name}/DequantizeLinear")
    _describe(node.outputs[0], f"{inputs[0].name}.dq", shape, ir.DataType.FLOAT)
    graph.insert_before(before, [node])
    return node.outputs[0]


def _describe(value: ir.Value, name: str, shape: ir.Shape | None, dtype: ir.DataType) -> None:
    value.name, value.shape, value.type = name, shape, ir.TensorType(dtype)
