"""The interface of the engines: the record of one, how it opens a graph, and how the graph is run.

Nothing here imports an engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, get_args

from nano_runtime.arrays import F32, Arrays
from nano_runtime.bundle.checksums import HeldFile
from nano_runtime.bundle.manifest import Backend

__all__ = [
    "PRECISIONS",
    "Batch",
    "CheckedGraph",
    "Engine",
    "EngineOptions",
    "LayerTime",
    "Open",
    "OperatorKind",
    "Precision",
    "Runner",
    "Session",
]

Precision = Literal["f32", "bf16"]
"""Arithmetic of the layers that are not quantized."""
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
OperatorKind = Literal["conv", "matmul", "attention"]
"""Kinds of matrix work, as the manifest counts it (``manifest.Work``)."""
Batch = int | tuple[int, int]
"""Size of every free dimension ``batch`` of a graph; or the smallest and the largest size it will have in any call."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """All that the rest of the program knows of an engine before it is imported.

    Attributes:
        name: of the engine, of its Python package, and of the extra of ``nano-runtime`` that installs it.
        door: the one module that imports the package; its ``open_graph`` follows ``Open``.
        loads_ahead: whether loading one graph while another runs is quicker, and safe.
        operators: kinds of the operators that do matrix work, under the names that the engine gives them in a profile
            (``LayerTime``).
    """

    name: Backend
    door: str
    loads_ahead: bool
    operators: Mapping[str, OperatorKind]


@dataclass(frozen=True)
class CheckedGraph:
    """A graph whose files were compared with the manifest, and looked into; engines get no other graphs.

    An engine gets the bytes that were checked, not a path: what lies at the path may be something else by then, and a
    reader that is given a path may take the file for one of another format.

    Attributes:
        model: the graph's file; its suffix is that of a format that the engine reads (``bundle/graph_files.py``).
        content: of that file.
        digest: hex digest that names the content of the model and its weights.
        weights: the file with the weights, beside ``model``; None where they are inside it.
    """

    model: Path
    content: bytes = field(repr=False)
    digest: str
    weights: HeldFile | None = None


@dataclass(frozen=True)
class EngineOptions:
    """Choices that change speed and rounding, never the algorithm.

    Attributes:
        threads: intra-op threads, at least 1.
        precision: arithmetic of the layers that are not quantized. ``"f32"`` computes what the graph says; ``"bf16"``
            lets OpenVINO round to bfloat16 on processors that have it (onnxruntime always computes in f32).
        cache: cache folder for OpenVINO's compiled graphs and for encoded prompts, which gives the next run the same
            results sooner; None stores nothing.
        profile: whether sessions record the time of each operator, which slows them down a little.
    """

    threads: int
    precision: Precision
    cache: Path | None = None
    profile: bool = False


@dataclass(frozen=True)
class LayerTime:
    """The time of one operator. Engines rewrite graphs, so these are the operators of the rewritten one.

    Attributes:
        operator: its kind, as the engine calls it.
        shape: of its first output, with the axes in the engine's order.
        ms: of wall clock, in a typical call.
    """

    operator: str
    shape: tuple[int, ...]
    ms: float


class Session(Protocol):
    """A loaded graph. Its shapes are fixed, except the batch if it was opened with a range of sizes."""

    def run(self, feeds: Arrays) -> dict[str, F32]:
        """Compute all outputs from all inputs; shapes and dtypes are those of the manifest.

        The engine reads the arrays in place; the outputs are new arrays.

        Raises:
            EngineError: the engine refuses the inputs.
            MemoryError: it could not get the memory it needs.
        """

    def layer_times(self) -> list[LayerTime]:
        """Return the time of each operator so far, and stop recording; once, for sessions opened with ``profile``."""

    def close(self) -> None:
        """Free the memory; the session cannot run afterwards."""


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
    """The function ``open_graph`` of an engine's door."""

    def __call__(self, graph: CheckedGraph, *, batch: Batch, tokens: int, options: EngineOptions) -> Session:
        """Load a graph; see ``engines.open_session``, which turns a ``MemoryError`` into an ``OutOfMemoryError``."""
