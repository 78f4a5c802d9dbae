"""Two ways in which latents mix picture and noise, and what a network's output says about both.

A network computes the noise ("epsilon"), the picture ("sample"), or the velocity ``alpha * noise - sigma * picture``
("v_prediction", Salimans & Ho 2022, section 2.4), where ``alpha`` and ``sigma`` are the shares of picture and noise in
latents of unit variance. Picture and noise are also called x0 and ε; diffusers calls them ``pred_original_sample`` and
``pred_epsilon``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.errors import UnsupportedScheduleError
from nano_runtime.sampling.settings import PredictionType, Settings

__all__ = [
    "Mixing",
    "VarianceExploding",
    "VariancePreserving",
    "bounded",
    "predicted_noise",
    "predicted_picture",
    "refuse_noise_from_noise",
    "thresholded",
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
        levels: noise levels that they were made of, float32 like ``alphas``; only a flow's prediction needs them.
    """

    kind: PredictionType
    alphas: F32
    sigmas: F32
    levels: F32 | None = None
    init_noise_sigma: ClassVar[float] = 1.0

    @classmethod
    def of_shares(cls, kind: PredictionType, shares: F32) -> VariancePreserving:
        """Mix so that these shares of the variance are the picture's (ᾱ in [0, 1], float32 [calls or more])."""
        variances = shares.tolist()
        alphas = np.array([math.sqrt(share) for share in variances], np.float32)
        return cls(kind, alphas, np.array([math.sqrt(1 - share) for share in variances], np.float32))

    @classmethod
    def of_levels(cls, settings: Settings, levels: F32) -> VariancePreserving:
        """Mix so that ``sigma / alpha`` are these noise levels, or in a flow sigma: float32 [calls or more]."""
        if settings.use_flow_sigmas:
            return cls(settings.prediction_type, np.float32(1) - levels, levels, levels)
        alphas = np.float32(1) / np.sqrt(levels * levels + np.float32(1))
        return cls(settings.prediction_type, alphas, levels * alphas, levels)

    @cached_property
    def lambdas(self) -> F32:
        """Log signal-to-noise ``log(alpha / sigma)`` before each call; infinite where there is no noise."""
        with np.errstate(divide="ignore"):
            logs = [np.log(one.astype(np.float64)).astype(np.float32) for one in (self.alphas, self.sigmas)]
        difference: F32 = logs[0] - logs[1]
        return difference

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
        if self.kind == "flow_prediction" and self.levels is not None:
            picture: F32 = latents - self.levels[index] * output
            return picture
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
    if kind == "flow_prediction":
        return latents - sigma * output
    return output


def predicted_noise(kind: PredictionType, output: F32, latents: F32, alpha: np.float32, sigma: np.float32) -> F32:
    """Return the unit noise that the network predicts for latents ``alpha * picture + sigma * noise``."""
    if kind == "epsilon":
        return output
    if kind == "v_prediction":
        return alpha * output + sigma * latents
    return (latents - alpha * output) * (np.float32(1) / sigma)


def bounded(picture: F32, settings: Settings) -> F32:
    """Threshold or clip the predicted picture, float32 [batch, ...], if the settings ask for it."""
    if settings.thresholding:
        return thresholded(picture, settings)
    if settings.clip_sample:
        return np.clip(picture, -settings.clip_sample_range, settings.clip_sample_range)
    return picture


def thresholded(picture: F32, settings: Settings) -> F32:
    """Clip each picture of a batch to a quantile of its magnitudes, and scale it to [-1, 1] (Saharia et al. 2022).

    The quantile is torch's: interpolated between two magnitudes, at a place that is rounded to float32.
    """
    sizes = np.sort(np.abs(picture).reshape(len(picture), -1), axis=1)
    place = np.float32(settings.dynamic_thresholding_ratio) * np.float32(sizes.shape[1] - 1)
    below, above = sizes[:, int(np.floor(place))], sizes[:, int(np.ceil(place))]
    quantile = below + (place - np.floor(place)) * (above - below)
    bound = np.minimum(np.maximum(quantile, np.float32(1)), np.float32(settings.sample_max_value))
    bound = bound.reshape(-1, *[1] * (picture.ndim - 1))
    scaled: F32 = np.clip(picture, -bound, bound) / bound
    return scaled


def refuse_noise_from_noise(settings: Settings, timesteps: F32, alphas_cumprod: F32) -> None:
    """Refuse a network that predicts noise if the first latents are pure noise: it would say nothing of the picture.

    Raises:
        UnsupportedScheduleError: the first timestep has no share of the picture, and the network predicts noise.
    """
    if settings.prediction_type == "epsilon" and alphas_cumprod[int(timesteps[0])] == 0:
        raise UnsupportedScheduleError("prediction_type", "epsilon", ("v_prediction", "sample"))
