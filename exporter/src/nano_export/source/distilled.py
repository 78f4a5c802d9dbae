"""Recognises models that were distilled to draw in a few steps, which 20 steps and guidance of 7.5 would spoil."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass

from nano_export.source.card import front_matter, parameter
from nano_export.source.checkpoint import Checkpoint
from nano_runtime.errors import UnsupportedScheduleError
from nano_runtime.sampling.samplers import own_sampler

__all__ = ["Habits", "habits_of"]

_STEPS = 4
_EMBEDDED_GUIDANCE = 8.5  # the default of diffusers' LatentConsistencyModelPipeline
_UNGUIDED = 1.0
_CONSISTENCY = {"LCMScheduler": "lcm", "TCDScheduler": "tcd"}  # scheduler's class -> sampler
_FAST_NAMES = re.compile(r"turbo|lightning|hyper|lcm|\bflash\b", re.IGNORECASE)
_STEPS_IN_NAME = re.compile(r"(\d{1,2})[-_ ]?steps?(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Habits:
    """The way in which a distilled model is drawn with.

    Attributes:
        steps: of the sampler.
        guidance_scale: at most 1 for none.
        sampler: its name.
    """

    steps: int
    guidance_scale: float
    sampler: str


def habits_of(checkpoint: Checkpoint) -> Habits | None:
    """Return how to draw with a distilled model; None for all others.

    A model is distilled if its UNet takes the guidance scale as an input, if its scheduler is that of consistency
    models, or if its name or card says so and its timesteps begin with the noisiest ("trailing"), as few steps need. A
    guidance scale and a number of steps in its card come first.
    """
    scheduler = str(checkpoint.scheduler.get("_class_name"))
    embedded = checkpoint.unet.config.time_cond_proj_dim is not None
    sampler = _CONSISTENCY.get(scheduler, "lcm" if embedded else None)
    if sampler is None and _says_so(checkpoint):
        with contextlib.suppress(UnsupportedScheduleError):
            sampler = own_sampler(checkpoint.scheduler)
    if sampler is None:
        return None
    steps = _STEPS_IN_NAME.search(checkpoint.source.model)
    asked, scale = parameter(checkpoint.card, "num_inference_steps"), parameter(checkpoint.card, "guidance_scale")
    usual = int(steps[1]) if steps is not None and int(steps[1]) > 0 else _STEPS
    return Habits(
        steps=usual if asked is None or not 1 <= asked <= 100 else int(asked),  # noqa: PLR2004 - beyond are mistakes
        guidance_scale=(_EMBEDDED_GUIDANCE if embedded else _UNGUIDED) if scale is None else scale,
        sampler=sampler,
    )


def _says_so(checkpoint: Checkpoint) -> bool:
    """Return whether the name, or a tag in the card, is of a kind of distilled models, and the timesteps are theirs."""
    tags = front_matter(checkpoint.card).get("tags")
    words = [checkpoint.source.model, *(tags if isinstance(tags, list) else [])]
    fast = any(isinstance(word, str) and _FAST_NAMES.search(word) is not None for word in words)
    return fast and checkpoint.scheduler.get("timestep_spacing") == "trailing"
