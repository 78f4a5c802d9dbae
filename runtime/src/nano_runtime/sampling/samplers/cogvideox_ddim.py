"""DDIM over shifted signal-to-noise ratios; matches diffusers' ``CogVideoXDDIMScheduler``."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nano_runtime.arrays import F32
from nano_runtime.sampling.samplers.mixing import VariancePreserving, refuse_noise_from_noise
from nano_runtime.sampling.schedule import alphas_cumprod_of, whole_timesteps
from nano_runtime.sampling.settings import Settings

__all__ = ["CogVideoXDDIM"]


class CogVideoXDDIM:
    """Mix the latents with the predicted picture, which is not clipped.

    Args:
        settings: of the sampler.
        num_inference_steps: 1 to ``num_train_timesteps``; the network is called once for each.

    Raises:
        StepsError: that many steps do not fit into the schedule.
        UnsupportedScheduleError: the network predicts noise, and the first latents are pure noise.
    """

    def __init__(self, settings: Settings, num_inference_steps: int) -> None:
        self.timesteps = whole_timesteps(settings, num_inference_steps)
        self._shares = _shifted_shares(settings)
        refuse_noise_from_noise(settings, self.timesteps, self._shares.astype(np.float32))
        self._stride = settings.num_train_timesteps // num_inference_steps
        visited = self._shares[self.timesteps.astype(np.intp)].astype(np.float32)
        self.mixing = VariancePreserving.of_shares(settings.prediction_type, visited)
        self._last = 1.0 if settings.set_alpha_to_one else float(self._shares[0])

    def step(self, noise_pred: F32, index: int, latents: F32) -> F32:
        """Go from ``timesteps[index]`` down by one stride."""
        timestep = int(self.timesteps[index])
        target = timestep - self._stride
        share = float(self._shares[timestep])
        share_target = float(self._shares[target]) if target >= 0 else self._last
        kept = math.sqrt((1 - share_target) / (1 - share))
        picture = self.mixing.predicted_picture(noise_pred, latents, index)
        of_picture = math.sqrt(share_target) - math.sqrt(share) * kept
        return np.float32(kept) * latents + np.float32(of_picture) * picture


def _shifted_shares(settings: Settings) -> NDArray[Any]:
    """Return the picture's share of the variance at each timestep, [num_train_timesteps].

    It is float64 for scaled_linear and float32 for all else, as in diffusers. The shift divides ratios of signal to
    noise by a constant (Esser et al. 2024).
    """
    if settings.beta_schedule == "scaled_linear" and settings.trained_betas is None:
        start, end = math.sqrt(settings.beta_start), math.sqrt(settings.beta_end)
        root = np.linspace(start, end, settings.num_train_timesteps)
        shares: NDArray[Any] = np.cumprod(1 - root * root)
    else:
        shares = alphas_cumprod_of(replace(settings, rescale_betas_zero_snr=False))
    shift = settings.snr_shift_scale
    shares = shares / (shift + (1 - shift) * shares)
    if not settings.rescale_betas_zero_snr:
        return shares
    roots = np.sqrt(shares)
    rescaled: NDArray[Any] = np.square((roots - roots[-1]) * (roots[0] / (roots[0] - roots[-1])))
    return rescaled
