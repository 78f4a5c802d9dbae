"""IPNDM: PNDM's fourth-order formula over angles instead of betas; matches diffusers' ``IPNDMScheduler``.

Latents are ``alpha * picture + sigma * noise`` with levels of their own, and the timestep is a share of a quarter turn
(Katherine Crowson, v-diffusion, ``sampling.plms_sample``).
"""

from __future__ import annotations

import math

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.errors import StepsError
from nano_runtime.sampling.samplers.mixing import VariancePreserving
from nano_runtime.sampling.samplers.pndm import extrapolated
from nano_runtime.sampling.schedule import torch_linspace
from nano_runtime.sampling.settings import Settings

__all__ = ["IPNDM"]

_LEAST_ALPHA = np.float32(1e-8)  # diffusers' stand-in for the first share of the picture, which is 0


class IPNDM:
    """Extrapolate the predicted noise from the last four calls (Adams-Bashforth).

    Args:
        settings: of the sampler; nothing but the number of trained timesteps counts.
        num_inference_steps: 1 to ``num_train_timesteps``.

    Raises:
        StepsError: that many steps do not fit.
    """

    def __init__(self, settings: Settings, num_inference_steps: int) -> None:
        if not 1 <= num_inference_steps <= settings.num_train_timesteps:
            raise StepsError(num_inference_steps, settings.num_train_timesteps)
        sines = np.sin(torch_linspace(1, 0, num_inference_steps + 1) * np.float32(math.pi) / np.float32(2))
        sigmas = sines * sines
        alphas = np.sqrt(np.float32(1) - sigmas * sigmas)
        self.timesteps: F32 = (np.arctan2(sigmas, alphas) / np.float32(math.pi) * np.float32(2))[:-1]
        self.mixing = VariancePreserving("epsilon", alphas, sigmas)
        self._outputs: list[F32] = []  # newest last, at most four

    def step(self, noise_pred: F32, index: int, latents: F32) -> F32:
        """Go to the next angle."""
        alpha, sigma = self.mixing.coefficients(index)
        alpha_target, sigma_target = self.mixing.coefficients(index + 1)
        self._outputs = [*self._outputs[-3:], latents * sigma + noise_pred * alpha]
        noise = extrapolated(self._outputs)
        picture = np.divide(latents - sigma * noise, max(alpha, _LEAST_ALPHA))
        after: F32 = alpha_target * picture + noise * sigma_target
        return after
