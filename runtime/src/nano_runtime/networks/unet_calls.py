"""The UNet calls of a drawing: whole or with the outermost layers only, with guidance or without."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nano_runtime.bundle.wiring import UNET, UNET_SHALLOW

__all__ = ["EXACT", "Call", "Shortcuts", "plan_calls", "rows_by_graph"]


@dataclass(frozen=True)
class Shortcuts:
    """The work that is left out of the exact computation.

    Attributes:
        cache_interval: the whole UNet runs in one of this many calls, at least 1. In the others only its outermost
            layers run, on a forecast of what the rest would compute (DeepCache; see ``sampling.forecast``). 1 is exact.
        guidance_interval: shares of the calls between which guidance is used: 0 <= low <= high <= 1. Elsewhere the
            negative prompt is left out, and a call does half the work (Kynkaanniemi et al. 2024, arXiv:2404.07724, who
            give noise levels; shares of the steps are what diffusers' guiders take). (0, 1) is exact.
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
    """One call of the network.

    Attributes:
        whole: whether all layers run, or the shallow graph only.
        guided: whether the negative prompt is computed too.
        ways: rows of a picture in a guided call: 2, with and without the prompt, or 3, also without the picture.
    """

    whole: bool
    guided: bool
    ways: int = 2

    @property
    def component(self) -> str:
        """Name of the graph that the call runs."""
        return UNET if self.whole else UNET_SHALLOW

    def rows(self, pictures: int) -> int:
        """Return the rows that the call computes for so many pictures."""
        return pictures * (self.ways if self.guided else 1)


def plan_calls(count: int, shortcuts: Shortcuts, *, guided: bool, ways: int = 2) -> tuple[Call, ...]:
    """Plan the calls of one drawing.

    A whole call is made every ``cache_interval`` calls, as in DeepCache, and where guidance begins: until then nothing
    was computed for the negative prompt.

    Args:
        count: number of calls.
        shortcuts: work to leave out.
        guided: whether there is guidance at all.
        ways: rows of a picture in a guided call; see ``Call``.
    """
    low, high = (int(share * count) for share in shortcuts.guidance_interval)  # as diffusers' guiders round
    planned: list[Call] = []
    known = False  # whether the last whole call was guided
    for index in range(count):
        with_negative = guided and low <= index < high
        whole = index % shortcuts.cache_interval == 0 or (with_negative and not known)
        known = with_negative if whole else known
        planned.append(Call(whole=whole, guided=with_negative, ways=ways))
    return tuple(planned)


def rows_by_graph(calls: Iterable[Call], pictures: int) -> dict[str, int | tuple[int, int]]:
    """Return the graphs that the calls run, each with its rows.

    The rows are one number if all calls of the graph have the same, or the smallest and the largest.
    """
    sizes: dict[str, set[int]] = {}
    for call in calls:
        sizes.setdefault(call.component, set()).add(call.rows(pictures))
    return {name: (min(rows), max(rows)) if len(rows) > 1 else max(rows) for name, rows in sizes.items()}
