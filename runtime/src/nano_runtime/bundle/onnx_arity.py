"""How many values an ONNX operator takes and gives, as its definition says.

Engines do not all look: OpenVINO's reader crashes at a convolution without weights, ONNX Runtime at a sum of nothing.
``tests/contract/test_operators.py`` compares these numbers with the definitions in the ``onnx`` package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

__all__ = ["ARITIES", "Arity", "arity_of", "fits"]

_ANY: Final = 1 << 31


class Arity(NamedTuple):
    """How many values an operator takes and gives.

    Attributes:
        least: the first inputs, which it cannot do without.
        most: inputs, with those that may be left out.
        gives: the most outputs.
    """

    least: int
    most: int
    gives: int


_LISTED: Final = (
    (Arity(0, 0, 1), "Constant"),
    (
        Arity(1, 1, 1),
        "Abs ArgMax AveragePool Cast Ceil Celu ConstantOfShape Cos DepthToSpace Elu Erf Exp Flatten",
    ),
    (Arity(1, 1, 1), "Floor Gelu GlobalAveragePool HardSigmoid HardSwish Identity LeakyRelu Log LogSoftmax Mish Neg"),
    (Arity(1, 1, 1), "Not Reciprocal Relu Round Selu Shape Sigmoid Sign Sin Softmax Softplus Softsign Sqrt Tanh"),
    (Arity(1, 1, 1), "ThresholdedRelu Transpose"),
    (Arity(1, 1, 2), "MaxPool"),
    (Arity(1, 1, 3), "DynamicQuantizeLinear"),
    (Arity(1, 2, 1), "ReduceMax ReduceMean ReduceMin ReduceSum Squeeze Trilu Unsqueeze"),
    (Arity(1, 2, _ANY), "Split"),
    (Arity(1, 3, 1), "Clip"),
    (Arity(1, 4, 1), "Pad Resize"),
    (Arity(1, 5, 1), "Slice"),
    (Arity(1, _ANY, 1), "Concat Max Min Sum"),
    (Arity(1, 10, 4), "MultiHeadAttention"),
    (Arity(2, 2, 1), "Add And CumSum Div Equal Expand Gather GatherElements GatherND Greater GreaterOrEqual Less"),
    (Arity(2, 2, 1), "LessOrEqual MatMul Mod Mul Or PRelu Pow Reshape Sub Tile"),
    (Arity(2, 3, 1), "Conv DequantizeLinear Gemm QuantizeLinear"),
    (Arity(2, 3, 3), "LayerNormalization"),
    (Arity(2, 4, 1), "ConvInteger MatMulInteger"),
    (Arity(3, 3, 1), "GroupNormalization InstanceNormalization Range ScatterND Where"),
    (Arity(3, 7, 4), "Attention"),
    (Arity(4, 7, 1), "MatMulIntegerToFloat"),
    (Arity(5, 5, 5), "BatchNormalization"),
)
ARITIES: Final = {operator: arity for arity, operators in _LISTED for operator in operators.split()}
"""Operator -> the widest of all its versions; no name is in two sets of operators."""

_SINCE: Final = {"Slice": (10, 3), "Pad": (11, 2), "Resize": (11, 3), "Unsqueeze": (13, 2)}
"""Operators that once had in attributes what they now take as inputs: since which version, and how many at least."""


_WHOLE: Final = frozenset({"Concat", "LayerNormalization", "Max", "Min", "Sum"})
"""Operators at which ONNX Runtime crashes if an input is listed without a name, instead of not at all."""


def arity_of(operator: str, version: int) -> Arity:
    """Return what an operator takes and gives in a version of ONNX's set of operators."""
    arity = ARITIES[operator]
    since, least = _SINCE.get(operator, (0, 0))
    return arity._replace(least=max(arity.least, least)) if version >= since else arity


def fits(operator: str, version: int, taken: Sequence[bytes], given: Sequence[bytes]) -> bool:
    """Return whether a node takes and gives what its operator does; an empty name is a value that is left out."""
    arity = arity_of(operator, version)
    listed = arity.least <= len(taken) <= arity.most and 1 <= len(given) <= arity.gives and bool(given[0])
    if operator == "Resize":  # by a factor or to a size
        return listed and bool(taken[0]) and (version < _SINCE[operator][0] or any(taken[2:]))
    return listed and all(taken if operator in _WHOLE else taken[: arity.least])
