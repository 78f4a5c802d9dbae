"""Draws a job's pictures in this process, and logs each when its file is on the disk.

What a process did not survive is drawn alone by the next one, with the engine in a process of its own, and first: so
one picture cannot end a job each time it is run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, TypeAlias

from nano_batch.draw import Draw, units_of
from nano_batch.job import ENDED, Log
from nano_batch.progress import counted
from nano_batch.wanted import Wanted

__all__ = ["Guard", "draw_here"]

Guard: TypeAlias = Callable[[Callable[[], object]], AbstractContextManager[None]]

_MOST_ENDS: Final = 2
"""So many processes may come to a sudden end over a picture; then a run passes it over."""

_log = logging.getLogger(__name__)


def draw_here(
    draw: Draw,
    pictures: Sequence[Wanted],
    log: Log,
    told: Callable[[list[dict[str, Any]]], None],
    guard: Guard = lambda _tidied: nullcontext(),
) -> None:
    """Draw pictures, and log what became of them.

    Args:
        draw: draws and writes them.
        pictures: with keys of their own.
        log: of this process.
        told: gets the records of pictures when they are in the log.
        guard: encloses each drawing; it may end the process, and calls what it is given first.

    Raises:
        NanoError: no picture can be drawn any more, or none written.
    """
    if lost := [_lost(one) for one in pictures if log.ends.get(one.key, 0) >= _MOST_ENDS]:
        log.add(lost)
        told(lost)
    if feared := [one for one in pictures if 0 < log.ends.get(one.key, 0) < _MOST_ENDS]:
        _log.warning(
            "a process came to a sudden end while it drew %s: drawing each alone, in a process of its own",
            counted(len(feared)),
        )
        apart = draw.apart()
        try:
            for one in feared:
                _draw(apart, [one], log, told, guard)
        finally:
            apart.pipeline.close()
    for unit in units_of([one for one in pictures if one.key not in log.ends]):
        _draw(draw, unit, log, told, guard)


def _draw(
    draw: Draw, unit: Sequence[Wanted], log: Log, told: Callable[[list[dict[str, Any]]], None], guard: Guard
) -> None:
    """Draw pictures in one call, between two lines of the log."""
    log.begin([one.key for one in unit])
    try:
        with guard(log.leave):
            records = draw.draw(unit)
        log.add(records)
    except BaseException:
        log.leave()
        raise
    told(records)


def _lost(one: Wanted) -> dict[str, Any]:
    """Return the record of a picture that is passed over."""
    return {
        "key": one.key,
        "done": False,
        ENDED: True,
        "error": f"the process came to a sudden end while it drew this, {_MOST_ENDS} times",
        "hint": "It may need more memory than there is, or be a fault of the engine. The same command tries it again.",
    }
