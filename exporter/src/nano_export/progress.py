"""The stages of an export, and the share of its time that each takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["STAGES", "Progress", "Stage", "progress"]

Stage: TypeAlias = Literal[
    "load", "draw", "trace", "check", "calibrate", "quantize", "convert", "compare", "sampler", "presets", "publish"
]

STAGES: dict[Stage, float] = {
    "load": 0.05,
    "draw": 0.20,
    "trace": 0.20,
    "check": 0.04,
    "calibrate": 0.16,
    "quantize": 0.10,
    "convert": 0.13,
    "compare": 0.07,
    "sampler": 0.02,
    "presets": 0.02,
    "publish": 0.01,
}
"""Stage -> share of the time, in the order of stages; an export in fp32 leaves out three. They add up to 1."""


@dataclass(frozen=True)
class Progress:
    """A stage begins or goes on.

    Attributes:
        stage: text for people.
        done: share of the whole export, from 0 to 1.
    """

    stage: str
    done: float


def progress(stage: Stage, text: str, done: float = 0.0) -> Progress:
    """Return how far an export is.

    Args:
        stage: that runs.
        text: for people.
        done: share of this stage, from 0 to 1.
    """
    names = list(STAGES)
    before = sum(STAGES[name] for name in names[: names.index(stage)])
    return Progress(text, before + STAGES[stage] * done)
