r"""Writes a plan into a graph as pairs of QuantizeLinear and DequantizeLinear (QDQ), a form that both engines fuse.

    w8a8 Conv     x -> Q -> DQ \\                                w8 MatMul    x ------------\\
                  W int8 -> DQ > Conv -> Q -> DQ -> ...                       W int8 -> DQ > MatMul -> ...
                  b int32 -> DQ/

    w8a8 MatMul   x -> Q -> DQ \\
                  W int8 -> DQ > MatMul -> ...

onnxruntime fuses a Conv into QLinearConv only if its output is quantized. Its outlier channels are divided by the layer
and multiplied again by the last DQ, which has a scale for each channel then. A MatMul needs none: it becomes
MatMulIntegerToFloat, whose result is float. With a DequantizeLinear at the weight alone it becomes MatMulNBits. A table
is dequantized row by row after the look-up, never as a whole. OpenVINO reads the same graph as FakeQuantize and
compressed weights.

Weights are converted one by one while the file is written: only one at a time is in memory beside the mapped source.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from nano_export.graph.passes import initializer
from nano_export.quantize.convolutions import gathering_before
from nano_export.quantize.equalize import map_before
from nano_export.quantize.grids import ALONE_LIMIT, WEIGHT_LIMIT, Range, quantized_weight, weight_scale
from nano_export.quantize.layers import WEIGHT_INPUT, activation_of, readers_together, scheme_of
from nano_export.quantize.plan import Rule, Scheme, looked_at
from nano_runtime.arrays import F32

__all__ = ["quantize", "tensors_to_calibrate"]

# The axis of the output channels, which have a scale each; rows of an embedding table are its "channels".
_CHANNEL_AXIS = {"Conv": 0, "MatMul": 1, "Gemm": 0, "Gather": 0}


def tensors_to_calibrate(model: ir.Model, rules: tuple[Rule, ...]) -> list[str]:
    """Return the names of the activations that quantized layers read, or may, and of those that they quantize."""
    looked = looked_at(rules)
    names = {str(layers[0].source.name): None for layers in readers_together(model, looked)}
    for node in model.graph:
        if node.op_type == "Conv" and scheme_of(node, looked) == "w8a8":
            names[str(node.outputs[0].name)] = None
    return list(names)


def quantize(
    model: ir.Model,
    rules: tuple[Rule, ...],
    ranges: Mapping[str, Range],
    divided: Mapping[str, F32] | None = None,
    multiplied: Mapping[str, F32] | None = None,
) -> dict[Scheme, int]:
    """Rewrite ``model`` in place according to ``rules``; return how many nodes each scheme got.

    Args:
        model: float32; weights may lie in a mapped file.
        rules: of this component.
        ranges: of every tensor that ``tensors_to_calibrate`` names.
        divided: tensors that their quantizer divides by a scale for each channel, float32 [C]; see ``equalize``.
        multiplied: outputs of convolutions that are multiplied with a scale for each channel when they are read.

    Raises:
        KeyError: a range is missing.
    """
    graph = model.graph
    divided = {} if divided is None else divided
    multiplied = {} if multiplied is None else multiplied
    dequantized: dict[str, ir.Value] = {}
    counts: dict[Scheme, int] = {"w8a8": 0, "w8": 0, "float": 0}
    for node in list(graph):
        scheme = scheme_of(node, rules)
        if scheme is None:
            continue
        counts[scheme] += 1
        if scheme == "float":
            continue
        if node.op_type == "Gather":
            _quantize_table(graph, node)
            continue
        if scheme == "w8a8":
            _quantize_input(graph, node, ranges, divided, dequantized)
        _quantize_weight(graph, node, scheme)
        if scheme == "w8a8" and node.op_type == "Conv":
            name = str(node.outputs[0].name)
            _quantize_output(graph, node, ranges[name], multiplied.get(name))
    _keep_apart(graph)
    RemoveUnusedNodesPass()(model)  # the float weights
    return counts


def _quantize_input(
    graph: ir.Graph,
    node: ir.Node,
    ranges: Mapping[str, Range],
    divided: Mapping[str, F32],
    dequantized: dict[str, ir.Value],
) -> None:
    """Insert Q and DQ before a layer; readers of an activation share them, but gathered bytes have their own DQ.

    ``dequantized`` maps the name of each float value to its dequantized form; new ones are added.
    """
    source = activation_of(node)
    name = str(source.name)
    gathering = None if node.inputs[0] is None else gathering_before(node.inputs[0])
    if name not in dequantized:
        reader = node if gathering is None else gathering.pad
        ready = _is_dequantized(source)  # as a convolution's output is
        if not ready and name in divided:
            dequantized[name] = _quantize_map(graph, source, ranges[name], divided[name], before=reader)
        else:
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


def _quantize_activation(
    graph: ir.Graph, value: ir.Value, extent: Range, before: ir.Node, factor: F32 | None = None
) -> ir.Value:
    """Insert Q and DQ of an activation in front of ``before``, and return the dequantized value times a factor."""
    scale, zero_point = extent.uint8_parameters()
    grid = [
        initializer(graph, f"{value.name}.scale", np.asarray(scale)),
        initializer(graph, f"{value.name}.zero_point", np.asarray(zero_point)),
    ]
    quantize_node = ir.node("QuantizeLinear", [value, *grid], name=f"{value.name}/QuantizeLinear")
    if factor is not None:
        grid = [
            initializer(graph, f"{value.name}.scales", (factor * scale).astype(np.float32)),
            initializer(graph, f"{value.name}.zero_points", np.full(factor.shape, zero_point)),
        ]
    dequantize_node = ir.node(
        "DequantizeLinear",
        [quantize_node.outputs[0], *grid],
        attributes={} if factor is None else {"axis": 1},
        name=f"{value.name}/DequantizeLinear",
    )
    _describe(quantize_node.outputs[0], f"{value.name}.u8", value.shape, ir.DataType.UINT8)
    _describe(dequantize_node.outputs[0], f"{value.name}.dq", value.shape, ir.DataType.FLOAT)
    graph.insert_before(before, [quantize_node, dequantize_node])
    return dequantize_node.outputs[0]


def _quantize_map(graph: ir.Graph, source: ir.Value, extent: Range, divisor: F32, before: ir.Node) -> ir.Value:
    """Divide and quantize a feature map in one operator, where its channels come first; dequantize it before a node.

    The operators between only move values: they move bytes then.
    """
    found = map_before(source)
    if found is None:
        raise ValueError(f"{source.name} is no feature map")
    value, moves = found
    scale, zero_point = extent.uint8_parameters()
    grid = [
        initializer(graph, f"{source.name}.scales", (divisor * scale).astype(np.float32)),
        initializer(graph, f"{source.name}.zero_points", np.full(divisor.shape, zero_point)),
    ]
    first = moves[-1] if moves else before
    quantizer = ir.node("QuantizeLinear", [value, *grid], attributes={"axis": 1}, name=f"{source.name}/QuantizeLinear")
    quantized = quantizer.outputs[0]
    _describe(quantized, f"{source.name}.u8", value.shape, ir.DataType.UINT8)
    graph.insert_before(first, quantizer)
    if moves:
        first.replace_input_with(0, quantized)
        for node in moves:
            node.outputs[0].type = ir.TensorType(ir.DataType.UINT8)
        quantized = source
    inputs = [
        quantized,
        initializer(graph, f"{source.name}.scale", np.asarray(scale)),
        initializer(graph, f"{source.name}.zero_point", np.asarray(zero_point)),
    ]
    return _dequantize(graph, before, inputs, None, source.shape)


def _quantize_output(graph: ir.Graph, node: ir.Node, extent: Range, factor: F32 | None) -> None:
    """Insert Q and DQ behind a node, and let all its readers read the dequantized value times a factor."""
    value = node.outputs[0]
    readers = [(use.node, use.idx) for use in value.uses()]
    if not readers:
        return  # an output of the graph, which stays float
    following = readers[0][0]
    for reader, _ in readers:
        if _position(graph, reader) < _position(graph, following):
            following = reader
    result = _quantize_activation(graph, value, extent, following, factor)
    for reader, index in readers:
        reader.replace_input_with(index, result)


def _keep_apart(graph: ir.Graph) -> None:
    """Write a sum as Sum where onnxruntime would join it with quantizers that have a scale for each channel.

    DQ, DQ, Add and Q become QLinearAdd, which takes one scale for all channels: 1.23 does not load such a graph.
    """
    for node in graph:
        around = [use.node for use in node.outputs[0].uses()]
        if node.op_type != "Add" or any(one.op_type != "QuantizeLinear" for one in around):
            continue
        around += [one for value in node.inputs if value is not None and (one := value.producer()) is not None]
        scales = [one.inputs[1] for one in around if one.op_type in {"QuantizeLinear", "DequantizeLinear"}]
        if any(scale is not None and scale.shape is not None and len(scale.shape) > 0 for scale in scales):
            node.op_type = "Sum"


def _position(graph: ir.Graph, node: ir.Node) -> int:
    return next(i for i, other in enumerate(graph) if other is node)


def _quantize_weight(graph: ir.Graph, node: ir.Node, scheme: Scheme) -> None:
    """Store a weight as int8 with a DequantizeLinear; for w8a8, a convolution's bias as int32 as well."""
    position, axis = WEIGHT_INPUT[node.op_type], _CHANNEL_AXIS[node.op_type]
    limit = WEIGHT_LIMIT if scheme == "w8a8" else ALONE_LIMIT
    weight, int8, scale_value, scale = _int8_constant(graph, node, position, axis, limit)
    zero_point = initializer(graph, f"{weight.name}.zero_point", np.zeros(scale.shape, np.int8))
    node.replace_input_with(position, _dequantize(graph, node, [int8, scale_value, zero_point], axis, weight.shape))
    bias = node.inputs[2] if node.op_type == "Conv" and len(node.inputs) > 2 else None  # noqa: PLR2004 (ONNX: X, W, B)
    if scheme == "w8a8" and bias is not None and bias.const_value is not None:
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
    graph: ir.Graph, node: ir.Node, position: int, axis: int, limit: int
) -> tuple[ir.Value, ir.Value, ir.Value, NDArray[np.float32]]:
    """Register the int8 form of a constant, converted only when it is written; return (float, int8, scale, scales)."""
    weight = node.inputs[position]
    if weight is None or weight.const_value is None:
        raise ValueError(f"{node.name} has no constant weight")
    source = weight.const_value
    name = f"{weight.name}.int8"
    scale = weight_scale(source.numpy(), axis, limit)
    lazy = ir.LazyTensor(
        lambda: ir.Tensor(quantized_weight(source.numpy(), axis, limit)[0], name=name),
        dtype=ir.DataType.INT8,
        shape=ir.Shape(source.shape.numpy()),
        name=name,
    )
    return weight, initializer(graph, name, lazy), initializer(graph, f"{weight.name}.scale", scale), scale


def _quantize_table(graph: ir.Graph, node: ir.Node) -> None:
    """Look up int8 rows and their scales, and multiply: Gather(W) --> Cast(Gather(W int8)) * Gather(scales)."""
    weight, int8, _, scale = _int8_constant(graph, node, 0, 0, ALONE_LIMIT)
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
