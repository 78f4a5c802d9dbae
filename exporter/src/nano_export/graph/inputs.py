"""Edits of a graph's inputs and outputs, so that it is called as its readers call it; what it computes stays."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from nano_export.graph.passes import initializer

__all__ = ["take_scalar"]


def take_scalar(model: ir.Model, name: str) -> int:
    """Make an input of shape [1] a scalar, behind which an Unsqueeze makes the vector again.

    optimum exports UNets with a scalar ``timestep``, and its pipelines give them one.

    Args:
        model: with such an input, or without.
        name: of the input.
    """
    for index, vector in enumerate(model.graph.inputs):
        if vector.name != name or vector.shape is None or list(vector.shape) != [1]:
            continue
        scalar = ir.Value(name=name, shape=ir.Shape([]), type=vector.type)
        axes = initializer(model.graph, f"{name}.axes", np.zeros(1, np.int64))
        widen = ir.node("Unsqueeze", [scalar, axes], name=f"{name}/Unsqueeze")
        widened = widen.outputs[0]
        widened.name, widened.shape, widened.type = f"{name}.vector", ir.Shape([1]), vector.type
        vector.replace_all_uses_with(widened)
        model.graph.inputs[index] = scalar
        model.graph.insert_before(model.graph[0], widen)
        return 1
    return 0
