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
from nano_runtime.sampling.noise import NoiseSource, no_noise
from nano_runtime.sampling.samplers.mixing import VariancePreserving, bounded, refuse_noise_from_noise
from nano_runtime.sampling.schedule import alphas_cumprod_of
from nano_runtime.sampling.settings import Settings

__all__ = ["LCM", "TCD"]

_SIGMA_DATA: Final = 0.5  # in the boundary condition of consistency models (Song et al. 2023)


class LCM:
    """Multistep consistency sampling (Luo et al. 2023); matches diffusers' ``LCMScheduler``.

    The distilled network has guidance built in: draw with a guidance scale of 1.

    Args:
        settings: of the sampler.
        num_inference_steps: 1 to ``original_inference_steps``; 4 to 8 are usual.
        noise: source of fresh noise, asked after every step but the last.

    Raises:
        StepsError: the teacher made fewer steps.
        UnsupportedScheduleError: the network predicts noise, and the first latents are pure noise.
    """

    def __init__(self, settings: Settings, num_inference_steps: int, noise: NoiseSource) -> None:
        self.timesteps = _teachers_timesteps(settings, num_inference_steps)
        alphas_cumprod = alphas_cumprod_of(settings)
        refuse_noise_from_noise(settings, self.timesteps, alphas_cumprod)
        self._settings = settings
        shares = alphas_cumprod[self.timesteps.astype(np.intp)]
        self.mixing = VariancePreserving.of_shares(settings.prediction_type, shares)
        self._noise = noise

    def step(self, noise_pred: F32, index: int, latents: F32) -> F32:
        """Jump to the picture, then back to the next timestep; the last call stays at the picture."""
        picture = bounded(self.mixing.predicted_picture(noise_pred, latents, index), self._settings)
        # The boundary condition: at timestep 0 the picture is the latents themselves.
        time = float(self.timesteps[index]) * self._settings.timestep_scaling
        total = time**2 + _SIGMA_DATA**2
        picture = np.float32(time / math.sqrt(total)) * picture + np.float32(_SIGMA_DATA**2 / total) * latents
        if index + 1 == len(self.timesteps):
            return picture
        return self.mixing.add_noise(picture, self._noise(), index + 1)


class TCD:
    """Strategic stochastic sampling (Zheng et al. 2024); matches diffusers' ``TCDScheduler``.

    Args:
        settings: of the sampler.
        num_inference_steps: 1 to ``original_inference_steps``; 4 to 8 are usual.
        noise: source of fresh noise, asked after every step but the last if ``eta`` is above 0.
        eta: share of the next timestep that a step goes below it, gamma in the paper; 0 adds no noise.

    Raises:
        StepsError: the teacher made fewer steps.
        UnsupportedScheduleError: the network predicts noise, and the first latents are pure noise.
    """

    def __init__(
        self, settings: Settings, num_inference_steps: int, noise: NoiseSource = no_noise, eta: float = 0.0
    ) -> None:
        self.timesteps = _teachers_timesteps(settings, num_inference_steps)
        self._alphas_cumprod = alphas_cumprod_of(settings)
        refuse_noise_from_noise(settings, self.timesteps, self._alphas_cumprod)
        shares = self._alphas_cumprod[self.timesteps.astype(np.intp)]
        self.mixing = VariancePreserving.of_shares(settings.prediction_type, shares)
        self._noise = noise
        self._eta = eta

    def step(self, noise_pred: F32, index: int, latents: F32) -> F32:
        """Follow the flow to below the next timestep, then add noise up to it; the last call ends at timestep 0."""
        last = index + 1 == len(self.timesteps)
        target = 0 if last else int(self.timesteps[index + 1])
        below = int(np.float32(1 - self._eta) * np.float32(target))
        share_below = float(self._alphas_cumprod[below])
        picture = self.mixing.predicted_picture(noise_pred, latents, index)
        direction = self.mixing.predicted_noise(noise_pred, latents, index)
        after = np.float32(math.sqrt(share_below)) * picture + np.float32(math.sqrt(1 - share_below)) * direction
        if last or self._eta == 0:
            return after
        kept = float(self._alphas_cumprod[target]) / share_below
        return np.float32(math.sqrt(kept)) * after + np.float32(math.sqrt(1 - kept)) * self._noise()


def _teachers_timesteps(settings: Settings, steps: int) -> F32:
    """Pick ``steps`` of the teacher's timesteps, evenly from the noisiest: float32 [steps], falling.

    Raises:
        StepsError: the teacher made fewer steps.
    """
    known = min(settings.original_inference_steps, settings.num_train_timesteps)
    if not 1 <= steps <= known:
        raise StepsError(steps, known)
    stride = settings.num_train_timesteps // known
    teachers = np.arange(known, 0, -1) * stride - 1
    return teachers[np.linspace(0, known, steps, endpoint=False).astype(np.intp)].astype(np.float32)
