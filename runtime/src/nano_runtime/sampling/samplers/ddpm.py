"""Ancestral sampling as in DDPM (Ho et al. 2020, formula 7); matches diffusers' ``DDPMScheduler``.

It uses one of the paper's two variances: β̃ ("fixed_small", and "fixed_small_log", which is the same number), or β of
the step ("fixed_large").
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.sampling.noise import NoiseSource
from nano_runtime.sampling.samplers.mixing import VariancePreserving, bounded, refuse_noise_from_noise
from nano_runtime.sampling.schedule import alphas_cumprod_of, whole_timesteps
from nano_runtime.sampling.settings import Settings

__all__ = ["DDPM"]

_LEAST_VARIANCE: Final = 1e-20  # diffusers', so that its logarithm exists


class DDPM:
    """Draw from the distribution of the next latents, given these and the predicted picture.

    Args:
        settings: of the sampler.
        num_inference_steps: 1 to ``num_train_timesteps``; the network is called once for each.
        noise: source of fresh noise, asked once a step, except at timestep 0.

    Raises:
        StepsError: that many steps do not fit into the schedule.
        UnsupportedScheduleError: the network predicts noise, and the first latents are pure noise.
    """

    def __init__(self, settings: Settings, num_inference_steps: int, noise: NoiseSource) -> None:
        self.timesteps = whole_timesteps(settings, num_inference_steps)
        alphas_cumprod = alphas_cumprod_of(settings)
        refuse_noise_from_noise(settings, self.timesteps, alphas_cumprod)
        self._settings = settings
        shares = alphas_cumprod[self.timesteps.astype(np.intp)]
        self.mixing = VariancePreserving.of_shares(settings.prediction_type, shares)
        self._shares = np.append(shares, np.float32(1))
        self._noise = noise

    def step(self, noise_pred: F32, index: int, latents: F32) -> F32:
        """Go from ``timesteps[index]`` to the next, and from the last to no noise."""
        share, share_target = self._shares[index : index + 2].tolist()
        kept = share / share_target  # the share of these latents in the next, alpha in the paper
        picture = bounded(self.mixing.predicted_picture(noise_pred, latents, index), self._settings)
        of_picture = np.float32(math.sqrt(share_target) * (1 - kept) / (1 - share))
        of_latents = np.float32(math.sqrt(kept) * (1 - share_target) / (1 - share))
        mean: F32 = of_picture * picture + of_latents * latents
        if self.timesteps[index] == 0:
            return mean
        variance = 1 - kept
        if self._settings.variance_type != "fixed_large":
            variance = max((1 - share_target) / (1 - share) * variance, _LEAST_VARIANCE)
        return mean + np.float32(math.sqrt(variance)) * self._noise()
