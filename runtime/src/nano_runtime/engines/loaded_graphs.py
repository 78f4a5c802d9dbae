"""The graphs of a bundle: each is checked, loaded ahead or when first needed, run, timed, and freed."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from weakref import WeakSet, ref

from nano_runtime.arrays import F32, Arrays
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import Backend
from nano_runtime.bundle.unsafe_graphs import check_graph
from nano_runtime.bundle.wiring import TOKENS
from nano_runtime.engines import (
    Batch,
    CheckedGraph,
    EngineOptions,
    Session,
    engine_version,
    import_engine,
    open_session,
)
from nano_runtime.engines.base import LayerTime
from nano_runtime.engines.described import check_outputs, files_digest, free_size, identity_of
from nano_runtime.engines.own_tensors import as_the_component
from nano_runtime.engines.pages import give_back_heap
from nano_runtime.errors import MissingArgumentError, OutOfMemoryError
from nano_runtime.system.timing import Stopwatch

__all__ = ["GraphsOfCall", "LoadedGraphs"]

_WORKERS = 2  # the largest graph, and beside it the others
_Sizes = tuple[Batch, int]  # of the free dimensions batch and tokens


@dataclass(frozen=True, eq=False)
class _Loaded:
    """A graph in an engine, and the calls that use it."""

    session: Session
    users: WeakSet[GraphsOfCall] = field(default_factory=WeakSet)

    def used_beside(self, call: GraphsOfCall | None) -> bool:
        """Return whether a call that is not over uses it, other than this one."""
        return any(user is not call and not user.over for user in self.users)


class LoadedGraphs:
    """Holds one loaded engine per component; for as many calls as there are, in as many threads.

    Engines compute one at a time, under one lock: a call waits while another one computes or loads. The lock is never
    held between two runs, so a call that nobody goes on with is in nobody's way. A component is loaded once. If calls
    under way want it for several sizes of batch or prompt, it is loaded once for each size; otherwise another size
    takes the place of the last. It checks and loads ahead in threads of its own.
    """

    def __init__(self, bundle: Bundle, backend: Backend, options: EngineOptions) -> None:
        self.bundle = bundle
        self.backend = backend
        self.options = options
        self._lock = threading.RLock()  # a signal handler may call ``close`` in the thread that has it
        self._busy = False  # that thread is at work, so nothing may change under its hands
        self._counting = threading.RLock()  # so that no call waits for an engine before it needs one
        self._calls: tuple[ref[GraphsOfCall], ...] = ()  # replaced, never changed
        self._given_back: deque[tuple[GraphsOfCall | None, tuple[str, ...]]] = deque()
        self._loaded: dict[tuple[str, _Sizes], _Loaded] = {}  # the one unused for longest first
        self._workers: ThreadPoolExecutor | None = None
        self._checks: dict[str, Future[CheckedGraph]] = {}
        self._ahead: dict[str, tuple[_Sizes, Future[Session]]] = {}

    @property
    def loaded(self) -> frozenset[str]:
        """Names of the components that occupy memory now."""
        return frozenset(component for component, _ in tuple(self._loaded))

    def identity(self, component: str) -> str:
        """Name all that a component's outputs depend on besides its inputs; see ``identity_of``."""
        return identity_of(self.bundle, component, self.backend, engine_version(self.backend), self.options)

    def prepare(self, components: Iterable[str]) -> None:
        """Begin to compare the files of these components with their checksums, and import the engine meanwhile.

        The checks go on in the background, in this order; a fault is raised by the ``run`` that needs the
        component.

        Raises:
            BackendMissingError: the engine is not installed.
        """
        with self._alone():
            for name in components:
                if name not in self.loaded and name not in self._checks and name not in self._ahead:
                    self._checks[name] = self._pool().submit(self._checked, name)
        import_engine(self.backend)

    def load_ahead(self, component: str, *, batch: Batch, tokens: int = 1) -> None:
        """Begin to load a component in the background, when its files are checked, for a ``run`` with these sizes.

        What goes wrong is raised by that ``run``; where memory ran out, it first lets go of all that was loaded ahead.
        """
        with self._alone():
            if component not in self.loaded and component not in self._ahead:
                check = self._checks.pop(component, None)
                opening = self._pool().submit(self._opened, component, check, (batch, tokens))
                self._ahead[component] = (batch, tokens), opening

    def run(self, component: str, feeds: Arrays, *, batch: Batch) -> dict[str, F32]:
        """Compute one component's outputs, untimed; see ``Runner``."""
        call = self.timed(Stopwatch())
        try:
            return call.run(component, feeds, batch=batch)
        finally:
            call.over = True

    def timed(self, watch: Stopwatch) -> GraphsOfCall:
        """Return a view of these graphs for one call, which takes the time of all that the call makes them do.

        A ``run`` leaves a ``run`` sample in the stopwatch, and a ``verify`` and a ``load`` sample if the graph was not
        loaded. If loading began ahead, it leaves only a ``load`` sample, of the time that was left to wait. Waiting
        for other calls is in none of them.
        """
        call = GraphsOfCall(self, watch)
        with self._counting:
            self._calls = (*(of for of in self._calls if (known := of()) is not None and not known.over), ref(call))
        return call

    def layer_times(self) -> dict[str, list[LayerTime]]:
        """Return the time of each operator of the loaded components; see ``Session.layer_times``."""
        with self._alone():
            return {name: loaded.session.layer_times() for (name, _), loaded in self._loaded.items()}

    def close(self, *components: str) -> None:
        """Let these components go; all of them if none is named. Calls that still need one load it again.

        This waits for an engine that is computing in another thread.
        """
        self._given_back.append((None, components))
        with self._lock:  # at once, but in a signal handler when the engine returns
            pass
        self._settle()

    def kill(self) -> None:
        """Refuse what only an isolated pipeline can do.

        Raises:
            MissingArgumentError: always.
        """
        raise MissingArgumentError("kill()", "isolated")

    def give_back(self, call: GraphsOfCall, components: tuple[str, ...]) -> None:
        """Let those of these components go that no other call uses, all if none is named; nobody waits here.

        If an engine is computing, its thread does this afterwards: the garbage collector may end a drawing anywhere.
        """
        self._given_back.append((call, components))
        self._settle()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let no other thread use engines or this object, after freeing what was given back before.

        Raises:
            RuntimeError: this thread does already: a signal handler, or a finalizer, draws.
        """
        try:
            with self._lock:
                if self._busy:
                    raise RuntimeError("nothing can be drawn in a signal handler or finalizer while an engine computes")
                try:
                    self._busy = True
                    self._free_given_back()
                    yield
                finally:
                    self._busy = False
        finally:
            self._settle()

    def _settle(self) -> None:
        """Free what was given back, unless somebody is at work, who does it afterwards."""
        while self._given_back and self._lock.acquire(blocking=False):
            try:
                if self._busy:
                    return
                try:
                    self._busy = True
                    self._free_given_back()
                finally:
                    self._busy = False
            finally:
                self._lock.release()

    def _free_given_back(self) -> None:
        """Free what calls gave back and no other call uses, and what was closed."""
        while self._given_back:
            call, components = self._given_back.popleft()
            alone = call is None or not self._others(call)
            for name in components or (*self.loaded, *self._checks, *self._ahead):
                if alone and name in self._checks:
                    self._checks.pop(name).cancel()
                if alone:
                    self._close_ahead(name)
                for key in [key for key in self._loaded if key[0] == name]:
                    if call is None or not self._loaded[key].used_beside(call):
                        self._close(key)
            if call is None and not components and self._workers is not None:
                self._workers.shutdown(wait=False, cancel_futures=True)
                self._workers = None

    def _close(self, key: tuple[str, _Sizes]) -> None:
        self._loaded.pop(key).session.close()
        give_back_heap()

    def _pool(self) -> ThreadPoolExecutor:
        if self._workers is None:
            self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="nano-ahead")
        return self._workers

    def _run(self, component: str, feeds: Arrays, call: GraphsOfCall, batch: Batch) -> dict[str, F32]:
        """Compute and check a component's outputs; where memory ran out, free what others need and try again."""
        tokens = free_size(self.bundle, component, feeds, TOKENS)
        with self._alone():
            ahead = bool(self._ahead)
            try:
                outputs = self._computed(component, feeds, call, (batch, tokens))
            except OutOfMemoryError:
                others = [key for key, loaded in self._loaded.items() if call not in loaded.users]
                if not ahead and not others:
                    raise
                self._close_ahead(*self._ahead)
                for key in others:
                    self._close(key)
                outputs = self._computed(component, feeds, call, (batch, tokens))
        check_outputs(self.bundle, component, feeds, outputs)
        return outputs

    def _computed(self, component: str, feeds: Arrays, call: GraphsOfCall, sizes: _Sizes) -> dict[str, F32]:
        """Compute a component's outputs, loading it if needed."""
        session = self._session(component, call, sizes)
        try:
            with call.watch.time("run", component):
                return session.run(feeds)
        except MemoryError as error:
            raise OutOfMemoryError(f"running the {component} of {self.bundle.path}") from error

    def _session(self, component: str, call: GraphsOfCall, sizes: _Sizes) -> Session:
        """Return the loaded engine for a component, loading it if needed."""
        key = component, sizes
        self._close_overwritten(component)
        if key in self._loaded:
            loaded = self._loaded.pop(key)
        elif component in self._ahead and self._ahead[component][0] == sizes:
            with call.watch.time("load", component):
                loaded = _Loaded(self._ahead.pop(component)[1].result())
        else:
            check = self._checks.pop(component, None)
            self._make_room(component, call)
            with call.watch.time("verify", component):
                graph = self._checked(component) if check is None else check.result()
            with call.watch.time("load", component):
                loaded = _Loaded(self._open(component, graph, sizes))
        loaded.users.add(call)
        self._loaded[key] = loaded  # the last of all
        return loaded.session

    def _close_overwritten(self, component: str) -> None:
        """Free a component whose weights somebody wrote into: engines read them from the file as they need them.

        Loading compares them again. Of a file that was cut short, an engine's next read would end the process.
        """
        weights = self.bundle.graph(component, self.backend).weights
        if weights is not None and self.bundle.was_written_to(weights):
            self._close_ahead(component)
            for key in [key for key in self._loaded if key[0] == component]:
                self._close(key)

    def _make_room(self, component: str, call: GraphsOfCall) -> None:
        """Free a component of other sizes, unless there are no more of them than other calls under way."""
        most = self._others(call)
        if not most:
            self._close_ahead(component)
        keys = [key for key in self._loaded if key[0] == component]
        for key in sorted(keys, key=lambda key: self._loaded[key].used_beside(call))[: max(len(keys) - most, 0)]:
            self._close(key)

    def _others(self, call: GraphsOfCall) -> int:
        """Return the number of other calls under way."""
        known = (of() for of in self._calls)
        return sum(other is not None and other is not call and not other.over for other in known)

    def _opened(self, component: str, check: Future[CheckedGraph] | None, sizes: _Sizes) -> Session:
        """Load a component in the background."""
        return self._open(component, self._checked(component) if check is None else check.result(), sizes)

    def _open(self, component: str, graph: CheckedGraph, sizes: _Sizes) -> Session:
        batch, tokens = sizes
        session = open_session(self.backend, graph, batch=batch, tokens=tokens, options=self.options)
        described = self.bundle.component(component)
        return as_the_component(session, described, described.graphs[self.backend])

    def _close_ahead(self, *components: str) -> None:
        """Free components that were loaded ahead, or wait until that is possible."""
        for name in components:
            if name in self._ahead:
                opening = self._ahead.pop(name)[1]
                if not opening.cancel() and opening.exception() is None:
                    opening.result().close()
                    give_back_heap()

    def _checked(self, component: str) -> CheckedGraph:
        """Compare a component's files with their checksums, and look into the graph."""
        graph = self.bundle.graph(component, self.backend)
        weights = None if graph.weights is None else self.bundle.held(graph.weights)
        content = self.bundle.content(graph.model)
        check_graph(self.bundle, graph, content)
        return CheckedGraph(
            self.bundle.path / graph.model, content, files_digest(self.bundle, component, self.backend), weights
        )


class GraphsOfCall:
    """The graphs as one call sees them: a ``Runner``; see ``LoadedGraphs.timed``.

    Attributes:
        watch: takes the time.
        over: whether the call has ended.
    """

    def __init__(self, graphs: LoadedGraphs, watch: Stopwatch) -> None:
        self.watch = watch
        self.over = False
        self._graphs = graphs

    def run(self, component: str, feeds: Arrays, *, batch: Batch) -> dict[str, F32]:
        """Compute one component's outputs; see ``Runner``."""
        return self._graphs._run(component, feeds, self, batch)  # noqa: SLF001 - the other half of one class

    def close(self, *components: str) -> None:
        """Let components go that this call needs no more, all if none is named; those that other calls use stay."""
        self._graphs.give_back(self, components)
