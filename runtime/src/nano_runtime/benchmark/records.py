"""The records of a benchmark: its cases, its settings, and the samples of each case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nano_runtime.benchmark.cold_start import Start
from nano_runtime.benchmark.layers import GroupTime
from nano_runtime.benchmark.limits import Rates
from nano_runtime.bundle.manifest import Backend, Manifest, Quality
from nano_runtime.drawing.neutral import with_plain_pictures
from nano_runtime.engines.base import Precision
from nano_runtime.options import DrawOptions
from nano_runtime.system.machine import Machine

__all__ = ["Case", "Measured", "Settings", "Step", "as_document"]


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
    """The drawing that all cases repeat.

    Attributes:
        prompt: the call's number is appended, so that every call encodes a new text.
        steps: of the sampler; None takes each bundle's own number.
        scheduler: name of the sampler; None takes each bundle's own.
        guidance_scale: up to 1 means none; None takes each bundle's own.
        runs: calls per case after the first, at least 1; each draws the case's pictures.
        starts: fresh ``nano-generate`` processes per case, at least 0.
        profile: whether to time the operators inside the graphs too.
    """

    prompt: str
    steps: int | None
    scheduler: str | None
    guidance_scale: float | None
    runs: int
    starts: int
    profile: bool

    def options(self, case: Case, run: int, manifest: Manifest) -> DrawOptions:
        """Return the picture options of one call of a case; each run has a prompt and a seed of its own.

        Bundles that need a picture get a plain one.
        """
        options = DrawOptions(
            prompt=f"{self.prompt}, {run}",
            seed=run,
            num_inference_steps=self.steps,
            scheduler=self.scheduler,
            guidance_scale=self.guidance_scale,
            quality=case.quality,
            num_images_per_prompt=case.pictures,
        )
        return with_plain_pictures(options, manifest)


@dataclass(frozen=True)
class Step:
    """Progress: a part of the work that is done."""

    what: str
    done: int
    total: int


@dataclass(frozen=True)
class Measured:
    """All samples of one case; times are milliseconds of wall clock.

    Attributes:
        case: the case.
        name: of the bundle.
        weights: precision of the bundle, ``"fp32"`` or ``"int8"``.
        bundle_digest: hex sha256 of its manifest.
        bundle_bytes: size of the files this engine needs.
        guided: whether each picture takes several rows of a UNet call.
        open_ms: opening the bundle, before the first call.
        first_image_ms: the first call, with checksums and loading.
        verify_ms: comparing checksums, per component.
        load_ms: loading into the engine, per component; see ``Timings``.
        image_ms: each call after the first, of all the case's pictures.
        first_ms: the very first run of each component.
        run_ms: each run of each component in the calls after the first.
        rows: batch of one run, per component; the mean where runs differ.
        peak_rss_bytes: of the process that kept all graphs loaded; None where the system does not say.
        anonymous_bytes: memory at its end that no file backs; None where the system does not say.
        rates: of this machine; None if the manifest does not say what the bundle has to compute.
        limit_ms: the least time of one run, per component; empty without rates.
        image_limit_ms: the least time of one call; None without rates.
        starts: fresh processes, each with a new prompt; the first finds an empty cache.
        again: a fresh process that repeats the last one's prompt; None without starts.
        profile: time by groups of operators in one run, per component; empty unless asked for.
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


def as_document(machine: Machine, settings: Settings, results: Sequence[Measured]) -> dict[str, Any]:
    """Return everything that was measured as one document for JSON, with units in the keys."""
    return {
        "format": "nano-bench 1",
        "machine": asdict(machine),
        "settings": asdict(settings),
        "results": [asdict(result) for result in results],
    }
