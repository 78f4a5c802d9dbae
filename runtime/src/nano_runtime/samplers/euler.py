"""Euler's method on the probability flow; matches diffusers' ``EulerDiscreteScheduler``.

Algorithm 2 of Karras et al. 2022 without its churn. Sigma, the noise level, takes the place of time.
"""

from __future__ import annotations

import math

import numpy as np

from nano_runtime.samplers.prediction import F32, predicted_picture
from nano_runtime.samplers.sigmas import noise_levels, vp_coefficients
from nano_runtime.schedule import Schedule, Spacing, check_steps, spaced_timesteps

__all__ = ["Euler"]


class Euler:
    """Move along the line from the latents to the predicted picture, with latents ``picture + sigma * noise``.

    Args:
        schedule: of the model; linspace spacing, not rounded to whole timesteps, where it does not say.
        num_inference_steps: 1 to ``num_train_timesteps``; the network is called once for each.

    Raises:
        StepsError: that many steps do not fit into the schedule.
    """

    def __init__(self, schedule: Schedule, num_inference_steps: int) -> None:
        spacing: Spacing = "linspace" if schedule.timestep_spacing is None else schedule.timestep_spacing
        check_steps(schedule, num_inference_steps, lambda n: spaced_timesteps(schedule, spacing, n, n))
        timesteps = spaced_timesteps(schedule, spacing, num_inference_steps, num_inference_steps)
        self.timesteps = timesteps.astype(np.float32)
        self._kind = schedule.prediction_type
        self._levels = noise_levels(schedule, self.timesteps)
        most = float(self._levels[0])
        self.init_noise_sigma = math.sqrt(most * most + 1) if spacing == "leading" else most

    def scale_model_input(self, latents: F32, index: int) -> F32:
        """Shrink the latents to the unit variance the network knows."""
        alpha, _ = vp_coefficients(float(self._levels[index]))
        return latents * alpha

    def step(self, noise_pred: F32, index: int, latents: F32) -> F32:
        """Go from noise level ``index`` to the next; the last ends at the predicted picture."""
        level, target = self._levels[index : index + 2].tolist()
        alpha, sigma = vp_coefficients(level)
        picture = predicted_picture(self._kind, noise_pred, latents * alpha, alpha, sigma)
        return latents + np.float32((target - level) / level) * (latents - picture)
