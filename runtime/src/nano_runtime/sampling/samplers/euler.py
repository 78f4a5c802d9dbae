"""Euler's method on the probability flow, and its ancestral variant that adds fresh noise after every step.

They match diffusers' ``EulerDiscreteScheduler`` and ``EulerAncestralDiscreteScheduler``. Sigma, the noise level, takes
the place of time.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.errors import UnsupportedScheduleError
from nano_runtime.sampling.noise import NoiseSource
from nano_runtime.sampling.samplers.levels import continuous_levels
from nano_runtime.sampling.samplers.mixing import noised_at, predicted_picture_at, scaled_to_unit
from nano_runtime.sampling.schedule import PredictionType, Schedule

__all__ = ["Euler", "EulerAncestral"]


class Euler:
    """Move along the line from the latents to the predicted picture, with latents ``picture + sigma * noise``.

    Algorithm 2 of Karras et al. 2022 without its churn.

    Args:
        schedule: of the model; linspace spacing, not rounded to whole timesteps, where it does not say.
        num_inference_steps: 1 to ``num_train_timesteps``; the network is called once for each.

    Raises:
        StepsError: that many steps do not fit into the schedule.
    """

    def __init__(self, schedule: Schedule, num_inference_steps: int) -> None:
        levels, self.init_noise_sigma = continuous_levels(schedule, num_inference_steps)
        self.timesteps = levels.timesteps
        self._sigmas = levels.sigmas
        self._kind = schedule.prediction_type

    def scale_model_input(self, latents: F32, index: int) -> F32:
        """Shrink the latents to the unit variance the network knows."""
        return scaled_to_unit(latents, self._sigmas[index])

    def add_noise(self, picture: F32, noise: F32, index: int) -> F32:
        """Return clean latents with noise of level ``index`` added."""
        return noised_at(picture, noise, self._sigmas[index])

    def step(self, noise_pred: F32, index: int, latents: F32) -> F32:
        """Go from noise level ``index`` to the next."""
        level, target = self._sigmas[index : index + 2]
        return _moved(self._kind, noise_pred, latents, level, target)


class EulerAncestral:
    """Go further down than Euler, then add fresh noise up to the level that Euler reaches (Katherine Crowson, 2022).

    Args:
        schedule: of the model; linspace spacing, not rounded to whole timesteps, where it does not say.
        num_inference_steps: 1 to ``num_train_timesteps``; the network is called once for each.
        noise: where fresh noise comes from, asked once a step.

    Raises:
        StepsError: that many steps do not fit into the schedule.
        UnsupportedScheduleError: the network predicts the picture.
    """

    def __init__(self, schedule: Schedule, num_inference_steps: int, noise: NoiseSource) -> None:
        if schedule.prediction_type == "sample":
            raise UnsupportedScheduleError("prediction_type", "sample", ("epsilon", "v_prediction"))
        levels, self.init_noise_sigma = continuous_levels(
            replace(schedule, final_sigmas_type="zero"), num_inference_steps
        )
        self.timesteps = levels.timesteps
        self._sigmas = levels.sigmas
        self._kind = schedule.prediction_type
        self._noise = noise

    def scale_model_input(self, latents: F32, index: int) -> F32:
        """Shrink the latents to the unit variance the network knows."""
        return scaled_to_unit(latents, self._sigmas[index])

    def add_noise(self, picture: F32, noise: F32, index: int) -> F32:
        """Return clean latents with noise of level ``index`` added."""
        return noised_at(picture, noise, self._sigmas[index])

    def step(self, noise_pred: F32, index: int, latents: F32) -> F32:
        """Go from noise level ``index`` to the next; their squares are what the fresh noise has to make up for."""
        level, target = self._sigmas[index : index + 2]
        squared = target * target
        fresh = np.sqrt(squared * (level * level - squared) / (level * level))
        below = np.sqrt(squared - fresh * fresh)
        after: F32 = _moved(self._kind, noise_pred, latents, level, below) + self._noise() * fresh
        return after


def _moved(kind: PredictionType, noise_pred: F32, latents: F32, level: np.float32, target: np.float32) -> F32:
    """Return the latents at level ``target`` on the line from those at ``level`` to the predicted picture."""
    slope: F32 = (latents - predicted_picture_at(kind, noise_pred, latents, level)) / level
    return latents + slope * (target - level)
