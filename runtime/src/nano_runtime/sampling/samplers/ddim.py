"""DDIM (Song et al. 2021, formulas 12 and 16); matches diffusers' ``DDIMScheduler``."""

from __future__ import annotations

import math

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.sampling.noise import NoiseSource
from nano_runtime.sampling.samplers.mixing import (
    clipped,
    noised,
    predicted_noise,
    predicted_picture,
    refuse_noise_from_noise,
)
from nano_runtime.sampling.schedule import Schedule, whole_timesteps

__all__ = ["DDIM"]


class DDIM:
    """Predict the picture, then put back as much noise as the next timestep has: the predicted, and η of fresh.

    Args:
        schedule: of the model; leading spacing, a last ᾱ of 1 and clipping where it does not say.
        num_inference_steps: 1 to ``num_train_timesteps``; the network is called once for each.
        noise: where fresh noise comes from, asked once a step if ``eta`` is above 0.
        eta: 0 adds none, 1 as much as DDPM's posterior has; between 0 and 1.

    Raises:
        StepsError: that many steps do not fit into the schedule.
        UnsupportedScheduleError: noise is to be predicted from pure noise, which says nothing about the picture.
    """

    init_noise_sigma = 1.0

    def __init__(self, schedule: Schedule, num_inference_steps: int, noise: NoiseSource, eta: float) -> None:
        self.timesteps = whole_timesteps(schedule, num_inference_steps)
        refuse_noise_from_noise(schedule, self.timesteps)
        self._schedule = schedule
        self._stride = schedule.num_train_timesteps // num_inference_steps
        self._alphas_cumprod = schedule.alphas_cumprod
        self._last = 1.0 if schedule.set_alpha_to_one in (None, True) else float(self._alphas_cumprod[0])
        self._noise = noise
        self._eta = eta

    def scale_model_input(self, latents: F32, index: int) -> F32:  # noqa: ARG002 - part of the protocol
        """Return the latents as they are."""
        return latents

    def add_noise(self, picture: F32, noise: F32, index: int) -> F32:
        """Return clean latents noised to timestep ``timesteps[index]``."""
        return noised(picture, noise, float(self._alphas_cumprod[int(self.timesteps[index])]))

    def step(self, noise_pred: F32, index: int, latents: F32) -> F32:
        """Go from ``timesteps[index]`` down by one stride."""
        timestep = int(self.timesteps[index])
        share = float(self._alphas_cumprod[timestep])
        target = timestep - self._stride
        share_target = float(self._alphas_cumprod[target]) if target >= 0 else self._last

        alpha, sigma = np.float32(math.sqrt(share)), np.float32(math.sqrt(1 - share))
        kind = self._schedule.prediction_type
        picture = predicted_picture(kind, noise_pred, latents, alpha, sigma)
        picture = clipped(picture, self._schedule, unless_said=True)
        direction = predicted_noise(kind, noise_pred, latents, alpha, sigma)
        variance = self._eta**2 * (1 - share_target) / (1 - share) * (1 - share / share_target)
        kept = np.float32(math.sqrt(1 - share_target - variance))
        after = np.float32(math.sqrt(share_target)) * picture + kept * direction
        return after if self._eta == 0 else after + np.float32(math.sqrt(variance)) * self._noise()
