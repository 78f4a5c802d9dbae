"""Euler's method on the probability flow, and its ancestral variant, which adds fresh noise after every step.

They match diffusers' ``EulerDiscreteScheduler`` and ``EulerAncestralDiscreteScheduler``. The noise level sigma is their
time.
"""

from __future__ import annotations

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.sampling.noise import NoiseSource
from nano_runtime.sampling.samplers.levels import continuous_levels
from nano_runtime.sampling.samplers.mixing import VarianceExploding
from nano_runtime.sampling.settings import Settings

__all__ = ["Euler", "EulerAncestral"]


class Euler:
    """Move along the line from the latents to the predicted picture, with latents ``picture + sigma * noise``.

    Algorithm 2 of Karras et al. 2022 without its churn.

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

    def step(self, noise_pred: F32, index: int, latents: F32) -> F32:
        """Go from noise level ``index`` to the next."""
        level, target = self.mixing.levels[index : index + 2]
        return _moved(latents, self.mixing.predicted_picture(noise_pred, latents, index), level, target)


class EulerAncestral:
    """Step further down than Euler, then add fresh noise up to Euler's next level (Katherine Crowson, 2022).

    Args:
        settings: of the sampler.
        num_inference_steps: 1 to ``num_train_timesteps``; the network is called once for each.
        noise: source of fresh noise, asked once a step.

    Raises:
        StepsError: that many steps do not fit into the schedule.
    """

    def __init__(self, settings: Settings, num_inference_steps: int, noise: NoiseSource) -> None:
        levels, first = continuous_levels(settings, num_inference_steps)
        self.timesteps = levels.timesteps
        self.mixing = VarianceExploding(settings.prediction_type, levels.sigmas, first)
        self._noise = noise

    def step(self, noise_pred: F32, index: int, latents: F32) -> F32:
        """Go from noise level ``index`` to the next: down below it, then up with fresh noise.

        The level below and the fresh noise add up to the next level in squares.
        """
        level, target = self.mixing.levels[index : index + 2]
        squared = target * target
        fresh = np.sqrt(squared * (level * level - squared) / (level * level))
        below = np.sqrt(squared - fresh * fresh)
        picture = self.mixing.predicted_picture(noise_pred, latents, index)
        after: F32 = _moved(latents, picture, level, below) + self._noise() * fresh
        return after


def _moved(latents: F32, picture: F32, level: np.float32, target: np.float32) -> F32:
    """Return the latents at level ``target`` on the line from those at ``level`` to the predicted picture."""
    slope: F32 = (latents - picture) / level
    return latents + slope * (target - level)
