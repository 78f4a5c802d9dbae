"""Counts what a graph has to compute: multiply-accumulates and weight bytes, by group of layers.

``nano-bench`` divides these numbers by what a machine can do, and so knows the least time a call can take.
"""

from __future__ import annotations

from collections import defaultdict
from math import prod
from typing import Literal

import onnx_ir as ir

from nano_runtime.manifest import Work

__all__ = ["work_of"]

_Group = tuple[tuple[int, ...], Literal["conv", "matmul", "attention"], Literal["int8", "f32"], bool]

_COUNTED = frozenset({"Conv", "MatMul", "Gemm"})
# These multiply matrices too. No pass writes them today; one that does has to say here how they are counted.
_UNKNOWN = frozenset({
    "Attention", "ConvInteger", "ConvTranspose", "Einsum", "GroupQueryAttention", "MatMulInteger", "MatMulNBits",
    "MultiHeadAttention", "QLinearConv", "QLinearMatMul",
})  # fmt: skip
_MAP_RANK = 4  # [batch, channels, height, width]


def work_of(model: ir.Model) -> list[Work]:
    """Count convolutions, linear layers and attention products, in the order their groups first run.

    Each output of such a layer costs as many multiply-accumulates as it sums products. Biases, norms, activations and
    all other operators are left out: they could be done while the products are computed.

    Args:
        model: float or QDQ, every product with a known shape, the batch as the only free dimension.

    Raises:
        ValueError: a product has an unknown shape, or is of an operator that is not counted here.
    """
    maps = _feature_maps(model.graph)
    groups: dict[_Group, list[tuple[int, int]]] = defaultdict(list)
    for node in model.graph:
        if node.op_type in _UNKNOWN:
            raise ValueError(f"{node.name}: the products of {node.op_type} are not counted")
        if node.op_type in _COUNTED:
            group, macs, weight_bytes = _count(node)
            groups[maps.get(group[0], group[0]), *group[1:]].append((macs, weight_bytes))
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


def _feature_maps(graph: ir.Graph) -> dict[tuple[int, ...], tuple[int, ...]]:
    """Height and width by their product, for the sizes at which a network of feature maps works.

    A linear layer or an attention sees a map as a sequence. The sizes are those of input and output, halved as often as
    possible.
    """
    maps = {}
    ends = [_dimensions(value) for value in (graph.inputs[0], graph.outputs[0])]
    for end in ends if len(ends[0]) == _MAP_RANK else ():
        size = tuple(side for side in end[2:] if isinstance(side, int))
        while min(size) > 0:
            maps[prod(size),] = size
            size = tuple(side // 2 for side in size)
    return maps


def _count(node: ir.Node) -> tuple[_Group, int, int]:
    """Return a layer's group, its multiply-accumulates and the bytes of its weight."""
    batch, *rest = _dimensions(node.outputs[0])
    sizes = [size for size in rest if isinstance(size, int)]
    if len(sizes) < len(rest):
        raise ValueError(f"{node.name}: a dimension besides the batch is free")
    weight = _constant(node.inputs[1])
    if node.op_type == "Conv":
        _, *filters = _dimensions(node.inputs[1])  # [channels out, channels in, height, width]
        positions, depth = tuple(sizes[1:]), prod(int(size) for size in filters)
    else:
        positions, depth = tuple(sizes[-2:-1]), int(_dimensions(node.inputs[0])[-1])
    kind: Literal["conv", "matmul", "attention"] = "matmul" if weight is not None else "attention"
    quantized = all(value is not None and _is_dequantized(value) for value in node.inputs[:2])
    macs = prod(sizes) * depth * (batch if isinstance(batch, int) else 1)
    group = (positions, "conv" if node.op_type == "Conv" else kind, "int8" if quantized else "f32", batch == "batch")
    return group, macs, 0 if weight is None else weight.nbytes


def _dimensions(value: ir.Value | None) -> list[int | str]:
    """Return a value's dimensions: numbers, or ``"batch"``."""
    if value is None or value.shape is None or not all(isinstance(size, int) or str(size) == "batch" for size in value.shape):
        raise ValueError(f"{value} has no known shape")
    return [size if isinstance(size, int) else "batch" for size in value.shape]


def _is_dequantized(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type == "DequantizeLinear"


def _constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Return the stored form of a weight, behind its DequantizeLinear if it has one; None for an activation."""
    producer = None if value is None else value.producer()
    if producer is not None and producer.op_type == "DequantizeLinear":
        value = producer.inputs[0]
    return None if value is None else value.const_value
