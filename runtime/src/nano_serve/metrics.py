"""Counts what the server does, and writes it in Prometheus' text format (0.0.4)."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["Metrics"]

_STATM: Final = Path("/proc/self/statm")
_HELP: Final[Mapping[str, tuple[str, str]]] = {
    "nano_jobs_total": ("counter", "Jobs that ended, by outcome."),
    "nano_pictures_total": ("counter", "Pictures that were written."),
    "nano_http_requests_total": ("counter", "Requests, by route and status."),
    "nano_queue_wait_seconds": ("summary", "Time from a job's request to its beginning."),
    "nano_draw_seconds": ("summary", "Time from a job's beginning to its end."),
    "nano_load_seconds": ("summary", "Time to the first UNet call of a bundle that was not loaded."),
    "nano_queue_depth": ("gauge", "Jobs that wait."),
    "nano_rss_bytes": ("gauge", "Memory of this process."),
}


class Metrics:
    """Counters and sums by name and labels. All threads may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], float] = {}

    def count(self, name: str, **labels: str) -> None:
        """Add one to a counter."""
        self._add(name, labels, 1)

    def observe(self, name: str, value: float) -> None:
        """Add a value to a sum, and one to its number."""
        self._add(f"{name}_sum", {}, value)
        self._add(f"{name}_count", {}, 1)

    def text(self, **gauges: float) -> str:
        """Return all numbers.

        Args:
            **gauges: of this moment, by name.
        """
        with self._lock:
            counts = dict(self._counts)
        if (rss := _rss_bytes()) is not None:
            gauges["nano_rss_bytes"] = rss
        counts |= {(name, ""): value for name, value in gauges.items()}
        lines: list[str] = []
        for name, (kind, about) in _HELP.items():
            lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
            for (counted, labels), value in sorted(counts.items()):
                if counted.removesuffix("_sum").removesuffix("_count") == name:
                    lines.append(f"{counted}{labels} {value:g}")
        return "\n".join(lines) + "\n"

    def _add(self, name: str, labels: Mapping[str, str], value: float) -> None:
        inner = ",".join(f'{label}="{text}"' for label, text in labels.items())
        key = name, f"{{{inner}}}" if inner else ""
        with self._lock:
            self._counts[key] = self._counts.get(key, 0) + value


def _rss_bytes() -> int | None:
    """Return the memory of this process; None where the system does not say."""
    with suppress(OSError, ValueError, IndexError, AttributeError):
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return None
