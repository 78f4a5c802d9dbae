"""Euler's method and DPM-Solver++ with EDM's preconditioning (Karras et al. 2022, table 1).

They match diffusers' ``EDMEulerScheduler`` and ``EDMDPMSolverMultistepScheduler``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.errors import StepsError
from nano_runtime.sampling.noise import NoiseSource, no_noise
from nano_runtime.sampling.samplers.dpm_multistep import Multistep
from nano_runtime.sampling.samplers.mixing import VarianceExploding, thresholded
from nano_runtime.sampling.schedule import torch_linspace
from nano_runtime.sampling.settings import Settings

__all__ = ["EDMDPM", "EDMEuler"]


@dataclass(frozen=True, eq=False)
class _Preconditioned(VarianceExploding):
    """Latents ``picture + level * noise``, scaled for a network that knows pictures of deviation ``sigma_data``."""

    sigma_data: float = 0.5

    def scale_model_input(self, latents: F32, index: int) -> F32:
        """Shrink the latents to the unit variance that the network knows."""
        scaled: F32 = latents * (np.float32(1) / np.sqrt(self._total(index)))
        return scaled

    def predicted_picture(self, output: F32, latents: F32, index: int) -> F32:
        """Mix the latents and the network's output into the picture."""
        level, data = self.levels[index], np.float32(self.sigma_data)
        sign = np.float32(1 if self.kind == "epsilon" else -1)
        of_output = sign * level * data / np.sqrt(self._total(index))
        picture: F32 = data * data / self._total(index) * latents + of_output * output
        return picture

    def _total(self, index: int) -> np.float32:
        level = self.levels[index]
        return np.float32(level * level + np.float32(self.sigma_data) ** 2)

    @cached_property
    def lambdas(self) -> F32:
        """Log signal-to-noise before each call; infinite where there is no noise."""
        with np.errstate(divide="ignore"):
            logs: F32 = -np.log(self.levels.astype(np.float64)).astype(np.float32)
        return logs

    def coefficients(self, index: int) -> tuple[np.float32, np.float32]:
        """Return the shares of picture and noise before call ``index``."""
        return np.float32(1), self.levels[index]


class EDMEuler:
    """Move along the line from the latents to the predicted picture.

    Args:
        settings: of the sampler; its levels do not come from betas, and timesteps are a quarter of their logarithm.
        num_inference_steps: 1 or more; the network is called once for each.

    Raises:
        StepsError: no step.
    """

    def __init__(self, settings: Settings, num_inference_steps: int) -> None:
        levels = _levels(settings, num_inference_steps)
        self.timesteps = _timesteps(levels)
        self.mixing = _mixing(settings, levels, levels[-1])

    def step(self, noise_pred: F32, index: int, latents: F32) -> F32:
        """Go from noise level ``index`` to the next."""
        level, target = self.mixing.levels[index : index + 2]
        slope: F32 = (latents - self.mixing.predicted_picture(noise_pred, latents, index)) / level
        after: F32 = latents + slope * (target - level)
        return after


class EDMDPM(Multistep):
    """DPM-Solver++ over the same levels.

    Args:
        settings: of the sampler.
        num_inference_steps: 1 or more; the network is called once for each.
        noise: source of fresh noise, asked once a step by the stochastic algorithm.

    Raises:
        StepsError: no step.
    """

    def __init__(self, settings: Settings, num_inference_steps: int, noise: NoiseSource = no_noise) -> None:
        levels = _levels(settings, num_inference_steps)
        mixing = _mixing(settings, levels, np.float32(settings.sigma_min or 0))

        def picture(output: F32, latents: F32, index: int) -> F32:
            predicted = mixing.predicted_picture(output, latents, index)
            return thresholded(predicted, settings) if settings.thresholding else predicted

        super().__init__(settings, _timesteps(levels), mixing, picture, noise)


def _levels(settings: Settings, steps: int) -> F32:
    """Return the noise level of each call, falling: float32 [steps].

    Raises:
        StepsError: no step.
    """
    if not 1 <= steps <= settings.num_train_timesteps:
        raise StepsError(steps, settings.num_train_timesteps)
    most, least = float(settings.sigma_max or 0), float(settings.sigma_min or 0)
    if settings.sigma_schedule == "karras":
        first, last = most ** (1 / settings.rho), least ** (1 / settings.rho)
        sigmas = (first + np.linspace(0, 1, steps) * (last - first)) ** settings.rho
    else:
        sigmas = np.exp(torch_linspace(math.log(least), math.log(most), steps).astype(np.float64))[::-1]
    levels: F32 = sigmas.astype(np.float32)
    return levels


def _timesteps(levels: F32) -> F32:
    quarters: F32 = np.float32(0.25) * np.log(levels.astype(np.float64)).astype(np.float32)
    return quarters


def _mixing(settings: Settings, levels: F32, least: np.float32) -> _Preconditioned:
    """Return the mixing of these levels, which end at none or at the least."""
    end = least if settings.final_sigmas_type == "sigma_min" else np.float32(0)
    first = math.sqrt(float(settings.sigma_max or 0) ** 2 + 1)
    return _Preconditioned(settings.prediction_type, np.append(levels, end), first, settings.sigma_data)
