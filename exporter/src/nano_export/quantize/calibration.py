"""Watches every activation that will be quantized, in real runs of the float graphs.

Each float graph gets three more outputs per watched tensor: the smallest and the largest value of each channel, and
some rows: all channels at some places. The runtime's own pipeline then draws pictures with these graphs: real
trajectories of this checkpoint, spread over timesteps, with and without the prompt. Extremes are joined and a fixed
number of rows is kept, so memory does not grow with the number of samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from nano_export.graph.passes import initializer
from nano_export.quantize.drawing import draw
from nano_runtime.arrays import F32, Arrays
from nano_runtime.engines import Batch
from nano_runtime.engines.base import Runner
from nano_runtime.options import DrawOptions

__all__ = ["Seen", "calibrate", "channel_axis", "write_watching_graph"]

_ROWS = 256  # kept of each tensor
_ALL_PLACES = 80  # of prompts and of small feature maps, every place is looked at
_PLACES = 8  # of larger ones
_MAP_RANK = 4  # [batch, channels, height, width]
_ROWS_RANK = 3  # [batch, places, channels]


@dataclass(frozen=True)
class Seen:
    """What calibration saw of an activation.

    Attributes:
        low: the smallest value of each channel, float32 [C].
        high: the largest, float32 [C].
        rows: all channels at places drawn at random, float32 [N, C].
    """

    low: F32
    high: F32
    rows: F32


def channel_axis(value: ir.Value) -> int:
    """Return the axis of an activation's channels: [B, C, h, w] beside a convolution, [..., C] elsewhere."""
    rank = 0 if value.shape is None else len(value.shape)
    producer = value.producer()
    beside = [use.node for use in value.uses()] + ([] if producer is None else [producer])
    return 1 if rank == _MAP_RANK and any(node.op_type == "Conv" for node in beside) else rank - 1


def write_watching_graph(model_path: Path, tensors: Sequence[str], target: Path) -> None:
    """Write a copy of a graph, over the same weights file, that also outputs what is kept of ``tensors``.

    Args:
        model_path: a float ONNX graph.
        tensors: names of activations in it.
        target: the copy, in the folder of ``model_path``, whose weights file it shares.
    """
    model = ir.load(model_path)
    graph = model.graph
    values = {value.name: value for value in graph.inputs}
    values |= {value.name: value for node in graph for value in node.outputs}
    rng = np.random.default_rng(0)
    for tensor in tensors:
        _watch(graph, values[tensor], rng)
    ir.save(model, target)


def _watch(graph: ir.Graph, value: ir.Value, rng: np.random.Generator) -> None:
    """Add the three outputs of one tensor, [batch, ..., C] or a feature map [batch, C, h, w]."""
    if value.shape is None:
        raise ValueError(f"{value.name} has no shape")
    axis, sizes, name = channel_axis(value), list(value.shape), str(value.name)
    written: list[ir.Node] = []

    def write(operator: str, inputs: list[ir.Value], suffix: str, **attributes: int | list[int]) -> ir.Value:
        node = ir.node(operator, inputs, attributes=attributes, name=f"{name}/{operator}.{suffix}")
        written.append(node)
        output = node.outputs[0]
        output.name, output.type = f"{name}.{suffix}", ir.TensorType(ir.DataType.FLOAT)
        return output

    others = initializer(graph, f"axes_{len(sizes)}_{axis}", np.array([i for i in range(len(sizes)) if i != axis]))
    low = write("ReduceMin", [value, others], "low", keepdims=0)
    high = write("ReduceMax", [value, others], "high", keepdims=0)
    low.shape = high.shape = ir.Shape([sizes[axis]])
    rows = value
    if axis == 1 and len(sizes) == _MAP_RANK:
        flat = initializer(graph, f"flat_0_{sizes[1]}", np.array([0, sizes[1], -1]))
        rows = write("Transpose", [write("Reshape", [value, flat], "flat")], "places", perm=[0, 2, 1])
        sizes = [sizes[0], math.prod(size for size in sizes[2:] if isinstance(size, int)), sizes[1]]
    places = sizes[1] if len(sizes) == _ROWS_RANK else 0
    if isinstance(places, int) and places > _ALL_PLACES:
        chosen = np.sort(rng.choice(places, _PLACES, replace=False)).astype(np.int64)
        rows = write("Gather", [rows, initializer(graph, f"{name}.chosen", chosen)], "some", axis=1)
    rows = write("Identity", [rows], "rows")
    graph.extend(written)
    graph.outputs.extend([low, high, rows])


def calibrate(
    bundle: Path, watched: Mapping[str, Sequence[str]], calls: Sequence[DrawOptions], steps: int
) -> Iterator[tuple[float, dict[str, dict[str, Seen]]]]:
    """Make all calls with watching graphs.

    Args:
        bundle: a float bundle whose onnxruntime graphs are watching graphs.
        watched: the tensors of each component.
        calls: prompts to draw, and pictures that they need; the seeds of each call count up from 0.
        steps: UNet steps of a picture; see ``drawing.draw``.

    Yields:
        The share that is done, from 0 to 1, and what was seen so far of every tensor of each component.

    Raises:
        BundleError: a graph computed NaN or infinity.
    """
    watch = _Watch(watched)
    for done in draw(bundle, calls, steps, watch.watching):
        yield done, watch.seen()


class _Watch:
    """What was seen of each watched tensor."""

    def __init__(self, watched: Mapping[str, Sequence[str]]) -> None:
        self._tensors = {name: {tensor: _Tensor() for tensor in tensors} for name, tensors in watched.items()}

    def watching(self, runner: Runner) -> Runner:
        """Wrap a runner of watching graphs: it returns the outputs of the plain graphs; the others are kept here."""
        return _Watching(runner, self)

    def take(self, component: str, outputs: dict[str, F32]) -> None:
        """Move the outputs of the watched tensors out of a component's outputs."""
        for name, tensor in self._tensors.get(component, {}).items():
            tensor.take(outputs.pop(f"{name}.low"), outputs.pop(f"{name}.high"), outputs.pop(f"{name}.rows"))

    def seen(self) -> dict[str, dict[str, Seen]]:
        """Return what was seen of every watched tensor of the components that ran."""
        return {
            component: {name: seen for name, tensor in tensors.items() if (seen := tensor.seen) is not None}
            for component, tensors in self._tensors.items()
        }


class _Tensor:
    """Extremes and rows of one tensor; each row that was ever seen is among those kept with equal probability.

    Every row draws a random key, and those with the smallest keys stay (Efraimidis & Spirakis 2006, equal weights).
    """

    def __init__(self) -> None:
        self.seen: Seen | None = None
        self._keys = np.empty(0)
        self._rng = np.random.default_rng(0)

    def take(self, low: F32, high: F32, rows: F32) -> None:
        """Add one call's extremes [C] and rows [..., C]."""
        rows = rows.reshape(-1, rows.shape[-1])
        keys = self._rng.random(len(rows))
        if self.seen is not None:
            low, high = np.minimum(low, self.seen.low), np.maximum(high, self.seen.high)
            rows, keys = np.concatenate([self.seen.rows, rows]), np.concatenate([self._keys, keys])
        kept = np.argsort(keys)[:_ROWS]
        self.seen, self._keys = Seen(low, high, rows[kept]), keys[kept]


class _Watching:
    """A runner of watching graphs that returns the outputs of plain ones."""

    def __init__(self, runner: Runner, watch: _Watch) -> None:
        self._runner = runner
        self._watch = watch

    def run(self, component: str, feeds: Arrays, *, batch: Batch) -> dict[str, F32]:
        """Run, keep what is watched, and return the other outputs."""
        outputs = self._runner.run(component, feeds, batch=batch)
        self._watch.take(component, outputs)
        return outputs
