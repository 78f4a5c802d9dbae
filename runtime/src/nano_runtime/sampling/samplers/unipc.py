"""UniPC of second order (Zhao et al. 2023, B2(h)); matches the defaults of diffusers' ``UniPCMultistepScheduler``.

It has a predictor like DPM-Solver++ 2M, and a corrector that uses each call a second time: it replaces the latents that
the predictor reached by better ones, once the network has been called there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.sampling.samplers.levels import whole_levels
from nano_runtime.sampling.samplers.mixing import VariancePreserving
from nano_runtime.sampling.schedule import Schedule

__all__ = ["UniPC"]

_ORDER: Final = 2


@dataclass(frozen=True, eq=False)
class _Call:
    """One call of the network: its corrected latents, and the picture that it predicted."""

    latents: F32
    picture: F32


class UniPC:
    """Correct the latents, then extrapolate the predicted picture from the last two calls.

    Args:
        schedule: of the model; linspace spacing where it does not say, see ``samplers.levels.whole_levels``.
        num_inference_steps: 1 to ``num_train_timesteps``; the network is called once for each.

    Raises:
        StepsError: that many steps do not fit into the schedule.
    """

    def __init__(self, schedule: Schedule, num_inference_steps: int) -> None:
        levels = whole_levels(schedule, num_inference_steps, karras_rounded=True)
        self.timesteps = levels.timesteps
        self._sigmas = levels.sigmas
        self.mixing = VariancePreserving.of_levels(schedule.prediction_type, levels.sigmas)
        self._calls: list[_Call] = []  # newest first, at most two

    def step(self, noise_pred: F32, index: int, latents: F32) -> F32:
        """Go from noise level ``index`` to the next; the first step made and the last one are of first order."""
        picture = self.mixing.predicted_picture(noise_pred, latents, index)
        if self._calls:
            latents = self._corrected(index, picture)
        self._calls = [_Call(latents, picture), *self._calls[: _ORDER - 1]]
        towards = picture
        if len(self._calls) == _ORDER and index + 1 < len(self.timesteps):
            ratio = self._width(index) / self._width(index - 1)
            towards = picture + np.float32(0.5 * ratio) * (picture - self._calls[1].picture)
        return self._moved(index, latents, towards)

    def _corrected(self, index: int, picture: F32) -> F32:
        """Go to noise level ``index`` once more, from the call before, now with the ``picture`` predicted there."""
        before = self._calls[0]
        step = picture - before.picture
        if len(self._calls) == 1:
            return self._moved(index - 1, before.latents, before.picture + np.float32(0.5) * step)
        h, h_before = self._width(index - 1), self._width(index - 2)
        share = -math.expm1(-h)
        # The paper's linear system for the weights of the two differences: the weights add up to ``both``; multiplied
        # with the positions of the differences, in steps, they add up to ``level``.
        both = 1 / share - 1 / h
        level = 1 / share - 2 * both / h
        lies = -h_before / h
        of_old = (both - level) / (1 - lies)
        old = (self._calls[1].picture - before.picture) * np.float32(of_old / lies)
        return self._moved(index - 1, before.latents, before.picture + old + np.float32(both - of_old) * step)

    def _moved(self, index: int, latents: F32, picture: F32) -> F32:
        """Return the latents after step ``index`` if the network predicts the same picture all the way."""
        level, target = self._sigmas[index : index + 2].tolist()
        _, sigma = self.mixing.coefficients(index)
        alpha_target, sigma_target = self.mixing.coefficients(index + 1)
        return sigma_target / sigma * latents + alpha_target * np.float32(1 - target / level) * picture

    def _width(self, index: int) -> float:
        """Return the width of a step in λ = log(alpha / sigma)."""
        return math.log(self._sigmas[index] / self._sigmas[index + 1])
