"""DPM-Solver in several steps (Lu et al. 2022a and b); matches diffusers' ``DPMSolverMultistepScheduler``.

It follows the probability flow, or with fresh noise the stochastic equation with the same marginals ("SDE"), in order
1, 2 ("2M", algorithm 2) or 3 ("3M").
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.sampling.noise import NoiseSource, no_noise
from nano_runtime.sampling.samplers.dpm_steps import Coefficients, RatioMixing, coefficients, extrapolated
from nano_runtime.sampling.samplers.levels import whole_levels
from nano_runtime.sampling.samplers.mixing import VariancePreserving
from nano_runtime.sampling.settings import Settings

__all__ = ["DPMMultistep", "Multistep"]

_FEW_STEPS: Final = 15  # below these ``lower_order_final`` has an effect
_THIRD: Final = 3


class Multistep:
    """Extrapolate the predicted picture or noise from the last calls, in steps of log signal-to-noise.

    The order rises from one with the calls. The last step is of order one if it ends at no noise, or if there are fewer
    than 15 steps; in that case the step before it is of order two.

    Args:
        settings: of the sampler.
        timesteps: of the calls.
        mixing: of the latents.
        extrapolated: returns what is extrapolated, of a call's output, its latents and its index.
        noise: source of fresh noise, asked once a step by the stochastic algorithms.
    """

    def __init__(
        self,
        settings: Settings,
        timesteps: F32,
        mixing: RatioMixing,
        extrapolated: Callable[[F32, F32, int], F32],
        noise: NoiseSource,
    ) -> None:
        self.timesteps = timesteps
        self.mixing = mixing
        self._settings = settings
        self._extrapolated = extrapolated
        self._order = min(settings.solver_order, _THIRD)
        self._noise = noise
        self._outputs: list[F32] = []  # pictures or noises of the last calls; newest first, at most ``order``

    def step(self, noise_pred: F32, index: int, latents: F32) -> F32:
        """Go from noise level ``index`` to the next."""
        output = self._extrapolated(noise_pred, latents, index)
        self._outputs = [output, *self._outputs[: self._order - 1]]
        step = coefficients(self._settings.algorithm_type, self.mixing, index, index + 1)
        after = step.kept * latents + step.value * output
        after = self._bent(index, step, after)
        if self._settings.algorithm_type in {"sde-dpmsolver++", "sde-dpmsolver"}:
            after = after + step.fresh * self._noise()
        return after

    def _bent(self, index: int, step: Coefficients, after: F32) -> F32:
        """Add what the outputs of earlier calls say about the slope, and of still earlier ones about the bend."""
        order = min(len(self._outputs), self._most_order(index))
        h = self._width(index)
        if order == 1 or h == 0:  # of a step without width, where diffusers' third order divides by zero
            return after
        ratio = self._width(index - 1) / h
        slope: F32 = np.float32(1) / ratio * (self._outputs[0] - self._outputs[1])
        if order < _THIRD:
            return after + (step.middle if self._settings.solver_type == "midpoint" else step.slope) * slope
        ratio_first = self._width(index - 2) / h
        slope_before: F32 = np.float32(1) / ratio_first * (self._outputs[1] - self._outputs[2])
        change: F32 = slope - slope_before
        slope = slope + ratio / (ratio + ratio_first) * change
        bend: F32 = np.float32(1) / (ratio + ratio_first) * change
        bent: F32 = after + step.slope * slope + step.bend * bend
        return bent

    def _most_order(self, index: int) -> int:
        """Return the highest order that a step may have at its place in the schedule."""
        of, left = self._settings, len(self.timesteps) - index
        few = of.lower_order_final and len(self.timesteps) < _FEW_STEPS
        if left == 1 and (of.euler_at_final or few or of.final_sigmas_type == "zero"):
            return 1
        return min(self._order, 2) if left == 2 and few else self._order  # noqa: PLR2004 - the step before the last

    def _width(self, index: int) -> np.float32:
        """Return the width of a step in log signal-to-noise."""
        return np.float32(self.mixing.lambdas[index + 1] - self.mixing.lambdas[index])


class DPMMultistep(Multistep):
    """The same over the levels of a schedule with timesteps.

    Args:
        settings: of the sampler, see ``samplers.levels.whole_levels``.
        num_inference_steps: 1 to ``num_train_timesteps``; the network is called once for each.
        noise: source of fresh noise, asked once a step by the stochastic algorithms.

    Raises:
        StepsError: that many steps do not fit into the schedule.
    """

    def __init__(self, settings: Settings, num_inference_steps: int, noise: NoiseSource = no_noise) -> None:
        levels = whole_levels(settings, num_inference_steps)
        mixing = VariancePreserving.of_levels(settings, levels.sigmas)
        super().__init__(settings, levels.timesteps, mixing, partial(extrapolated, settings, mixing), noise)
