"""Noise schedules: betas, what they leave of the picture, and the timesteps that are visited.

A schedule is the config that the model was published with; each sampler makes its own ``Settings`` of it, as diffusers'
class would.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Final

import numpy as np

from nano_runtime.arrays import F32, F64
from nano_runtime.errors import NoNumbersError, StepsError
from nano_runtime.sampling.arithmetic import arithmetic
from nano_runtime.sampling.sampler_names import Spread
from nano_runtime.sampling.sampler_table import FALLBACK, RECORDS, SAMPLERS, SamplerRecord
from nano_runtime.sampling.scheduler_classes import ALIASES
from nano_runtime.sampling.settings import PredictionType, Settings, settings_of

__all__ = [
    "Schedule",
    "alphas_cumprod_of",
    "betas_of",
    "check_steps",
    "spaced_timesteps",
    "torch_linspace",
    "whole_timesteps",
]

_MAX_BETA: Final = 0.999  # keeps the cosine schedule away from a last beta of 1
_WITH_SAMPLERS: Final = frozenset(record.diffusers for record in RECORDS.values())


@dataclass(frozen=True)
class Schedule:
    """A variance-preserving noise schedule with discrete timesteps, as a diffusers scheduler config describes it.

    Attributes:
        config: diffusers' config.
    """

    config: Mapping[str, Any]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Schedule:
        """Read a config, and check it for its own class.

        Raises:
            UnsupportedScheduleError: a value is malformed, asks for something that is not implemented, or they lead to
                no schedule together.
        """
        schedule = cls(dict(config))
        with arithmetic("alphas_cumprod"):
            shares = alphas_cumprod_of(schedule.own)
        if not np.all((shares >= 0) & (shares <= 1)) or np.any(np.diff(shares) > 0):
            raise NoNumbersError("alphas_cumprod", "it does not fall from 1 to 0")
        return schedule

    def but(self, **said: object) -> Schedule:
        """Return this schedule with other values of some keys, as if its config said them."""
        filled_in = [key for key in self.config.get("_use_default_values", ()) if key not in said]
        return Schedule.from_config({**self.config, "_use_default_values": filled_in, **said})

    def settings(self, record: SamplerRecord, spread: Spread = "trained") -> Settings:
        """Return the settings of a sampler that draws with this schedule.

        Raises:
            UnsupportedScheduleError: the sampler cannot follow a value of the config.
        """
        return settings_of(self.config, record.diffusers, record.config, spread)

    @cached_property
    def own(self) -> Settings:
        """The settings of the config's own class, or those of the fallback where that has no sampler here."""
        kind = self.config.get("_class_name")
        kind = ALIASES.get(kind, kind) if isinstance(kind, str) else None
        return settings_of(self.config, kind if kind in _WITH_SAMPLERS else SAMPLERS[FALLBACK].diffusers)

    @property
    def num_train_timesteps(self) -> int:
        """Number of timesteps that the model knows."""
        return self.own.num_train_timesteps

    @property
    def prediction_type(self) -> PredictionType:
        """Output of the network."""
        return self.own.prediction_type

    @cached_property
    def alphas_cumprod(self) -> F32:
        """Share of the picture's variance left at each timestep, see ``alphas_cumprod_of``."""
        return alphas_cumprod_of(self.own)


def betas_of(settings: Settings) -> F32:
    """Return the variance added by each training step, float32 [num_train_timesteps], before any rescaling.

    linear; scaled_linear: linear in its root; squaredcos_cap_v2, exp and laplace: so that ᾱ falls like a squared cosine
    (Nichol & Dhariwal 2021), an exponential, or by a Laplace distribution of log signal-to-noise; sigmoid: between both
    ends. (Matches diffusers' constructors and ``betas_for_alpha_bar``.)
    """
    count, start, end = settings.num_train_timesteps, settings.beta_start, settings.beta_end
    if settings.trained_betas is not None:
        return np.array(settings.trained_betas, np.float32)
    if settings.beta_schedule == "linear":
        return torch_linspace(start, end, count)
    if settings.beta_schedule == "scaled_linear":
        root = torch_linspace(math.sqrt(start), math.sqrt(end), count)
        return root * root
    if settings.beta_schedule == "sigmoid":
        exponent = np.exp(-torch_linspace(-6, 6, count).astype(np.float64))
        shares = (1 / (1 + exponent)).astype(np.float32)
        return shares * np.float32(end - start) + np.float32(start)
    fall = {"squaredcos_cap_v2": _cosine, "exp": _exponential, "laplace": _laplace}[settings.beta_schedule]
    left = [fall(t / count) for t in range(count + 1)]
    return np.array([min(1 - b / a, _MAX_BETA) for a, b in pairwise(left)], np.float32)


def _cosine(time: float) -> float:
    return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2


def _exponential(time: float) -> float:
    return math.exp(time * -12)


def _laplace(time: float) -> float:
    log_snr = -0.5 * math.copysign(1, 0.5 - time) * math.log(1 - 2 * math.fabs(0.5 - time) + 1e-6)
    return math.sqrt(math.exp(log_snr) / (1 + math.exp(log_snr)))


def alphas_cumprod_of(settings: Settings) -> F32:
    """Return the share of the picture's variance left at each timestep, float32 [num_train_timesteps], in [0, 1]."""
    betas = betas_of(settings)
    if settings.rescale_betas_zero_snr:
        betas = _zero_terminal_snr(betas)
    return _cumprod(np.float32(1) - betas)


def spaced_timesteps(settings: Settings, steps: int, points: int, total: int | None = None) -> F64:
    """Spread timesteps over the schedule, from noisy to clean (Lin et al. 2023, table 2).

    Args:
        settings: of the sampler. Its ``timestep_spacing`` is leading: whole strides up from 0, shifted by
            ``steps_offset``; linspace: both ends included, not rounded; or trailing: strides down from the noisy end.
        steps: number of timesteps to return.
        points: number of timesteps that the leading and linspace spacings lay out; the cleanest ``points - steps`` of
            them are dropped.
        total: number of timesteps that they are spread over; None takes all that were trained.

    Returns:
        Float64 [steps], falling. For 62 of the step counts up to 1000, rounding makes diffusers' trailing spacing one
        longer, with a last timestep of -1; here that one is left out.
    """
    trained = settings.num_train_timesteps
    total = trained if total is None else total
    if settings.timestep_spacing == "linspace":
        return np.linspace(0, total - 1, points)[::-1][:steps]
    if settings.timestep_spacing == "leading":
        return (np.arange(points, dtype=np.float64) * (total // points))[::-1][:steps] + settings.steps_offset
    return np.round(np.arange(total, 0, -trained / steps))[:steps] - 1


def whole_timesteps(settings: Settings, steps: int) -> F32:
    """Return the timesteps of samplers that work in ᾱ: float32 [steps], whole, falling.

    Raises:
        StepsError: that many steps do not fit into the schedule.
    """
    check_steps(settings, steps, lambda n: np.round(spaced_timesteps(settings, n, n)))
    return np.round(spaced_timesteps(settings, steps, steps)).astype(np.float32)


def check_steps(settings: Settings, steps: int, spread: Callable[[int], F64]) -> None:
    """Refuse a number of steps for which timesteps coincide or leave the schedule.

    Args:
        settings: of the sampler, whose timesteps they have to fit into.
        steps: the number that was asked for.
        spread: returns the timesteps for a number of steps, falling.

    Raises:
        StepsError: the number does not fit; the error names the largest smaller number that does.
    """

    def fits(count: int) -> bool:
        timesteps = spread(count)
        return bool(
            timesteps[0] < settings.num_train_timesteps and timesteps[-1] >= 0 and np.all(np.diff(timesteps) < 0)
        )

    most = settings.num_train_timesteps
    if not 1 <= steps <= most:
        raise StepsError(steps, most)
    if not fits(steps):
        raise StepsError(steps, next((count for count in range(steps, 0, -1) if fits(count)), 0))


def torch_linspace(start: float, end: float, count: int) -> F32:
    """Return ``torch.linspace`` in float32, bit for bit: filled from both ends with one float32 stride."""
    first, last = np.float32(start), np.float32(end)
    stride = np.float64((last - first) / np.float32(max(count - 1, 1)))
    index = np.arange(count)
    up = np.float64(first) + stride * index
    down = np.float64(last) - stride * (count - 1 - index)
    return np.where(index < max(count // 2, 1), up, down).astype(np.float32)


def _cumprod(values: F32) -> F32:
    """Return ``torch.cumprod`` in float32, which keeps its running product in float64."""
    return np.cumprod(values, dtype=np.float64).astype(np.float32)


def _zero_terminal_snr(betas: F32) -> F32:
    """Shift and stretch sqrt(ᾱ) so that it ends at 0 and starts where it did (Lin et al. 2023, algorithm 1)."""
    root = np.sqrt(_cumprod(np.float32(1) - betas))
    first, last = root[0], root[-1]
    share = np.square((root - last) * (first / (first - last)))
    return np.float32(1) - np.concatenate([share[:1], share[1:] / share[:-1]])
