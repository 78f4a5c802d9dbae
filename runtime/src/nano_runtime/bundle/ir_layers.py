"""The layers that an OpenVINO IR may have, with their attributes: what Nano's exporter writes, and what others write.

A layer that is in no list is refused. None of the lists has one with a graph inside (If, Loop, TensorIterator), one
that draws random numbers or keeps state, or one of an extension. ``tests/contract/test_operators.py`` tests that the
first list has all that the exporter writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["NANO_LAYERS", "OTHER_LAYERS", "allowed_layers"]

_BROADCAST = "auto_broadcast"

NANO_LAYERS: Final[Mapping[str, str]] = {
    "Abs opset1": "",
    "Add opset1": _BROADCAST,
    "AvgPool opset1": "auto_pad exclude-pad kernel pads_begin pads_end rounding_type strides",
    "Broadcast opset3": "mode",
    "Clamp opset1": "max min",
    "Concat opset1": "axis",
    "Const opset1": "element_type offset shape size",
    "Convert opset1": "destination_type",
    "Convolution opset1": "auto_pad dilations pads_begin pads_end strides",
    "Cos opset1": "",
    "DepthToSpace opset1": "block_size mode",
    "Divide opset1": f"{_BROADCAST} m_pythondiv",
    "Elu opset1": "alpha",
    "Erf opset1": "",
    "Exp opset1": "",
    "FakeQuantize opset1": f"{_BROADCAST} levels",
    "Gather opset8": "batch_dims",
    "Gelu opset7": "approximation_mode",
    "Greater opset1": _BROADCAST,
    "HSwish opset4": "",
    "HardSigmoid opset1": "",
    "Interpolate opset11": (
        "antialias coordinate_transformation_mode cube_coeff mode nearest_mode pads_begin pads_end "
        "shape_calculation_mode"
    ),
    "Log opset1": "",
    "MVN opset6": "eps eps_mode normalize_variance",
    "MatMul opset1": "transpose_a transpose_b",
    "Maximum opset1": _BROADCAST,
    "Minimum opset1": _BROADCAST,
    "Mish opset4": "",
    "Multiply opset1": _BROADCAST,
    "Negative opset1": "",
    "PReLU opset1": "",
    "Pad opset12": "pad_mode",
    "Parameter opset1": "element_type shape",
    "Power opset1": _BROADCAST,
    "Range opset4": "output_type",
    "ReLU opset1": "",
    "ReduceMean opset1": "keep_dims",
    "Reshape opset1": "special_zero",
    "Result opset1": "",
    "Select opset1": _BROADCAST,
    "ShapeOf opset3": "output_type",
    "Sigmoid opset1": "",
    "Sin opset1": "",
    "Slice opset8": "",
    "SoftMax opset8": "axis",
    "SoftPlus opset4": "",
    "Sqrt opset1": "",
    "Squeeze opset1": "",
    "Subtract opset1": _BROADCAST,
    "Tanh opset1": "",
    "Transpose opset1": "",
    "Unsqueeze opset1": "",
}
"""Layers that the exporter writes: type and set of operators -> attributes."""

OTHER_LAYERS: Final[Mapping[str, Mapping[str, str]]] = {
    "optimum-intel": {
        "Convolution opset1": "auto_pad dilations pads_begin pads_end strides",
        "ConvertLike opset1": "",
        "CumSum opset3": "exclusive reverse",
        "Equal opset1": _BROADCAST,
        "Floor opset1": "",
        "FloorMod opset1": _BROADCAST,
        "GatherElements opset6": "axis",
        "GatherND opset8": "batch_dims",
        "GreaterEqual opset1": _BROADCAST,
        "GroupNormalization opset12": "epsilon num_groups",
        "Interpolate opset4": (
            "antialias coordinate_transformation_mode cube_coeff mode nearest_mode pads_begin pads_end "
            "shape_calculation_mode"
        ),
        "Less opset1": _BROADCAST,
        "LessEqual opset1": _BROADCAST,
        "LogicalAnd opset1": _BROADCAST,
        "LogicalNot opset1": "",
        "LogicalOr opset1": _BROADCAST,
        "NotEqual opset1": _BROADCAST,
        "Pad opset1": "pad_mode",
        "ReduceMax opset1": "keep_dims",
        "ReduceMin opset1": "keep_dims",
        "ReduceProd opset1": "keep_dims",
        "ReduceSum opset1": "keep_dims",
        "ScaledDotProductAttention opset13": "causal",
        "ScatterNDUpdate opset3": "",
        "ScatterNDUpdate opset15": "reduction",
        "ShapeOf opset1": "",
        "SoftMax opset1": "axis",
        "Split opset1": "num_splits",
        "SquaredDifference opset1": _BROADCAST,
        "Squeeze opset15": "allow_axis_skip",
        "StridedSlice opset1": "begin_mask ellipsis_mask end_mask new_axis_mask shrink_axis_mask",
        "Swish opset4": "",
        "Tile opset1": "",
        "TopK opset11": "axis index_element_type mode sort stable",
        "VariadicSplit opset1": "",
    }
}
"""Further layers of adopted graphs, by the exporter that writes them."""


def allowed_layers() -> dict[str, frozenset[str]]:
    """Return the attributes of every layer that a graph may have, by type and set of operators."""
    lists = (NANO_LAYERS, *OTHER_LAYERS.values())
    return {layer: frozenset(attributes.split()) for found in lists for layer, attributes in found.items()}
