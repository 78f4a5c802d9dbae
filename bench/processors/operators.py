"""Takes a graph apart, so that every operator runs on the inputs that it has on one processor, wherever it runs.

What follows an operator that rounds differently gets other inputs, and would differ whatever it computes. Here all
operators get the values that they had on this processor. Those whose results are not equal then are the causes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from bench.processors.worker import Arguments, session_options
from onnx import helper

from nano_runtime.engines import onnxruntime as door

__all__ = ["Difference", "compare", "take_apart"]

_LEVELS = onnxruntime.GraphOptimizationLevel


@dataclass
class Difference:
    """How the nodes of one operator differ between two processors.

    Attributes:
        nodes: how many there are.
        differing: how many have a result that is not equal, bit for bit.
        relative: the largest relative error of one (root mean square).
    """

    nodes: int = 0
    differing: int = 0
    relative: float = 0.0


def take_apart(source: Path, feeds: Mapping[str, np.ndarray], graph: Path, inputs: Path) -> None:
    """Write a graph in which every operator of another one reads inputs of its own, and the values of those inputs.

    Args:
        source: as in a bundle.
        feeds: inputs of ``source``.
        graph: to write: the operators as onnxruntime fuses them, but for layouts that depend on the processor.
        inputs: to write: what each operator reads when ``source`` gets ``feeds``.
    """
    whole, fused = graph.with_suffix(".whole.onnx"), graph.with_suffix(".fused.onnx")
    onnx.save(onnx.load(source), whole)  # with its weights
    options = session_options(_LEVELS.ORT_ENABLE_EXTENDED)
    options.optimized_model_filepath = str(fused)
    options.add_free_dimension_override_by_name("batch", len(next(iter(feeds.values()))))
    onnxruntime.InferenceSession(
        whole,
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=door._DISABLED_OPTIMIZERS,  # noqa: SLF001 - as the runtime has it
    )
    values = {**feeds, **_all_results(onnx.load(fused), feeds)}
    model = onnx.load(fused)
    apart = model.graph
    constants = {constant.name for constant in apart.initializer}
    read: Arguments = {}
    for part in (apart.input, apart.output, apart.value_info):
        del part[:]
    for node in apart.node:
        for index, name in enumerate(node.input):
            if name and name not in constants:
                node.input[index] = f"input of {name}"
                read[node.input[index]] = values[name]
        apart.output.extend(_typed(name, values[name]) for name in node.output if name)
    apart.input.extend(_typed(name, array) for name, array in read.items())
    onnx.save(model, graph)
    np.savez(inputs, **read)  # type: ignore[arg-type] # its options have other names


def compare(graph: Path, here: Mapping[str, np.ndarray], there: Mapping[str, np.ndarray]) -> dict[str, Difference]:
    """Compare the results of all operators of a graph that was taken apart; return differences by operator."""
    found: dict[str, Difference] = {}
    for node in onnx.load(graph).graph.node:
        difference = found.setdefault(node.op_type, Difference())
        difference.nodes += 1
        expected, actual = (np.asarray(side[node.output[0]], np.float64) for side in (here, there))
        if not np.array_equal(expected, actual):
            error = float(np.sqrt(np.mean((actual - expected) ** 2) / np.mean(expected**2)))
            difference.differing += 1
            difference.relative = max(difference.relative, error)
    return found


def _all_results(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> Arguments:
    """Run a graph as it is, and return the results of all its operators."""
    names = [name for node in model.graph.node for name in node.output if name]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = session_options(_LEVELS.ORT_DISABLE_ALL)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def _typed(name: str, values: np.ndarray) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(values.dtype), values.shape)
