"""Refuses graphs with shapes that OpenVINO accepts, and at which its CPU plugin then leaves the memory of a tensor.

The shapes are those that OpenVINO itself found, for a number of rows: nothing that a graph says of itself is believed.
"""

from __future__ import annotations

import math
from typing import Any, Final

__all__ = ["require_sound_shapes"]

_MAX_RANK: Final = 6  # dimensions; exporters write 4
_BROADCAST: Final = frozenset(
    {
        "Add", "Divide", "Equal", "FakeQuantize", "FloorMod", "Greater", "GreaterEqual", "Less", "LessEqual",
        "LogicalAnd", "LogicalOr", "LogicalXor", "Maximum", "Minimum", "Mod", "Multiply", "NotEqual", "PRelu", "Power",
        "Select", "SquaredDifference", "Subtract",
    }
)  # fmt: skip


def require_sound_shapes(model: Any) -> None:  # noqa: ANN401 - one file imports openvino, not this one
    """Check each layer's shapes, once all of them are known.

    Args:
        model: an ``openvino.Model``.

    Raises:
        ValueError: a tensor has very many dimensions; a Reshape has another number of values than its input, which
            OpenVINO does not compare if the new shape has a 0 or a -1; or an elementwise layer puts dimensions in front
            of those of a picture or a prompt, which the plugin does not expect where it fuses the layer with another.
    """
    for node in model.get_ops():
        ranks = [len(node.get_output_partial_shape(index)) for index in range(node.get_output_size())]
        if max(ranks, default=0) > _MAX_RANK:
            raise ValueError(f"the layer {node.get_friendly_name()} has a tensor of {max(ranks)} dimensions")
        kind = node.get_type_name()
        if kind == "Reshape" and _values(node.get_input_partial_shape(0)) != _values(node.get_output_partial_shape(0)):
            raise ValueError(f"the layer {node.get_friendly_name()} has another number of values than its input")
        if kind in _BROADCAST and any(_does_not_fit(place, ranks[0]) for place in node.inputs()):
            raise ValueError(f"the layer {node.get_friendly_name()} puts dimensions in front of those of its input")


def _values(shape: Any) -> int:  # noqa: ANN401
    """Return how many values a tensor has; -1 where that is not known."""
    return math.prod(shape.to_shape()) if shape.is_static else -1


def _does_not_fit(place: Any, rank: int) -> bool:  # noqa: ANN401
    """Return whether an input has more dimensions than the result; or fewer, though the graph's inputs decide it."""
    own = len(place.get_partial_shape())
    return own > rank or (1 < own < rank and _is_computed(place.get_source_output().get_node()))


def _is_computed(node: Any) -> bool:  # noqa: ANN401
    """Return whether a layer depends on an input of the graph, and not on constants alone."""
    open_, seen = [node], set[str]()
    while open_:
        found = open_.pop()
        if found.get_type_name() == "Parameter":
            return True
        if found.get_type_name() in {"Constant", "ShapeOf"} or found.get_friendly_name() in seen:
            continue
        seen.add(found.get_friendly_name())
        open_ += [place.get_source_output().get_node() for place in found.inputs()]
    return False
