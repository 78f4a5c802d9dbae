"""PNDM with or without its Runge-Kutta start, also called PLMS (Liu et al. 2022); matches diffusers' ``PNDMScheduler``.

Stable Diffusion 1 and 2 are published without the start. They visit the second timestep twice, so n steps call the
network n + 1 times (once if n is 1). The start makes three steps of four calls each, so n steps call it n + 9 times.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.errors import StepsError
from nano_runtime.sampling.samplers.mixing import VariancePreserving, predicted_noise
from nano_runtime.sampling.schedule import alphas_cumprod_of, whole_timesteps
from nano_runtime.sampling.settings import Settings

__all__ = ["PNDM", "extrapolated"]

# Weights of the outputs, oldest first: formula 12 of the paper for four, and the lower orders for the first calls.
_ADAMS_BASHFORTH: Final[Mapping[int, tuple[float, ...]]] = {
    1: (1,),
    2: (-1 / 2, 3 / 2),
    3: (5 / 12, -16 / 12, 23 / 12),
    4: (-9 / 24, 37 / 24, -59 / 24, 55 / 24),
}
_RUNGE_KUTTA: Final = (1 / 6, 1 / 3, 1 / 3, 1 / 6)  # weights of the four outputs of a step (formula 10)
_STARTED: Final = 4  # timesteps that the start goes through


class PNDM:
    """Extrapolate the predicted noise from the last four calls (Adams-Bashforth), then step along formula 9.

    Args:
        settings: of the sampler.
        num_inference_steps: 1 to ``num_train_timesteps``; at least 4 with a Runge-Kutta start.

    Raises:
        StepsError: that many steps do not fit into the schedule.
    """

    def __init__(self, settings: Settings, num_inference_steps: int) -> None:
        timesteps = whole_timesteps(settings, num_inference_steps)
        self._stride = settings.num_train_timesteps // num_inference_steps
        self._start = np.zeros(0, np.float32)  # timesteps of the Runge-Kutta calls
        if settings.skip_prk_steps:
            self.timesteps = np.insert(timesteps, 1, timesteps[1:2])
        else:
            if len(timesteps) < _STARTED:
                raise StepsError(num_inference_steps, settings.num_train_timesteps, _STARTED)
            halves = np.repeat(timesteps[:_STARTED], 2)
            halves[::2] += self._stride // 2
            self._start = np.repeat(halves[1:], 2)[1:-1]
            self.timesteps = np.concatenate([self._start, timesteps[_STARTED - 1 :]])
        self._alphas_cumprod = alphas_cumprod_of(settings)
        shares = self._alphas_cumprod[self.timesteps.astype(np.intp)]
        self.mixing = VariancePreserving.of_shares(settings.prediction_type, shares)
        self._last = 1.0 if settings.set_alpha_to_one else float(self._alphas_cumprod[0])
        self._calls = 0
        self._outputs: list[F32] = []  # newest last, at most four
        self._sum: F32 | None = None  # of the weighed outputs of a Runge-Kutta step
        self._before: F32 | None = None  # latents before the first call, or before a Runge-Kutta step

    def step(self, noise_pred: F32, index: int, latents: F32) -> F32:
        """Go down by one stride, or through a part of a Runge-Kutta step.

        The calls are counted here, because the first ones made are special, wherever in the schedule they begin.
        """
        call, self._calls = self._calls, self._calls + 1
        if call < len(self._start):
            return self._runge_kutta(noise_pred, call, int(self.timesteps[index]), latents)
        return self._multistep(noise_pred, int(self.timesteps[index]), latents, again=call == 1)

    def _runge_kutta(self, noise_pred: F32, call: int, timestep: int, latents: F32) -> F32:
        """Go half a stride down, there again, a whole stride, and there again with the weighed mean of all outputs."""
        part = call % 4
        if part == 0:
            self._outputs.append(noise_pred)
            self._sum, self._before = None, latents
        weighed = np.float32(_RUNGE_KUTTA[part]) * noise_pred
        self._sum = weighed if self._sum is None else self._sum + weighed
        output = self._sum if part == len(_RUNGE_KUTTA) - 1 else noise_pred
        target = timestep if call % 2 else timestep - self._stride // 2
        before = latents if self._before is None else self._before
        return self._transfer(output, int(self._start[call // 4 * 4]), target, before)

    def _multistep(self, noise_pred: F32, timestep: int, latents: F32, *, again: bool) -> F32:
        """Go down by one stride; the second call repeats the first one's way, with the mean of both outputs."""
        target = timestep - self._stride
        if again and self._before is not None:
            latents, self._before = self._before, None
            output = np.float32(1 / 2) * (noise_pred + self._outputs[-1])
            return self._transfer(output, timestep + self._stride, timestep, latents)
        if not self._outputs:
            self._before = latents
        self._outputs = [*self._outputs[-3:], noise_pred]
        return self._transfer(extrapolated(self._outputs), timestep, target, latents)

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


def extrapolated(outputs: list[F32]) -> F32:
    """Weigh up to four equally spaced outputs, newest last."""
    weights = np.array(_ADAMS_BASHFORTH[len(outputs)], np.float32)
    total: F32 = weights[0] * outputs[0]
    for weight, output in zip(weights[1:], outputs[1:], strict=True):
        total = total + weight * output
    return total
