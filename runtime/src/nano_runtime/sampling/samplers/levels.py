"""Noise levels for samplers that work in ``sigma = sqrt((1 - ᾱ) / ᾱ)``: noise against a picture of unchanged size.

They can be spread between the noisiest and the cleanest in four ways: as the timesteps are ("trained"), or

- "karras": evenly in sigma^(1/7) (Karras et al. 2022, formula 5);
- "exponential": evenly in log sigma;
- "beta": by the quantiles of a beta distribution, dense at both ends (Lee et al. 2024).

The network is then called for the timesteps that have these levels, which may lie between two trained ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from nano_runtime.arrays import F32, F64
from nano_runtime.sampling.sampler_names import Spread
from nano_runtime.sampling.samplers.quantile import beta_quantile
from nano_runtime.sampling.schedule import Schedule, Spacing, check_steps, spaced_timesteps

__all__ = ["Levels", "continuous_levels", "whole_levels"]

_ALMOST_PURE_NOISE: Final = 2.0**-24  # diffusers' stand-in for a last ᾱ of 0, which would make sigma infinite
_RHO: Final = 7.0  # the choice of Karras et al.
_BETA_SHAPE: Final = 0.6  # both parameters of the beta distribution; the choice of Lee et al.


@dataclass(frozen=True, eq=False)
class Levels:
    """The noise levels that a sampler visits.

    Attributes:
        timesteps: timesteps of the calls, float32 [steps].
        sigmas: noise level at each call, falling, and the level after the last step: float32 [steps + 1].
    """

    timesteps: F32
    sigmas: F32


def continuous_levels(schedule: Schedule, steps: int) -> tuple[Levels, float]:
    """Lay out the levels as diffusers' Euler, Heun and LMS do, whose timesteps need not be whole.

    Args:
        schedule: of the model; linspace spacing where it does not say.
        steps: 1 to ``num_train_timesteps``.

    Returns:
        The levels, spread between those of the first and the last timestep of the spacing, and the factor that turns
        unit noise into the first latents.

    Raises:
        StepsError: that many steps do not fit into the schedule.
    """
    spacing: Spacing = "linspace" if schedule.timestep_spacing is None else schedule.timestep_spacing
    check_steps(schedule, steps, lambda n: spaced_timesteps(schedule, spacing, n, n))
    timesteps = spaced_timesteps(schedule, spacing, steps, steps).astype(np.float32)
    trained = _trained_sigmas(schedule)
    sigmas = np.interp(timesteps, np.arange(len(trained)), trained)
    if schedule.spread != "trained":
        sigmas = _spread(schedule.spread, float(sigmas[0]), float(sigmas[-1]), steps)
        timesteps = _timesteps_of(sigmas, trained).astype(np.float32)
    levels = Levels(timesteps, _ended(schedule, sigmas, trained))
    most = levels.sigmas[0]
    return levels, float(np.sqrt(most * most + np.float32(1)) if spacing == "leading" else most)


def whole_levels(schedule: Schedule, steps: int, *, karras_rounded: bool) -> Levels:
    """Lay out the levels as diffusers' DPM-Solver++ and UniPC do: timesteps are whole, levels those of the schedule.

    Args:
        schedule: of the model; linspace spacing where it does not say. All spacings but trailing lay out one timestep
            more and leave out the cleanest. Spreads other than "trained" go from the schedule's noisiest level to its
            cleanest, whatever the spacing; their timesteps are cut to whole ones, as in diffusers.
        steps: 1 to ``num_train_timesteps``.
        karras_rounded: whether the timesteps of "karras" are rounded, not cut.

    Raises:
        StepsError: that many steps do not fit into the schedule.
    """
    spacing: Spacing = "linspace" if schedule.timestep_spacing is None else schedule.timestep_spacing
    check_steps(schedule, steps, lambda n: np.round(spaced_timesteps(schedule, spacing, n, n + 1)))
    trained = _trained_sigmas(schedule)
    if schedule.spread == "trained":
        timesteps = np.round(spaced_timesteps(schedule, spacing, steps, steps + 1))
        sigmas = np.interp(timesteps, np.arange(len(trained)), trained)
    else:
        sigmas = _spread(schedule.spread, float(trained[-1]), float(trained[0]), steps)
        timesteps = _timesteps_of(sigmas, trained)
        if schedule.spread == "karras" and karras_rounded:
            timesteps = np.round(timesteps)
    return Levels(np.trunc(timesteps).astype(np.float32), _ended(schedule, sigmas, trained))


def _trained_sigmas(schedule: Schedule) -> F32:
    """Return sigma at every timestep, rising."""
    share = schedule.alphas_cumprod
    if schedule.rescale_betas_zero_snr:
        share[-1] = _ALMOST_PURE_NOISE
    sigmas: F32 = np.sqrt((np.float32(1) - share) / share)
    return sigmas


def _ended(schedule: Schedule, sigmas: F64, trained: F32) -> F32:
    """Append the level after the last step: no noise, or the cleanest level that was trained."""
    last = 0.0 if schedule.final_sigmas_type == "zero" else trained[0]
    return np.append(sigmas, last).astype(np.float32)


def _spread(spread: Spread, most: float, least: float, steps: int) -> F64:
    """Return ``steps`` levels from ``most`` down to ``least``; a single one is ``most``."""
    if spread == "karras":
        first, last = most ** (1 / _RHO), least ** (1 / _RHO)
        karras: F64 = (first + np.linspace(0, 1, steps) * (last - first)) ** _RHO
        return karras
    if spread == "exponential":
        return np.exp(np.linspace(math.log(most), math.log(least), steps))
    return least + beta_quantile(1 - np.linspace(0, 1, steps), _BETA_SHAPE) * (most - least)


def _timesteps_of(sigmas: F64, trained: F32) -> F64:
    """Return the timesteps with these levels, interpolated in log sigma."""
    return np.interp(np.log(sigmas), np.log(trained), np.arange(len(trained)))
