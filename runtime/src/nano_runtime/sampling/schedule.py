"""The noise schedule of a model and the timesteps to visit, read from diffusers' scheduler config.

Terms: ``beta`` is the variance of the noise one training step adds; ``alphas_cumprod[t]`` (ᾱ in DDPM, Ho et al. 2020)
is the share of the picture's variance left at timestep t, so ``latents = sqrt(ᾱ) * picture + sqrt(1 - ᾱ) * noise``.

Each scheduler of diffusers can read the config of any other, and fills in its own default for a key that the config
lacks. Some defaults differ between classes (``timestep_spacing``, ``set_alpha_to_one``, ``clip_sample``): those keys
stay None here, and each sampler fills in its own. The betas belong to the model, not to the sampler, so they take the
defaults of the class that wrote the config.

``samplers.of_checkpoint`` reads which sampler a config asks for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from nano_runtime.arrays import F32, F64
from nano_runtime.errors import StepsError, UnsupportedScheduleError
from nano_runtime.sampling.sampler_names import Spread
from nano_runtime.sampling.sampler_table import SAMPLERS

__all__ = [
    "BetaSchedule",
    "PredictionType",
    "Schedule",
    "Spacing",
    "check_steps",
    "spaced_timesteps",
    "whole_timesteps",
]

BetaSchedule: TypeAlias = Literal["linear", "scaled_linear", "squaredcos_cap_v2"]
PredictionType: TypeAlias = Literal["epsilon", "v_prediction", "sample"]
Spacing: TypeAlias = Literal["leading", "linspace", "trailing"]

_MAX_BETA: Final = 0.999  # keeps the cosine schedule away from a last beta of 1
_MAX_TRAIN_TIMESTEPS: Final = 100_000  # a hundred times the usual; a config with more is damaged


def _one_of(known: tuple[object, ...]) -> tuple[Callable[[object], bool], tuple[object, ...]]:
    """Return a test for membership, which unlike ``in`` does not take 1 for True, and the values for the error."""
    return lambda value: any(type(value) is type(one) and value == one for one in known), known


def _is_whole(value: object, least: int, most: float) -> bool:
    return type(value) is int and least <= value <= most


def _is_share(value: object) -> bool:
    return type(value) in (int, float) and 0 < value < 1  # type: ignore[operator]


def _is_positive(value: object) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf  # type: ignore[operator]


# The values that each field of a config may have, as a test and as words for the error.
_FIELDS: Final[Mapping[str, tuple[Callable[[object], bool], tuple[object, ...]]]] = {
    "num_train_timesteps": (
        lambda value: _is_whole(value, 1, _MAX_TRAIN_TIMESTEPS),
        (f"whole numbers from 1 to {_MAX_TRAIN_TIMESTEPS}",),
    ),
    "beta_start": (_is_share, ("numbers between 0 and 1",)),
    "beta_end": (_is_share, ("numbers between 0 and 1",)),
    "beta_schedule": _one_of(("linear", "scaled_linear", "squaredcos_cap_v2")),
    "trained_betas": (
        lambda value: isinstance(value, list | tuple) and all(map(_is_share, value)),
        ("numbers between 0 and 1, one for each timestep",),
    ),
    "prediction_type": _one_of(("epsilon", "v_prediction", "sample")),
    "timestep_spacing": _one_of(("leading", "linspace", "trailing")),
    "steps_offset": (lambda value: _is_whole(value, 0, math.inf), ("whole numbers from 0",)),
    "set_alpha_to_one": _one_of((True, False)),
    "skip_prk_steps": _one_of((True, False)),
    "clip_sample": _one_of((True, False)),
    "clip_sample_range": (_is_positive, ("numbers above 0",)),
    "rescale_betas_zero_snr": _one_of((True, False)),
    "final_sigmas_type": _one_of(("zero", "sigma_min")),
    "original_inference_steps": (
        lambda value: _is_whole(value, 1, _MAX_TRAIN_TIMESTEPS),
        (f"whole numbers from 1 to {_MAX_TRAIN_TIMESTEPS}",),
    ),
    "timestep_scaling": (_is_positive, ("numbers above 0",)),
}
# The values that no sampler can follow if they are others: they describe another kind of model.
_ONLY: Final[Mapping[str, tuple[object, ...]]] = {
    "use_flow_sigmas": (False, None),
    "use_dynamic_shifting": (False,),
    "variance_type": (None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),
}
# Classes of diffusers whose betas have other defaults than ``Schedule``.
_BETAS_OF_CLASS: Final = {record.diffusers: record.betas for record in SAMPLERS.values() if record.betas}


@dataclass(frozen=True)
class Schedule:
    """A variance-preserving noise schedule with discrete timesteps 0 to ``num_train_timesteps - 1``.

    Names, meanings and defaults are those of diffusers, except for ``spread``. If ``timestep_spacing``,
    ``set_alpha_to_one`` or ``clip_sample`` is None, the config does not say, and the sampler's own default applies.

    Attributes:
        num_train_timesteps: number of timesteps that the model knows.
        beta_start: first beta, in (0, 1).
        beta_end: last beta, in (0, 1).
        beta_schedule: growth of beta: linear, linear in its root, or so that ᾱ falls like a squared cosine.
        trained_betas: all betas, instead of the three above.
        prediction_type: output of the network: noise, velocity (Salimans & Ho 2022, section 2.4), or the picture.
        timestep_spacing: spacing of the visited timesteps (Lin et al. 2023, table 2).
        steps_offset: added to every timestep of the leading spacing.
        set_alpha_to_one: whether the last step ends at ᾱ = 1 (no noise at all) rather than at ``alphas_cumprod[0]``.
        skip_prk_steps: whether PNDM leaves out its Runge-Kutta start.
        clip_sample: whether DDIM, DDPM, Heun and LCM clip the predicted picture.
        clip_sample_range: magnitude that they clip to.
        rescale_betas_zero_snr: whether the last timestep is made pure noise (Lin et al. 2023, algorithm 1).
        final_sigmas_type: whether Euler, DPM-Solver++ and UniPC end at no noise or at that of timestep 0.
        original_inference_steps: number of steps that the teacher of an LCM or TCD model made.
        timestep_scaling: scale of the timestep in LCM's boundary condition; the larger, the fewer timesteps it affects.
        spread: spread of the noise levels in samplers that work in sigma, see ``samplers.levels``. It comes from the
            sampler's name, not from the config.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: BetaSchedule = "linear"
    trained_betas: tuple[float, ...] | None = None
    prediction_type: PredictionType = "epsilon"
    timestep_spacing: Spacing | None = None
    steps_offset: int = 0
    set_alpha_to_one: bool | None = None
    skip_prk_steps: bool = False
    clip_sample: bool | None = None
    clip_sample_range: float = 1.0
    rescale_betas_zero_snr: bool = False
    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"
    original_inference_steps: int = 50
    timestep_scaling: float = 10.0
    spread: Spread = "trained"

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Schedule:
        """Read a diffusers scheduler config as ``SomeScheduler.from_config(config)`` would.

        Keys with an underscore are notes of diffusers. ``_class_name`` gives the defaults of the betas, and the keys
        listed in ``_use_default_values`` count as absent: the class that wrote the config filled them in. Keys that
        concern no sampler here are ignored, and so are those that choose one.

        Raises:
            UnsupportedScheduleError: a value is malformed, or asks for something that is not implemented.
        """
        filled_in = config.get("_use_default_values") or ()
        if not isinstance(filled_in, list | tuple):
            raise UnsupportedScheduleError("_use_default_values", filled_in, ("lists of keys",))
        said = {key: value for key, value in config.items() if key not in filled_in}
        for key, known in _ONLY.items():
            if key in said and said[key] not in known:
                raise UnsupportedScheduleError(key, said[key], known)
        said = {**_BETAS_OF_CLASS.get(str(said.get("_class_name")), {}), **said}
        values = {key: said[key] for key in _FIELDS if key in said}
        if values.get("trained_betas", ...) is None:
            del values["trained_betas"]
        for key, value in values.items():
            _check(key, value)
        if "trained_betas" in values:
            values["trained_betas"] = tuple(values["trained_betas"])
            count = values.get("num_train_timesteps", cls.num_train_timesteps)
            if len(values["trained_betas"]) != count:
                raise UnsupportedScheduleError(
                    "trained_betas", f"{len(values['trained_betas'])} numbers", (f"{count} numbers",)
                )
        return cls(**values)

    @property
    def betas(self) -> F32:
        """Variance added by each training step, float32 [num_train_timesteps], before any rescaling."""
        count = self.num_train_timesteps
        if self.trained_betas is not None:
            return np.array(self.trained_betas, np.float32)
        if self.beta_schedule == "linear":
            return _torch_linspace(self.beta_start, self.beta_end, count)
        if self.beta_schedule == "scaled_linear":
            root = _torch_linspace(math.sqrt(self.beta_start), math.sqrt(self.beta_end), count)
            return root * root
        shares = [math.cos((t / count + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(count + 1)]
        return np.array([min(1 - b / a, _MAX_BETA) for a, b in pairwise(shares)], np.float32)

    @property
    def alphas_cumprod(self) -> F32:
        """Share of the picture's variance left at each timestep, float32 [num_train_timesteps], in [0, 1], falling."""
        betas = self.betas
        if self.rescale_betas_zero_snr:
            betas = _zero_terminal_snr(betas)
        return _cumprod(np.float32(1) - betas)


def spaced_timesteps(schedule: Schedule, spacing: Spacing, steps: int, points: int) -> F64:
    """Spread timesteps over the schedule, from noisy to clean (Lin et al. 2023, table 2).

    Args:
        schedule: the schedule that they are spread over.
        spacing: leading: whole strides up from 0, shifted by ``steps_offset``; linspace: both ends included, not
            rounded; trailing: strides down from the noisy end.
        steps: number of timesteps to return.
        points: number of timesteps that the leading and linspace spacings lay out; the cleanest ``points - steps`` of
            them are dropped.

    Returns:
        Float64 [steps], falling. For 62 of the step counts up to 1000, rounding makes diffusers' trailing spacing one
        longer, with a last timestep of -1; here that one is left out.
    """
    total = schedule.num_train_timesteps
    if spacing == "linspace":
        return np.linspace(0, total - 1, points)[::-1][:steps]
    if spacing == "leading":
        return (np.arange(points, dtype=np.float64) * (total // points))[::-1][:steps] + schedule.steps_offset
    return np.round(np.arange(total, 0, -total / steps))[:steps] - 1


def whole_timesteps(schedule: Schedule, steps: int) -> F32:
    """Return the timesteps of samplers that work in ᾱ: float32 [steps], whole, falling; leading if nothing is said.

    Raises:
        StepsError: that many steps do not fit into the schedule.
    """
    spacing: Spacing = "leading" if schedule.timestep_spacing is None else schedule.timestep_spacing
    check_steps(schedule, steps, lambda n: np.round(spaced_timesteps(schedule, spacing, n, n)))
    return np.round(spaced_timesteps(schedule, spacing, steps, steps)).astype(np.float32)


def check_steps(schedule: Schedule, steps: int, spread: Callable[[int], F64]) -> None:
    """Refuse a number of steps for which timesteps coincide or leave the schedule.

    Args:
        schedule: the schedule that they have to fit into.
        steps: the number that was asked for.
        spread: returns the timesteps for a number of steps, falling.

    Raises:
        StepsError: the number does not fit; the error names the largest smaller number that does.
    """

    def fits(count: int) -> bool:
        timesteps = spread(count)
        return bool(
            timesteps[0] < schedule.num_train_timesteps and timesteps[-1] >= 0 and np.all(np.diff(timesteps) < 0)
        )

    most = schedule.num_train_timesteps
    if not 1 <= steps <= most:
        raise StepsError(steps, most)
    if not fits(steps):
        raise StepsError(steps, next((count for count in range(steps, 0, -1) if fits(count)), 0))


def _check(key: str, value: object) -> None:
    """Refuse a value that a field cannot hold."""
    allowed, known = _FIELDS[key]
    if not allowed(value):
        raise UnsupportedScheduleError(key, value, known)


def _torch_linspace(start: float, end: float, count: int) -> F32:
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
