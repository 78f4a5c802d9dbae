"""The shallow UNet for step caching: the few layers around the outermost skip connection, cut out of the whole graph.

DeepCache (Ma et al. 2023, arXiv:2312.00858): what the deep layers compute changes slowly from step to step. On a full
step the UNet therefore also gives the feature that enters the last layers of its up path, and on the steps between
only ``conv_in`` and these last layers run, with that feature as an input.

Both graphs are one: the shallow one is cut out of the finished graph, quantized or not, so that its layers have the
same weights and scales and compute the same. In ONNX they share one file of weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

__all__ = ["FEATURE", "cut", "expose", "write_shallow"]

FEATURE = "deep_feature"
"""Name of the UNet's second output and of the shallow graph's input it feeds."""

_BRANCH = 0  # of the demo's and Nano's UNet, the cheapest: 6 % of the full-size UNet's arithmetic, 0.7 % of its weights
_MAP_RANK = 4  # [batch, channels, height, width]


def write_shallow(unet: Path) -> tuple[ir.Model, ir.Model]:
    """Rewrite ``model.onnx`` with the feature as its second output, write ``shallow.onnx`` beside it; return both.

    Args:
        unet: folder of a finished graph; the weights file in it is read and stays as it is.
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
        model: a UNet, quantized or not.
        branch: DeepCache's number: how many skip connections from the outermost one, 0, inwards.

    Raises:
        ValueError: there are not so many skip connections.
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
    """Make an exposed feature an input, and remove all that only it needed: what is left is the shallow graph.

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
    """Where the up path takes a skip connection, in the order they run: [deep, skip] joined along the channels."""
    for node in graph:
        value = node.outputs[0]
        if node.op_type == "Concat" and value.shape is not None and len(value.shape) == _MAP_RANK:
            yield node
