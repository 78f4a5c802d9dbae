"""What a call returned, as the type that was asked for: arrays, or all the progress with the result at its end."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.drawing.events import Progress, Result

__all__ = ["arrays", "run_through"]


def arrays(result: Result) -> F32:
    """Return the pictures or latents of a call with ``output_type="np"`` or ``"latent"``."""
    assert isinstance(result.images, np.ndarray)
    return result.images


def run_through(events: Iterable[Progress | Result]) -> tuple[list[Progress], Result]:
    """Run a drawing to its end; return what it told of each call, and the result, which comes last and once."""
    *told, result = events
    assert isinstance(result, Result)
    calls = [event for event in told if isinstance(event, Progress)]
    assert len(calls) == len(told)
    return calls, result
