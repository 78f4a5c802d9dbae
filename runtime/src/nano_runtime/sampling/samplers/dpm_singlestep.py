"""DPM-Solver in single steps (Lu et al. 2022a and b); matches diffusers' ``DPMSolverSinglestepScheduler``.

A step of order n calls the network n times: at its beginning, and at places on the way that the schedule lays out as
steps of their own. The latents of the calls on the way are of lower order.
"""

from __future__ import annotations

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.sampling.noise import NoiseSource, no_noise
from nano_runtime.sampling.samplers.dpm_steps import coefficients, extrapolated
from nano_runtime.sampling.samplers.levels import whole_levels
from nano_runtime.sampling.samplers.mixing import VariancePreserving
from nano_runtime.sampling.settings import Settings

__all__ = ["DPMSinglestep"]


class DPMSinglestep:
    """Go from the beginning of a step once more with each call on its way, and with a formula of one order more.

    Args:
        settings: of the sampler, see ``samplers.levels.whole_levels``.
        num_inference_steps: 1 to ``num_train_timesteps``; the network is called once for each.
        noise: source of fresh noise, asked once a call by the stochastic algorithm.

    Raises:
        StepsError: that many steps do not fit into the schedule.
    """

    def __init__(self, settings: Settings, num_inference_steps: int, noise: NoiseSource = no_noise) -> None:
        levels = whole_levels(settings, num_inference_steps)
        self.timesteps = levels.timesteps
        self.mixing = VariancePreserving.of_levels(settings, levels.sigmas)
        self._settings = settings
        self._orders = _orders(settings, num_inference_steps)
        self._noise = noise
        self._outputs: list[F32] = []  # of the last calls, newest first
        self._begun: F32 | None = None  # latents at the beginning of the step

    def step(self, noise_pred: F32, index: int, latents: F32) -> F32:
        """Go to noise level ``index + 1``, from the beginning of the step that this call is a part of."""
        output = extrapolated(self._settings, self.mixing, noise_pred, latents, index)
        self._outputs = [output, *self._outputs[: self._settings.solver_order - 1]]
        order = min(self._orders[index], len(self._outputs))
        if order == 1 or self._begun is None:
            self._begun = latents
        begin = index + 1 - order
        step = coefficients(self._settings.algorithm_type, self.mixing, begin, index + 1)
        after = step.kept * self._begun + step.value * self._outputs[order - 1]
        if order > 1:
            midpoint, slope, bend = self._settings.solver_type == "midpoint", *self._slopes(index, order)
            of_slope = step.middle if midpoint and order == 2 else step.slope  # noqa: PLR2004 - the second order's own
            after = after + of_slope * slope
            if bend is not None:
                after = after + step.bend * bend
        if self._settings.algorithm_type == "sde-dpmsolver++":
            after = after + step.fresh * self._noise()
        return after

    def _slopes(self, index: int, order: int) -> tuple[F32, F32 | None]:
        """Return slope and bend of the outputs over the step, in units of its width; no bend with the midpoint's."""
        lambdas = self.mixing.lambdas
        begin = index + 1 - order
        width = np.float32(lambdas[index + 1] - lambdas[begin])
        share = np.float32(lambdas[index] - lambdas[begin]) / width
        slope: F32 = np.float32(1) / share * (self._outputs[0] - self._outputs[order - 1])
        if order == 2 or self._settings.solver_type == "midpoint":  # noqa: PLR2004 - two outputs have no bend
            return slope, None
        first = np.float32(lambdas[index - 1] - lambdas[begin]) / width
        early: F32 = np.float32(1) / first * (self._outputs[1] - self._outputs[2])
        bend: F32 = np.float32(2) * (slope - early) / (share - first)
        slope = np.divide(share * early - first * slope, share - first)
        return slope, bend


def _orders(settings: Settings, steps: int) -> list[int]:
    """Return the order of each call's formula, as diffusers' ``get_order_list`` does.

    Orders rise to the highest and begin again. The last ones are lower if the steps do not divide evenly, or the
    schedule ends at no noise.
    """
    most, at_zero = settings.solver_order, settings.final_sigmas_type == "zero"
    whole = list(range(1, most + 1))
    if settings.lower_order_final or steps % most or at_zero:
        rest = {1: [], 2: [[1, 1], [1]], 3: [[1, 2, 1], [1], [1, 2]]}[most]
        left = rest[steps % most] if rest else []
        orders = whole * ((steps - len(left)) // most) + left
    else:
        orders = whole * (steps // most)
    return [*orders[:-1], 1] if at_zero else orders
