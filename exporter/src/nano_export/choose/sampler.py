"""Chooses the default sampler and steps: fewer UNet calls, yet as near to the finished picture.

With more and more steps, all deterministic samplers of one schedule approach the same picture. The distance to it is
measured with the checkpoint's own weights, prompts and guidance. Where that guidance is weaker than most people type,
the default has to hold for strong guidance too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from nano_export.judge.metrics import psnr_db
from nano_runtime.arrays import F32
from nano_runtime.bundle.manifest import Default
from nano_runtime.drawing.defaults import STEPS
from nano_runtime.errors import NonFiniteError, StepsError, UnsupportedScheduleError
from nano_runtime.options import DrawOptions
from nano_runtime.pipeline import Pipeline
from nano_runtime.sampling.samplers import NOISY, split_name

__all__ = ["choose_default"]

# Draws the finished picture: first order, and of no family below, so that none is favoured. 40 steps come within 41 dB
# of the common limit; the samplers that are compared reach 30 to 39 (bench/LOG.md).
_FINISHED = ("euler", 40)
_OF_DISTILLED = frozenset({"tcd_ode"})  # whose models are made for its few steps, and for no other sampler's
# The best of bench/results/samplers.md, half a decibel ahead of DPM-Solver++ over the same levels. Karras' levels begin
# at the noisiest that was trained, whatever the number of steps; most spacings begin later if there are fewer steps.
# There, 8 steps come as near as 20 of PNDM, but not for every handful of prompts; 9 leave a margin. First order needs
# more steps, and stands strong guidance best. Cheapest first within a family.
_CANDIDATES = (
    *(("unipc_karras", steps) for steps in (9, 10, 12, 15)),
    *(("euler_karras", steps) for steps in (12, 15, 18)),
)
# Programs begin with 7.5, and people go on to 9. A model of weaker guidance takes that too, but not in few steps of a
# sampler of high order: there the demo is confetti, at 7 to 17 dB. From 23 dB on, its pictures look finished.
_USUAL_GUIDANCE, _STRONG_GUIDANCE, _LEAST_STRONG_DB = 7.5, 9.0, 23.0


def choose_default(pipeline: Pipeline, calls: Sequence[DrawOptions]) -> Iterator[tuple[float, Default | None]]:
    """Draw the same pictures in many steps, by the checkpoint's own sampler in 20, and by candidates in fewer.

    Args:
        pipeline: of a finished bundle.
        calls: prompts to draw, and pictures that they need; the seeds of each call count up from 0.

    Yields:
        The share that is done, from 0 to 1, and None. The last yield has the cheapest candidate that comes as near as
        the own sampler, and holds for strong guidance; or the own sampler if none does. It stays None if the own
        sampler adds noise: its pictures are other pictures, not unfinished ones; if it is that of distilled models; and
        if nothing here can follow the checkpoint's schedule.
    """
    own = pipeline.own_scheduler
    if split_name(own)[0] in {*NOISY, *_OF_DISTILLED}:
        yield 1.0, None
        return
    yield 0.0, None
    finished = _draw(pipeline, calls, *_FINISHED)
    yield 0.5, None
    pictures = _draw(pipeline, calls, own, STEPS)
    if finished is None or pictures is None:
        yield 1.0, None
        return
    least = _distance_db(pictures, finished)
    strong = [replace(call, guidance_scale=_STRONG_GUIDANCE) for call in calls]
    for index, (scheduler, steps) in enumerate(_CANDIDATES):
        yield 0.75 + 0.25 * index / len(_CANDIDATES), None
        drawn = _draw(pipeline, calls, scheduler, steps)
        if drawn is None or (reached := _distance_db(drawn, finished)) < least:
            continue
        if not 1 < pipeline.bundle.manifest.guidance_scale < _USUAL_GUIDANCE or _holds(
            pipeline, strong, scheduler, steps
        ):
            yield 1.0, _default(scheduler, steps, reached, least)
            return
    yield 1.0, _default(own, STEPS, least, least)


def _holds(pipeline: Pipeline, calls: Sequence[DrawOptions], scheduler: str, steps: int) -> bool:
    """Return whether a sampler comes near enough to the finished pictures of these calls."""
    drawn, finished = _draw(pipeline, calls, scheduler, steps), _draw(pipeline, calls, *_FINISHED)
    return drawn is not None and finished is not None and _distance_db(drawn, finished) >= _LEAST_STRONG_DB


def _draw(pipeline: Pipeline, calls: Sequence[DrawOptions], scheduler: str, steps: int) -> F32 | None:
    """Return the pictures, float32 [n, height, width, 3] in [0, 1]; None if the sampler cannot follow the schedule."""
    try:
        drawn = [
            pipeline(call, seed=0, scheduler=scheduler, num_inference_steps=steps, output_type="np") for call in calls
        ]
    except (UnsupportedScheduleError, StepsError, NonFiniteError):
        return None
    return np.concatenate([np.asarray(result.images, np.float32) for result in drawn])


def _distance_db(pictures: F32, finished: F32) -> float:
    """Return the mean PSNR."""
    return float(np.mean([psnr_db(a, e, 1.0) for a, e in zip(pictures, finished, strict=True)]))


def _default(scheduler: str, steps: int, reached: float, least: float) -> Default:
    fidelity = {"image_psnr_db": round(reached, 3), "own.image_psnr_db": round(least, 3)}
    return Default(scheduler=scheduler, steps=steps, fidelity=fidelity)
