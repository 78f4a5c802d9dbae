"""Time bundles and engines against each other: one process each, images drawn in turns, every sample kept.

A laptop slows down as it warms up, so engines measured one after the other are not comparable. Here all are loaded
first, each in a fresh process of its own (memory peaks are those of one engine), and then draw one call each, forth
and back.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nano_runtime.benchmark.cold_start import Start, anonymous_bytes, start
from nano_runtime.benchmark.layers import GroupTime, group_times
from nano_runtime.benchmark.limits import Rates, limit_ms
from nano_runtime.benchmark.probe import LARGEST_READ_BYTES, probe
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import Backend, Quality
from nano_runtime.engines import ENGINES, EngineOptions
from nano_runtime.engines.base import LayerTime, Precision
from nano_runtime.engines.loaded_graphs import LoadedGraphs
from nano_runtime.errors import NanoError, WorkerDiedError
from nano_runtime.pipeline import Pipeline
from nano_runtime.system.machine import peak_rss_bytes
from nano_runtime.system.timing import Stopwatch, Timings

__all__ = ["Case", "Measured", "Settings", "Step", "measure"]

_PROFILED_CALLS = 3  # of the pipeline; the first of them is slower, so one would not do


@dataclass(frozen=True)
class Case:
    """One thing to measure."""

    bundle: Path
    backend: Backend
    precision: Precision
    threads: int
    pictures: int
    quality: Quality

    def __str__(self) -> str:
        engine = f"{self.backend} {self.precision}"
        return f"{self.bundle} on {engine}, {self.threads} threads, n={self.pictures}, {self.quality}"


@dataclass(frozen=True)
class Settings:
    """What every case draws.

    Attributes:
        prompt: the call's number is appended, so that every call encodes a text not seen before.
        steps: of the sampler; None takes each bundle's own number.
        scheduler: name of the sampler; None takes each bundle's own.
        guidance_scale: up to 1 means none; None takes each bundle's own.
        runs: calls per case after the first, at least 1; each draws the case's pictures.
        starts: fresh ``nano-generate`` processes per case, at least 0.
        profile: whether to look into the graphs too.
    """

    prompt: str
    steps: int | None
    scheduler: str | None
    guidance_scale: float | None
    runs: int
    starts: int
    profile: bool


@dataclass(frozen=True)
class Step:
    """Some of the work is done."""

    what: str
    done: int
    total: int


@dataclass(frozen=True)
class Measured:
    """All samples of one case; times are milliseconds of wall clock.

    Attributes:
        case: what was measured.
        name: of the bundle.
        weights: precision of the bundle, ``"fp32"`` or ``"int8"``.
        bundle_digest: hex sha256 of its manifest.
        bundle_bytes: size of the files this engine needs.
        guided: whether each picture takes two rows of a UNet call.
        open_ms: opening the bundle, before the first call.
        first_image_ms: the first call, checksums and loading included.
        verify_ms: comparing checksums, per component.
        load_ms: making the engine ready, per component; see ``Timings``.
        image_ms: whole calls after the first, of all the case's pictures.
        first_ms: the very first run of each component.
        run_ms: each run of each component in the calls after the first.
        rows: of one run, per component; the mean where runs differ.
        peak_rss_bytes: of the process that kept all graphs loaded; None where the system does not say.
        anonymous_bytes: at its end, without what files back; None where the system does not say.
        rates: of this machine; None if the manifest does not say what the bundle has to compute.
        limit_ms: the least time of one run, per component; empty without rates.
        image_limit_ms: the least time of one call; None without rates.
        starts: of fresh processes that draw a prompt no earlier one drew; the first finds nothing kept.
        again: of one that draws the last one's prompt again; None without starts.
        profile: what a run of each component spends its time on; empty unless asked for.
    """

    case: Case
    name: str
    weights: str
    bundle_digest: str
    bundle_bytes: int
    guided: bool
    open_ms: float
    first_image_ms: float
    verify_ms: dict[str, float]
    load_ms: dict[str, float]
    image_ms: tuple[float, ...]
    first_ms: dict[str, float]
    run_ms: dict[str, tuple[float, ...]]
    rows: dict[str, float]
    peak_rss_bytes: int | None
    anonymous_bytes: int | None
    rates: Rates | None
    limit_ms: dict[str, float]
    image_limit_ms: float | None
    starts: tuple[Start, ...]
    again: Start | None
    profile: dict[str, list[GroupTime]]


def measure(cases: Sequence[Case], settings: Settings) -> Iterator[Step | Measured]:
    """Measure all cases together.

    Yields:
        A ``Step`` for every part of the work and, at the end, a ``Measured`` for every case.

    Raises:
        NanoError: a case cannot be drawn, as in ``Pipeline``.
        WorkerDiedError: a process was ended by the system.
    """
    probes = {case: _probe_arguments(case) for case in cases}
    rates: dict[tuple[int, int], Rates] = {}
    starts = settings.starts + min(settings.starts, 1)
    total = len({*probes.values()} - {None}) + len(cases) * (2 + settings.runs + starts)
    steps = count(1)
    for arguments in probes.values():
        if arguments is not None and arguments not in rates:
            rates[arguments] = _in_fresh_process(probe, *arguments)
            yield Step("this machine's limits", next(steps), total)
    workers: list[_Worker] = []
    try:
        for case in cases:
            workers.append(_Worker(case, settings))
            yield Step(f"{case}: {workers[-1].draw(0):.0f} ms", next(steps), total)
        for run in range(1, settings.runs + 1):
            for worker in workers if run % 2 else reversed(workers):
                yield Step(f"{worker.case}: {worker.draw(run):.0f} ms", next(steps), total)
        for worker in workers:
            worker.finish()
            yield Step(f"{worker.case}: memory and profile", next(steps), total)
    finally:
        for worker in workers:
            worker.stop()
    for worker in workers:
        started = []
        prompts = [f"{settings.prompt} {number}" for number in range(settings.starts)]
        with TemporaryDirectory(prefix="nano-cache-") as cache:
            for prompt in (*prompts, *prompts[-1:]):
                started.append(start(prompt, *_arguments(worker.case, settings), f"--cache={cache}"))
                yield Step(f"{worker.case}: {started[-1].first_png_ms:.0f} ms from start to PNG", next(steps), total)
        arguments = probes[worker.case]
        yield worker.measured(started, None if arguments is None else rates[arguments])


@dataclass(frozen=True)
class _About:
    """What a worker tells when it is ready to draw; ``rows`` are those of a picture's calls of each UNet graph."""

    bundle: Bundle
    guided: bool
    rows: dict[str, int]
    open_ms: float


@dataclass(frozen=True)
class _End:
    """What a worker tells at the end; see ``Measured`` for the memory."""

    peak_rss_bytes: int | None
    anonymous_bytes: int | None
    layers: dict[str, list[LayerTime]]


class _Worker:
    """The near end of a process that holds one pipeline; its samples collect here."""

    def __init__(self, case: Case, settings: Settings) -> None:
        context = multiprocessing.get_context("spawn")
        near, far = context.Pipe()
        self.case = case
        self._connection: Connection = near
        self._process: BaseProcess = context.Process(target=_work, args=(far, case, settings), daemon=True)
        with _interrupts_later():
            self._process.start()
        far.close()
        self._about: _About = self._receive()
        self._drawn: list[Timings] = []
        self._end = _End(None, None, {})

    def draw(self, run: int) -> float:
        """Have the case's pictures drawn once, and return the milliseconds it took."""
        self._connection.send(run)
        timings: Timings = self._receive()
        self._drawn.append(timings)
        return timings.total_ms

    def finish(self) -> None:
        """Ask for what the process knows at the end."""
        self._connection.send(None)
        self._end = self._receive()

    def measured(self, starts: Sequence[Start], rates: Rates | None) -> Measured:
        """Put everything together; the last of the starts, if there are any, drew a prompt again."""
        bundle, (first, *later) = self._about.bundle, self._drawn
        manifest, precision = bundle.manifest, self.case.precision
        operators = ENGINES[self.case.backend].operators
        rows = self._rows(later[0])
        work = {name: manifest.components[name].work for name in rows}
        limits = {} if rates is None else {name: limit_ms(work[name], rows[name], rates, precision) for name in rows}
        return Measured(
            case=self.case,
            name=manifest.name,
            weights=manifest.precision,
            bundle_digest=bundle.digest,
            bundle_bytes=bundle.size_bytes(self.case.backend),
            guided=self._about.guided,
            open_ms=self._about.open_ms,
            first_image_ms=first.total_ms,
            verify_ms={name: sum(samples) for name, samples in first.verify_ms.items()},
            load_ms={name: sum(samples) for name, samples in first.load_ms.items()},
            image_ms=tuple(timings.total_ms for timings in later),
            first_ms={name: samples[0] for name, samples in first.run_ms.items()},
            run_ms={name: tuple(ms for timings in later for ms in timings.run_ms[name]) for name in rows},
            rows=rows,
            peak_rss_bytes=self._end.peak_rss_bytes,
            anonymous_bytes=self._end.anonymous_bytes,
            rates=rates,
            limit_ms=limits,
            image_limit_ms=sum(limit * len(later[0].run_ms[name]) for name, limit in limits.items())
            if limits
            else None,
            starts=tuple(starts[:-1]),
            again=starts[-1] if starts else None,
            profile={
                name: group_times(layers, work[name], rows[name], rates, precision, operators=operators)
                for name, layers in self._end.layers.items()
                if name in work
            },
        )

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self._process.terminate()
        self._process.join()
        self._connection.close()

    def _rows(self, timings: Timings) -> dict[str, float]:
        """Return the batch of one run of each component that a call runs: all rows of the call over its runs."""
        runs = {name: len(samples) for name, samples in timings.run_ms.items()}
        pictures = self.case.pictures
        totals = {"vae_decoder": pictures} | {name: pictures * rows for name, rows in self._about.rows.items()}
        return {name: totals.get(name, number) / number for name, number in runs.items()}

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
    """Let Ctrl-C wait: a process that is started meanwhile never gets it, not even while it imports what it needs."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(connection: Connection, case: Case, settings: Settings) -> None:
    """Draw for every number that comes; None asks for the end. Runs in a fresh process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the near end decides
    try:
        watch = Stopwatch()
        pipe = Pipeline.from_pretrained(case.bundle, case.backend, case.threads, case.precision)
        plan = pipe.plan(
            settings.prompt,
            num_inference_steps=settings.steps,
            scheduler=settings.scheduler,
            guidance_scale=settings.guidance_scale,
            quality=case.quality,
        )
        rows = {"unet": 0, "unet_shallow": 0}
        for call in plan.calls:
            rows[call.component] += call.rows(1)
        connection.send(_About(pipe.bundle, plan.guidance_scale > 1, rows, watch.timings().total_ms))
        while (run := connection.recv()) is not None:
            connection.send(_draw(pipe, case, settings, run))
        memory = peak_rss_bytes(), anonymous_bytes()
        pipe.close()
        layers = _layers(case, settings) if settings.profile else {}
        connection.send(_End(*memory, layers))
    except NanoError as error:
        connection.send(error)


def _draw(pipe: Pipeline, case: Case, settings: Settings, run: int) -> Timings:
    """Draw the case's pictures once."""
    result = pipe(
        f"{settings.prompt}, {run}",
        num_inference_steps=settings.steps,
        scheduler=settings.scheduler,
        guidance_scale=settings.guidance_scale,
        quality=case.quality,
        seed=run,
        num_images_per_prompt=case.pictures,
    )
    return result.timings


def _layers(case: Case, settings: Settings) -> dict[str, list[LayerTime]]:
    """Draw with engines that note what each operator takes."""
    stages = LoadedGraphs(
        Bundle.open(case.bundle), case.backend, EngineOptions(case.threads, case.precision, profile=True)
    )
    pipe = Pipeline(stages, keep_loaded=True)
    for run in range(_PROFILED_CALLS):
        _draw(pipe, case, settings, run)
    return stages.layer_times()


def _arguments(case: Case, settings: Settings) -> list[str]:
    """Return what ``nano-generate`` needs to know, besides the prompt, to draw the same."""
    wishes = {"steps": settings.steps, "scheduler": settings.scheduler, "guidance": settings.guidance_scale}
    return [
        f"--bundle={case.bundle}",
        f"--backend={case.backend}",
        f"--precision={case.precision}",
        f"--threads={case.threads}",
        f"--count={case.pictures}",
        f"--quality={case.quality}",
        *(f"--{option}={value}" for option, value in wishes.items() if value is not None),
    ]


def _probe_arguments(case: Case) -> tuple[int, int] | None:
    """Return what the limits of a case depend on; None if its manifest does not say what it has to compute."""
    work = Bundle.open(case.bundle).component("unet").work
    return (case.threads, min(LARGEST_READ_BYTES, sum(group.weight_bytes for group in work))) if work else None


def _in_fresh_process(function: Callable[[int, int], Rates], *arguments: int) -> Rates:
    """Call a function in a process of its own, so that what it leaves in memory goes with it."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise WorkerDiedError("the probe of this machine", None) from error
