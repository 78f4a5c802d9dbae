"""Cuts the shallow UNet for step caching out of the whole graph: the layers around the outermost skip connection.

DeepCache (Ma et al. 2023, arXiv:2312.00858): the results of the deep layers change slowly from step to step. On a whole
step the UNet therefore also returns the feature that enters the last layers of its up path. On the steps between, only
``conv_in`` and these last layers run, with that feature as an input.

The shallow graph is cut out of the finished graph, quantized or float, so its layers have the same weights and scales
and compute the same. In ONNX both graphs share one file of weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

__all__ = ["FEATURE", "cut", "expose", "write_shallow"]

FEATURE = "deep_feature"
"""Name of the UNet's second output and of the shallow graph's input it feeds."""

_BRANCH = 0  # the cheapest: 6 % of the full-size UNet's arithmetic, 0.7 % of its weights
_MAP_RANK = 4  # [batch, channels, height, width]


def write_shallow(unet: Path) -> tuple[ir.Model, ir.Model]:
    """Rewrite ``model.onnx`` with the feature as its second output, write ``shallow.onnx`` beside it; return both.

    Args:
        unet: folder of a finished graph; its file of weights is read, and does not change.
    """
    whole = ir.load(unet / "model.onnx")
    expose(whole, _BRANCH)
    ir.save(whole, unet / "model.onnx")
    shallow = ir.load(unet / "model.onnx")
    cut(shallow)
    ir.save(shallow, unet / "shallow.onnx")
    return whole, shallow


def expose(model: ir.Model, branch: int) -> ir.Value:
    """Make the feature that enters the last ``branch + 1`` layers of the up path an output of the graph; return it.

    Args:
        model: a UNet, quantized or float.
        branch: DeepCache's number of a skip connection; 0 is the outermost one.

    Raises:
        ValueError: there is no such skip connection.
    """
    joins = list(_joins(model.graph))
    if not 0 <= branch < len(joins):
        raise ValueError(f"branch {branch} of {len(joins)}")
    feature = joins[-1 - branch].inputs[0]
    if feature is None or feature.shape is None or feature.dtype is None:
        raise ValueError(f"{joins[-1 - branch].name}: the input has no shape or type")
    feature.name = FEATURE
    model.graph.outputs.append(feature)
    return feature


def cut(model: ir.Model) -> None:
    """Make an exposed feature an input, and remove everything that only it needed: the rest is the shallow graph.

    Raises:
        ValueError: the graph exposes no feature.
    """
    graph = model.graph
    feature = next((value for value in graph.outputs if value.name == FEATURE), None)
    if feature is None:
        raise ValueError("the graph exposes no feature")
    graph.outputs.remove(feature)
    feature.name = f"{FEATURE}.computed"
    given = ir.Value(name=FEATURE, shape=feature.shape, type=feature.type)
    feature.replace_all_uses_with(given)
    graph.inputs.append(given)
    RemoveUnusedNodesPass()(model)
    for value in list(graph.inputs):
        if not value.uses():
            graph.inputs.remove(value)


def _joins(graph: ir.Graph) -> Iterator[ir.Node]:
    """Yield the nodes where the up path takes a skip connection, [deep, skip] joined by channels, in running order."""
    for node in graph:
        value = node.outputs[0]
        if node.op_type == "Concat" and value.shape is not None and len(value.shape) == _MAP_RANK:
            yield node
