"""Finds the range of every activation that will be quantized, in real runs of the float graphs.

Each float graph gets one ReduceMin and one ReduceMax output per watched tensor. The runtime's own pipeline then draws
pictures with these graphs: real trajectories of this checkpoint, spread over timesteps, with and without the prompt.
Only the extremes are kept, so memory does not grow with the number of samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from nano_export.quantize.drawing import draw
from nano_export.quantize.qdq import Range
from nano_runtime.arrays import F32, Arrays
from nano_runtime.engines import Batch
from nano_runtime.engines.base import Runner
from nano_runtime.options import DrawOptions

__all__ = ["calibrate", "write_watching_graph"]


def write_watching_graph(model_path: Path, tensors: Sequence[str], target: Path) -> None:
    """Write a copy of a graph, over the same weights file, that also outputs the extremes of ``tensors``.

    Args:
        model_path: a float ONNX graph.
        tensors: names of activations in it.
        target: the copy, in the folder of ``model_path``, whose weights file it shares.
    """
    model = ir.load(model_path)
    graph = model.graph
    values = {value.name: value for value in graph.inputs}
    values |= {value.name: value for node in graph for value in node.outputs}
    for tensor in tensors:
        for operator, suffix in (("ReduceMin", "low"), ("ReduceMax", "high")):
            node = ir.node(operator, [values[tensor]], attributes={"keepdims": 0}, name=f"{tensor}/{operator}")
            extreme = node.outputs[0]
            extreme.name, extreme.shape = f"{tensor}.{suffix}", ir.Shape([])
            extreme.type = ir.TensorType(ir.DataType.FLOAT)
            graph.append(node)
            graph.outputs.append(extreme)
    ir.save(model, target)


def calibrate(
    bundle: Path, watched: Mapping[str, Sequence[str]], calls: Sequence[DrawOptions], steps: int
) -> Iterator[tuple[float, dict[str, dict[str, Range]]]]:
    """Make all calls with watching graphs.

    Args:
        bundle: a float bundle whose onnxruntime graphs are watching graphs.
        watched: the tensors of each component.
        calls: prompts to draw, and pictures that they need; the seeds of each call count up from 0.
        steps: UNet steps of a picture; see ``drawing.draw``.

    Yields:
        The share that is done, from 0 to 1, and all ranges so far.

    Raises:
        BundleError: a graph computed NaN or infinity.
    """
    extremes = _Extremes(watched)
    for done in draw(bundle, calls, steps, extremes.watching):
        yield done, extremes.ranges()


class _Extremes:
    """The smallest and the largest value of each watched tensor."""

    def __init__(self, watched: Mapping[str, Sequence[str]]) -> None:
        self._extremes = {name: dict.fromkeys(tensors, (np.inf, -np.inf)) for name, tensors in watched.items()}

    def watching(self, runner: Runner) -> Runner:
        """Wrap a runner of watching graphs: it returns the outputs of the plain graphs; the extremes are kept here."""
        return _Watching(runner, self)

    def take(self, component: str, outputs: dict[str, F32]) -> None:
        """Move the extremes out of a component's outputs, into the ranges."""
        extremes = self._extremes.get(component, {})
        for tensor, (low, high) in extremes.items():
            extremes[tensor] = (
                min(low, float(outputs.pop(f"{tensor}.low"))),
                max(high, float(outputs.pop(f"{tensor}.high"))),
            )

    def ranges(self) -> dict[str, dict[str, Range]]:
        """Return the range of every watched tensor of the components that ran."""
        return {
            component: {tensor: Range(low, high) for tensor, (low, high) in extremes.items() if low <= high}
            for component, extremes in self._extremes.items()
        }


class _Watching:
    """A runner of watching graphs that returns the outputs of plain ones."""

    def __init__(self, runner: Runner, extremes: _Extremes) -> None:
        self._runner = runner
        self._extremes = extremes

    def run(self, component: str, feeds: Arrays, *, batch: Batch) -> dict[str, F32]:
        """Run, keep the extremes, and return the other outputs."""
        outputs = self._runner.run(component, feeds, batch=batch)
        self._extremes.take(component, outputs)
        return outputs
