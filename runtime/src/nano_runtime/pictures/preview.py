"""Previews without the decoder: a small matrix turns the picture that the network predicts by now into colours."""

from __future__ import annotations

import math

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.sampling.denoise import Step
from nano_runtime.sampling.samplers.mixing import predicted_picture
from nano_runtime.sampling.schedule import Schedule

__all__ = ["colours", "predicted_latents"]


def predicted_latents(step: Step, schedule: Schedule) -> F32:
    """Return the clean latents that the network's last output points to (x0), float32 [n, C, h, w], for any sampler.

    Samplers with noise levels of their own may ask the network between two trained timesteps; the share of the picture
    is interpolated there, which is exact enough to look at.
    """
    shares = schedule.alphas_cumprod
    share = float(np.interp(step.timestep, np.arange(len(shares)), shares))
    alpha, sigma = np.float32(math.sqrt(share)), np.float32(math.sqrt(1 - share))
    return predicted_picture(schedule.prediction_type, step.noise_pred, step.network_input, alpha, sigma)


def colours(latents: F32, weights: F32) -> F32:
    """Map each latent to a colour.

    Args:
        latents: float32 [n, C, h, w], clean.
        weights: float32 [C + 1, 3], a row for each channel, and last a row that is added; the manifest's ``preview``.

    Returns:
        Float32 [n, h, w, 3] in [0, 1].
    """
    mapped = latents.transpose(0, 2, 3, 1) @ weights[:-1] + weights[-1]
    unit: F32 = np.clip(mapped, 0, 1)
    return unit
