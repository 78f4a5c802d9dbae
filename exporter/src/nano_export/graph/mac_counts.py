"""Counts the matrix work of a graph: multiply-accumulates and weight bytes, by group of layers.

``nano-bench`` divides these numbers by the speed of a machine: the least time that a call can take there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from math import prod
from typing import Literal

import onnx_ir as ir

from nano_export.graph.passes import dequantizer_of
from nano_runtime.bundle.manifest import Work

__all__ = ["work_of"]

_Kind = Literal["conv", "matmul", "attention"]
_Arithmetic = Literal["int8", "f32"]
_Group = tuple[tuple[int, ...], _Kind, _Arithmetic, bool]

_COUNTED = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
# These multiply matrices, too. No pass writes them before the work is counted; ``quantize.fused_operators`` does
# afterwards. A pass that writes one before must count it here.
_UNKNOWN = frozenset({
    "Attention", "ConvInteger", "Einsum", "GroupQueryAttention", "MatMulInteger",
    "MatMulIntegerToFloat", "MatMulNBits", "MultiHeadAttention", "QLinearConv", "QLinearMatMul",
})  # fmt: skip
_FLOAT_BYTES = 4
_MAP_RANK = 4  # [batch, channels, height, width]


def work_of(model: ir.Model, tokens: int, schemes: Mapping[str, str] | None = None) -> list[Work]:
    """Count convolutions, linear layers and attention products, in the order their groups first run.

    An output of such a layer costs one multiply-accumulate for each product that it sums. Biases, norms, activations
    and all other operators are left out: they can be computed along with the products.

    Args:
        model: float or QDQ, every product with a known shape; only batch and prompt length are free.
        tokens: prompt length at which the work is counted: one chunk.
        schemes: of nodes that are float here and quantized in the form that an engine reads: "w8a8" or "w8".

    Raises:
        ValueError: a product has an unknown shape, or an operator that is not counted here.
    """
    maps = _feature_maps(model.graph, tokens)
    groups: dict[_Group, list[tuple[int, int]]] = defaultdict(list)
    for node in model.graph:
        if node.op_type in _UNKNOWN:
            raise ValueError(f"{node.name}: the products of {node.op_type} are not counted")
        if node.op_type in _COUNTED:
            group, macs, weight_bytes = _count(node, maps, tokens)
            scheme = None if schemes is None else schemes.get(str(node.name))
            if scheme == "w8a8":
                group = group[0], group[1], "int8", group[3]
            if scheme is not None:
                weight_bytes //= _FLOAT_BYTES
            groups[group].append((macs, weight_bytes))
    return [
        Work(
            positions=positions,
            kind=kind,
            arithmetic=arithmetic,
            layers=len(layers),
            macs=sum(macs for macs, _ in layers),
            batched=batched,
            weight_bytes=sum(weight_bytes for _, weight_bytes in layers),
        )
        for (positions, kind, arithmetic, batched), layers in groups.items()
    ]


def _feature_maps(graph: ir.Graph, tokens: int) -> dict[tuple[int, ...], tuple[int, ...]]:
    """Return height and width by their product, for all sizes at which a network of feature maps works.

    A linear layer or an attention sees a map as a sequence, which has only the product. The sizes are those of input
    and output, halved as often as possible.
    """
    maps: dict[tuple[int, ...], tuple[int, ...]] = {}
    ends = [_sizes(value, tokens) for value in (graph.inputs[0], graph.outputs[0])]
    for end in ends if len(ends[0]) == _MAP_RANK else ():
        size = end[2:]
        while min(size) > 0:
            maps[prod(size),] = size
            size = tuple(side // 2 for side in size)
    return maps


def _count(node: ir.Node, maps: dict[tuple[int, ...], tuple[int, ...]], tokens: int) -> tuple[_Group, int, int]:
    """Return a layer's group, its multiply-accumulates for one row of the batch, and the bytes of its weight."""
    output, sizes = node.outputs[0], _sizes(node.outputs[0], tokens)
    weight = _constant(node.inputs[1])
    kind: _Kind = "conv" if node.op_type in _CONVOLUTIONS else "attention" if weight is None else "matmul"
    if kind == "conv":
        positions = sizes[2:]
        summed = prod(_sizes(node.inputs[1], tokens)[1:])  # of [channels out, channels in, height, width]
        if node.op_type == "ConvTranspose":  # each input is multiplied with [channels out, height, width] instead
            products = prod(_sizes(node.inputs[0], tokens)) * summed
            sizes, summed = (products,), 1
    else:
        sequence = sizes[1:][-2:-1]
        positions = maps.get(sequence, sequence)
        summed = _sizes(node.inputs[0], tokens)[-1]
    # Both factors quantized: only then can an engine compute with their quantized forms.
    arithmetic: _Arithmetic = "int8" if all(dequantizer_of(value) is not None for value in node.inputs[:2]) else "f32"
    batched = output.shape is not None and not isinstance(output.shape[0], int)
    group = positions, kind, arithmetic, batched
    return group, prod(sizes) * summed, 0 if weight is None else weight.nbytes


def _sizes(value: ir.Value | None, tokens: int) -> tuple[int, ...]:
    """Return a value's shape with one row for a free batch, and this length for a free prompt."""
    if value is None or value.shape is None:
        raise ValueError(f"the shape of {value} is unknown")
    known = {"batch": 1, "tokens": tokens}
    sizes = [size if isinstance(size, int) else known.get(str(size), 0) for size in value.shape]
    if 0 in sizes:
        raise ValueError(f"{value} has a free dimension besides batch and prompt")
    return tuple(sizes)


def _constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Return a weight as it is stored, quantized or float; None for an activation."""
    dequantizer = dequantizer_of(value)
    stored = value if dequantizer is None else dequantizer.inputs[0]
    return None if stored is None else stored.const_value
