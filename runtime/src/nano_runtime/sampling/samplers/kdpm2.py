"""DPM-Solver-2 over noise levels (Karras et al. 2022, algorithm 2) and its ancestral variant.

They match diffusers' ``KDPM2DiscreteScheduler`` and ``KDPM2AncestralDiscreteScheduler``, k-diffusion's ``dpm_2`` and
``dpm_2_ancestral``. Every step but the last calls the network at its noisy end and in its middle, so n steps call it
2 n - 1 times.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.sampling.noise import NoiseSource, no_noise
from nano_runtime.sampling.samplers.levels import continuous_levels, timesteps_of, trained_levels
from nano_runtime.sampling.samplers.mixing import VarianceExploding
from nano_runtime.sampling.settings import Settings

__all__ = ["KDPM2", "KDPM2Ancestral"]


class KDPM2:
    """Step to the middle of the way as Euler does, take the slope there, and step the whole way from the start with it.

    The middle is that of the logarithms of the levels.

    Args:
        settings: of the sampler.
        num_inference_steps: 1 to ``num_train_timesteps``.
        noise: source of fresh noise, asked once a step but the last by the ancestral variant.

    Raises:
        StepsError: that many steps do not fit into the schedule.
    """

    _adds_noise: ClassVar[bool] = False

    def __init__(self, settings: Settings, num_inference_steps: int, noise: NoiseSource = no_noise) -> None:
        levels, first = continuous_levels(settings, num_inference_steps, rounded=True)
        self._ends = levels.sigmas
        self._targets, self._fresh = self._steps_down(levels.sigmas)
        self._noise = noise
        middles = _middle(levels.sigmas[:-2], self._targets[:-1])
        between = timesteps_of(middles, trained_levels(settings)).astype(np.float32)
        self.timesteps = np.append(np.stack([levels.timesteps[:-1], between], 1).ravel(), levels.timesteps[-1:])
        met = np.append(np.stack([levels.sigmas[:-2], middles], 1).ravel(), levels.sigmas[-2:])
        self.mixing = VarianceExploding(settings.prediction_type, met, first)
        self._start: F32 | None = None  # latents at the beginning of a step whose middle comes next

    def _steps_down(self, levels: F32) -> tuple[F32, F32]:
        """Return the level that each step goes down to, and the fresh noise that it then adds."""
        return levels[1:], np.zeros(len(levels) - 1, np.float32)

    def step(self, noise_pred: F32, index: int, latents: F32) -> F32:
        """Go from the beginning of a step to its middle, or from its beginning to its end."""
        number = index // 2
        level, target = self.mixing.levels[index], self._targets[number]
        slope: F32 = (latents - self.mixing.predicted_picture(noise_pred, latents, index)) / level
        start, self._start = self._start, None
        if start is None:
            if index + 1 < len(self.timesteps):
                self._start, target = latents, self.mixing.levels[index + 1]
            halfway: F32 = latents + slope * (target - level)
            return halfway
        after: F32 = start + slope * (target - self._ends[number])
        return after + self._noise() * self._fresh[number] if self._adds_noise else after


class KDPM2Ancestral(KDPM2):
    """Step further down than KDPM2, then add fresh noise up to its next level (Katherine Crowson, 2022)."""

    _adds_noise = True

    def _steps_down(self, levels: F32) -> tuple[F32, F32]:
        """Return the level that each step goes down to, and the fresh noise that it then adds.

        Both add up to the next level in squares. Where rounding leaves nothing of the first, it is computed directly.
        """
        squared, target = levels[:-1] * levels[:-1], levels[1:] * levels[1:]
        fresh = np.sqrt(target * (squared - target) / squared)
        left = target - fresh * fresh
        return np.where(left > 0, np.sqrt(np.maximum(left, 0)), target / levels[:-1]), fresh


def _middle(one: F32, other: F32) -> F32:
    """Return the geometric means of levels, computed by logarithms in float32 as torch's ``lerp`` does."""
    first, second = (np.log(levels.astype(np.float64)).astype(np.float32) for levels in (one, other))
    middle = second - (second - first) * np.float32(0.5)
    return np.exp(middle.astype(np.float64)).astype(np.float32)
