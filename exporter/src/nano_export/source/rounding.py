"""Notes in a scheduler config the one level whose last bit moves a picture, as torch rounds it on this processor.

diffusers cuts the timesteps of some spreads to whole ones. The first is the last that was trained, or the one before
it, as the last bit of a root decides; and torch's root is not the nearest number on every processor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from nano_export.source.scheduler import JUDGE_STEPS
from nano_runtime.errors import StepsError
from nano_runtime.sampling.samplers import is_replaced, make_sampler, own_sampler
from nano_runtime.sampling.samplers.levels import trained_squares
from nano_runtime.sampling.schedule import Schedule
from nano_runtime.sampling.settings import NOISIEST_LEVEL

__all__ = ["with_torchs_rounding"]


def with_torchs_rounding(config: dict[str, Any]) -> dict[str, Any]:
    """Return a completed config, with the level of its last timestep if that moves the first timestep.

    (Matches ``((1 - alphas_cumprod) / alphas_cumprod) ** 0.5`` in diffusers' ``set_timesteps``.)

    Args:
        config: of a scheduler that can be drawn.
    """
    if is_replaced(config):
        return config
    levels = torch.from_numpy(trained_squares(Schedule.from_config(config).own)) ** 0.5
    noted = {**config, NOISIEST_LEVEL: float(levels[-1])}
    return config if _first(noted) == _first(config) else noted


def _first(config: Mapping[str, Any]) -> float:
    """Return the first timestep; 0 where too few were trained to say."""
    try:
        return float(make_sampler(own_sampler(config), Schedule.from_config(config), JUDGE_STEPS).timesteps[0])
    except StepsError:
        return 0.0
