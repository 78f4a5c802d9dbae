"""From a torch module to an ONNX graph in memory: the only caller of ``torch.onnx.export``.

Opset 20 on purpose: from 21 on, GroupNormalization becomes an operator that onnxruntime inlines to 29 nodes, while the
InstanceNormalization form of opset 20 runs as one kernel there and fuses in OpenVINO as well.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence

import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import Tensor, nn

from nano_export.graph.passes import TRACE_BATCH, TRACE_TOKENS, free_batch, free_tokens, fuse_depth_to_space, name_nodes

__all__ = ["OPSET", "to_onnx"]

OPSET = 20


def to_onnx(
    module: nn.Module,
    inputs: Sequence[Tensor | tuple[Tensor, ...]],
    input_names: Sequence[str],
    output_names: Sequence[str],
) -> ir.Model:
    """Export a module with free batch and prompt length, and nodes named after the modules they came from.

    Args:
        module: in eval mode; its parameters are shared with the returned model, not copied.
        inputs: example inputs; every one with a batch dimension has ``passes.TRACE_BATCH`` rows, and every
            one whose prompt length is free ``passes.TRACE_TOKENS`` tokens.
        input_names: flat, in order.
        output_names: flat, in order.

    Raises:
        ValueError: a shape was baked in that depends on the batch, or the length, in a way that the passes do not
            understand.
    """
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            module,
            tuple(inputs),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(input_names),
            output_names=list(output_names),
            optimize=True,
            verbose=False,
        )
    if program is None:
        raise TypeError("torch.onnx.export returned no program")
    model = program.model
    name_nodes(model)
    fuse_depth_to_space(model)
    RemoveUnusedNodesPass()(model)
    free_tokens(model, TRACE_TOKENS)
    free_batch(model, TRACE_BATCH)
    RemoveUnusedNodesPass()(model)
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's own chatter off the terminal; its failures are exceptions."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
