"""DDIM without added noise (Song et al. 2021, formula 12 with η = 0); matches diffusers' ``DDIMScheduler``."""

from __future__ import annotations

import math

import numpy as np

from nano_runtime.errors import UnsupportedScheduleError
from nano_runtime.samplers.prediction import F32, predicted_noise, predicted_picture
from nano_runtime.schedule import Schedule, Spacing, check_steps, spaced_timesteps

__all__ = ["DDIM"]


class DDIM:
    """Predict the picture, then put back as much of the predicted noise as the next timestep has.

    Args:
        schedule: of the model; leading spacing and a last ᾱ of 1 where it does not say.
        num_inference_steps: 1 to ``num_train_timesteps``; the network is called once for each.

    Raises:
        StepsError: that many steps do not fit into the schedule.
        UnsupportedScheduleError: noise is to be predicted from pure noise, which says nothing about the picture.
    """

    init_noise_sigma = 1.0

    def __init__(self, schedule: Schedule, num_inference_steps: int) -> None:
        spacing: Spacing = "leading" if schedule.timestep_spacing is None else schedule.timestep_spacing
        check_steps(schedule, num_inference_steps, lambda n: np.round(spaced_timesteps(schedule, spacing, n, n)))
        self.timesteps = np.round(spaced_timesteps(schedule, spacing, num_inference_steps, num_inference_steps)).astype(
            np.float32
        )
        self._schedule = schedule
        self._stride = schedule.num_train_timesteps // num_inference_steps
        self._alphas_cumprod = schedule.alphas_cumprod
        self._last = 1.0 if schedule.set_alpha_to_one in (None, True) else float(self._alphas_cumprod[0])
        if schedule.prediction_type == "epsilon" and self._alphas_cumprod[int(self.timesteps[0])] == 0:
            raise UnsupportedScheduleError("prediction_type", "epsilon", ("v_prediction", "sample"))

    def scale_model_input(self, latents: F32, index: int) -> F32:  # noqa: ARG002 - part of the protocol
        """Return the latents as they are."""
        return latents

    def step(self, noise_pred: F32, index: int, latents: F32) -> F32:
        """Go from ``timesteps[index]`` down by one stride."""
        timestep = int(self.timesteps[index])
        share = float(self._alphas_cumprod[timestep])
        target = timestep - self._stride
        share_target = float(self._alphas_cumprod[target]) if target >= 0 else self._last

        alpha, sigma = np.float32(math.sqrt(share)), np.float32(math.sqrt(1 - share))
        kind = self._schedule.prediction_type
        picture = predicted_picture(kind, noise_pred, latents, alpha, sigma)
        noise = predicted_noise(kind, noise_pred, latents, alpha, sigma)
        if self._schedule.clip_sample:
            limit = self._schedule.clip_sample_range
            picture = np.clip(picture, -limit, limit)
        return np.float32(math.sqrt(share_target)) * picture + np.float32(math.sqrt(1 - share_target)) * noise
