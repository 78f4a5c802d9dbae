"""LCM and TCD: a few steps with models that were distilled for it.

Both visit some of the timesteps that the model's teacher visited during distillation. From each they jump to no noise,
or nearly none, and add fresh noise up to the next.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.errors import StepsError
from nano_runtime.sampling.noise import NoiseSource
from nano_runtime.sampling.samplers.mixing import VariancePreserving, clipped, refuse_noise_from_noise
from nano_runtime.sampling.schedule import Schedule

__all__ = ["LCM", "TCD"]

_SIGMA_DATA: Final = 0.5  # in the boundary condition of consistency models (Song et al. 2023)
_GAMMA: Final = 0.3  # TCD goes this share of the next timestep below it; diffusers' default ("eta")


class LCM:
    """Multistep consistency sampling (Luo et al. 2023); matches diffusers' ``LCMScheduler``.

    The distilled network has guidance built in: draw with a guidance scale of 1.

    Args:
        schedule: of the model; no clipping where it does not say.
        num_inference_steps: 1 to ``original_inference_steps``; 4 to 8 are usual.
        noise: source of fresh noise, asked after every step but the last.

    Raises:
        StepsError: the teacher made fewer steps.
        UnsupportedScheduleError: the network predicts noise, and the first latents are pure noise.
    """

    def __init__(self, schedule: Schedule, num_inference_steps: int, noise: NoiseSource) -> None:
        self.timesteps = _teachers_timesteps(schedule, num_inference_steps)
        refuse_noise_from_noise(schedule, self.timesteps)
        self._schedule = schedule
        shares = schedule.alphas_cumprod[self.timesteps.astype(np.intp)]
        self.mixing = VariancePreserving.of_shares(schedule.prediction_type, shares)
        self._noise = noise

    def step(self, noise_pred: F32, index: int, latents: F32) -> F32:
        """Jump to the picture, then back to the next timestep; the last call stays at the picture."""
        picture = clipped(self.mixing.predicted_picture(noise_pred, latents, index), self._schedule, default=False)
        # The boundary condition: at timestep 0 the picture is the latents themselves.
        time = float(self.timesteps[index]) * self._schedule.timestep_scaling
        total = time**2 + _SIGMA_DATA**2
        picture = np.float32(time / math.sqrt(total)) * picture + np.float32(_SIGMA_DATA**2 / total) * latents
        if index + 1 == len(self.timesteps):
            return picture
        return self.mixing.add_noise(picture, self._noise(), index + 1)


class TCD:
    """Strategic stochastic sampling (Zheng et al. 2024) with gamma = 0.3; matches diffusers' ``TCDScheduler``.

    Args:
        schedule: of the model.
        num_inference_steps: 1 to ``original_inference_steps``; 4 to 8 are usual.
        noise: source of fresh noise, asked after every step but the last.

    Raises:
        StepsError: the teacher made fewer steps.
        UnsupportedScheduleError: the network predicts noise, and the first latents are pure noise.
    """

    def __init__(self, schedule: Schedule, num_inference_steps: int, noise: NoiseSource) -> None:
        self.timesteps = _teachers_timesteps(schedule, num_inference_steps)
        refuse_noise_from_noise(schedule, self.timesteps)
        self._alphas_cumprod = schedule.alphas_cumprod
        shares = self._alphas_cumprod[self.timesteps.astype(np.intp)]
        self.mixing = VariancePreserving.of_shares(schedule.prediction_type, shares)
        self._noise = noise

    def step(self, noise_pred: F32, index: int, latents: F32) -> F32:
        """Follow the flow to below the next timestep, then add noise up to it; the last call ends at timestep 0."""
        last = index + 1 == len(self.timesteps)
        target = 0 if last else int(self.timesteps[index + 1])
        below = int(np.float32(1 - _GAMMA) * np.float32(target))
        share_below = float(self._alphas_cumprod[below])
        picture = self.mixing.predicted_picture(noise_pred, latents, index)
        direction = self.mixing.predicted_noise(noise_pred, latents, index)
        after = np.float32(math.sqrt(share_below)) * picture + np.float32(math.sqrt(1 - share_below)) * direction
        if last:
            return after
        kept = float(self._alphas_cumprod[target]) / share_below
        return np.float32(math.sqrt(kept)) * after + np.float32(math.sqrt(1 - kept)) * self._noise()


def _teachers_timesteps(schedule: Schedule, steps: int) -> F32:
    """Pick ``steps`` of the teacher's timesteps, evenly from the noisiest: float32 [steps], falling.

    Raises:
        StepsError: the teacher made fewer steps.
    """
    known = min(schedule.original_inference_steps, schedule.num_train_timesteps)
    if not 1 <= steps <= known:
        raise StepsError(steps, known)
    stride = schedule.num_train_timesteps // known
    teachers = np.arange(known, 0, -1) * stride - 1
    return teachers[np.linspace(0, known, steps, endpoint=False).astype(np.intp)].astype(np.float32)
