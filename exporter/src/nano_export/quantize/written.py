"""Compares an INT8 graph, as it was written, with the float graph that it was made of.

INT8 may be poor for a checkpoint, and its distance from fp32 says how poor. It does not say whether the graph is wrong:
outliers bring a right one as far down as a wrong scale does. What a right graph keeps, whatever the checkpoint, is
that each weight lies beside its float value on its grid, and that each activation has the grid that was chosen for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from nano_export.quantize.grids import Range
from nano_runtime.arrays import F32

__all__ = ["first_fault"]

_ONE_STEP = 1.001  # of a weight's grid: rounded up or down, and a little for the division in float32
_SAME_SCALE = 1e-5  # relative, of a product of two float32


def first_fault(
    quantized: ir.Model,
    floats: ir.Model,
    ranges: Mapping[str, Range],
    divided: Mapping[str, F32] | None = None,
    multiplied: Mapping[str, F32] | None = None,
) -> str | None:
    """Return the first weight or grid that is not what the float graph asks for, as a message; None if all are.

    Args:
        quantized: the result of ``qdq.quantize``, read from its file.
        floats: the graph that was quantized; float32 weights, which may lie in a mapped file.
        ranges: of the activations, as ``qdq.quantize`` had them.
        divided: activations that their quantizer divides, as ``qdq.quantize`` had them.
        multiplied: activations that are multiplied when they are read, as ``qdq.quantize`` had them.
    """
    divided, multiplied = ({} if scales is None else scales for scales in (divided, multiplied))
    return next(_faults(quantized, floats, ranges, divided, multiplied), None)


def _faults(
    quantized: ir.Model,
    floats: ir.Model,
    ranges: Mapping[str, Range],
    divided: Mapping[str, F32],
    multiplied: Mapping[str, F32],
) -> Iterator[str]:
    """Yield what is wrong, node by node."""
    for node in quantized.graph:
        if node.op_type == "QuantizeLinear":
            yield from _grid(node, ranges, divided)
        elif node.op_type == "DequantizeLinear" and node.inputs[0] is not None:
            if node.inputs[0].const_value is None:
                yield from _return(node, divided, multiplied)
            elif node.inputs[0].const_value.dtype == ir.DataType.INT8:
                axis = node.attributes.get_int("axis", 1)
                yield from _weight(node.inputs[0], _numbers(node, 1), axis, floats)
        elif node.op_type == "Gather" and str(node.name).endswith(".int8") and node.inputs[0] is not None:
            table = node.inputs[0]
            column = quantized.graph.initializers[f"{_float_name(table)}.scale_column"].const_value
            yield from _weight(table, np.empty(0) if column is None else column.numpy().reshape(-1), 0, floats)
        elif node.op_type == "Conv":
            yield from _bias(node)


def _grid(node: ir.Node, ranges: Mapping[str, Range], divided: Mapping[str, F32]) -> Iterator[str]:
    """Yield an activation whose grid is not that of its range."""
    name = str(node.name).removesuffix("/QuantizeLinear")
    if name not in ranges:
        yield f"the activation {name} has a grid that nothing asked for"
        return
    scale, zero_point = ranges[name].uint8_parameters()
    expected = (divided[name] * scale).astype(np.float32) if name in divided else scale
    if (_numbers(node, 1) != expected).any() or (_numbers(node, 2) != zero_point).any():
        yield f"the activation {name} has the grid of another range"


def _return(node: ir.Node, divided: Mapping[str, F32], multiplied: Mapping[str, F32]) -> Iterator[str]:
    """Yield bytes that are read on another grid than the one on which they were written."""
    written: ir.Node | None = node
    while written is not None and written.op_type != "QuantizeLinear":
        source = written.inputs[0]  # bytes may be moved, padded and gathered in between
        written = None if source is None else source.producer()
    if written is None:
        yield f"{node.name} reads bytes that nothing wrote"
        return
    name = str(written.name).removesuffix("/QuantizeLinear")
    divisor, factor = (scales.get(name, np.float32(1)) for scales in (divided, multiplied))
    read, meant = (_numbers(one, 1) * by for one, by in ((node, divisor), (written, factor)))
    if (read.astype(np.float32) != meant.astype(np.float32)).any() or (_numbers(written, 2) != _numbers(node, 2)).any():
        yield f"{node.name} reads its bytes on another grid than they were written on"


def _weight(value: ir.Value, scale: NDArray[Any], axis: int, floats: ir.Model) -> Iterator[str]:
    """Yield a weight that lies more than one step from its float value."""
    name = _float_name(value)
    exact = floats.graph.initializers.get(name)
    if exact is None or exact.const_value is None or value.const_value is None:
        yield f"the weight {name} is not in the float graph"
        return
    array = exact.const_value.numpy()
    if scale.shape != (array.shape[axis],) or value.const_value.numpy().shape != array.shape:
        yield f"the weight {name} has another shape than its float form"
        return
    steps = array / np.expand_dims(scale, [i for i in range(array.ndim) if i != axis])
    np.subtract(steps, value.const_value.numpy(), out=steps)
    if not (farthest := max(float(steps.max()), -float(steps.min()))) <= _ONE_STEP:
        yield f"the weight {name} is {farthest:.0f} steps from its float value"


def _bias(node: ir.Node) -> Iterator[str]:
    """Yield a bias that does not count in units of weight scale times activation scale, as integer kernels do."""
    sources = [None if value is None else value.producer() for value in node.inputs]
    if len(sources) < 3 or any(one is None or one.op_type != "DequantizeLinear" for one in sources):  # noqa: PLR2004
        return
    activation, weight, bias = (_numbers(one, 1) for one in sources if one is not None)
    if not np.allclose(bias, weight * activation, rtol=_SAME_SCALE, atol=0.0):
        yield f"the bias of {node.name} does not count in the units of its products"


def _numbers(node: ir.Node, position: int) -> NDArray[Any]:
    """Return a constant input of a node; nothing if it is none."""
    value = node.inputs[position]
    return np.empty(0) if value is None or value.const_value is None else value.const_value.numpy()


def _float_name(value: ir.Value) -> str:
    return str(value.name).removesuffix(".int8")
