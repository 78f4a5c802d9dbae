"""What a pipeline asks of an inference engine: open a graph, run it, let it go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args

from nano_runtime.arrays import F32, Arrays

__all__ = [
    "PRECISIONS",
    "Batch",
    "CheckedGraph",
    "EngineOptions",
    "LayerTime",
    "Open",
    "Precision",
    "Runner",
    "Session",
]

Precision = Literal["f32", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Batch = int | tuple[int, int]
"""Size of every free dimension of a graph; or the smallest and the largest that it will have, from call to call."""


@dataclass(frozen=True)
class CheckedGraph:
    """A graph whose files were compared with the manifest: no engine gets to see another.

    Attributes:
        model: ``model.onnx`` for onnxruntime, ``openvino_model.xml`` for openvino.
        digest: hex digest that names the content of the model and its weights.
        weights: the file with the weights, beside ``model``; None where they are inside it.
    """

    model: Path
    digest: str
    weights: Path | None = None


@dataclass(frozen=True)
class EngineOptions:
    """Choices that change speed and rounding, never the algorithm.

    Attributes:
        threads: intra-op threads, at least 1.
        precision: arithmetic of the layers that are not quantized. ``"f32"`` computes what the graph says; ``"bf16"``
            lets OpenVINO round to bfloat16 on processors that have it (onnxruntime always computes in f32).
        cache: folder where OpenVINO's compiled graphs and what the UNet is told are kept for the next run, with the
            same results sooner; None keeps nothing.
        profile: whether sessions note what each operator takes; that costs a little time.
    """

    threads: int
    precision: Precision
    cache: Path | None = None
    profile: bool = False


@dataclass(frozen=True)
class LayerTime:
    """What one operator of an engine's own, rewritten graph takes.

    Attributes:
        operator: its kind, as the engine calls it.
        shape: of its first output, with the axes in the engine's order.
        ms: of wall clock, a typical call.
    """

    operator: str
    shape: tuple[int, ...]
    ms: float


class Session(Protocol):
    """A loaded graph with all shapes fixed, but for the batch if it was asked to be between two sizes."""

    def run(self, feeds: Arrays) -> dict[str, F32]:
        """Compute all outputs from all inputs; shapes and dtypes are those of the manifest.

        The engine reads the arrays where they are; the outputs are new arrays.

        Raises:
            EngineError: the engine refuses the inputs.
            MemoryError: it could not get the memory it needs.
        """

    def layer_times(self) -> list[LayerTime]:
        """Return what each operator took so far, and stop noting it; for sessions opened with ``profile``, once."""

    def close(self) -> None:
        """Give the memory back; the session cannot run afterwards."""


class Runner(Protocol):
    """Runs the graphs of a bundle by name. The loaded graphs are one; caches, stopwatches and calibration wrap one."""

    def run(self, component: str, feeds: Arrays, *, batch: Batch) -> dict[str, F32]:
        """Compute all outputs of one component.

        Args:
            component: its name in the manifest.
            feeds: all inputs by name, with the shapes and dtypes of the manifest.
            batch: size of the free dimension ``batch``, or the smallest and the largest size that the calls to come
                will have. The length of the prompt follows from the feeds.

        Returns:
            All outputs by name, with the shapes and dtypes of the manifest; their values are finite.

        Raises:
            TamperedFileError: a file is not the one the manifest describes.
            UnsafeGraphError: the graph would make the engine read elsewhere, or recurse without end.
            EngineError: the engine refuses the graph or the inputs.
            OutOfMemoryError: the engine could not get the memory it needs.
            OutputShapeError: an output is not what the manifest describes.
            NonFiniteError: an output has a NaN or an infinity.
        """


class Open(Protocol):
    """How a backend module opens a graph, with ``batch`` and ``tokens`` for its free dimensions."""

    def __call__(self, graph: CheckedGraph, *, batch: Batch, tokens: int, options: EngineOptions) -> Session:
        """Load the graph; see ``backends.open_session``, which makes a ``MemoryError`` an error of ours."""
