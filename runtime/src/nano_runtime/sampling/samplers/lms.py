"""Linear multistep on the probability flow (Katherine Crowson, 2022); matches diffusers' ``LMSDiscreteScheduler``.

It is Adams-Bashforth of fourth order over noise levels that need not be evenly spaced.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.sampling.samplers.levels import continuous_levels
from nano_runtime.sampling.samplers.mixing import VarianceExploding
from nano_runtime.sampling.settings import Settings

__all__ = ["LMS"]

_ORDER: Final = 4
_GAUSS: Final = 1 / math.sqrt(3)  # the mean of two points at ± this integrates cubics over [-1, 1] exactly


class LMS:
    """Lay a polynomial through the last four slopes and integrate it over the step.

    Args:
        settings: of the sampler.
        num_inference_steps: 1 to ``num_train_timesteps``; the network is called once for each.

    Raises:
        StepsError: that many steps do not fit into the schedule.
    """

    def __init__(self, settings: Settings, num_inference_steps: int) -> None:
        levels, first = continuous_levels(settings, num_inference_steps)
        self.timesteps = levels.timesteps
        self.mixing = VarianceExploding(settings.prediction_type, levels.sigmas, first)
        self._slopes: list[F32] = []  # of the latents over sigma; newest first, at most four

    def step(self, noise_pred: F32, index: int, latents: F32) -> F32:
        """Go from noise level ``index`` to the next with up to four slopes.

        After a start in the middle of the schedule, diffusers' class weighs slopes that it never computed, and goes
        wrong. Here the order rises from one again.
        """
        levels = self.mixing.levels
        picture = self.mixing.predicted_picture(noise_pred, latents, index)
        self._slopes = [(latents - picture) / levels[index], *self._slopes[: _ORDER - 1]]
        known = levels[index + 1 - len(self._slopes) : index + 1][::-1].tolist()
        return latents + sum(
            np.float32(weight) * slope
            for weight, slope in zip(_weights(known, float(levels[index + 1])), self._slopes, strict=True)
        )


def _weights(known: list[float], target: float) -> list[float]:
    """Integrate from ``known[0]`` to ``target`` the polynomials that are 1 at one known level and 0 at the others."""
    middle, half = (target + known[0]) / 2, (target - known[0]) / 2
    points = (middle - half * _GAUSS, middle + half * _GAUSS)

    def value(one: float, point: float) -> float:
        return math.prod((point - other) / (one - other) for other in known if other != one)

    return [half * sum(value(one, point) for point in points) for one in known]
