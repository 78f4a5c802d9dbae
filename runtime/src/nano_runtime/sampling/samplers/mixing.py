"""What the network's output says about the picture and the noise, whichever of the two (or mix) it was trained to give.

For latents ``alpha * picture + sigma * noise`` with ``alpha² + sigma² = 1`` the network computes the noise ("epsilon"),
the picture ("sample"), or the velocity ``alpha * noise - sigma * picture`` ("v_prediction", Salimans & Ho 2022, section
2.4).
Also called x0 and ε, or ``pred_original_sample`` and ``pred_epsilon`` in diffusers.
"""

from __future__ import annotations

import math

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.errors import UnsupportedScheduleError
from nano_runtime.sampling.schedule import PredictionType, Schedule

__all__ = [
    "clipped",
    "noised",
    "noised_at",
    "predicted_noise",
    "predicted_picture",
    "predicted_picture_at",
    "refuse_noise_from_noise",
    "scaled_to_unit",
]


def predicted_picture(kind: PredictionType, output: F32, latents: F32, alpha: np.float32, sigma: np.float32) -> F32:
    """Return the clean latents the network believes in, float32 like the inputs."""
    if kind == "epsilon":
        return (latents - sigma * output) * (np.float32(1) / alpha)
    if kind == "v_prediction":
        return alpha * latents - sigma * output
    return output


def predicted_picture_at(kind: PredictionType, output: F32, latents: F32, level: np.float32) -> F32:
    """Return the same for latents ``picture + level * noise``, as samplers that work in noise levels keep them.

    In diffusers' order of operations: between a noisy level and a nearly clean one, the last bit grows to be seen.
    """
    if kind == "epsilon":
        return latents - level * output
    if kind == "v_prediction":
        total = level * level + np.float32(1)
        picture: F32 = output * (-level / np.sqrt(total)) + latents / total
        return picture
    return output


def scaled_to_unit(latents: F32, level: np.float32) -> F32:
    """Return latents ``picture + level * noise`` with the unit variance that the network knows."""
    scaled: F32 = latents / np.sqrt(level * level + np.float32(1))
    return scaled


def noised_at(picture: F32, noise: F32, level: np.float32) -> F32:
    """Return latents ``picture + level * noise`` of clean latents and unit noise."""
    return picture + noise * level


def predicted_noise(kind: PredictionType, output: F32, latents: F32, alpha: np.float32, sigma: np.float32) -> F32:
    """Return the unit noise the network believes in, float32 like the inputs."""
    if kind == "epsilon":
        return output
    if kind == "v_prediction":
        return alpha * output + sigma * latents
    return (latents - alpha * output) * (np.float32(1) / sigma)


def clipped(picture: F32, schedule: Schedule, *, unless_said: bool) -> F32:
    """Clip the predicted picture as the schedule asks, or as the sampler's default is ``unless_said``."""
    if unless_said if schedule.clip_sample is None else schedule.clip_sample:
        return np.clip(picture, -schedule.clip_sample_range, schedule.clip_sample_range)
    return picture


def noised(picture: F32, noise: F32, share: float) -> F32:
    """Return clean latents with unit noise mixed in until ``share`` of the variance is the picture's (ᾱ, in [0, 1])."""
    return np.float32(math.sqrt(share)) * picture + np.float32(math.sqrt(1 - share)) * noise


def refuse_noise_from_noise(schedule: Schedule, timesteps: F32) -> None:
    """Refuse to start with a prediction of noise from pure noise, which would say nothing about the picture.

    Raises:
        UnsupportedScheduleError: the first timestep has no share of the picture, and the network predicts noise.
    """
    if schedule.prediction_type == "epsilon" and schedule.alphas_cumprod[int(timesteps[0])] == 0:
        raise UnsupportedScheduleError("prediction_type", "epsilon", ("v_prediction", "sample"))
