"""Cheaper steps as a plan: which calls run the whole UNet, which its shallow layers only, and which with guidance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from nano_runtime.bundle.manifest import Quality
from nano_runtime.drawing.request import one_of, positive
from nano_runtime.errors import IntervalError, NoShortcutError

if TYPE_CHECKING:
    from nano_runtime.bundle.folder import Bundle

__all__ = ["EXACT", "Call", "Shortcuts", "plan", "resolve"]


@dataclass(frozen=True)
class Shortcuts:
    """What is left out of the exact computation.

    Attributes:
        cache_interval: every how many calls the whole UNet runs, at least 1. Between them only its outermost layers do,
            on a forecast of what the others would compute (DeepCache; see ``forecast``). 1 is exact.
        guidance_interval: from which share of the calls on, and up to which, guidance is used: 0 <= low <= high <= 1.
            Elsewhere the negative prompt is left out, and a call does half the work (Kynkaanniemi et al. 2024,
            arXiv:2404.07724, who give noise levels; shares of the steps are what diffusers' guiders take). (0, 1) is
            exact.
    """

    cache_interval: int = 1
    guidance_interval: tuple[float, float] = (0.0, 1.0)

    def described(self) -> Iterator[str]:
        """Yield in words what is left out; nothing for the exact computation."""
        if self.cache_interval > 1:
            yield f"one in {self.cache_interval} of them whole"
        low, high = self.guidance_interval
        if (low, high) != (0.0, 1.0):
            yield f"guided from {low:.0%} to {high:.0%}"


EXACT = Shortcuts()


@dataclass(frozen=True)
class Call:
    """How one call of the network is made: all of it or only the shallow graph, with the negative prompt or without."""

    whole: bool
    guided: bool


def resolve(
    bundle: Bundle, quality: str | None, cache_interval: int | None, guidance_interval: Sequence[float] | None
) -> Shortcuts:
    """Return what a preset of a bundle means, with the parts that are given in place of the preset's.

    Raises:
        OptionError: there is no such preset, or ``cache_interval`` is not a positive whole number.
        IntervalError: ``guidance_interval`` is not two shares in ascending order.
        NoShortcutError: the bundle does not say what the preset means, or has no shallow graph.
    """
    preset = one_of("quality", "exact" if quality is None else quality, get_args(Quality))
    known = bundle.manifest.presets
    if preset != "exact" and preset not in known:
        raise NoShortcutError(bundle.path, f"preset {preset!r}")
    meant = EXACT if preset == "exact" else Shortcuts(known[preset].cache_interval, known[preset].guidance_interval)
    chosen = Shortcuts(
        meant.cache_interval if cache_interval is None else positive("cache_interval", cache_interval),
        meant.guidance_interval if guidance_interval is None else _interval(guidance_interval),
    )
    if chosen.cache_interval > 1 and "unet_shallow" not in bundle.manifest.components:
        raise NoShortcutError(bundle.path, "shallow UNet, which step caching needs")
    return chosen


def plan(calls: int, shortcuts: Shortcuts, *, guided: bool) -> tuple[Call, ...]:
    """Say for each call how it is made.

    A whole call is made every ``cache_interval`` calls, as in DeepCache, and where guidance begins: until then nothing
    was computed for the negative prompt.

    Args:
        calls: how many there are.
        shortcuts: what to leave out.
        guided: whether the request has guidance at all.
    """
    low, high = (int(share * calls) for share in shortcuts.guidance_interval)  # as diffusers' guiders round
    planned: list[Call] = []
    known = False  # whether the last whole call was guided
    for index in range(calls):
        with_negative = guided and low <= index < high
        whole = index % shortcuts.cache_interval == 0 or (with_negative and not known)
        known = with_negative if whole else known
        planned.append(Call(whole=whole, guided=with_negative))
    return tuple(planned)


def _interval(value: Sequence[float]) -> tuple[float, float]:
    """Return two shares in ascending order, or raise ``IntervalError``."""
    try:
        low, high = map(float, value)
    except (TypeError, ValueError) as error:
        raise IntervalError(value) from error
    if not (math.isfinite(low) and math.isfinite(high) and 0 <= low <= high <= 1):
        raise IntervalError(value)
    return low, high
