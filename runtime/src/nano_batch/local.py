"""Draws a job's pictures in this process, and logs each when its file is on the disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nano_batch.draw import Draw, units_of
from nano_batch.job import Log
from nano_batch.wanted import Wanted

__all__ = ["draw_here"]


def draw_here(draw: Draw, pictures: Sequence[Wanted], log: Log, told: Callable[[list[dict[str, Any]]], None]) -> None:
    """Draw pictures, and log what became of them.

    Args:
        draw: draws and writes them.
        pictures: with keys of their own.
        log: of this process.
        told: gets the records of pictures when they are in the log.

    Raises:
        NanoError: no picture can be drawn any more, or none written.
    """
    for unit in units_of(pictures):
        records = draw.draw(unit)
        log.add(records)
        told(records)
