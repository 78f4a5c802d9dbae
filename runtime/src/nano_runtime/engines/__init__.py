"""The engines by name: which are installed, which one to take, and how to open a graph with it.

Nothing is imported before it is used, so an installation with one engine never notices that the other is missing.
"""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from typing import cast, get_args

from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import Backend
from nano_runtime.engines.base import Batch, CheckedGraph, EngineOptions, Open, Session
from nano_runtime.errors import BackendMissingError, OptionError, OutOfMemoryError

__all__ = [
    "BACKENDS",
    "LOADS_AHEAD",
    "Batch",
    "CheckedGraph",
    "EngineOptions",
    "Session",
    "choose",
    "engine_version",
    "import_engine",
    "installed",
    "open_session",
]

BACKENDS: tuple[Backend, ...] = get_args(Backend)

_PREFERRED: tuple[Backend, ...] = ("onnxruntime", "openvino")  # loads sooner, in half the memory (bench/LOG.md)

LOADS_AHEAD: tuple[Backend, ...] = ("onnxruntime",)
"""Engines that load one graph well while another runs.

With OpenVINO, which loads on all threads as it is, a process grew with every drawing, and once crashed where memory ran
out (bench/LOG.md).
"""

_DOORS: dict[Backend, str] = {
    "onnxruntime": "nano_runtime.engines.onnxruntime",
    "openvino": "nano_runtime.engines.openvino",
}


def installed(backend: Backend) -> bool:
    """Whether the engine's package can be found; it is not imported."""
    return find_spec(backend) is not None


def choose(bundle: Bundle, backend: Backend | None) -> Backend:
    """Return an engine that is served by the bundle and installed: the one asked for, or the leanest.

    Raises:
        OptionError: there is no such engine.
        BackendNotInBundleError: the bundle does not serve it.
        BackendMissingError: its package is not installed; without one asked for, no package of those served is.
    """
    if backend is not None:
        if backend not in BACKENDS:
            raise OptionError("backend", backend, BACKENDS)
        bundle.require(backend)
        if not installed(backend):
            raise BackendMissingError(backend)
        return backend
    served = [name for name in _PREFERRED if name in bundle.manifest.backends]
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
    if backend not in _DOORS:
        raise OptionError("backend", backend, BACKENDS)
    if not installed(backend):
        raise BackendMissingError(backend)
    return cast("Open", importlib.import_module(_DOORS[backend]).open_graph)


def engine_version(backend: Backend) -> str:
    """Return the version of an engine, which is imported for that; raises what ``import_engine`` does."""
    import_engine(backend)
    return str(sys.modules[backend].__version__)


def open_session(
    backend: Backend, graph: CheckedGraph, *, batch: Batch, options: EngineOptions, tokens: int = 1
) -> Session:
    """Load a graph.

    Args:
        backend: the engine.
        graph: in the engine's format.
        batch: size of every free first dimension, at least 1, or the smallest and the largest that it will have.
        options: threads, precision and cache.
        tokens: size of every other free dimension, at least 1; graphs without one do not ask.

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
