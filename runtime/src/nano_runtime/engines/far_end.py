"""The child process of ``isolated``: holds the loaded graphs of one bundle, and runs them when asked."""

from __future__ import annotations

import json
import math
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np

from nano_runtime.arrays import Arrays
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import Backend
from nano_runtime.engines import EngineOptions, engine_version
from nano_runtime.engines.loaded_graphs import GraphsOfCall, LoadedGraphs
from nano_runtime.errors import NanoError
from nano_runtime.errors.told import told
from nano_runtime.system.messages import Channel, ChannelError
from nano_runtime.system.timing import Stopwatch

__all__ = ["main"]


def main(path: str, digest: str, backend: str, options: str) -> None:
    """Serve until the parent is gone; the arguments are a bundle, its digest, an engine, and its options as JSON."""
    channel = Channel.of_standard_streams()
    given = json.loads(options)
    cache = None if given["cache"] is None else Path(given["cache"])
    far = _FarEnd(Path(path), digest, cast("Backend", backend), EngineOptions(**{**given, "cache": cache}))
    with suppress(ChannelError):
        while True:
            far.serve(channel, *channel.receive())
    os._exit(0)  # the engine's own end may take long, and nobody waits for it


class _FarEnd:
    """The graphs, and the calls under way by the numbers that the parent gives them."""

    def __init__(self, path: Path, digest: str, backend: Backend, options: EngineOptions) -> None:
        self._opened = path, digest, backend, options
        self._graphs: LoadedGraphs | None = None
        self._calls: dict[int, GraphsOfCall] = {}
        self._fed: dict[str, Arrays] = {}

    def serve(self, channel: Channel, what: dict[str, Any], content: bytearray) -> None:
        """Do what one message asks for, and answer if it wants an answer."""
        match what:
            case {"run": str()} | {"version": _}:
                try:
                    answer, arrays = self._answer(what, content)
                except (MemoryError, NanoError) as error:
                    answer, arrays = told(error), []
                channel.send(answer, *arrays)
            case _:
                with suppress(NanoError, MemoryError):  # the run that needs it raises this once more
                    self._do(what)

    def _answer(self, what: dict[str, Any], content: bytearray) -> tuple[dict[str, Any], list[memoryview]]:
        """Return an answer and its arrays."""
        graphs = self._all()
        if "version" in what:
            return {"version": engine_version(graphs.backend)}, []
        call = self._calls.get(what["call"])
        if call is None:
            call = self._calls[what["call"]] = graphs.timed(Stopwatch())
        call.watch = Stopwatch()
        outputs = call.run(what["run"], self._feeds(what, content), batch=_batch(what["batch"]))
        arrays = {name: np.ascontiguousarray(values) for name, values in outputs.items()}
        timings = call.watch.timings()
        answer = {
            "outputs": [[name, list(values.shape)] for name, values in arrays.items()],
            "verify": dict(timings.verify_ms),
            "load": dict(timings.load_ms),
            "run": dict(timings.run_ms),
        }
        return answer, [values.reshape(-1).view(np.uint8).data for values in arrays.values()]

    def _do(self, what: dict[str, Any]) -> None:
        """Do what wants no answer."""
        match what:
            case {"prepare": components}:
                self._all().prepare(components)
            case {"ahead": component, "batch": batch, "tokens": tokens}:
                self._all().load_ahead(component, batch=_batch(batch), tokens=tokens)
            case {"over": number}:
                if (call := self._calls.pop(number, None)) is not None:
                    call.over = True
            case {"close": components, "call": number}:
                if (call := self._calls.get(number)) is not None:
                    call.close(*components)
            case {"close": components}:
                self._all().close(*components)

    def _feeds(self, what: dict[str, Any], content: bytearray) -> Arrays:
        """Return the arrays of a message, and those of the last run that it leaves out.

        They are in the same places every time: an engine has to bind an array only once.
        """
        before = self._fed.get(what["run"], {})
        feeds: dict[str, Any] = {}
        at = 0
        for name, kind, shape, there in what["feeds"]:
            if there:
                feeds[name] = before[name]
                continue
            values = np.frombuffer(content, np.dtype(kind), count=math.prod(shape), offset=at).reshape(shape)
            kept = before.get(name)
            if kept is None or (kept.dtype, kept.shape) != (values.dtype, values.shape):
                kept = np.empty_like(values)
            np.copyto(kept, values)
            feeds[name] = kept
            at += values.nbytes
        self._fed[what["run"]] = feeds
        return feeds

    def _all(self) -> LoadedGraphs:
        """Return the graphs; open the bundle the first time, which the parent has done before."""
        if self._graphs is None:
            path, digest, backend, options = self._opened
            self._graphs = LoadedGraphs(Bundle.open(path, digest), backend, options)
        return self._graphs


def _batch(given: int | list[int]) -> int | tuple[int, int]:
    """Return a size, or the smallest and the largest, as JSON has it."""
    return given if isinstance(given, int) else (given[0], given[1])


if __name__ == "__main__":
    main(*sys.argv[1:])
