"""The graphs of a bundle as callables: each is checked, loaded when first needed, timed, and let go on request."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nano_runtime.backends import (
    Arrays,
    Batch,
    CheckedGraph,
    EngineOptions,
    Session,
    engine_version,
    import_engine,
    open_session,
)
from nano_runtime.backends.base import LayerTime
from nano_runtime.backends.pages import give_back_heap
from nano_runtime.bundle import Bundle
from nano_runtime.errors import NonFiniteError, OutOfMemoryError, OutputShapeError
from nano_runtime.graph_check import check_graph
from nano_runtime.machine import instruction_sets
from nano_runtime.manifest import Backend
from nano_runtime.timing import Stopwatch

__all__ = ["Stages"]

_CHECKERS = 2  # the largest graph, and beside it the others


class Stages:
    """Holds at most one loaded engine per component; asking for another batch or prompt length replaces it."""

    def __init__(self, bundle: Bundle, backend: Backend, options: EngineOptions) -> None:
        self.bundle = bundle
        self.backend = backend
        self.options = options
        self._loaded: dict[str, tuple[tuple[Batch, int], Session]] = {}
        self._checkers: ThreadPoolExecutor | None = None
        self._checks: dict[str, Future[CheckedGraph]] = {}

    @property
    def loaded(self) -> frozenset[str]:
        """Names of the components that occupy memory now."""
        return frozenset(self._loaded)

    def identity(self, component: str) -> str:
        """Name all that a component's outputs depend on besides its inputs: its files, the engine, the processor."""
        options = (self.backend, engine_version(self.backend), self.options.threads, self.options.precision)
        return repr((self._digest(component), *options, instruction_sets()))

    def prepare(self, components: Iterable[str]) -> None:
        """Begin to compare the files of these components with their checksums, and import the engine meanwhile.

        The checks go on in the background, in this order; what they find is raised by the ``run`` that needs the
        component.

        Raises:
            BackendMissingError: the engine is not installed.
        """
        if self._checkers is None:
            self._checkers = ThreadPoolExecutor(_CHECKERS, thread_name_prefix="nano-check")
        for name in components:
            if name not in self._loaded and name not in self._checks:
                self._checks[name] = self._checkers.submit(self._checked, name)
        import_engine(self.backend)

    def run(self, component: str, feeds: Arrays, watch: Stopwatch, *, batch: Batch) -> dict[str, NDArray[np.float32]]:
        """Compute one component's outputs.

        Args:
            component: its name in the manifest.
            feeds: all inputs by name, as the manifest describes them.
            watch: gets a ``run`` sample, and a ``verify`` and a ``load`` sample if the graph was not loaded.
            batch: size of the free dimension of that name, or the smallest and the largest that the calls to come will
                have; the length of the prompt is what the feeds have.

        Raises:
            TamperedFileError: a file is not the one the manifest describes.
            UnsafeGraphError: the graph would make the engine read elsewhere, or recurse without end.
            EngineError: the engine refuses the graph or the inputs.
            OutOfMemoryError: it could not get the memory it needs.
            OutputShapeError: an output is not what the manifest describes.
            NonFiniteError: an output has a NaN or an infinity.
        """
        tokens = self._free(component, feeds, "tokens")
        session = self._session(component, watch, batch=batch, tokens=tokens)
        try:
            with watch.time("run", component):
                outputs = session.run(feeds)
        except MemoryError as error:
            raise OutOfMemoryError(f"running the {component} of {self.bundle.path}") from error
        self._check_shapes(component, outputs, {"batch": self._free(component, feeds, "batch"), "tokens": tokens})
        for name, values in outputs.items():
            if not np.isfinite(values).all():
                raise NonFiniteError(component, f"output {name!r}")
        return outputs

    def layer_times(self) -> dict[str, list[LayerTime]]:
        """Return what each operator of the loaded components took; see ``Session.layer_times``."""
        return {name: session.layer_times() for name, (_, session) in self._loaded.items()}

    def close(self, *components: str) -> None:
        """Let these components go; all of them if none is named."""
        for name in components or (*self._loaded, *self._checks):
            if name in self._checks:
                self._checks.pop(name).cancel()
            if name in self._loaded:
                self._loaded.pop(name)[1].close()
                give_back_heap()
        if not components and self._checkers is not None:
            self._checkers.shutdown(wait=False, cancel_futures=True)
            self._checkers = None

    def _free(self, component: str, feeds: Arrays, name: Literal["batch", "tokens"]) -> int:
        """Return the size of a free dimension in the feeds; 1 for graphs where it is not free."""
        for spec in self.bundle.component(component).inputs:
            if name in spec.shape and spec.name in feeds:
                size: int = feeds[spec.name].shape[spec.shape.index(name)]
                return size
        return 1

    def _session(self, component: str, watch: Stopwatch, *, batch: Batch, tokens: int) -> Session:
        """Return the loaded engine for a component, loading it if needed."""
        if component in self._loaded and self._loaded[component][0] == (batch, tokens):
            return self._loaded[component][1]
        check = self._checks.pop(component, None)
        self.close(component)
        with watch.time("verify", component):
            graph = self._checked(component) if check is None else check.result()
        with watch.time("load", component):
            session = open_session(self.backend, graph, batch=batch, tokens=tokens, options=self.options)
        self._loaded[component] = ((batch, tokens), session)
        return session

    def _check_shapes(self, component: str, outputs: Arrays, free: dict[str, int]) -> None:
        """Compare what a graph computed with what the manifest says it does."""
        for tensor in self.bundle.component(component).outputs:
            shape = tuple(free[size] if isinstance(size, str) else size for size in tensor.shape)
            values = outputs.get(tensor.name)
            if values is None or values.shape != shape or values.dtype != tensor.dtype:
                found = "nothing" if values is None else f"{values.dtype} {list(values.shape)}"
                raise OutputShapeError(component, tensor.name, found, f"{tensor.dtype} {list(shape)}")

    def _checked(self, component: str) -> CheckedGraph:
        """Compare a component's files with their checksums, and look into the graph."""
        model = self.bundle.verified(component, self.backend)
        graph = self.bundle.component(component).graphs[self.backend]
        check_graph(self.bundle, graph)
        weights = None if graph.weights is None else self.bundle.path / graph.weights
        return CheckedGraph(model, self._digest(component), weights)

    def _digest(self, component: str) -> str:
        """Return a hex sha256 that names the content of a component's files, as the manifest says it is.

        Of all checksums: with the one that loading does not compare, a bundle could claim to be another, and what is
        kept of it would be taken for the other's.
        """
        graph = self.bundle.component(component).graphs[self.backend]
        files = (graph.model, graph.weights)
        digests = [(entry.sha256, entry.blake3) for entry in self.bundle.manifest.files if entry.path in files]
        return hashlib.sha256(repr(digests).encode()).hexdigest()
