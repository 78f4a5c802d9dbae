"""Measures cases against each other: one process each, calls drawn in turns, every sample kept.

A laptop slows down as it warms up, so engines measured one after the other are not comparable. Here all are loaded
first and then draw one call each, forth and back.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

from nano_runtime.benchmark.cold_start import Start, start
from nano_runtime.benchmark.layers import group_times
from nano_runtime.benchmark.limits import Rates, limit_ms
from nano_runtime.benchmark.probe import LARGEST_READ_BYTES
from nano_runtime.benchmark.records import Case, Measured, Settings, Step
from nano_runtime.benchmark.worker import Worker, answer_of, started
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.wiring import UNET, VAE_DECODER
from nano_runtime.drawing.neutral import with_plain_pictures
from nano_runtime.engines import ENGINES
from nano_runtime.options import DrawOptions
from nano_runtime.pictures.png import save_png
from nano_runtime.system.confinement import Confinement, memory_for_child

__all__ = ["measure"]

_Probe: TypeAlias = tuple[int, int]  # arguments of ``probe``


def measure(cases: Sequence[Case], settings: Settings) -> Iterator[Step | Measured]:
    """Measure all cases together.

    Yields:
        A ``Step`` for every part of the work and, at the end, a ``Measured`` for every case.

    Raises:
        NanoError: a case cannot be drawn, as in ``Pipeline``.
        WorkerDiedError: a process was ended by the system.
    """
    probes = {case: _probe_of(case) for case in cases}
    distinct = {probe for probe in probes.values() if probe is not None}
    steps = _Steps(len(distinct) + len(cases) * (2 + settings.runs + len(_prompts_of_starts(settings))))
    rates = yield from _probe_machine(dict.fromkeys(probes.values()), steps)
    workers = yield from _draw_in_turns(cases, settings, steps)
    for worker in workers:
        starts = yield from _start_fresh(worker.case, settings, steps)
        yield _summary(worker, starts, rates[probes[worker.case]])


@dataclass
class _Steps:
    """Counts the steps of the work."""

    total: int
    _done: Iterator[int] = field(default_factory=lambda: count(1))

    def next(self, what: str) -> Step:
        return Step(what, next(self._done), self.total)


def _probe_machine(
    probes: Iterable[_Probe | None], steps: _Steps
) -> Generator[Step, None, dict[_Probe | None, Rates | None]]:
    """Measure the best rates of this machine; return them by the arguments of the probe, None for None."""
    rates: dict[_Probe | None, Rates | None] = {None: None}
    for arguments in probes:
        if arguments is not None:
            rates[arguments] = _probed(arguments)
            yield steps.next("this machine's limits")
    return rates


def _draw_in_turns(cases: Sequence[Case], settings: Settings, steps: _Steps) -> Generator[Step, None, list[Worker]]:
    """Load all cases, have them draw in turns, and return the workers with their samples; their processes are over."""
    workers: list[Worker] = []
    try:
        for case in cases:
            workers.append(Worker(case, settings))
            yield steps.next(f"{case}: {workers[-1].draw(0):.0f} ms")
        for run in range(1, settings.runs + 1):
            for worker in workers if run % 2 else reversed(workers):
                yield steps.next(f"{worker.case}: {worker.draw(run):.0f} ms")
        for worker in workers:
            worker.finish()
            yield steps.next(f"{worker.case}: memory and profile")
    finally:
        for worker in workers:
            worker.stop()
    return workers


def _start_fresh(case: Case, settings: Settings, steps: _Steps) -> Generator[Step, None, list[Start]]:
    """Time fresh processes that share one cache, and return them in order."""
    started: list[Start] = []
    with TemporaryDirectory(prefix="nano-cache-") as cache:
        pictures = _pictures(case, Path(cache))
        for prompt in _prompts_of_starts(settings):
            started.append(start(prompt, *_arguments(case, settings), *pictures, f"--cache={cache}"))
            yield steps.next(f"{case}: {started[-1].first_png_ms:.0f} ms from start to PNG")
    return started


def _prompts_of_starts(settings: Settings) -> list[str]:
    """Return the prompts of the fresh processes: a new one each, and at the end the last one again."""
    prompts = [f"{settings.prompt} {number}" for number in range(settings.starts)]
    return [*prompts, *prompts[-1:]]


def _arguments(case: Case, settings: Settings) -> list[str]:
    """Return the arguments with which ``nano-generate`` draws a case, except the prompt."""
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


def _pictures(case: Case, folder: Path) -> list[str]:
    """Write the plain pictures that a case's bundle needs into a folder, and return the arguments that name them."""
    needed = with_plain_pictures(DrawOptions(), Bundle.open(case.bundle).manifest)
    arguments: list[str] = []
    for option, picture in (("image", needed.image), ("mask", needed.mask_image)):
        if picture is not None:
            save_png(picture, folder / f"{option}.png")
            arguments.append(f"--{option}={folder / option}.png")
    return arguments


def _summary(worker: Worker, starts: Sequence[Start], rates: Rates | None) -> Measured:
    """Put the samples of a case together; the last of the starts, if there are any, repeated a prompt."""
    case, about, (first, *later) = worker.case, worker.about, worker.drawn
    manifest, operators = about.bundle.manifest, ENGINES[case.backend].operators
    rows = _rows(worker)
    work = {name: manifest.components[name].work for name in rows}
    limits: dict[str, float] = {}
    if rates is not None:
        limits = {name: limit_ms(work[name], rows[name], rates, case.precision) for name in rows}
    return Measured(
        case=case,
        name=manifest.name,
        weights=manifest.precision,
        bundle_digest=about.bundle.digest,
        bundle_bytes=about.bundle.size_bytes(case.backend),
        guided=about.guided,
        open_ms=about.open_ms,
        first_image_ms=first.total_ms,
        verify_ms={name: sum(samples) for name, samples in first.verify_ms.items()},
        load_ms={name: sum(samples) for name, samples in first.load_ms.items()},
        image_ms=tuple(timings.total_ms for timings in later),
        first_ms={name: samples[0] for name, samples in first.run_ms.items()},
        run_ms={name: tuple(ms for timings in later for ms in timings.run_ms[name]) for name in rows},
        rows=rows,
        peak_rss_bytes=worker.end.peak_rss_bytes,
        anonymous_bytes=worker.end.anonymous_bytes,
        rates=rates,
        limit_ms=limits,
        image_limit_ms=sum(ms * len(later[0].run_ms[name]) for name, ms in limits.items()) if limits else None,
        starts=tuple(starts[:-1]),
        again=starts[-1] if starts else None,
        profile={
            name: group_times(layers, work[name], rows[name], rates, case.precision, operators=operators)
            for name, layers in worker.end.layers.items()
            if name in work
        },
    )


def _rows(worker: Worker) -> dict[str, float]:
    """Return the batch of one run of each component that a usual call runs: all rows of the call over its runs."""
    pictures = worker.case.pictures
    totals = {VAE_DECODER: pictures} | {name: pictures * rows for name, rows in worker.about.rows.items()}
    runs = {name: len(samples) for name, samples in worker.drawn[1].run_ms.items()}
    return {name: totals.get(name, number) / number for name, number in runs.items()}


def _probe_of(case: Case) -> _Probe | None:
    """Return the arguments of the probe that a case's limits need; None if its manifest does not count its work."""
    work = Bundle.open(case.bundle).component(UNET).work
    return (case.threads, min(LARGEST_READ_BYTES, sum(group.weight_bytes for group in work))) if work else None


def _probed(arguments: _Probe) -> Rates:
    """Probe the machine in a process of its own, which frees all its memory at its end."""
    child = started(
        "nano_runtime.benchmark.probe_process", list(map(str, arguments)), Confinement((), (), memory_for_child())
    )
    try:
        return answer_of(child, "the probe of this machine", None, lambda answer: Rates(**answer["rates"]))
    finally:
        child.kill()
