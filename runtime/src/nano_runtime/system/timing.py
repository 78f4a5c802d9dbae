"""A stopwatch with named samples: the only file that reads a clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

__all__ = ["Stopwatch", "Timings", "percentile"]


@dataclass(frozen=True)
class Timings:
    """Durations of the parts of one call, in milliseconds of wall clock.

    Attributes:
        total_ms: the whole call, loading included.
        verify_ms: per component that this call had to check, comparing its files with their checksums.
        load_ms: per component that this call had to load, loading it into the engine. For one that was loaded ahead,
            only the time that the call waited for it, checksums included.
        run_ms: per component, one sample for each time its graph ran, in order. Prompts and schedules the pipeline has
            seen before do not run their graphs again.
    """

    total_ms: float
    verify_ms: Mapping[str, tuple[float, ...]]
    load_ms: Mapping[str, tuple[float, ...]]
    run_ms: Mapping[str, tuple[float, ...]]

    @classmethod
    def joined(cls, parts: Sequence[Timings]) -> Timings:
        """Return the timings of calls in a row as those of one call."""
        return cls(
            total_ms=sum(part.total_ms for part in parts),
            verify_ms=_joined([part.verify_ms for part in parts]),
            load_ms=_joined([part.load_ms for part in parts]),
            run_ms=_joined([part.run_ms for part in parts]),
        )


class Stopwatch:
    """Collects samples by (kind, name) from its creation on; a stopwatch belongs to one call."""

    def __init__(self) -> None:
        self._start = perf_counter()
        self._samples: dict[tuple[str, str], list[float]] = {}

    @contextmanager
    def time(self, kind: str, name: str) -> Iterator[None]:
        """Add the duration of the ``with`` block, if it ends without an error."""
        start = perf_counter()
        yield
        self.add(kind, name, (perf_counter() - start) * 1e3)

    def add(self, kind: str, name: str, ms: float) -> None:
        """Add a duration in milliseconds, which was measured in another process."""
        self._samples.setdefault((kind, name), []).append(ms)

    def timings(self) -> Timings:
        """Return all samples so far, and the time since the stopwatch was made."""
        return Timings(
            total_ms=(perf_counter() - self._start) * 1e3,
            verify_ms=self._of("verify"),
            load_ms=self._of("load"),
            run_ms=self._of("run"),
        )

    def _of(self, kind: str) -> dict[str, tuple[float, ...]]:
        # A preview may be drawn meanwhile, in another thread: only a copy can be walked through.
        return {name: tuple(values) for (of, name), values in self._samples.copy().items() if of == kind}


def _joined(parts: Sequence[Mapping[str, tuple[float, ...]]]) -> dict[str, tuple[float, ...]]:
    """Put the samples of each name in a row."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: tuple(sample for part in parts for sample in part.get(name, ())) for name in names}


def percentile(samples: Sequence[float], percent: float) -> float:
    """Return a percentile by linear interpolation between the two nearest ranks, as numpy's default.

    Args:
        samples: at least one value, in any order.
        percent: 0 to 100.
    """
    ordered = sorted(samples)
    position = (len(ordered) - 1) * percent / 100
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)
