"""Ancestral sampling as in DDPM (Ho et al. 2020, formula 7); matches diffusers' ``DDPMScheduler``.

It uses the smaller of the paper's two variances, β̃ ("fixed_small", and "fixed_small_log", which is the same number).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.sampling.noise import NoiseSource
from nano_runtime.sampling.samplers.mixing import VariancePreserving, clipped, refuse_noise_from_noise
from nano_runtime.sampling.schedule import Schedule, whole_timesteps

__all__ = ["DDPM"]

_LEAST_VARIANCE: Final = 1e-20  # diffusers', so that its logarithm exists


class DDPM:
    """Draw from the distribution of the next latents, given these and the predicted picture.

    Args:
        schedule: of the model; leading spacing and clipping where it does not say.
        num_inference_steps: 1 to ``num_train_timesteps``; the network is called once for each.
        noise: source of fresh noise, asked once a step, except at timestep 0.

    Raises:
        StepsError: that many steps do not fit into the schedule.
        UnsupportedScheduleError: the network predicts noise, and the first latents are pure noise.
    """

    def __init__(self, schedule: Schedule, num_inference_steps: int, noise: NoiseSource) -> None:
        self.timesteps = whole_timesteps(schedule, num_inference_steps)
        refuse_noise_from_noise(schedule, self.timesteps)
        self._schedule = schedule
        shares = schedule.alphas_cumprod[self.timesteps.astype(np.intp)]
        self.mixing = VariancePreserving.of_shares(schedule.prediction_type, shares)
        self._shares = np.append(shares, np.float32(1))
        self._noise = noise

    def step(self, noise_pred: F32, index: int, latents: F32) -> F32:
        """Go from ``timesteps[index]`` to the next, and from the last to no noise."""
        share, share_target = self._shares[index : index + 2].tolist()
        kept = share / share_target  # the share of these latents in the next, alpha in the paper
        picture = clipped(self.mixing.predicted_picture(noise_pred, latents, index), self._schedule, default=True)
        of_picture = np.float32(math.sqrt(share_target) * (1 - kept) / (1 - share))
        of_latents = np.float32(math.sqrt(kept) * (1 - share_target) / (1 - share))
        mean: F32 = of_picture * picture + of_latents * latents
        if self.timesteps[index] == 0:
            return mean
        variance = (1 - share_target) / (1 - share) * (1 - kept)
        return mean + np.float32(math.sqrt(max(variance, _LEAST_VARIANCE))) * self._noise()
