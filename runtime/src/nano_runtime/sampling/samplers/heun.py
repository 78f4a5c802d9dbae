"""Heun's method on the probability flow; matches diffusers' ``HeunDiscreteScheduler``.

Algorithm 1 of Karras et al. 2022. Every step but the last calls the network at both ends, so n steps call it 2 n - 1
times.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.sampling.samplers.levels import continuous_levels
from nano_runtime.sampling.samplers.mixing import VarianceExploding, bounded
from nano_runtime.sampling.settings import Settings

__all__ = ["Heun"]


@dataclass(frozen=True, eq=False)
class _Start:
    """The beginning of a step: the latents, and their slope over sigma there."""

    latents: F32
    slope: F32


class Heun:
    """Step down as Euler does, take the slope there, and step again from the start with the mean of both slopes.

    Args:
        settings: of the sampler.
        num_inference_steps: 1 to ``num_train_timesteps``.

    Raises:
        StepsError: that many steps do not fit into the schedule.
    """

    def __init__(self, settings: Settings, num_inference_steps: int) -> None:
        levels, first = continuous_levels(settings, num_inference_steps)
        self.timesteps = np.repeat(levels.timesteps, 2)[1:]
        sigmas = np.append(np.repeat(levels.sigmas[:-1], 2)[1:], levels.sigmas[-1])
        self.mixing = VarianceExploding(settings.prediction_type, sigmas, first)
        self._settings = settings
        self._start: _Start | None = None  # of the step whose other end comes next

    def step(self, noise_pred: F32, index: int, latents: F32) -> F32:
        """Go from noise level ``index`` to the next, or at the other end of a step, correct the way there."""
        picture = bounded(self.mixing.predicted_picture(noise_pred, latents, index), self._settings)
        slope: F32 = (latents - picture) / self.mixing.levels[index]
        start, self._start = self._start, None
        if start is None:
            self._start = _Start(latents, slope)
            return latents + self._width(index) * slope
        mean: F32 = (start.slope + slope) / np.float32(2)
        return start.latents + self._width(index - 1) * mean

    def _width(self, index: int) -> np.float32:
        """Return the change of sigma from noise level ``index`` to the next; it is negative."""
        return np.float32(self.mixing.levels[index + 1] - self.mixing.levels[index])
