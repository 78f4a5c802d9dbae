"""The graphs of a bundle in a child process: an engine that hangs or dies takes nothing with it, and can be ended.

The parent imports no engine. It sends the feeds of each run and checks what comes back against the manifest, so that a
child that was taken over can change what is drawn, and nothing else. A child that is gone is replaced by the next run.
"""

from __future__ import annotations

import json
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import count
from typing import Any, TypeAlias
from weakref import finalize

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from nano_runtime.arrays import F32, Arrays
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import Backend
from nano_runtime.engines import Batch, EngineOptions, installed
from nano_runtime.engines.described import check_outputs, identity_of
from nano_runtime.engines.loaded_graphs import GraphsOfCall, LoadedGraphs
from nano_runtime.errors import (
    BackendMissingError,
    EngineDiedError,
    KilledError,
    NanoError,
    NoProcessError,
)
from nano_runtime.errors.escaping import escaped
from nano_runtime.errors.told import error_of
from nano_runtime.system.confinement import Confinement, memory_for_child
from nano_runtime.system.messages import ChannelError, Message
from nano_runtime.system.spawned import SpawnedChild
from nano_runtime.system.timing import Stopwatch

__all__ = ["CallOfAny", "Graphs", "IsolatedCall", "IsolatedGraphs", "graphs_of"]

_FAR_END = "nano_runtime.engines.far_end"
_LAST_WORDS_S = 5.0  # for the system to notice the end of a process whose pipe is closed
_KINDS = ("verify", "load", "run")
_KEPT_BYTES = 1 << 16  # inputs from this size on are not sent again while they do not change

_log = logging.getLogger(__name__)


def graphs_of(bundle: Bundle, backend: Backend, options: EngineOptions, *, isolated: bool) -> Graphs:
    """Return the graphs of a bundle in this process, or in one of their own."""
    kind = IsolatedGraphs if isolated else LoadedGraphs
    return kind(bundle, backend, options)


class IsolatedGraphs:
    """Does what ``LoadedGraphs`` does, in a process that is started when the first graph is needed.

    Any number of threads may use it; the child serves them one after the other. ``kill`` may be called from any thread
    at any time: calls under way raise a ``KilledError``, and the next one starts a new child.

    Attributes:
        kills: number of times that ``kill`` was called.
    """

    def __init__(self, bundle: Bundle, backend: Backend, options: EngineOptions) -> None:
        cache = None if options.cache is None else options.cache.absolute()
        self.bundle = bundle
        self.backend = backend
        self.options = replace(options, cache=cache)
        self._turn = threading.RLock()  # a signal handler or finalizer may come in the thread that has it
        self._busy = False
        self._children: deque[SpawnedChild] = deque()  # the one that there is, or none
        finalize(self, _kill, self._children)
        self.kills = 0
        self._notes: deque[dict[str, Any]] = deque()
        self._numbers = count(1)
        self._version: str | None = None
        self._sent: dict[str, dict[str, bytes]] = {}  # component -> input -> digest of what the child has of it

    def identity(self, component: str) -> str:
        """Name all that a component's outputs depend on besides its inputs; see ``identity_of``."""
        if self._version is None:
            self._version = str(self._ask(lambda child: child.channel.ask({"version": True}))[0].get("version"))
        return identity_of(self.bundle, component, self.backend, self._version, self.options)

    def prepare(self, components: Iterable[str]) -> None:
        """Begin to compare the files of these components with their checksums, and to import the engine there.

        Raises:
            BackendMissingError: the engine is not installed.
        """
        if not installed(self.backend):
            raise BackendMissingError(self.backend)
        self._tell({"prepare": list(components)}, start=True)

    def load_ahead(self, component: str, *, batch: Batch, tokens: int = 1) -> None:
        """Begin to load a component, for a ``run`` with these sizes; see ``LoadedGraphs``."""
        self._tell({"ahead": component, "batch": batch, "tokens": tokens}, start=True)

    def timed(self, watch: Stopwatch) -> IsolatedCall:
        """Return a view of these graphs for one call, which takes the time of all that the call makes them do."""
        return IsolatedCall(self, next(self._numbers), watch)

    def close(self) -> None:
        """End the child when the engine has computed what it is at; the next run starts a new one."""
        with self._turn:
            if self._busy:
                self._tell({"close": []})
            else:
                self._end()

    def kill(self) -> None:
        """End the child now. Calls under way, in other threads, raise ``KilledError``, wherever they are."""
        self.kills += 1
        self._end()

    def run(self, call: IsolatedCall, component: str, feeds: Arrays, batch: Batch) -> dict[str, F32]:
        """Compute one component's outputs for a call; see ``Runner``."""
        if call.begun_after != self.kills:
            raise KilledError
        arrays = {name: np.ascontiguousarray(values) for name, values in feeds.items()}
        answer, content = self._ask(lambda child: self._ask_to_run(child, call.number, component, arrays, batch))
        try:
            outputs = _arrays(answer["outputs"], content)
            for kind in _KINDS:
                for name, samples in answer[kind].items():
                    for ms in samples:
                        call.watch.add(kind, str(name), float(ms))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self._end()
            raise EngineDiedError(self.bundle.path, None) from error
        check_outputs(self.bundle, component, feeds, outputs)
        return outputs

    def _ask_to_run(
        self, child: SpawnedChild, call: int, component: str, arrays: dict[str, NDArray[Any]], batch: Batch
    ) -> Message:
        """Send inputs, but for large ones that the child has from the last run of this component."""
        views = {name: values.reshape(-1).view(np.uint8).data for name, values in arrays.items()}
        digests = {name: _digest(arrays[name]) for name, view in views.items() if view.nbytes >= _KEPT_BYTES}
        before = self._sent.pop(component, {})
        there = {name for name, digest in digests.items() if before.get(name) == digest}
        described = [[name, str(values.dtype), list(values.shape), name in there] for name, values in arrays.items()]
        what = {"run": component, "call": call, "batch": batch, "feeds": described}
        message = child.channel.ask(what, *(view for name, view in views.items() if name not in there))
        if "error" not in message[0]:
            self._sent[component] = digests
        return message

    def tell(self, note: dict[str, Any]) -> None:
        """Tell the child something that needs no answer, with the next message if it is busy; nobody waits here."""
        self._tell(note)

    def _tell(self, note: dict[str, Any], *, start: bool = False) -> None:
        """See ``tell``; ``start`` starts a child if there is none, which a note about an end need not."""
        self._notes.append(note)
        if not self._turn.acquire(blocking=False):
            return  # whoever has it sends all notes
        try:
            if not self._busy and (start or self._children):
                self._exchange(lambda _child: ({}, bytearray()))
        finally:
            self._turn.release()

    def _ask(self, ask: Callable[[SpawnedChild], Message]) -> Message:
        """Have a message sent and return the answer.

        Raises:
            NanoError: what the child raised; ``EngineDiedError`` or ``KilledError`` where it came to an end.
            RuntimeError: this thread asks already: a signal handler, or a finalizer, draws.
        """
        with self._turn:
            if self._busy:
                raise RuntimeError("nothing can be drawn in a signal handler or finalizer while an engine computes")
            answer, content = self._exchange(ask)
        if (error := error_of(answer)) is not None:
            raise error
        return answer, content

    def _exchange(self, exchange: Callable[[SpawnedChild], Message]) -> Message:
        """Send all notes and then exchange a message, with the child that is there or a new one."""
        self._busy = True
        child = None
        try:
            child = self._running()
            while self._notes:
                child.channel.send(self._notes.popleft())
            return exchange(child)
        except ChannelError as error:
            raise self._death(child) from error
        except BaseException:  # Ctrl-C in the middle of a message: what comes next would be taken for its answer
            self._end()
            raise
        finally:
            self._busy = False

    def _running(self) -> SpawnedChild:
        """Return the child, or start one."""
        child = next(iter(self._children), None)
        if child is None or child.code is not None:
            cache = self.options.cache
            options = {**asdict(self.options), "cache": None if cache is None else str(cache)}
            within = Confinement((self.bundle.path.absolute(),), () if cache is None else (cache,), memory_for_child())
            arguments = [str(self.bundle.path.absolute()), self.bundle.digest, self.backend, json.dumps(options)]
            try:
                child = SpawnedChild(_FAR_END, arguments, within, _talk)
            except OSError as error:
                raise NoProcessError(str(error.strerror)) from error
            self._children.clear()
            self._children.append(child)
            self._sent.clear()
        return child

    def _end(self) -> None:
        """Kill the child, if there is one."""
        _kill(self._children)

    def _death(self, child: SpawnedChild | None) -> NanoError:
        """Return the error for a child that is gone, or that sends nonsense."""
        if child is None or child.killed:
            return KilledError()
        died = child.wait(_LAST_WORDS_S)
        self._end()
        return EngineDiedError(self.bundle.path, died)


class IsolatedCall:
    """The graphs as one call sees them: a ``Runner``; see ``LoadedGraphs.timed``.

    Attributes:
        number: of the call.
        watch: takes the time.
        begun_after: number of kills before it began.
    """

    def __init__(self, graphs: IsolatedGraphs, number: int, watch: Stopwatch) -> None:
        self.number = number
        self.watch = watch
        self.begun_after = graphs.kills
        self._graphs = graphs
        self._over = False

    @property
    def over(self) -> bool:
        """Whether the call has ended."""
        return self._over

    @over.setter
    def over(self, value: bool) -> None:
        self._over = value
        if value:
            self._graphs.tell({"over": self.number})

    def run(self, component: str, feeds: Arrays, *, batch: Batch) -> dict[str, F32]:
        """Compute one component's outputs; see ``Runner``."""
        return self._graphs.run(self, component, feeds, batch)

    def close(self, *components: str) -> None:
        """Let components go that this call needs no more, all if none is named; those that other calls use stay."""
        self._graphs.tell({"close": list(components), "call": self.number})


Graphs: TypeAlias = LoadedGraphs | IsolatedGraphs
"""The graphs of a bundle, wherever they are."""
CallOfAny: TypeAlias = GraphsOfCall | IsolatedCall
"""The graphs as one call sees them, wherever they are."""


def _arrays(described: Any, content: bytearray) -> dict[str, F32]:  # noqa: ANN401 - what a stranger sent
    """Return the arrays of an answer: copied to where an array may begin.

    Raises:
        ValueError: sizes do not fit.
        TypeError: it is not a list of names and shapes.
    """
    found: dict[str, F32] = {}
    at = 0
    for name, shape in described:
        values = np.frombuffer(content, np.float32, count=math.prod(shape), offset=at)
        found[str(name)] = values.reshape(shape).copy()
        at += values.nbytes
    return found


def _digest(values: NDArray[Any]) -> bytes:
    """Return what two arrays have in common only if they are equal: bytes, type and shape."""
    described = f"{values.dtype}{values.shape}".encode()
    return blake3(values.reshape(-1).view(np.uint8).data).digest() + described


def _kill(children: deque[SpawnedChild]) -> None:
    """Kill the child, if there is one."""
    with suppress(IndexError):  # another thread was quicker
        children.pop().kill()


def _talk(line: str) -> None:
    """Log what native code printed."""
    if line.strip():
        _log.warning("%s", escaped(line))
