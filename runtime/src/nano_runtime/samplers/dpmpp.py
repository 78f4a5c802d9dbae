"""DPM-Solver++ 2M (Lu et al. 2022b, algorithm 2); matches the defaults of diffusers' ``DPMSolverMultistepScheduler``.

Second order, midpoint, from pictures rather than noise; the first step and the last (down to no noise) are first order.
"""

from __future__ import annotations

import math

import numpy as np

from nano_runtime.samplers.prediction import F32, predicted_picture
from nano_runtime.samplers.sigmas import noise_levels, vp_coefficients
from nano_runtime.schedule import Schedule, Spacing, check_steps, spaced_timesteps

__all__ = ["DPMSolverPP2M"]


class DPMSolverPP2M:
    """Extrapolate the predicted picture from the last two calls, in steps of log signal-to-noise.

    Args:
        schedule: of the model; linspace spacing where it does not say. All spacings but trailing lay out one timestep
            more and leave out the cleanest.
        num_inference_steps: 1 to ``num_train_timesteps``; the network is called once for each.

    Raises:
        StepsError: that many steps do not fit into the schedule.
    """

    init_noise_sigma = 1.0

    def __init__(self, schedule: Schedule, num_inference_steps: int) -> None:
        spacing: Spacing = "linspace" if schedule.timestep_spacing is None else schedule.timestep_spacing
        check_steps(schedule, num_inference_steps, lambda n: np.round(spaced_timesteps(schedule, spacing, n, n + 1)))
        timesteps = spaced_timesteps(schedule, spacing, num_inference_steps, num_inference_steps + 1)
        self.timesteps = np.round(timesteps).astype(np.float32)
        self._kind = schedule.prediction_type
        self._levels = noise_levels(schedule, self.timesteps)
        self._previous: F32 | None = None  # the picture predicted by the call before

    def scale_model_input(self, latents: F32, index: int) -> F32:  # noqa: ARG002 - part of the protocol
        """Return the latents as they are."""
        return latents

    def step(self, noise_pred: F32, index: int, latents: F32) -> F32:
        """Go from noise level ``index`` to the next.

        With λ = log(alpha / sigma) and h the step in λ, exp(-h) is the ratio of the noise levels sigma / alpha, which
        stays finite at the last step, where λ does not.
        """
        level, target = self._levels[index : index + 2].tolist()
        alpha, sigma = vp_coefficients(level)
        alpha_target, sigma_target = vp_coefficients(target)
        picture = predicted_picture(self._kind, noise_pred, latents, alpha, sigma)
        previous, self._previous = self._previous, picture
        if previous is not None and target > 0:
            # Half of (1 / r) * (picture - previous), r = h of the step before / h of this one.
            ratio = math.log(self._levels[index - 1] / level) / math.log(level / target)
            picture = picture + np.float32(0.5 / ratio) * (picture - previous)
        return sigma_target / sigma * latents + alpha_target * np.float32(1 - target / level) * picture
