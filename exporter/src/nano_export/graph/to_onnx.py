"""Turns a torch module into an ONNX graph in memory: the only caller of ``torch.onnx.export``.

The opset is 20 on purpose. From 21 on, GroupNormalization is an operator that onnxruntime expands to 29 nodes. Opset 20
writes it with InstanceNormalization, which is one kernel there, and which OpenVINO fuses as well.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript import opset20 as op
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
    """Export a module with free batch and prompt length, and with nodes named after their modules.

    Args:
        module: in eval mode; its parameters are shared with the returned model, not copied.
        inputs: examples. Those with a batch dimension have ``passes.TRACE_BATCH`` rows; those whose prompt length is
            free have ``passes.TRACE_TOKENS`` tokens.
        input_names: flat, in order.
        output_names: flat, in order.

    Raises:
        ValueError: a constant shape depends on the batch or the prompt length in a way that the passes do not
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
            custom_translation_table={torch.ops.aten.mish.default: _mish},
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


def _mish(value: Any) -> Any:  # noqa: ANN401 - onnxscript's tensors have no types
    """Write ``x * tanh(log(1 + e^x))`` without ONNX's Mish, which OpenVINO cannot compile in every place.

    It is ``x * w / (w + 2)`` with ``w = e^x * (e^x + 2)``. From 20 on the factor is 1 in float32.
    """
    two = op.Constant(value_float=2.0)
    grown = op.Exp(op.Min(value, op.Constant(value_float=20.0)))
    weight = op.Mul(grown, op.Add(grown, two))
    return op.Mul(value, op.Div(weight, op.Add(weight, two)))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the messages of torch's exporter off the terminal; its failures are exceptions."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
