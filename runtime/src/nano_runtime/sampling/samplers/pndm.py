"""PNDM without its Runge-Kutta start, also called PLMS (Liu et al. 2022); matches diffusers' ``PNDMScheduler``.

Stable Diffusion 1 and 2 are published with it. It visits the second timestep twice, so n steps call the network n + 1
times (once if n is 1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.errors import UnsupportedScheduleError
from nano_runtime.sampling.samplers.mixing import VariancePreserving, predicted_noise
from nano_runtime.sampling.schedule import Schedule, whole_timesteps

__all__ = ["PNDM"]

# Weights of the outputs, oldest first: formula 12 of the paper for four, and the lower orders for the first calls.
_ADAMS_BASHFORTH: Final[Mapping[int, tuple[float, ...]]] = {
    1: (1,),
    2: (-1 / 2, 3 / 2),
    3: (5 / 12, -16 / 12, 23 / 12),
    4: (-9 / 24, 37 / 24, -59 / 24, 55 / 24),
}


class PNDM:
    """Extrapolate the predicted noise from the last four calls (Adams-Bashforth), then step along formula 9.

    Args:
        schedule: of the model; leading spacing and a last ᾱ of ``alphas_cumprod[0]`` where it does not say.
            ``rescale_betas_zero_snr`` is ignored, as in diffusers' class.
        num_inference_steps: 1 to ``num_train_timesteps``.

    Raises:
        StepsError: that many steps do not fit into the schedule.
        UnsupportedScheduleError: the schedule asks for Runge-Kutta steps, or the network predicts the picture.
    """

    def __init__(self, schedule: Schedule, num_inference_steps: int) -> None:
        if not schedule.skip_prk_steps:
            raise UnsupportedScheduleError("skip_prk_steps", schedule.skip_prk_steps, (True,))
        if schedule.prediction_type == "sample":
            raise UnsupportedScheduleError("prediction_type", "sample", ("epsilon", "v_prediction"))
        timesteps = whole_timesteps(schedule, num_inference_steps)
        self.timesteps = np.insert(timesteps, 1, timesteps[1:2])
        self._stride = schedule.num_train_timesteps // num_inference_steps
        self._alphas_cumprod = replace(schedule, rescale_betas_zero_snr=False).alphas_cumprod
        shares = self._alphas_cumprod[self.timesteps.astype(np.intp)]
        self.mixing = VariancePreserving.of_shares(schedule.prediction_type, shares)
        self._last = 1.0 if schedule.set_alpha_to_one is True else float(self._alphas_cumprod[0])
        self._calls = 0
        self._outputs: list[F32] = []  # newest last, at most four
        self._start: F32 | None = None  # latents before the first call, for the second

    def step(self, noise_pred: F32, index: int, latents: F32) -> F32:
        """Go down by one stride; the second call repeats the first one's way, with the mean of both outputs.

        The calls are counted here, because the second one made is special, wherever in the schedule the first was.
        """
        timestep = int(self.timesteps[index])
        target = timestep - self._stride
        if self._start is not None:
            latents, self._start = self._start, None
            timestep, target = timestep + self._stride, timestep
            output = np.float32(1 / 2) * (noise_pred + self._outputs[-1])
        else:
            self._outputs = [*self._outputs[-3:], noise_pred]
            output = _extrapolated(self._outputs)
            if self._calls == 0:
                self._start = latents
        self._calls += 1
        return self._transfer(output, timestep, target, latents)

    def _transfer(self, output: F32, timestep: int, target: int, latents: F32) -> F32:
        """Return the latents at ``target`` from latents and network output at ``timestep`` (formula 9)."""
        share = float(self._alphas_cumprod[timestep])
        share_target = float(self._alphas_cumprod[target]) if target >= 0 else self._last
        alpha, sigma = np.float32(math.sqrt(share)), np.float32(math.sqrt(1 - share))
        noise = predicted_noise(self.mixing.kind, output, latents, alpha, sigma)
        scale = share * math.sqrt(1 - share_target) + math.sqrt(share * (1 - share) * share_target)
        return (
            np.float32(math.sqrt(share_target / share)) * latents - np.float32((share_target - share) / scale) * noise
        )


def _extrapolated(outputs: list[F32]) -> F32:
    """Weigh up to four equally spaced outputs, newest last."""
    weights = np.array(_ADAMS_BASHFORTH[len(outputs)], np.float32)
    total: F32 = weights[0] * outputs[0]
    for weight, output in zip(weights[1:], outputs[1:], strict=True):
        total = total + weight * output
    return total
