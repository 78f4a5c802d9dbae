r"""Replaces several operators by one that onnxruntime has for all of them; no other engine reads such a graph.

    x -> Q -> DQ \                                 x -> Q \
     W int8 -> DQ > MatMul -> Add bias      ==>     W int8 > MatMulIntegerToFloat(scales, zero point, bias)

onnxruntime makes this operator from the form on the left by itself, but leaves the bias in an Add: QDQ cannot express
that both belong together. OpenVINO would multiply in float.

    q -> heads apart \
    k -> heads apart > MatMul -> Softmax \                q \
    v -> heads apart ---------------------> MatMul   ==>  k > MultiHeadAttention
                           heads together <-/             v /

The operator never writes the scores of all tokens to memory (FlashAttention, Dao et al. 2022, arXiv:2205.14135), and
needs no transposes. OpenVINO finds the pattern on the left by itself.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from nano_export.graph.passes import dequantizer_of, initializer

__all__ = ["join_attention", "join_biases"]

_DOMAIN = "com.microsoft"
_BIAS_INPUT = 6  # of MatMulIntegerToFloat
_SWAP = "Transpose [0, 2, 1, 3]"  # [B, tokens, heads, d] <-> [B, heads, tokens, d]


def join_biases(model: ir.Model) -> int:
    """Rewrite products of two quantized factors, the second constant, in place; return how many took a bias."""
    biases = 0
    for node in list(model.graph):
        if node.op_type != "MatMul":
            continue
        activation, weight = (dequantizer_of(value) for value in node.inputs)
        if activation is None or weight is None or weight.inputs[0] is None or weight.inputs[0].const_value is None:
            continue
        add, bias = _bias_of(node)
        last = node if add is None else add
        inputs = [activation.inputs[0], weight.inputs[0], activation.inputs[1], weight.inputs[1]]
        joined = _operator("MatMulIntegerToFloat", [*inputs, activation.inputs[2], None, bias], node)
        _replace(model, last, joined)
        biases += bias is not None or _take_time_bias(model, joined)
    model.opset_imports[_DOMAIN] = 1
    RemoveUnusedNodesPass()(model)
    return biases


def join_attention(model: ir.Model) -> int:
    """Rewrite softmax(query keys) values of several heads in place; return how often. Masked attention stays.

    Keys and values are computed like queries, or are inputs [B, heads, tokens, d], as those of a prompt.
    """
    joined = 0
    for node in list(model.graph):
        if node.op_type != "Softmax":
            continue
        scores, ends = _makers(node.inputs[0], "MatMul"), _readers(node.outputs[0], "MatMul", _SWAP, "Reshape")
        if scores is None or ends is None or (split := _makers(scores[0].inputs[0], _SWAP, "Reshape")) is None:
            continue
        heads = split[1].inputs[1]
        if heads is None or heads.const_value is None:
            continue
        query, scale = _scaled(split[1].inputs[0])
        key, value = scores[0].inputs[1], ends[0].inputs[1]
        if (made := _makers(key, "Transpose [0, 2, 3, 1]", "Reshape")) and (values := _makers(value, _SWAP, "Reshape")):
            key, value = made[1].inputs[0], values[1].inputs[0]
        elif given := _makers(key, "Transpose [0, 1, 3, 2]"):
            key = given[0].inputs[0]
        else:
            continue
        attention = _operator("MultiHeadAttention", [query, key, value], node)
        attention.attributes["num_heads"] = ir.AttrInt64("num_heads", int(heads.const_value.numpy()[2]))
        attention.attributes["scale"] = ir.AttrFloat32("scale", scale)
        _replace(model, ends[2], attention)
        joined += 1
    model.opset_imports[_DOMAIN] = 1
    RemoveUnusedNodesPass()(model)
    return joined


def _operator(kind: str, inputs: list[ir.Value | None], instead_of: ir.Node) -> ir.Node:
    return ir.node(kind, inputs, domain=_DOMAIN, name=instead_of.name)


def _replace(model: ir.Model, last: ir.Node, joined: ir.Node) -> None:
    """Give a node the place, the name and the readers of the last node that it replaces."""
    old, new = last.outputs[0], joined.outputs[0]
    new.name, new.shape, new.type = old.name, old.shape, old.type
    old.name = f"{old.name}.apart"
    model.graph.insert_before(last, joined)
    old.replace_all_uses_with(new, replace_graph_outputs=True)


def _bias_of(node: ir.Node) -> tuple[ir.Node | None, ir.Value | None]:
    """Return the Add behind a product and its constant of one number per column; None twice without one."""
    uses = list(node.outputs[0].uses())
    if len(uses) == 1 and (add := uses[0].node).op_type == "Add":
        other = add.inputs[1 - uses[0].idx]
        if other is not None and other.const_value is not None and len(other.const_value.shape) == 1:
            return add, other
    return None, None


def _take_time_bias(model: ir.Model, joined: ir.Node) -> bool:
    """Move the time bias behind a lowered convolution, float [1, C], into its product; return whether there is one."""
    readers = _readers(joined.outputs[0], "Transpose [0, 2, 1]", "Reshape", "Add")
    if readers is None:
        return False
    _, reshape, add = readers
    made = [makers[0] for value in add.inputs if (makers := _makers(value, "Unsqueeze"))]
    bias = made[0].inputs[0] if made else None
    weight = joined.inputs[1]
    if bias is None or weight is None or weight.shape is None or bias.shape != [1, weight.shape[1]]:
        return False
    first = initializer(model.graph, "first_axis", np.array([0]))
    row = ir.node("Squeeze", [bias, first], name=f"{add.name}/Squeeze")
    row.outputs[0].name = f"{bias.name}.row"
    model.graph.insert_before(joined, row)
    joined.replace_input_with(_BIAS_INPUT, row.outputs[0])
    add.outputs[0].replace_all_uses_with(reshape.outputs[0], replace_graph_outputs=True)
    return True


def _scaled(value: ir.Value | None) -> tuple[ir.Value | None, float]:
    """Return a value before its multiplication by one number, and that number; without one, the value and 1."""
    product = _makers(value, "Mul")
    factor = None if product is None else product[0].inputs[1]
    if product is None or factor is None or factor.const_value is None or factor.const_value.size != 1:
        return value, 1.0
    return product[0].inputs[0], float(factor.const_value.numpy().item())


def _makers(value: ir.Value | None, *kinds: str) -> list[ir.Node] | None:
    """Return the chain of nodes that a value comes from, last first, by first inputs; None if the kinds differ."""
    nodes: list[ir.Node] = []
    for kind in kinds:
        node = None if value is None else value.producer()
        if node is None or _kind(node) != kind:
            return None
        nodes.append(node)
        value = node.inputs[0]
    return nodes


def _readers(value: ir.Value, *kinds: str) -> list[ir.Node] | None:
    """Return the chain of nodes that a value goes through, only readers; None if the kinds differ."""
    nodes: list[ir.Node] = []
    for kind in kinds:
        uses = list(value.uses())
        if len(uses) != 1 or _kind(uses[0].node) != kind or value.is_graph_output():
            return None
        nodes.append(uses[0].node)
        value = uses[0].node.outputs[0]
    return nodes


def _kind(node: ir.Node) -> str:
    """Return the name of the operator, and for a transpose the order of its axes."""
    perm = node.attributes.get("perm")
    return node.op_type if perm is None else f"{node.op_type} {list(perm.as_ints())}"
