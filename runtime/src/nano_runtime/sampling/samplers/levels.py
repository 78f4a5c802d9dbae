"""Noise levels for samplers that work in ``sigma = sqrt((1 - ᾱ) / ᾱ)``: noise against a picture of unchanged size.

They can be spread between the noisiest and the cleanest in five ways: as the timesteps are ("trained"), or

- "karras": evenly in sigma^(1/7) (Karras et al. 2022, formula 5);
- "exponential": evenly in log sigma;
- "beta": by the quantiles of a beta distribution, dense at both ends (Lee et al. 2024);
- in a straight line from picture to noise, for models of rectified flow (``use_flow_sigmas``).

The network is then called for the timesteps that have these levels, which may lie between two trained ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from nano_runtime.arrays import F32, F64
from nano_runtime.sampling.samplers.quantile import beta_quantile
from nano_runtime.sampling.schedule import alphas_cumprod_of, check_steps, spaced_timesteps, torch_linspace
from nano_runtime.sampling.settings import Settings

__all__ = [
    "Levels",
    "continuous_levels",
    "spread_levels",
    "timesteps_of",
    "trained_levels",
    "trained_squares",
    "whole_levels",
]

_ALMOST_PURE_NOISE: Final = 2.0**-24  # diffusers' stand-in for a last ᾱ of 0, which would make sigma infinite
_RHO: Final = 7.0  # the choice of Karras et al.
_BETA_SHAPE: Final = 0.6  # both parameters of the beta distribution; the choice of Lee et al.
_LEAST_FLOW: Final = 1e-6  # share of the picture that UniPC leaves at the noisiest level of a flow


@dataclass(frozen=True, eq=False)
class Levels:
    """The noise levels that a sampler visits.

    Attributes:
        timesteps: timesteps of the calls, float32 [steps].
        sigmas: noise level at each call, falling, and the level after the last step: float32 [steps + 1].
    """

    timesteps: F32
    sigmas: F32


def continuous_levels(settings: Settings, steps: int, *, rounded: bool = False) -> tuple[Levels, float]:
    """Lay out the levels as diffusers' Euler, Heun, LMS and KDPM2 do, whose timesteps need not be whole.

    Args:
        settings: of the sampler.
        steps: 1 to ``num_train_timesteps``.
        rounded: whether the timesteps of "karras" are rounded.

    Returns:
        The levels, spread between those of the first and the last timestep of the spacing, and the factor that turns
        unit noise into the first latents.

    Raises:
        StepsError: that many steps do not fit into the schedule.
    """
    check_steps(settings, steps, lambda n: spaced_timesteps(settings, n, n))
    timesteps = spaced_timesteps(settings, steps, steps).astype(np.float32)
    trained = trained_levels(settings)
    sigmas = np.interp(timesteps, np.arange(len(trained)), trained)
    if settings.interpolation_type == "log_linear":  # one more than there are steps, as in diffusers
        most, least = float(np.log(trained[-1])), float(np.log(trained[0]))
        sigmas = np.exp(torch_linspace(most, least, steps + 1).astype(np.float64)).astype(np.float32)
    if settings.spread != "trained":
        sigmas = spread_levels(settings, float(sigmas[0]), float(sigmas[-1]), steps)
        timesteps = timesteps_of(sigmas, trained).astype(np.float32)
        if settings.spread == "karras" and rounded:
            timesteps = np.round(timesteps)
    last = 0.0 if settings.final_sigmas_type == "zero" else trained[0]
    ended = np.append(sigmas, last).astype(np.float32)
    if settings.timestep_type == "continuous" and settings.prediction_type == "v_prediction":
        timesteps = np.float32(0.25) * np.log(ended[:-1].astype(np.float64)).astype(np.float32)
    most_noise = ended.max()
    leading = settings.timestep_spacing == "leading"
    return Levels(timesteps, ended), float(np.sqrt(most_noise * most_noise + np.float32(1)) if leading else most_noise)


def whole_levels(settings: Settings, steps: int) -> Levels:
    """Lay out the levels as diffusers' DPM-Solver, DEIS and UniPC do: timesteps are whole, levels the schedule's.

    Args:
        settings: of the sampler. All spacings but trailing lay out one timestep more and leave out the cleanest.
            Spreads other than "trained" go from the schedule's noisiest level to its cleanest, whatever the spacing;
            their timesteps are cut to whole ones, as in diffusers.
        steps: 1 to ``num_train_timesteps``.

    Raises:
        StepsError: that many steps do not fit into the schedule.
    """
    shares = _shares(settings)
    trained = np.sqrt(_squares(shares))
    if settings.noisiest_level is not None:
        trained[-1] = settings.noisiest_level
    total = _visited(settings, shares)
    check_steps(settings, steps, lambda n: np.round(spaced_timesteps(settings, n, n + 1, total)))
    even = settings.use_lu_lambdas and settings.spread != "karras"
    if even or settings.spread != "trained":
        if even:
            logs = np.log(trained)
            sigmas = np.exp(np.linspace(float(logs[-1]), float(logs[0]), steps))
        else:
            sigmas = spread_levels(settings, float(trained[-1]), float(trained[0]), steps)
        return _spread_out(settings, sigmas, trained, even=even)
    if settings.use_flow_sigmas:
        return _flow(settings, steps, trained)
    timesteps = np.round(spaced_timesteps(settings, steps, steps + 1, total))
    sigmas = np.interp(timesteps, np.arange(len(trained)), trained)
    ends_at_least = settings.final_sigmas_type == "sigma_min" or settings.kind == "DEISMultistepScheduler"
    return Levels(
        timesteps.astype(np.float32), np.append(sigmas, trained[0] if ends_at_least else 0).astype(np.float32)
    )


def _spread_out(settings: Settings, sigmas: F64, trained: F32, *, even: bool) -> Levels:
    """Return spread levels, with whole timesteps and the level after the last step."""
    if settings.use_flow_sigmas and settings.spread == "karras" and settings.kind == "UniPCMultistepScheduler":
        sigmas = sigmas / (sigmas + 1)
        timesteps = sigmas * settings.num_train_timesteps
    else:
        timesteps = timesteps_of(sigmas, trained)
        cosine = settings.beta_schedule == "squaredcos_cap_v2" and settings.kind == "DPMSolverMultistepScheduler"
        if (even or settings.spread == "karras") and not cosine:
            timesteps = np.round(timesteps)
    return Levels(np.trunc(timesteps).astype(np.float32), _ended(settings, sigmas, trained))


def _flow(settings: Settings, steps: int, trained: F32) -> Levels:
    """Return levels in a straight line from nearly pure noise to the picture, as models of rectified flow have them."""
    count, shift = settings.num_train_timesteps, settings.flow_shift
    if settings.kind == "UniPCMultistepScheduler":
        sigmas = np.linspace(1, 1 / count, steps + 1)[:-1]
        sigmas = shift * sigmas / (1 + (shift - 1) * sigmas)
        if settings.shift_terminal is not None:
            sigmas = 1 - (1 - sigmas) / ((1 - sigmas[-1]) / (1 - settings.shift_terminal))
        if abs(sigmas[0] - 1) < _LEAST_FLOW:
            sigmas[0] -= _LEAST_FLOW
    else:
        sigmas = 1.0 - np.linspace(1, 1 / count, steps + 1)
        sigmas = np.flip(shift * sigmas / (1 + (shift - 1) * sigmas))[:-1]
    return Levels(np.trunc(sigmas * count).astype(np.float32), _ended(settings, sigmas, trained))


def _ended(settings: Settings, sigmas: F64, trained: F32) -> F32:
    """Append the level after the last step: no noise, or the cleanest level."""
    if settings.kind == "DEISMultistepScheduler":
        last = sigmas[-1]
    elif settings.final_sigmas_type == "zero":
        last = np.float64(0)
    else:
        last = sigmas[-1] if settings.kind == "UniPCMultistepScheduler" else np.float64(trained[0])
    return np.append(sigmas, last).astype(np.float32)


def trained_levels(settings: Settings) -> F32:
    """Return sigma at every timestep, rising: float32 [num_train_timesteps]."""
    levels: F32 = np.sqrt(trained_squares(settings))
    return levels


def trained_squares(settings: Settings) -> F32:
    """Return the square of sigma at every timestep, rising: float32 [num_train_timesteps]."""
    return _squares(_shares(settings))


def _shares(settings: Settings) -> F32:
    shares = alphas_cumprod_of(settings)
    if settings.rescale_betas_zero_snr:
        shares[-1] = _ALMOST_PURE_NOISE
    return shares


def _squares(shares: F32) -> F32:
    return (np.float32(1) - shares) / shares


def _visited(settings: Settings, shares: F32) -> int:
    """Return the number of timesteps whose log signal-to-noise is not below ``lambda_min_clipped``."""
    if settings.lambda_min_clipped == -math.inf:
        return settings.num_train_timesteps
    alphas, sigmas = (np.sqrt(one).astype(np.float64) for one in (shares, np.float32(1) - shares))
    lambdas = (np.log(alphas).astype(np.float32) - np.log(sigmas).astype(np.float32))[::-1]
    return settings.num_train_timesteps - int(np.searchsorted(lambdas, np.float32(settings.lambda_min_clipped)))


def spread_levels(settings: Settings, most: float, least: float, steps: int) -> F64:
    """Return ``steps`` levels from ``most`` down to ``least``, or between the config's own bounds; one is ``most``."""
    if settings.kind != "LMSDiscreteScheduler" or settings.spread != "karras":
        least = least if settings.sigma_min is None else settings.sigma_min
        most = most if settings.sigma_max is None else settings.sigma_max
    if settings.spread == "karras":
        first, last = most ** (1 / _RHO), least ** (1 / _RHO)
        karras: F64 = (first + np.linspace(0, 1, steps) * (last - first)) ** _RHO
        return karras
    if settings.spread == "exponential":
        return np.exp(np.linspace(math.log(most), math.log(least), steps))
    return least + beta_quantile(1 - np.linspace(0, 1, steps), _BETA_SHAPE) * (most - least)


def timesteps_of(sigmas: F64 | F32, trained: F32) -> F64:
    """Return the timesteps with these levels, interpolated in log sigma.

    The trained logarithms and their distances are float32, as in diffusers' ``_sigma_to_t``: some timesteps are cut to
    whole ones, where the least difference would be one.
    """
    logs, wanted = np.log(trained), np.log(np.maximum(sigmas, 1e-10))
    low = np.clip(np.searchsorted(logs, wanted, side="right") - 1, 0, len(logs) - 2)
    share = np.clip((logs[low] - wanted) / (logs[low] - logs[low + 1]), 0, 1)
    low = low.astype(share.dtype)
    timesteps: F64 = ((1 - share) * low + share * (low + 1)).astype(np.float64)
    return timesteps
