"""Finds pictures of one colour, as half precision gone wrong makes them, and the graph that made them so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nano_runtime.arrays import F32

__all__ = ["Blank", "find_blanks"]

_ONE_STEP = 1 / 255  # of the intensities that a file can hold


@dataclass(frozen=True)
class Blank:
    """A picture without anything in it.

    Attributes:
        index: of the picture.
        component: the first whose output was constant, ``unet`` or ``vae_decoder``.
    """

    index: int
    component: str


def find_blanks(latents: F32, unit: F32) -> list[Blank]:
    """Return the pictures in which no pixel differs from another by as much as a file can show.

    Args:
        latents: float32 [n, C, h, w], before decoding.
        unit: float32 [n, height, width, 3] in [0, 1], after decoding.
    """
    empty = np.ptp(unit, axis=(1, 2)).max(axis=1) < _ONE_STEP
    constant = np.ptp(latents, axis=(2, 3)).max(axis=1) == 0
    return [Blank(int(i), "unet" if constant[i] else "vae_decoder") for i in np.flatnonzero(empty)]
