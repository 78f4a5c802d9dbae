"""Evens out an embedding table whose rows would quantize poorly, exactly: ``W = c (W' + o) + m``.

A row of an INT8 table has one scale: one large channel, or a constant part, takes it from all others. A channel that is
large in most rows is divided by ``c``, what rows have in common is ``m``, and the middle of a row is ``o``. Looking a
row up takes three operators more then, so it is done only where it pays.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from nano_export.graph.passes import initializer
from nano_export.quantize.grids import ALONE_LIMIT
from nano_export.quantize.layers import WEIGHT_INPUT, scheme_of, weight_of
from nano_export.quantize.plan import Rule
from nano_runtime.arrays import F32

__all__ = ["even_out_tables"]

_ROWS = 1024  # looked at; what the others have is as exact, and quantizes as well if they are like these
_LEAST_GAIN = 0.5  # share of the squared error that may be left: 3 dB


def even_out_tables(model: ir.Model, rules: tuple[Rule, ...]) -> int:
    """Rewrite the tables that are worth it, in place; return how many.

    Args:
        model: float; its results stay the same.
        rules: of the component.
    """
    found = 0
    for node in list(model.graph):
        if node.op_type != "Gather" or scheme_of(node, rules) != "w8":
            continue
        table = weight_of(node)
        if len(table.shape) != 2:  # noqa: PLR2004 (rows and channels)
            continue
        parts = _parts(table.numpy()[:: max(1, table.shape.numpy()[0] // _ROWS)])
        if parts is not None:
            _rewrite(model.graph, node, table, *parts)
            found += 1
    return found


def _parts(rows: F32) -> tuple[F32, F32] | None:
    """Return the factor ``c`` and the common part ``m`` of each channel, float32 [C]; None if they are not worth it."""
    common: F32 = rows.mean(axis=0)
    largest = np.abs(rows - common).max(axis=0)
    factor: F32 = np.maximum(largest / max(2 * float(np.median(largest)), 1e-30), 1).astype(np.float32)
    evened = (rows - common) / factor
    evened -= _middle(evened)
    lost = np.square(_rounding(evened) * factor).sum()
    return (factor, common) if lost < _LEAST_GAIN * np.square(_rounding(rows)).sum() else None


def _rounding(rows: F32) -> F32:
    """Return what quantizing adds to rows."""
    steps = np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-30) / ALONE_LIMIT
    added: F32 = np.round(rows / steps) * steps - rows
    return added


def _middle(rows: F32) -> F32:
    """Return the middle of each row, float32 [rows, 1]."""
    middle: F32 = (rows.max(axis=1, keepdims=True) + rows.min(axis=1, keepdims=True)) / 2
    return middle


def _rewrite(graph: ir.Graph, node: ir.Node, table: ir.TensorProtocol, factor: F32, common: F32) -> None:
    """Look up rows of ``W'`` instead, and compute those of ``W`` from them."""
    path = str(node.name).partition("/")[0]  # no rule of a plan is meant for the new operators

    def evened() -> F32:
        rows: F32 = table.numpy() - common
        rows /= factor
        return rows

    middle = _middle(evened())

    def rest() -> ir.TensorProtocol:
        rows = evened()
        rows -= middle
        return ir.Tensor(rows, name=name)

    name = f"{path}.evened"
    lazy = ir.LazyTensor(rest, dtype=ir.DataType.FLOAT, shape=ir.Shape(table.shape.numpy()), name=name)
    node.replace_input_with(WEIGHT_INPUT["Gather"], initializer(graph, name, lazy))
    output, readers = node.outputs[0], list(node.outputs[0].uses())
    middles = ir.node("Gather", [initializer(graph, f"{path}.middle", middle), node.inputs[1]], name=f"{path}.middles")
    centred = ir.node("Add", [output, middles.outputs[0]], name=f"{path}.add_middle")
    scaled = ir.node("Mul", [centred.outputs[0], initializer(graph, f"{path}.factor", factor)], name=f"{path}.scale")
    whole = ir.node("Add", [scaled.outputs[0], initializer(graph, f"{path}.common", common)], name=f"{path}.add_common")
    for new in (middles, centred, scaled, whole):
        value = new.outputs[0]
        value.name, value.shape, value.type = f"{new.name}.out", output.shape, output.type
    if output.shape is not None:
        middles.outputs[0].shape = ir.Shape([*list(output.shape)[:-1], 1])
    graph.insert_after(node, [middles, centred, scaled, whole])
    for use in readers:
        use.node.replace_input_with(use.idx, whole.outputs[0])
