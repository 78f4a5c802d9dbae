"""The table of figures: each has a number, what it asks for, and a function that measures it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

__all__ = ["FIGURES", "Choices", "Figure", "Measured", "figure", "highest", "p"]


@dataclass(frozen=True)
class Choices:
    """What the command line chose.

    Attributes:
        count: of repetitions; None takes the figure's own.
        bundle: folder of a real bundle; None is the demo.
        threads: of the engine.
        schemathesis: the program; None leaves V13 out.
        options: further options of ``nano-serve``, where a real model draws.
    """

    count: int | None = None
    bundle: Path | None = None
    threads: int = 2
    schemathesis: Path | None = None
    options: tuple[str, ...] = ()

    @property
    def serving(self) -> tuple[str, ...]:
        """Options of ``nano-serve`` with a real model."""
        return ("--threads", str(self.threads), *self.options)


@dataclass(frozen=True)
class Measured:
    """What was measured, in words, and whether it is what was proposed."""

    text: str
    holds: bool


@dataclass(frozen=True)
class Figure:
    """A figure of the table.

    Attributes:
        name: "V1" to "V23", with a letter where a figure has parts.
        title: what is measured.
        proposed: the value that was proposed.
        count: repetitions.
        timed: needs a quiet machine.
        measure: measures it, so many times.
    """

    name: str
    title: str
    proposed: str
    count: int
    timed: bool
    measure: Callable[[Choices, int], Measured]


FIGURES: dict[str, Figure] = {}


def figure(
    name: str, title: str, proposed: str, count: int, *, timed: bool = False
) -> Callable[[Callable[[Choices, int], Measured]], Callable[[Choices, int], Measured]]:
    """Add a figure to the table; see ``Figure``."""

    def add(measure: Callable[[Choices, int], Measured]) -> Callable[[Choices, int], Measured]:
        FIGURES[name] = Figure(name, title, proposed, count, timed, measure)
        return measure

    return add


def p(values: Sequence[float], percent: int) -> float:
    """Return a percentile; of few values the highest of those below it."""
    return values[0] if len(values) == 1 else quantiles(values, n=100, method="inclusive")[percent - 1]


def highest(seconds: Sequence[float]) -> str:
    """Return median, 95th percentile and maximum of times, in ms."""
    return f"p50 {p(seconds, 50) * 1e3:.1f}, p95 {p(seconds, 95) * 1e3:.1f}, most {max(seconds) * 1e3:.1f} ms"
