"""What the network's output says about the picture and the noise, whichever of the two (or mix) it was trained to give.

For latents ``alpha * picture + sigma * noise`` with ``alpha² + sigma² = 1`` the network computes the noise ("epsilon"),
the picture ("sample"), or the velocity ``alpha * noise - sigma * picture`` ("v_prediction", Salimans & Ho 2022, section
2.4).
Also called x0 and ε, or ``pred_original_sample`` and ``pred_epsilon`` in diffusers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nano_runtime.schedule import PredictionType

__all__ = ["F32", "predicted_noise", "predicted_picture"]

F32 = NDArray[np.float32]


def predicted_picture(kind: PredictionType, output: F32, latents: F32, alpha: np.float32, sigma: np.float32) -> F32:
    """Return the clean latents the network believes in, float32 like the inputs."""
    if kind == "epsilon":
        return (latents - sigma * output) * (np.float32(1) / alpha)
    if kind == "v_prediction":
        return alpha * latents - sigma * output
    return output


def predicted_noise(kind: PredictionType, output: F32, latents: F32, alpha: np.float32, sigma: np.float32) -> F32:
    """Return the unit noise the network believes in, float32 like the inputs."""
    if kind == "epsilon":
        return output
    if kind == "v_prediction":
        return alpha * output + sigma * latents
    return (latents - alpha * output) * (np.float32(1) / sigma)
