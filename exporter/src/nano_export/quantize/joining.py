r"""Writes INT8 products with their biases as the one operator that onnxruntime has for both, MatMulIntegerToFloat.

    x -> Q -> DQ \                                 x -> Q \
     W int8 -> DQ > MatMul -> Add bias      ==>     W int8 > MatMulIntegerToFloat(scales, zero point, bias)

From the form on the left onnxruntime makes this operator by itself, but leaves the bias to an Add, as QDQ has no way to
say that both belong together. The operator is onnxruntime's alone: OpenVINO would multiply in float.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from nano_export.quantize.qdq import dequantizer_of

__all__ = ["join_biases"]

_DOMAIN = "com.microsoft"


def join_biases(model: ir.Model) -> int:
    """Rewrite the products of two quantized factors, the second constant, in place; return how many have a bias."""
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
        joined = ir.node(
            "MatMulIntegerToFloat", [*inputs, activation.inputs[2], None, bias], domain=_DOMAIN, name=node.name
        )
        old, new = last.outputs[0], joined.outputs[0]
        new.name, new.shape, new.type = old.name, old.shape, old.type
        old.name = f"{old.name}.apart"
        model.graph.insert_before(last, joined)
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        biases += bias is not None
    model.opset_imports[_DOMAIN] = 1
    RemoveUnusedNodesPass()(model)
    return biases


def _bias_of(node: ir.Node) -> tuple[ir.Node | None, ir.Value | None]:
    """Return the Add behind a product and the constant it adds, if there is one number for each column."""
    uses = list(node.outputs[0].uses())
    if len(uses) == 1 and (add := uses[0].node).op_type == "Add":
        other = add.inputs[1 - uses[0].idx]
        if other is not None and other.const_value is not None and len(other.const_value.shape) == 1:
            return add, other
    return None, None
