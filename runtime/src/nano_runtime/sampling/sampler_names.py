"""Names of samplers: a name of the table and, after some, how the noise levels are spread, as in ``euler_karras``.

People know samplers by other programs' names: those of AUTOMATIC1111's web UI ("DPM++ 2M Karras"), of diffusers'
classes ("EulerDiscreteScheduler"), of ComfyUI and k-diffusion ("euler_ancestral") and of InvokeAI ("dpmpp_2m_k").
``full_name`` takes each, in upper or lower case, where it means the same method. It takes none that is only near:
"DPM++ SDE" is a method that this package does not have, and its error suggests others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Final, Literal, TypeAlias, get_args

from nano_runtime.errors import UnknownSchedulerError
from nano_runtime.sampling.sampler_table import RECORDS, SAMPLERS, SPREADABLE

__all__ = ["SPREADS", "Spread", "a1111_name", "full_name", "names_in_words", "sampler_names", "split_name"]

Spread: TypeAlias = Literal["trained", "karras", "exponential", "beta"]

SPREADS: Final[tuple[Spread, ...]] = tuple(spread for spread in get_args(Spread) if spread != "trained")
"""Spreads that a name can say; without one the levels are those of the trained timesteps."""


_ELSEWHERE: Final[Mapping[str, str]] = {
    "plms": "pndm",
    "uni_pc": "unipc",
    "uni_pc_bh2": "unipc",
    "kdpm_2": "dpm2",
    "kdpm_2_a": "dpm2_a",
    "kdpm_2_ancestral": "dpm2_a",
    "dpm_solver++": "dpmpp_2m",  # as the authors of DPM-Solver and diffusers' documents write it
}
"""Names of ComfyUI, k-diffusion and InvokeAI that do not follow from those of the table."""

_WORDS: Final[Mapping[str, str]] = {"ancestral": "a", "discrete": "", "scheduler": "", "sampler": ""}
_SUGGESTED: Final = 3


def full_name(name: str) -> str:
    """Return the name in the table, and its spread, of the sampler that somebody's name means.

    Raises:
        UnknownSchedulerError: it means none; the error has the nearest names.
    """
    try:
        split_name(name)
    except UnknownSchedulerError:
        found = _known().get(_folded(name))
        if found is None:
            raise UnknownSchedulerError(name, _nearest(name), SAMPLERS, SPREADABLE, SPREADS) from None
        return found
    return name


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
    raise UnknownSchedulerError(name, (), SAMPLERS, SPREADABLE, SPREADS)


def a1111_name(name: str) -> str:
    """Return a sampler's name in AUTOMATIC1111's web UI, or the name itself if that has no other for it."""
    try:
        base, spread = split_name(name)
    except UnknownSchedulerError:
        return name
    shown = RECORDS[base].a1111
    return _spread(base if shown is None else shown, spread)


def sampler_names() -> dict[str, str]:
    """Return every name of a sampler, those with a spread too, and a label for people that no other one has.

    Labels are those of AUTOMATIC1111's web UI, where it has one for this sampler alone. A call takes them, too.
    """
    spread = [(name, spread) for name in SPREADABLE for spread in SPREADS]
    labels = {name: record.label or record.a1111 or name for name, record in SAMPLERS.items()}
    return {**labels, **{f"{name}_{spread}": _spread(labels[name], spread) for name, spread in spread}}


def names_in_words() -> str:
    """Return every name in one sentence, for help texts."""
    names, bases = _listed(tuple(SAMPLERS), "or"), _listed(SPREADABLE, "and")
    suffixes = _listed([f"_{spread}" for spread in SPREADS], "or")
    return f"{names}; after {bases} also {suffixes}, as in {SPREADABLE[0]}_{SPREADS[0]}"


@cache
def _known() -> Mapping[str, str]:
    """Return the folded form of every name that somebody may know a sampler by, and the sampler's own name."""
    bases: dict[str, str] = {}
    for name, record in RECORDS.items():
        if record.a1111 is not None:
            bases.setdefault(_folded(record.a1111), name)
        if not record.step_options:  # what diffusers' class draws in a pipeline
            bases.setdefault(_folded(record.diffusers), name)
    bases |= {_folded(other): name for other, name in _ELSEWHERE.items()}
    bases |= {_folded(name): name for name in RECORDS}
    known = dict(bases)
    for folded, name in bases.items():
        for spread in SPREADS if RECORDS[name].spreadable else ():
            known.setdefault(folded + spread, f"{name}_{spread}")
            if spread == "karras":
                known.setdefault(folded + "k", f"{name}_{spread}")  # InvokeAI's
    return known


def _folded(name: str) -> str:
    """Return what is left of a name without its case, its punctuation and words that do not distinguish samplers."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower().replace("++", "pp")
    parts = re.sub("[^a-z0-9]+", " ", words.removeprefix("k_")).split()
    return "".join(_WORDS.get(part, part) for part in parts)


def _nearest(name: str) -> list[str]:
    """Return a few names from the table that are written alike: those without a spread first, of them the nearest."""
    known = {folded: one for folded, one in _known().items() if split_name(one)[0] in SAMPLERS}
    close = [known[one] for one in get_close_matches(_folded(name), known, 4 * _SUGGESTED, cutoff=0.55)]
    return sorted(dict.fromkeys(close), key=lambda one: one not in SAMPLERS)[:_SUGGESTED]


def _spread(label: str, spread: Spread) -> str:
    """Return a label with the word for how the noise levels are spread."""
    return label if spread == "trained" else f"{label} {spread.title()}"


def _listed(words: Sequence[str], last: str) -> str:
    """Join words with commas, and the last two with a word."""
    return f"{', '.join(words[:-1])} {last} {words[-1]}"
