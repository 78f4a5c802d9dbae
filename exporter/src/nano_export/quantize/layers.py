"""Finds the layers of a graph that have a constant weight, and the activation that each reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from nano_export.quantize.convolutions import gathering_before
from nano_export.quantize.plan import Rule, Scheme, scheme_for
from nano_runtime.arrays import F32

__all__ = [
    "WEIGHT_INPUT",
    "Layer",
    "activation_of",
    "bias_of",
    "reader_of",
    "readers_together",
    "scheme_of",
    "weight_of",
]

WEIGHT_INPUT = {"Conv": 1, "MatMul": 1, "Gemm": 1, "Gather": 0}
"""Operator -> the place of its weight among its inputs."""


@dataclass(frozen=True)
class Layer:
    """A product of an activation and a constant weight: a MatMul or a Conv.

    Attributes:
        node: the product.
        source: the activation that is quantized for it; its channels are on ``calibration.channel_axis``.
    """

    node: ir.Node
    source: ir.Value

    @property
    def name(self) -> str:
        """Name of the node."""
        return str(self.node.name)

    def matrices(self, channels: int) -> F32:
        """Return the weight as one matrix for each pixel of the kernel, float32 [taps, C, C']; a linear layer has one.

        Args:
            channels: of the activation.
        """
        weight = weight_of(self.node).numpy()
        if self.node.op_type == "Conv":  # [C', C, h, w]; as a product, [taps * C, C']
            weight = weight.transpose(2, 3, 1, 0)
        return np.asarray(weight, np.float32).reshape(-1, channels, weight.shape[-1])


def weight_of(node: ir.Node) -> ir.TensorProtocol:
    """Return the constant weight of a layer.

    Raises:
        ValueError: it has none.
    """
    weight = node.inputs[WEIGHT_INPUT[node.op_type]]
    if weight is None or weight.const_value is None:
        raise ValueError(f"{node.name} has no constant weight")
    return weight.const_value


def scheme_of(node: ir.Node, rules: tuple[Rule, ...]) -> Scheme | None:
    """Return the scheme of a node with a constant weight; None for all others."""
    position = WEIGHT_INPUT.get(node.op_type)
    if position is None or len(node.inputs) <= position:
        return None
    weight = node.inputs[position]
    if weight is None or weight.const_value is None or weight.const_value.dtype != ir.DataType.FLOAT:
        return None
    return scheme_for(rules, str(node.name))


def activation_of(node: ir.Node) -> ir.Value:
    """Return the value to quantize for a layer: its input, or the pixels that the input was gathered from."""
    value = node.inputs[0]
    if value is None or value.name is None:
        raise ValueError(f"{node.name} has no named input")
    gathering = gathering_before(value)
    return value if gathering is None else gathering.source


def reader_of(layer: Layer) -> ir.Node:
    """Return the node that reads a layer's activation: the layer itself, or the one that gathers its pixels."""
    value = layer.node.inputs[0]
    gathering = None if value is None else gathering_before(value)
    return layer.node if gathering is None else gathering.pad


def bias_of(node: ir.Node) -> tuple[ir.Node, int] | None:
    """Return the node that adds a constant to each output channel of a layer, and which input the constant is."""
    if node.op_type == "Conv":
        bias = node.inputs[2] if len(node.inputs) > 2 else None  # noqa: PLR2004 (ONNX: X, W, B)
        return None if bias is None else (node, 2)
    uses = list(node.outputs[0].uses())
    if len(uses) != 1 or uses[0].node.op_type != "Add":
        return None
    add, index = uses[0].node, 1 - uses[0].idx
    other = add.inputs[index]
    if other is None or other.const_value is None or len(other.const_value.shape) != 1:
        return None
    return add, index


def readers_together(model: ir.Model, rules: tuple[Rule, ...]) -> Sequence[Sequence[Layer]]:
    """Return the layers with quantized weights, but for tables; those that read the same activation are together."""
    groups: dict[str, list[Layer]] = {}
    for node in model.graph:
        if node.op_type in {"Conv", "MatMul"} and scheme_of(node, rules) in {"w8a8", "w8"}:
            layer = Layer(node, activation_of(node))
            groups.setdefault(str(layer.source.name), []).append(layer)
    return list(groups.values())
