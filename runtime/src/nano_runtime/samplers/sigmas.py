"""Noise levels for samplers that work in ``sigma = sqrt((1 - ᾱ) / ᾱ)``: noise against a picture of unchanged size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nano_runtime.schedule import Schedule

__all__ = ["noise_levels", "vp_coefficients"]

_ALMOST_PURE_NOISE = 2.0**-24  # diffusers' stand-in for a last ᾱ of 0, which would make sigma infinite


def noise_levels(schedule: Schedule, timesteps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return sigma at each timestep, interpolated between the trained ones, and a last 0: float32 [calls + 1]."""
    share = schedule.alphas_cumprod
    if schedule.rescale_betas_zero_snr:
        share[-1] = _ALMOST_PURE_NOISE
    trained = np.sqrt((np.float32(1) - share) / share)
    return np.append(np.interp(timesteps, np.arange(len(trained)), trained), 0.0).astype(np.float32)


def vp_coefficients(level: float) -> tuple[np.float32, np.float32]:
    """Return (alpha, sigma) with alpha² + sigma² = 1 and sigma / alpha = level."""
    alpha = (level * level + 1) ** -0.5
    return np.float32(alpha), np.float32(level * alpha)
