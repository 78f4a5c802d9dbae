"""The coefficients of DPM-Solver's steps in its four algorithms, and the output that each extrapolates.

DPM-Solver (Lu et al. 2022a) integrates the predicted noise, DPM-Solver++ (Lu et al. 2022b) the predicted picture; the
"sde" variants of both follow the stochastic equation with the same marginals, and add fresh noise in every step.
Numbers are float32 in diffusers' order: at small steps its rounding is larger than what the tests allow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.sampling.samplers.mixing import Mixing, VariancePreserving, thresholded
from nano_runtime.sampling.settings import Algorithm, Settings

__all__ = ["Coefficients", "RatioMixing", "coefficients", "extrapolated"]

_HALF = np.float32(0.5)


class RatioMixing(Mixing, Protocol):
    """A mixing whose shares of picture and noise are known before each call, and after the last."""

    @property
    def lambdas(self) -> F32:
        """Log signal-to-noise ``log(alpha / sigma)`` before each call; infinite where there is no noise."""

    def coefficients(self, index: int) -> tuple[np.float32, np.float32]:
        """Return alpha and sigma before call ``index``."""


@dataclass(frozen=True, eq=False)
class Coefficients:
    """The next latents are a sum of five products; all are float32.

    Attributes:
        kept: of the old latents.
        value: of the output.
        middle: of its slope, in the midpoint formula of second order.
        slope: of its slope in the other formulas.
        bend: of its second derivative.
        fresh: of fresh noise; 0 without any.
    """

    kept: np.float32
    value: np.float32
    middle: np.float32
    slope: np.float32
    bend: np.float32
    fresh: np.float32


def coefficients(algorithm: Algorithm, mixing: RatioMixing, begin: int, end: int) -> Coefficients:
    """Return the coefficients of the step from one place of the schedule to a later one."""
    one, two = np.float32(1), np.float32(2)
    alpha, sigma = mixing.coefficients(begin)
    alpha_target, sigma_target = mixing.coefficients(end)
    with np.errstate(all="ignore"):
        h = np.float32(mixing.lambdas[end] - mixing.lambdas[begin])
        if algorithm == "dpmsolver++":
            gone = _exp(-h) - one
            value = -alpha_target * gone
            slope, bend = alpha_target * (gone / h + one), -alpha_target * ((gone + h) / h**2 - _HALF)
            return Coefficients(sigma_target / sigma, value, _HALF * value, slope, bend, np.float32(0))
        if algorithm == "sde-dpmsolver++":
            come = one - _exp(-two * h)
            value, slope = alpha_target * come, alpha_target * (come / (-two * h) + one)
            bend = alpha_target * ((come - two * h) / (two * h) ** 2 - _HALF)
            kept = sigma_target / sigma * _exp(-h)
            return Coefficients(kept, value, _HALF * value, slope, bend, sigma_target * _root(come))
        grown = _exp(h) - one
        value, kept = -sigma_target * grown, alpha_target / alpha
        slope = -sigma_target * (grown / h - one)
        if algorithm == "sde-dpmsolver":
            fresh = sigma_target * _root(_exp(two * h) - one)
            return Coefficients(kept, two * value, value, two * slope, np.float32(np.nan), fresh)
        bend = -sigma_target * ((grown - h) / h**2 - _HALF)
        return Coefficients(kept, value, _HALF * value, slope, bend, np.float32(0))


def extrapolated(settings: Settings, mixing: VariancePreserving, output: F32, latents: F32, index: int) -> F32:
    """Return what the algorithm extrapolates: the predicted picture, or the predicted noise; thresholded if asked."""
    if settings.algorithm_type in {"dpmsolver++", "sde-dpmsolver++"}:
        picture = mixing.predicted_picture(output, latents, index)
        return thresholded(picture, settings) if settings.thresholding else picture
    noise = mixing.predicted_noise(output, latents, index)
    if not settings.thresholding:
        return noise
    alpha, sigma = mixing.coefficients(index)
    picture = thresholded(np.divide(latents - sigma * noise, alpha), settings)
    noise = np.divide(latents - alpha * picture, sigma)
    return noise  # noqa: RET504 - numpy's type is lost by the division


def _root(square: np.float32) -> np.float32:
    """Return the root, or 0 of a number that rounding made negative: at the end, a step may have no width."""
    return np.float32(np.sqrt(np.maximum(square, np.float32(0))))


def _exp(power: np.float32) -> np.float32:
    """Return the exponential, rounded once."""
    return np.float32(np.exp(np.float64(power)))
