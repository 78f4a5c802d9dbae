"""The engines: one record each, the choice of one, and the one way to open a graph.

A record does not import its engine. The engine's module (its door) is imported when a graph is opened, so an
installation with one engine works without the others.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Final, cast

from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import Backend
from nano_runtime.engines.base import Batch, CheckedGraph, Engine, EngineOptions, Open, Session
from nano_runtime.errors import BackendMissingError, OptionError, OutOfMemoryError

__all__ = [
    "BACKENDS",
    "ENGINES",
    "Batch",
    "CheckedGraph",
    "Engine",
    "EngineOptions",
    "Session",
    "choose",
    "engine_version",
    "import_engine",
    "installed",
    "open_session",
]

ENGINES: Final[Mapping[Backend, Engine]] = {
    engine.name: engine
    for engine in (
        Engine(  # the first choice: it loads sooner, in half the memory (bench/LOG.md)
            name="onnxruntime",
            door="nano_runtime.engines.onnxruntime",
            loads_ahead=True,
            operators={
                "Conv": "conv",
                "FusedConv": "conv",
                "QLinearConv": "conv",
                "FusedMatMul": "matmul",
                "Gemm": "matmul",
                "MatMul": "matmul",
                "MatMulIntegerToFloat": "matmul",
                "MatMulNBits": "matmul",
                "QGemm": "matmul",
                "QLinearMatMul": "matmul",
                "MultiHeadAttention": "attention",
            },
        ),
        Engine(
            name="openvino",
            door="nano_runtime.engines.openvino",
            # It loads on all threads anyway. Loading beside a run, a process grew with every drawing, and once
            # crashed where memory ran out (bench/LOG.md).
            loads_ahead=False,
            operators={
                "Convolution": "conv",
                "FullyConnected": "matmul",
                "MatMul": "matmul",
                "Subgraph (MatMul)": "attention",
            },
        ),
    )
}
"""All engines by name, in order of preference."""

BACKENDS: Final[tuple[Backend, ...]] = tuple(ENGINES)
"""Names of all engines, in order of preference."""


def installed(backend: Backend) -> bool:
    """Return whether the engine's package can be found; it is not imported."""
    return find_spec(backend) is not None


def choose(bundle: Bundle, backend: Backend | None) -> Backend:
    """Return an engine that is installed and has graphs in the bundle: the given one, or else the preferred one.

    Raises:
        OptionError: there is no such engine.
        BackendNotInBundleError: the bundle has no graphs for the given engine.
        BackendMissingError: the given engine is not installed; or none is that the bundle has graphs for.
    """
    if backend is not None:
        _record(backend)
        bundle.require(backend)
        if not installed(backend):
            raise BackendMissingError(backend)
        return backend
    served = [name for name in BACKENDS if name in bundle.manifest.backends]
    usable = [name for name in served if installed(name)]
    if not usable:
        raise BackendMissingError(served[0])
    return usable[0]


def import_engine(backend: Backend) -> Open:
    """Import an engine, which takes a few tenths of a second the first time, and return its way to open a graph.

    Raises:
        OptionError: there is no such engine.
        BackendMissingError: its package is not installed.
    """
    engine = _record(backend)
    if not installed(backend):
        raise BackendMissingError(backend)
    return cast("Open", importlib.import_module(engine.door).open_graph)


def engine_version(backend: Backend) -> str:
    """Return the version of an engine after importing it; raises the errors of ``import_engine``."""
    import_engine(backend)
    return str(sys.modules[backend].__version__)


def open_session(
    backend: Backend, graph: CheckedGraph, *, batch: Batch, options: EngineOptions, tokens: int = 1
) -> Session:
    """Load a graph.

    Args:
        backend: the engine.
        graph: in a format that the engine reads.
        batch: size of every free first dimension, at least 1, or the smallest and the largest size it will have.
        options: threads, precision and cache.
        tokens: size of every other free dimension, at least 1; graphs without one ignore it.

    Raises:
        OptionError: there is no such engine.
        BackendMissingError: its package is not installed.
        PrecisionError: it does not have this precision on this machine.
        EngineError: it refuses the file.
        OutOfMemoryError: it ran out of memory.
    """
    open_graph = import_engine(backend)
    try:
        return open_graph(graph, batch=batch, tokens=tokens, options=options)
    except MemoryError as error:
        raise OutOfMemoryError(f"loading {graph.model}") from error


def _record(backend: Backend) -> Engine:
    """Return the record of an engine, whose name may come from a user."""
    if backend not in BACKENDS:
        raise OptionError("backend", backend, BACKENDS)
    return ENGINES[backend]
