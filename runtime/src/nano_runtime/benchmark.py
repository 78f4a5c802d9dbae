"""Time bundles and engines against each other: one process each, images drawn in turns, every sample kept.

A laptop slows down as it warms up, so engines measured one after the other are not comparable. Here all are loaded
first, each in a fresh process of its own (memory peaks are those of one engine), and then draw one image each, forth
and back.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from nano_runtime.backends.base import Precision
from nano_runtime.errors import NanoError, WorkerDiedError
from nano_runtime.machine import peak_rss_bytes
from nano_runtime.manifest import Backend
from nano_runtime.pipeline import Pipeline
from nano_runtime.timing import Stopwatch, Timings

__all__ = ["Case", "Drawn", "Measured", "Settings", "measure"]


@dataclass(frozen=True)
class Case:
    """One thing to measure."""

    bundle: Path
    backend: Backend
    precision: Precision

    def __str__(self) -> str:
        return f"{self.bundle} on {self.backend} {self.precision}"


@dataclass(frozen=True)
class Settings:
    """What every case draws.

    Attributes:
        prompt: the run's number is appended, so that every image encodes a text not seen before.
        steps: of the bundle's own sampler.
        guidance_scale: up to 1 means none.
        runs: images per case after the first, at least 1.
        threads: None means one per physical core.
    """

    prompt: str
    steps: int
    guidance_scale: float
    runs: int
    threads: int | None


@dataclass(frozen=True)
class Drawn:
    """A case drew an image; run 0 is the first one, which loads the graphs."""

    case: Case
    run: int
    total_ms: float


@dataclass(frozen=True)
class Measured:
    """All samples of one case; times are milliseconds of wall clock.

    Attributes:
        case: what was measured.
        name: of the bundle.
        weights: precision of the bundle, ``"fp32"`` or ``"int8"``.
        bundle_digest: hex sha256 of its manifest.
        bundle_bytes: size of the files this engine needs.
        threads: of the engine.
        open_ms: opening the bundle and reading the tokenizer, before the first image.
        first_image_ms: the first image, checksums and loading included.
        verify_ms: comparing checksums, per component.
        load_ms: making the engine ready, per component.
        image_ms: whole images after the first.
        text_encoder_ms: one text.
        unet_first_ms: the very first UNet call.
        unet_step_ms: each UNet call of the images after the first; with guidance it computes two rows.
        vae_decoder_ms: one image each, after the first.
        peak_rss_bytes: of the process; None where the system does not say.
    """

    case: Case
    name: str
    weights: str
    bundle_digest: str
    bundle_bytes: int
    threads: int
    open_ms: float
    first_image_ms: float
    verify_ms: dict[str, float]
    load_ms: dict[str, float]
    image_ms: tuple[float, ...]
    text_encoder_ms: tuple[float, ...]
    unet_first_ms: float
    unet_step_ms: tuple[float, ...]
    vae_decoder_ms: tuple[float, ...]
    peak_rss_bytes: int | None


def measure(cases: Sequence[Case], settings: Settings) -> Iterator[Drawn | Measured]:
    """Measure all cases together.

    Yields:
        A ``Drawn`` for every image and, at the end, a ``Measured`` for every case.

    Raises:
        NanoError: a case cannot be drawn, as in ``Pipeline``.
        WorkerDiedError: a process was ended by the system.
    """
    workers: list[_Worker] = []
    try:
        for case in cases:
            workers.append(_Worker(case, settings))
            yield Drawn(case, 0, workers[-1].draw(0).total_ms)
        for run in range(1, settings.runs + 1):
            for worker in workers if run % 2 else reversed(workers):
                yield Drawn(worker.case, run, worker.draw(run).total_ms)
        for worker in workers:
            yield worker.measured()
    finally:
        for worker in workers:
            worker.stop()


@dataclass(frozen=True)
class _About:
    """What a worker tells of its pipeline."""

    name: str
    weights: str
    bundle_digest: str
    bundle_bytes: int
    threads: int
    open_ms: float


class _Worker:
    """The near end of a process that holds one pipeline; its samples collect here."""

    def __init__(self, case: Case, settings: Settings) -> None:
        context = multiprocessing.get_context("spawn")
        near, far = context.Pipe()
        self.case = case
        self._connection: Connection = near
        self._process: BaseProcess = context.Process(target=_work, args=(far, case, settings), daemon=True)
        self._process.start()
        far.close()
        self._about: _About = self._receive()
        self._drawn: list[Timings] = []

    def draw(self, run: int) -> Timings:
        """Have one image drawn."""
        self._connection.send(run)
        timings: Timings = self._receive()
        self._drawn.append(timings)
        return timings

    def measured(self) -> Measured:
        """Put all samples together, and ask for the memory peak."""
        self._connection.send(None)
        first, later = self._drawn[0], self._drawn[1:]
        return Measured(
            case=self.case,
            name=self._about.name,
            weights=self._about.weights,
            bundle_digest=self._about.bundle_digest,
            bundle_bytes=self._about.bundle_bytes,
            threads=self._about.threads,
            open_ms=self._about.open_ms,
            first_image_ms=first.total_ms,
            verify_ms={name: sum(samples) for name, samples in first.verify_ms.items()},
            load_ms={name: sum(samples) for name, samples in first.load_ms.items()},
            image_ms=tuple(timings.total_ms for timings in later),
            text_encoder_ms=_all(later, "text_encoder"),
            unet_first_ms=first.run_ms["unet"][0],
            unet_step_ms=_all(later, "unet"),
            vae_decoder_ms=_all(later, "vae_decoder"),
            peak_rss_bytes=self._receive(),
        )

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


def _work(connection: Connection, case: Case, settings: Settings) -> None:
    """Draw one image for every number that comes; None asks for the memory peak and ends. Runs in a fresh process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the near end decides
    try:
        watch = Stopwatch()
        pipe = Pipeline.from_pretrained(case.bundle, case.backend, settings.threads, case.precision)
        bundle = pipe.bundle
        connection.send(
            _About(
                name=bundle.manifest.name,
                weights=bundle.manifest.precision,
                bundle_digest=bundle.digest,
                bundle_bytes=bundle.size_bytes(case.backend),
                threads=pipe.options.threads,
                open_ms=watch.timings().total_ms,
            )
        )
        while (run := connection.recv()) is not None:
            result = pipe(
                f"{settings.prompt}, {run}",
                num_inference_steps=settings.steps,
                guidance_scale=settings.guidance_scale,
                seed=run,
            )
            connection.send(result.timings)
        connection.send(peak_rss_bytes())
    except NanoError as error:
        connection.send(error)


def _all(drawn: Sequence[Timings], component: str) -> tuple[float, ...]:
    """Return all run samples of one component, in order."""
    return tuple(sample for timings in drawn for sample in timings.run_ms.get(component, ()))
