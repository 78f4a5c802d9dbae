"""DDIM (Song et al. 2021, formulas 12 and 16); matches diffusers' ``DDIMScheduler``."""

from __future__ import annotations

import math

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.sampling.noise import NoiseSource, no_noise
from nano_runtime.sampling.samplers.mixing import VariancePreserving, bounded, refuse_noise_from_noise
from nano_runtime.sampling.schedule import alphas_cumprod_of, whole_timesteps
from nano_runtime.sampling.settings import Settings

__all__ = ["DDIM"]


class DDIM:
    """Predict the picture, then put back the next timestep's noise: the predicted noise, and a share of fresh noise.

    Args:
        settings: of the sampler.
        num_inference_steps: 1 to ``num_train_timesteps``; the network is called once for each.
        noise: source of fresh noise, asked once a step if ``eta`` is above 0.
        eta: 0 adds no fresh noise, 1 adds as much as DDPM's posterior has; between 0 and 1.

    Raises:
        StepsError: that many steps do not fit into the schedule.
        UnsupportedScheduleError: the network predicts noise, and the first latents are pure noise.
    """

    def __init__(
        self, settings: Settings, num_inference_steps: int, noise: NoiseSource = no_noise, eta: float = 0.0
    ) -> None:
        self.timesteps = whole_timesteps(settings, num_inference_steps)
        self._alphas_cumprod = alphas_cumprod_of(settings)
        refuse_noise_from_noise(settings, self.timesteps, self._alphas_cumprod)
        self._settings = settings
        self._stride = settings.num_train_timesteps // num_inference_steps
        shares = self._alphas_cumprod[self.timesteps.astype(np.intp)]
        self.mixing = VariancePreserving.of_shares(settings.prediction_type, shares)
        self._last = 1.0 if settings.set_alpha_to_one else float(self._alphas_cumprod[0])
        self._noise = noise
        self._eta = eta

    def step(self, noise_pred: F32, index: int, latents: F32) -> F32:
        """Go from ``timesteps[index]`` down by one stride."""
        timestep = int(self.timesteps[index])
        share = float(self._alphas_cumprod[timestep])
        target = timestep - self._stride
        share_target = float(self._alphas_cumprod[target]) if target >= 0 else self._last

        picture = bounded(self.mixing.predicted_picture(noise_pred, latents, index), self._settings)
        direction = self.mixing.predicted_noise(noise_pred, latents, index)
        variance = self._eta**2 * (1 - share_target) / (1 - share) * (1 - share / share_target)
        kept = np.float32(math.sqrt(1 - share_target - variance))
        after = np.float32(math.sqrt(share_target)) * picture + kept * direction
        return after if self._eta == 0 else after + np.float32(math.sqrt(variance)) * self._noise()
