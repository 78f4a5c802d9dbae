"""The ONNX operators and attributes that a graph may have: what Nano's exporter writes, and what others write.

An operator that is in no list is refused. None of the lists has one with a graph inside (If, Loop, Scan), one that
draws random numbers, or one that takes strings. ``tests/contract/test_operators.py`` tests that the first list has all
that the exporter writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["DOMAINS", "NANO", "OTHERS", "allowed_attributes"]

_CONV = "auto_pad dilations group kernel_shape pads strides"

NANO: Final[Mapping[str, Mapping[str, str]]] = {
    "": {
        "Abs": "",
        "Add": "",
        "AveragePool": "auto_pad ceil_mode count_include_pad dilations kernel_shape pads strides",
        "Cast": "to",
        "Clip": "",
        "Concat": "axis",
        "Conv": _CONV,
        "Cos": "",
        "DepthToSpace": "blocksize mode",
        "DequantizeLinear": "axis",
        "Div": "",
        "Elu": "alpha",
        "Erf": "",
        "Exp": "",
        "Expand": "",
        "Gather": "axis",
        "Gelu": "approximate",
        "Gemm": "alpha beta transA transB",
        "HardSigmoid": "alpha beta",
        "Greater": "",
        "HardSwish": "",
        "Identity": "",
        "InstanceNormalization": "epsilon",
        "LayerNormalization": "axis epsilon stash_type",
        "LeakyRelu": "alpha",
        "Log": "",
        "MatMul": "",
        "Max": "",
        "Min": "",
        "Mish": "",
        "Mul": "",
        "Neg": "",
        "PRelu": "",
        "Pad": "mode",
        "Pow": "",
        "QuantizeLinear": "axis",
        "ReduceMean": "keepdims noop_with_empty_axes",
        "Relu": "",
        "Reshape": "allowzero",
        "Resize": (
            "antialias axes coordinate_transformation_mode cubic_coeff_a exclude_outside extrapolation_value "
            "keep_aspect_ratio_policy mode nearest_mode"
        ),
        "Shape": "end start",
        "Sigmoid": "",
        "Sin": "",
        "Slice": "",
        "Softmax": "axis",
        "Softplus": "",
        "Sqrt": "",
        "Squeeze": "",
        "Sub": "",
        "Sum": "",
        "Tanh": "",
        "Transpose": "perm",
        "Unsqueeze": "",
        "Where": "",
    },
    "com.microsoft": {"MatMulIntegerToFloat": "", "MultiHeadAttention": "num_heads scale"},
}
"""Operators that the exporter writes: domain -> operator -> its attributes."""

_TRACED: Final[Mapping[str, str]] = {
    "And": "",
    "ArgMax": "axis keepdims select_last_index",
    "BatchNormalization": "epsilon momentum training_mode",
    "Ceil": "",
    "Celu": "alpha",
    "Constant": "value value_float value_floats value_int value_ints",
    "ConstantOfShape": "value",
    "CumSum": "exclusive reverse",
    "Equal": "",
    "Flatten": "axis",
    "Floor": "",
    "GatherElements": "axis",
    "GatherND": "batch_dims",
    "GlobalAveragePool": "",
    "GreaterOrEqual": "",
    "Less": "",
    "LessOrEqual": "",
    "LogSoftmax": "axis",
    "MaxPool": "auto_pad ceil_mode dilations kernel_shape pads storage_order strides",
    "Mod": "fmod",
    "Not": "",
    "Or": "",
    "Pad": "mode pads value",
    "Range": "",
    "Reciprocal": "",
    "ReduceMax": "axes keepdims noop_with_empty_axes",
    "ReduceMean": "axes keepdims noop_with_empty_axes",
    "ReduceMin": "axes keepdims noop_with_empty_axes",
    "ReduceSum": "axes keepdims noop_with_empty_axes",
    "Round": "",
    "ScatterND": "reduction",
    "Selu": "alpha gamma",
    "Sign": "",
    "Softsign": "",
    "Slice": "axes ends starts",
    "Split": "axis num_outputs split",
    "Squeeze": "axes",
    "ThresholdedRelu": "alpha",
    "Tile": "",
    "Trilu": "upper",
    "Unsqueeze": "axes",
}

OTHERS: Final[Mapping[str, Mapping[str, Mapping[str, str]]]] = {
    "optimum": {
        "": {
            **_TRACED,
            "Attention": ("is_causal kv_num_heads q_num_heads qk_matmul_output_mode scale softcap softmax_precision"),
            "ConvInteger": _CONV,
            "DynamicQuantizeLinear": "",
            "GroupNormalization": "epsilon num_groups stash_type",
            "MatMulInteger": "",
        }
    },
    "diffusers": {"": _TRACED},
}
"""Further operators of adopted graphs, by the exporter that writes them."""

DOMAINS: Final = frozenset(
    {"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "pkg.onnxscript.torch_lib", "pkg.onnxscript.torch_lib.common"}
)
"""Sets of operators that a graph may name, also where it has no operator of them."""


def allowed_attributes() -> dict[tuple[str, str], frozenset[str]]:
    """Return all attributes that an operator may have, by its domain and its name."""
    found: dict[tuple[str, str], frozenset[str]] = {}
    for lists in (NANO, *OTHERS.values()):
        for domain, operators in lists.items():
            for operator, attributes in operators.items():
                key = domain, operator
                found[key] = found.get(key, frozenset()) | frozenset(attributes.split())
    return found
