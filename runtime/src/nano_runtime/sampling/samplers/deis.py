"""DEIS in several steps over log rho (Zhang & Chen 2023); matches diffusers' ``DEISMultistepScheduler``."""

from __future__ import annotations

from typing import Final

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.sampling.samplers.dpm_steps import coefficients
from nano_runtime.sampling.samplers.levels import whole_levels
from nano_runtime.sampling.samplers.mixing import VariancePreserving, thresholded
from nano_runtime.sampling.settings import Settings

__all__ = ["DEIS"]

_FEW_STEPS: Final = 15  # below these ``lower_order_final`` has an effect
_THIRD: Final = 3


class DEIS:
    """Lay a polynomial in log rho through the predicted noise of the last calls, and integrate it over rho.

    Rho is the noise level ``sigma / alpha``. Levels end at the least that was trained.

    Args:
        settings: of the sampler, see ``samplers.levels.whole_levels``.
        num_inference_steps: 1 to ``num_train_timesteps``; the network is called once for each.

    Raises:
        StepsError: that many steps do not fit into the schedule.
    """

    def __init__(self, settings: Settings, num_inference_steps: int) -> None:
        levels = whole_levels(settings, num_inference_steps)
        self.timesteps = levels.timesteps
        self.mixing = VariancePreserving.of_levels(settings, levels.sigmas)
        self._rhos = self.mixing.sigmas / self.mixing.alphas
        self._settings = settings
        self._order = min(settings.solver_order, _THIRD)
        self._noises: list[F32] = []  # predicted by the last calls; newest first, at most ``order``

    def step(self, noise_pred: F32, index: int, latents: F32) -> F32:
        """Go from noise level ``index`` to the next."""
        alpha, sigma = self.mixing.coefficients(index)
        picture = self.mixing.predicted_picture(noise_pred, latents, index)
        if self._settings.thresholding:
            picture = thresholded(picture, self._settings)
        if self.mixing.kind == "flow_prediction" and self.mixing.levels is not None:
            sigma = self.mixing.levels[index]  # diffusers goes on with the level that it took for this prediction
        noise: F32 = np.divide(latents - alpha * picture, sigma)
        self._noises = [noise, *self._noises[: self._order - 1]]
        order = min(len(self._noises), self._most_order(index))
        if order == 1:
            step = coefficients("dpmsolver", self.mixing, index, index + 1)
            return step.kept * latents + step.value * self._noises[0]
        rhos = self._rhos[index + 1 - order : index + 1][::-1]
        after: F32 = latents / alpha
        for place in range(order):
            others = np.concatenate([rhos[place + 1 :], rhos[:place]])
            weight = _integral(self._rhos[index + 1], rhos[place], others) - _integral(rhos[0], rhos[place], others)
            after = after + weight * self._noises[place]
        scaled: F32 = self.mixing.alphas[index + 1] * after
        return scaled

    def _most_order(self, index: int) -> int:
        """Return the highest order that a step may have at its place in the schedule."""
        left = len(self.timesteps) - index
        few = self._settings.lower_order_final and len(self.timesteps) < _FEW_STEPS
        return min(self._order, left) if few else self._order


def _integral(rho: np.float32, one: np.float32, others: F32) -> np.float32:
    """Return the antiderivative at ``rho`` of the polynomial in log rho that is 1 at one level and 0 at the others."""
    t, b, c = np.log(rho), np.log(one), np.log(others[0])
    if len(others) == 1:
        return np.float32(rho * (-c + t - np.float32(1)) / (b - c))
    d = np.log(others[1])
    two = np.float32(2)
    numerator = rho * (c * (d - t + np.float32(1)) - d * t + d + t**2 - two * t + two)
    return np.float32(numerator / ((b - c) * (b - d)))
