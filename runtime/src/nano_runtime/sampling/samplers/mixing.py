"""Two ways in which latents mix picture and noise, and what a network's output says about both.

A network computes the noise ("epsilon"), the picture ("sample"), or the velocity ``alpha * noise - sigma * picture``
("v_prediction", Salimans & Ho 2022, section 2.4), where ``alpha`` and ``sigma`` are the shares of picture and noise in
latents of unit variance. Picture and noise are also called x0 and ε; diffusers calls them ``pred_original_sample`` and
``pred_epsilon``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.errors import UnsupportedScheduleError
from nano_runtime.sampling.schedule import PredictionType, Schedule

__all__ = [
    "Mixing",
    "VarianceExploding",
    "VariancePreserving",
    "clipped",
    "predicted_noise",
    "predicted_picture",
    "refuse_noise_from_noise",
]


class Mixing(Protocol):
    """The scale that a sampler keeps its latents on. Arrays are float32 [batch, channels, height, width]."""

    @property
    def init_noise_sigma(self) -> float:
        """The factor that turns unit noise into the first latents."""

    def scale_model_input(self, latents: F32, index: int) -> F32:
        """Return the latents before call ``index`` with unit variance, for the network; never changes ``latents``."""

    def add_noise(self, picture: F32, noise: F32, index: int) -> F32:
        """Return the latents before call ``index`` that hold this picture and this unit noise."""


@dataclass(frozen=True, eq=False)
class VariancePreserving:
    """Latents ``alpha * picture + sigma * noise`` with ``alpha² + sigma² = 1``, which the network takes as they are.

    Attributes:
        kind: what the network computes.
        alphas: share of the picture before each call, float32 [calls or more], in [0, 1].
        sigmas: share of the noise, float32 like ``alphas``.
    """

    kind: PredictionType
    alphas: F32
    sigmas: F32
    init_noise_sigma: ClassVar[float] = 1.0

    @classmethod
    def of_shares(cls, kind: PredictionType, shares: F32) -> VariancePreserving:
        """Mix so that these shares of the variance are the picture's (ᾱ in [0, 1], float32 [calls or more])."""
        variances = shares.tolist()
        alphas = np.array([math.sqrt(share) for share in variances], np.float32)
        return cls(kind, alphas, np.array([math.sqrt(1 - share) for share in variances], np.float32))

    @classmethod
    def of_levels(cls, kind: PredictionType, levels: F32) -> VariancePreserving:
        """Mix so that ``sigma / alpha`` are these noise levels, float32 [calls or more]."""
        ratios = levels.tolist()
        alphas = [(level * level + 1) ** -0.5 for level in ratios]
        sigmas = [level * alpha for level, alpha in zip(ratios, alphas, strict=True)]
        return cls(kind, np.array(alphas, np.float32), np.array(sigmas, np.float32))

    def coefficients(self, index: int) -> tuple[np.float32, np.float32]:
        """Return alpha and sigma before call ``index``."""
        return self.alphas[index], self.sigmas[index]

    def scale_model_input(self, latents: F32, index: int) -> F32:  # noqa: ARG002 - part of the protocol
        """Return the latents as they are."""
        return latents

    def add_noise(self, picture: F32, noise: F32, index: int) -> F32:
        """Return clean latents with unit noise mixed in, as they are before call ``index``."""
        alpha, sigma = self.coefficients(index)
        return alpha * picture + sigma * noise

    def predicted_picture(self, output: F32, latents: F32, index: int) -> F32:
        """Return the clean latents that the network predicts in call ``index``, float32 like the inputs."""
        return predicted_picture(self.kind, output, latents, *self.coefficients(index))

    def predicted_noise(self, output: F32, latents: F32, index: int) -> F32:
        """Return the unit noise that the network predicts in call ``index``, float32 like the inputs."""
        return predicted_noise(self.kind, output, latents, *self.coefficients(index))


@dataclass(frozen=True, eq=False)
class VarianceExploding:
    """Latents ``picture + level * noise``: the picture keeps its size, and the noise is as large as its level.

    k-diffusion and diffusers' Euler, Heun and LMS keep latents like this; the network is given them divided by
    ``sqrt(level² + 1)``. The order of operations is diffusers': between a noisy level and a nearly clean one, a
    difference in the last bit grows until it can be seen.

    Attributes:
        kind: what the network computes.
        levels: noise level before each call, float32 [calls or more].
        init_noise_sigma: the factor that turns unit noise into the first latents.
    """

    kind: PredictionType
    levels: F32
    init_noise_sigma: float

    def scale_model_input(self, latents: F32, index: int) -> F32:
        """Shrink the latents to the unit variance that the network knows."""
        level = self.levels[index]
        scaled: F32 = latents / np.sqrt(level * level + np.float32(1))
        return scaled

    def add_noise(self, picture: F32, noise: F32, index: int) -> F32:
        """Return clean latents with unit noise added, as they are before call ``index``."""
        noised: F32 = picture + noise * self.levels[index]
        return noised

    def predicted_picture(self, output: F32, latents: F32, index: int) -> F32:
        """Return the clean latents that the network predicts in call ``index``, float32 like the inputs."""
        level: np.float32 = self.levels[index]
        if self.kind == "epsilon":
            return latents - level * output
        if self.kind == "v_prediction":
            total = level * level + np.float32(1)
            picture: F32 = output * (-level / np.sqrt(total)) + latents / total
            return picture
        return output


def predicted_picture(kind: PredictionType, output: F32, latents: F32, alpha: np.float32, sigma: np.float32) -> F32:
    """Return the clean latents that the network predicts for latents ``alpha * picture + sigma * noise``."""
    if kind == "epsilon":
        return (latents - sigma * output) * (np.float32(1) / alpha)
    if kind == "v_prediction":
        return alpha * latents - sigma * output
    return output


def predicted_noise(kind: PredictionType, output: F32, latents: F32, alpha: np.float32, sigma: np.float32) -> F32:
    """Return the unit noise that the network predicts for latents ``alpha * picture + sigma * noise``."""
    if kind == "epsilon":
        return output
    if kind == "v_prediction":
        return alpha * output + sigma * latents
    return (latents - alpha * output) * (np.float32(1) / sigma)


def clipped(picture: F32, schedule: Schedule, *, default: bool) -> F32:
    """Clip the predicted picture if the schedule asks for it; ``default`` decides where the schedule does not say."""
    if default if schedule.clip_sample is None else schedule.clip_sample:
        return np.clip(picture, -schedule.clip_sample_range, schedule.clip_sample_range)
    return picture


def refuse_noise_from_noise(schedule: Schedule, timesteps: F32) -> None:
    """Refuse a network that predicts noise if the first latents are pure noise: it would say nothing of the picture.

    Raises:
        UnsupportedScheduleError: the first timestep has no share of the picture, and the network predicts noise.
    """
    if schedule.prediction_type == "epsilon" and schedule.alphas_cumprod[int(timesteps[0])] == 0:
        raise UnsupportedScheduleError("prediction_type", "epsilon", ("v_prediction", "sample"))
