"""DPM-Solver++ in several steps (Lu et al. 2022b); matches diffusers' ``DPMSolverMultistepScheduler``.

It follows the probability flow in order 2 ("2M", algorithm 2, midpoint) and order 3 ("3M"). In order 2 it also follows
the stochastic equation with the same marginals ("SDE"), which adds fresh noise after every step.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.sampling.noise import NoiseSource
from nano_runtime.sampling.samplers.levels import whole_levels
from nano_runtime.sampling.samplers.mixing import VariancePreserving
from nano_runtime.sampling.schedule import Schedule

__all__ = ["DPMSolverPP"]

_FEW_STEPS: Final = 15  # below these diffusers ends with lower orders ("lower_order_final")


class DPMSolverPP:
    """Extrapolate the predicted picture from the last calls, in steps of log signal-to-noise.

    The order rises from one with the calls. The last step is of order one if it ends at no noise, or if there are fewer
    than 15 steps; in that case the step before it is of order two.

    Args:
        schedule: of the model; linspace spacing where it does not say, see ``samplers.levels.whole_levels``.
        num_inference_steps: 1 to ``num_train_timesteps``; the network is called once for each.
        noise: source of fresh noise, asked once a step; for order 2. None follows the probability flow.
        order: 2 or 3.

    Raises:
        StepsError: that many steps do not fit into the schedule.
    """

    def __init__(
        self, schedule: Schedule, num_inference_steps: int, noise: NoiseSource | None = None, order: int = 2
    ) -> None:
        cosine = schedule.beta_schedule == "squaredcos_cap_v2"
        levels = whole_levels(schedule, num_inference_steps, karras_rounded=not cosine)
        self.timesteps = levels.timesteps
        self._sigmas = levels.sigmas
        self.mixing = VariancePreserving.of_levels(schedule.prediction_type, levels.sigmas)
        self._order = order
        self._noise = noise
        self._pictures: list[F32] = []  # predicted by the last calls; newest first, at most ``order``

    def step(self, noise_pred: F32, index: int, latents: F32) -> F32:
        """Go from noise level ``index`` to the next.

        With λ = log(alpha / sigma) and h the step in λ, exp(-h) is the ratio of the noise levels sigma / alpha, which
        stays finite at the last step, where λ does not. In the stochastic equation the old latents fade twice as fast.
        """
        level, target = self._sigmas[index : index + 2].tolist()
        _, sigma = self.mixing.coefficients(index)
        alpha_target, sigma_target = self.mixing.coefficients(index + 1)
        picture = self.mixing.predicted_picture(noise_pred, latents, index)
        self._pictures = [picture, *self._pictures[: self._order - 1]]
        ratio = target / level
        if self._noise is None:
            return sigma_target / sigma * latents + alpha_target * self._drawn(index, 1 - ratio)
        share = 1 - ratio * ratio
        after: F32 = np.float32(sigma_target / sigma * ratio) * latents + alpha_target * self._drawn(index, share)
        return after + np.float32(sigma_target * math.sqrt(share)) * self._noise()

    def _drawn(self, index: int, share: float) -> F32:
        """Integrate the predicted picture over the step, extrapolated in λ from the last calls.

        Args:
            index: number of the step.
            share: share of the picture that enters in the step; 1 - exp(-h) without noise.
        """
        order = min(len(self._pictures), self._most_order(index))
        picture = self._pictures[0]
        if order == 1:
            return np.float32(share) * picture
        h, h_before = self._width(index), self._width(index - 1)
        slope: F32 = (picture - self._pictures[1]) * np.float32(1 / h_before)
        if order == 2:  # noqa: PLR2004 - the formula of that order
            return np.float32(share) * (picture + np.float32(h / 2) * slope)
        h_first = self._width(index - 2)
        slope_before: F32 = (self._pictures[1] - self._pictures[2]) * np.float32(1 / h_first)
        bend: F32 = (slope - slope_before) * np.float32(1 / (h_before + h_first))
        slope = slope + np.float32(h_before) * bend
        curve: F32 = np.float32(h - share) * slope + np.float32(share - h + h * h / 2) * bend
        return np.float32(share) * picture + curve

    def _most_order(self, index: int) -> int:
        """Return the highest order that a step may have at its place in the schedule."""
        left, few = len(self.timesteps) - index, len(self.timesteps) < _FEW_STEPS
        if left == 1 and (few or self._sigmas[-1] == 0):
            return 1
        return min(self._order, 2) if left == 2 and few else self._order  # noqa: PLR2004 - the step before the last

    def _width(self, index: int) -> float:
        """Return the width of a step in λ."""
        return math.log(self._sigmas[index] / self._sigmas[index + 1])
