"""Names of samplers: a name of the table and, after some, how the noise levels are spread, as in ``euler_karras``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias, get_args

from nano_runtime.errors import UnknownSchedulerError
from nano_runtime.sampling.sampler_table import RECORDS, SAMPLERS, SPREADABLE

__all__ = ["SPREADS", "Spread", "a1111_name", "names_in_words", "split_name"]

Spread: TypeAlias = Literal["trained", "karras", "exponential", "beta"]

SPREADS: Final[tuple[Spread, ...]] = tuple(spread for spread in get_args(Spread) if spread != "trained")
"""Spreads that a name can say; without one the levels are those of the trained timesteps."""


def split_name(name: str) -> tuple[str, Spread]:
    """Split a name into a key of ``RECORDS`` and how the noise levels are spread.

    Raises:
        UnknownSchedulerError: there is no sampler of that name.
    """
    if name in RECORDS:
        return name, "trained"
    for spread in SPREADS:
        base = name.removesuffix(f"_{spread}")
        if base != name and base in RECORDS and RECORDS[base].spreadable:
            return base, spread
    raise UnknownSchedulerError(name, SAMPLERS, SPREADABLE, SPREADS)


def a1111_name(name: str) -> str:
    """Return a sampler's name in AUTOMATIC1111's web UI, or the name itself if that has no other for it."""
    try:
        base, spread = split_name(name)
    except UnknownSchedulerError:
        return name
    shown = RECORDS[base].a1111
    return (base if shown is None else shown) + ("" if spread == "trained" else f" {spread.title()}")


def names_in_words() -> str:
    """Return every name in one sentence, for help texts."""
    names, bases = _listed(tuple(SAMPLERS), "or"), _listed(SPREADABLE, "and")
    suffixes = _listed([f"_{spread}" for spread in SPREADS], "or")
    return f"{names}; after {bases} also {suffixes}, as in {SPREADABLE[0]}_{SPREADS[0]}"


def _listed(words: Sequence[str], last: str) -> str:
    """Join words with commas, and the last two with a word."""
    return f"{', '.join(words[:-1])} {last} {words[-1]}"
