"""A process that holds one loaded pipeline and draws when asked, and the near end that asks it.

Each case has one, so its peak of memory is that of one engine, and its graphs stay loaded while others draw.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from nano_runtime.benchmark.cold_start import anonymous_bytes
from nano_runtime.benchmark.records import Case, Settings
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.wiring import UNET, UNET_SHALLOW
from nano_runtime.engines import EngineOptions
from nano_runtime.engines.base import LayerTime
from nano_runtime.engines.loaded_graphs import LoadedGraphs
from nano_runtime.errors import NanoError, WorkerDiedError
from nano_runtime.pipeline import Pipeline
from nano_runtime.system.children import spawning
from nano_runtime.system.machine import peak_rss_bytes
from nano_runtime.system.timing import Stopwatch, Timings

__all__ = ["About", "End", "Worker"]

_PROFILED_CALLS = 3  # of the pipeline; the first of them is slower, so one would not do


@dataclass(frozen=True)
class About:
    """The first answer of a worker, when it is ready to draw.

    Attributes:
        bundle: the opened bundle.
        guided: whether each picture takes several rows of a UNet call.
        rows: rows of all calls of one picture, per UNet graph.
        open_ms: opening the bundle, in milliseconds of wall clock.
    """

    bundle: Bundle
    guided: bool
    rows: dict[str, int]
    open_ms: float


@dataclass(frozen=True)
class End:
    """The last answer of a worker; see ``Measured`` for the memory, ``LoadedGraphs.layer_times`` for the layers."""

    peak_rss_bytes: int | None
    anonymous_bytes: int | None
    layers: dict[str, list[LayerTime]]


class Worker:
    """The near end of the process; starts it, and collects its answers.

    Attributes:
        case: what it draws.
        about: its first answer.
        drawn: timings of its calls, in order.
        end: its last answer, after ``finish``.

    Raises:
        NanoError: the case cannot be drawn, as in ``Pipeline``.
        WorkerDiedError: the process was ended by the system.
    """

    def __init__(self, case: Case, settings: Settings) -> None:
        context = multiprocessing.get_context("spawn")
        near, far = context.Pipe()
        self.case = case
        self._connection: Connection = near
        there = replace(case, bundle=case.bundle.absolute())
        self._process: BaseProcess = context.Process(target=_work, args=(far, there, settings), daemon=True)
        with _interrupts_later(), spawning():
            self._process.start()
        far.close()
        self.about: About = self._receive()
        self.drawn: list[Timings] = []
        self.end = End(None, None, {})

    def draw(self, run: int) -> float:
        """Have the case's pictures drawn once, and return the milliseconds it took."""
        self._connection.send(run)
        timings: Timings = self._receive()
        self.drawn.append(timings)
        return timings.total_ms

    def finish(self) -> None:
        """Ask for the last answer."""
        self._connection.send(None)
        self.end = self._receive()

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self._process.terminate()
        self._process.join()
        self._connection.close()

    def _receive(self) -> Any:  # noqa: ANN401 - what a pipe between processes carries
        """Return the process's next answer, or raise the error it sent."""
        try:
            answer = self._connection.recv()
        except (EOFError, ConnectionResetError) as error:
            self._process.join()
            raise WorkerDiedError(str(self.case), self._process.exitcode) from error
        if isinstance(answer, NanoError):
            raise answer
        return answer


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Hold Ctrl-C back: a process started meanwhile never gets it, not even while it imports what it needs."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(connection: Connection, case: Case, settings: Settings) -> None:
    """Be the far end, in a fresh process: draw for every number that comes; None asks for the last answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the near end decides
    try:
        watch = Stopwatch()
        pipe = Pipeline.from_pretrained(case.bundle, case.backend, case.threads, case.precision)
        manifest = pipe.bundle.manifest
        plan = pipe.plan(settings.options(case, 0, manifest))
        rows = {UNET: 0, UNET_SHALLOW: 0}
        for call in plan.calls:
            rows[call.component] += call.rows(1)
        connection.send(About(pipe.bundle, plan.guided, rows, watch.timings().total_ms))
        while (run := connection.recv()) is not None:
            connection.send(pipe(settings.options(case, run, manifest)).timings)
        memory = peak_rss_bytes(), anonymous_bytes()
        pipe.close()
        layers = _profile(case, settings) if settings.profile else {}
        connection.send(End(*memory, layers))
    except NanoError as error:
        connection.send(error)


def _profile(case: Case, settings: Settings) -> dict[str, list[LayerTime]]:
    """Draw with engines that record the time of each operator."""
    options = EngineOptions(case.threads, case.precision, profile=True)
    graphs = LoadedGraphs(Bundle.open(case.bundle), case.backend, options)
    pipe = Pipeline(graphs, keep_loaded=True)
    for run in range(_PROFILED_CALLS):
        pipe(settings.options(case, run, graphs.bundle.manifest))
    return graphs.layer_times()
