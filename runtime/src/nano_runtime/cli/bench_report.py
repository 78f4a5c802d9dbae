"""Prints the report of ``nano-bench``: measurements as Markdown tables, each beside the least time possible."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nano_runtime.benchmark import Measured, Settings
from nano_runtime.benchmark.layers import GroupTime
from nano_runtime.benchmark.limits import Rates
from nano_runtime.cli import megabytes
from nano_runtime.errors.escaping import escaped
from nano_runtime.system.machine import Machine
from nano_runtime.system.timing import percentile

__all__ = ["print_report"]

_WHOLE_MS = 10  # below this, times get two decimals
_UNKNOWN = "?"
_LIMITS = ("least ms", "times least")  # the least time that the products and the memory of this machine allow
_SHOWN_SHARE = 0.005  # kinds of operators that take less than this part of a graph's time share a row


def print_report(machine: Machine, settings: Settings, results: Sequence[Measured]) -> None:
    """Print whole calls, starts and memory, graphs, profiles if there are any, and the conditions of all of it."""
    print("Whole calls of a loaded pipeline, from prompt to pictures")
    _print_table(("case", "median ms", "p90 ms", *_LIMITS, "pictures/min", "first call ms"), map(_call, results))
    print("\nFresh processes of nano-generate, from start to file, and their memory; then that of the loaded pipeline")
    _print_table(
        (
            "case",
            "first start ms",
            "later ms",
            "same prompt ms",
            "peak MB",
            "without files MB",
            "loaded: peak MB",
            "without files MB",
            "bundle MB",
        ),
        map(_start, results),
    )
    print(
        "\nGraphs of a call: how often each runs, for how many rows (with guidance two a picture), and each run's time"
    )
    _print_table(
        ("case", "graph", "runs", "rows", "load ms", "first ms", "median ms", "p90 ms", *_LIMITS),
        (row for result in results for row in _graphs(result)),
    )
    for result in results:
        for component, groups in result.profile.items():
            print(f"\nInside {escaped(component)} of {escaped(_name(result))}")
            _print_table(("group", "operators", "ms", "share", *_LIMITS), _groups(groups))
    print()
    _print_conditions(machine, settings, results)


def _call(result: Measured) -> tuple[str, ...]:
    """Return the row of a whole call."""
    usual = percentile(result.image_ms, 50)
    return (
        _name(result),
        _ms(usual),
        _ms(percentile(result.image_ms, 90)),
        *_against(usual, result.image_limit_ms),
        f"{60e3 * result.case.pictures / usual:.1f}",
        _ms(result.first_image_ms),
    )


def _start(result: Measured) -> tuple[str, ...]:
    """Return the row of the first start, the quickest later one, the one that repeats a prompt, and of memory."""
    starts = result.starts
    later = min(starts[1:] if len(starts) > 1 else starts, key=lambda start: start.first_png_ms, default=None)
    return (
        _name(result),
        _UNKNOWN if later is None else _ms(starts[0].first_png_ms),
        _UNKNOWN if later is None else _ms(later.first_png_ms),
        _UNKNOWN if result.again is None else _ms(result.again.first_png_ms),
        _memory(None if later is None else later.peak_rss_bytes),
        _memory(None if later is None else later.peak_anonymous_bytes),
        _memory(result.peak_rss_bytes),
        _memory(result.anonymous_bytes),
        _memory(result.bundle_bytes),
    )


def _graphs(result: Measured) -> Iterable[tuple[str, ...]]:
    """Return a row for each component that a call runs."""
    for component, samples in result.run_ms.items():
        yield (
            _name(result),
            component,
            str(len(samples) // len(result.image_ms)),
            f"{result.rows[component]:g}",
            _ms(result.load_ms[component]),
            _ms(result.first_ms[component]),
            _ms(percentile(samples, 50)),
            _ms(percentile(samples, 90)),
            *_against(percentile(samples, 50), result.limit_ms.get(component)),
        )


def _groups(groups: Sequence[GroupTime]) -> Iterable[tuple[str, ...]]:
    """Return a row for each group that matters, one for all others, and the sum."""
    total = sum(group.ms for group in groups)
    rare = [group for group in groups if group.limit_ms is None and group.ms < total * _SHOWN_SHARE]
    rest = GroupTime(
        f"{len(rare)} other kinds", sum(group.operators for group in rare), sum(group.ms for group in rare), None
    )
    limits = [group.limit_ms for group in groups if group.limit_ms is not None]
    everything = GroupTime("all", sum(group.operators for group in groups), total, sum(limits) if limits else None)
    shown = [*(group for group in groups if group not in rare), *([rest] if rare else []), everything]
    for group in shown:
        share = f"{100 * group.ms / total:.1f} %"
        yield group.name, str(group.operators), f"{group.ms:.2f}", share, *_against(group.ms, group.limit_ms)


def _print_conditions(machine: Machine, settings: Settings, results: Sequence[Measured]) -> None:
    """Print the conditions of the figures, and what the columns mean."""
    isa = "instruction sets unknown" if machine.isa is None else " ".join(machine.isa)
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    steps = "each bundle's number of" if settings.steps is None else settings.steps
    sampler = "" if settings.scheduler is None else f" of {settings.scheduler}"
    calls = f"{settings.runs} {'call' if settings.runs == 1 else 'calls'} after the first, in turns"
    starts = f"{settings.starts} {'start' if settings.starts == 1 else 'starts'}"
    print(f"{steps} steps{sampler}; {calls}; {starts}. p90: nine of ten are no slower. Peak: resident at most (RSS).")
    print("Without files: anonymous memory; files that are mapped, as weights are, can be read again.")
    for line in dict.fromkeys(_limits(result.rates) for result in results if result.rates is not None):
        print(line)
    if any(result.rates is None for result in results):
        print("A bundle without limits was exported before they were known: export it again.")
    print(f"{machine.cpu}, {machine.cores} cores, {isa}.")
    print(f"{machine.system}, Python {machine.python}, {versions}.")


def _limits(rates: Rates) -> str:
    """Return the rates with which the least times were computed, as a line."""
    products = [
        f"{arithmetic} {rate / 1e9:.0f} GMAC/s ({backend})"
        for arithmetic, by_backend in rates.macs_per_s.items()
        for backend, rate in by_backend.items()
    ]
    reads = f"reading {megabytes(rates.read_bytes, 0)} MB {rates.read_bytes_per_s / 1e9:.1f} GB/s"
    return f"Least: what {rates.threads} threads of this machine allow: {', '.join(products)}, {reads}."


def _print_table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Print a Markdown table with aligned columns."""
    table = [columns, *(tuple(map(escaped, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in (columns, ["-" * width for width in widths], *table[1:]):
        print("|", " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)), "|")


def _name(result: Measured) -> str:
    """Return a case in few words."""
    case = result.case
    threads = f"{case.threads} {'thread' if case.threads == 1 else 'threads'}"
    engine = f"{case.backend} {case.precision}, {threads}, n={case.pictures}"
    return f"{result.name} {result.weights}, {engine}" + ("" if case.quality == "exact" else f", {case.quality}")


def _against(ms: float, limit_ms: float | None) -> tuple[str, str]:
    """Return the least time and how many times that a measured one is."""
    if limit_ms is None:
        return "", ""
    return _ms(limit_ms), f"{ms / limit_ms:.2f}"


def _ms(ms: float) -> str:
    return f"{ms:.0f}" if ms >= _WHOLE_MS else f"{ms:.2f}"


def _memory(size: int | None) -> str:
    """Return a cell of the table; the column names the unit."""
    return _UNKNOWN if size is None else megabytes(size, 0)
