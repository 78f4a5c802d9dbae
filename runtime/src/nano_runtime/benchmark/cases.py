"""The cases of a benchmark: every combination of bundles, engines, threads, pictures and qualities."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

from nano_runtime.benchmark.records import Case
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import Backend, Quality
from nano_runtime.engines import BACKENDS, installed
from nano_runtime.engines.base import PRECISIONS, Precision
from nano_runtime.errors import BackendMissingError, OptionError
from nano_runtime.system.processors import thread_count
from nano_runtime.values import positive

__all__ = ["cases_of"]


def cases_of(
    bundles: Sequence[Path],
    digests: Sequence[str] | None,
    *,
    engines: Sequence[str] | None,
    precision: Precision,
    threads: Sequence[int] | None,
    counts: Sequence[int],
    qualities: Sequence[Quality] | None,
) -> list[Case]:
    """Return all combinations, each once.

    Args:
        bundles: folders.
        digests: of the bundles that are expected there, in their order; None expects none.
        engines: names, alone or with a precision (``"openvino:bf16"``); None takes all that are installed and that a
            bundle has graphs for.
        precision: of engines that are named without one.
        threads: numbers of threads; None takes one per performance core.
        counts: numbers of pictures per call.
        qualities: None takes ``"exact"``.

    Raises:
        OptionError: a value is not one of its choices, or the digests are not as many as the bundles.
        NotABundleError, ManifestError, DigestError: a folder is not the expected bundle.
        BackendMissingError: no engine is installed that a bundle has graphs for.
    """
    known = _engines(precision)
    asked = [None] if threads is None else [positive("threads", number) for number in threads]
    numbers = [thread_count(number) for number in asked]
    pictures = [positive("num_images_per_prompt", number) for number in counts]
    expected = [None] * len(bundles) if digests is None else digests
    if len(expected) != len(bundles):
        raise OptionError("expect_digests", f"{len(expected)} digests", [f"{len(bundles)}, one for each DIR"])
    levels = ("exact",) if qualities is None else qualities
    cases = []
    for path, digest in zip(bundles, expected, strict=True):
        usable = _usable(path, digest)
        names = usable if engines is None else engines
        for name, number, count, quality in product(names, numbers, pictures, levels):
            if name not in known:
                raise OptionError("backends", name, known)
            cases.append(Case(path, *known[name], threads=number, pictures=count, quality=quality))
    return list(dict.fromkeys(cases))


def _engines(precision: Precision) -> dict[str, tuple[Backend, Precision]]:
    """Return all engines by the names that a user may give them, alone or with a precision."""
    known: dict[str, tuple[Backend, Precision]] = {}
    for backend in BACKENDS:
        known[backend] = (backend, precision)
        known |= {f"{backend}:{other}": (backend, other) for other in PRECISIONS}
    return known


def _usable(path: Path, digest: str | None) -> list[Backend]:
    """Return the installed engines that a bundle has graphs for."""
    served = Bundle.open(path, digest).manifest.backends
    usable = [name for name in served if installed(name)]
    if not usable:
        raise BackendMissingError(served[0])
    return usable
