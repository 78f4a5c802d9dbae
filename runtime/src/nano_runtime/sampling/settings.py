"""The settings of one sampler: what diffusers' class makes of a checkpoint's scheduler config.

Reads a config as ``SomeScheduler.from_config(config)`` does, checks every value that the class uses, and refuses what
diffusers cannot draw either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, TypeAlias

from nano_runtime.errors import UnsupportedScheduleError
from nano_runtime.sampling.sampler_names import Spread
from nano_runtime.sampling.scheduler_classes import ALIASES, CLASSES, normalised

__all__ = ["NOISIEST_LEVEL", "Algorithm", "BetaSchedule", "PredictionType", "Settings", "Spacing", "settings_of"]

BetaSchedule: TypeAlias = Literal["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace", "exp"]
PredictionType: TypeAlias = Literal["epsilon", "v_prediction", "sample", "flow_prediction"]
Spacing: TypeAlias = Literal["leading", "linspace", "trailing"]
Algorithm: TypeAlias = Literal["dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver", "deis"]

_MAX_TRAIN_TIMESTEPS: Final = 100_000  # a hundred times the usual; a config with more is damaged
NOISIEST_LEVEL: Final = "_noisiest_level"
"""Key that ``nano-export`` adds to a config for its own class, see ``Settings.noisiest_level``."""
_NOT_IN_JSON: Final = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}
_KEYS_OF_SPREADS: Final = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every option of every sampler; names and meanings are diffusers'. A class without a key has its value here.

    Attributes:
        kind: diffusers' class.
        num_train_timesteps: number of timesteps that the model knows.
        beta_start: first beta, in (0, 1).
        beta_end: last beta, in (0, 1).
        beta_schedule: growth of beta, see ``schedule.betas_of``.
        trained_betas: all betas, instead of the three above.
        prediction_type: output of the network: noise, velocity (Salimans & Ho 2022, section 2.4), the picture, or the
            flow from picture to noise.
        timestep_spacing: spacing of the visited timesteps (Lin et al. 2023, table 2).
        steps_offset: added to every timestep of the leading spacing.
        set_alpha_to_one: whether the last step ends at ᾱ = 1 (no noise at all) rather than at ``alphas_cumprod[0]``.
        skip_prk_steps: whether PNDM leaves out its Runge-Kutta start.
        clip_sample: whether the predicted picture is clipped.
        clip_sample_range: magnitude that it is clipped to.
        thresholding: whether the predicted picture is scaled to a quantile of its magnitudes (Saharia et al. 2022).
        dynamic_thresholding_ratio: that quantile.
        sample_max_value: largest magnitude that it is scaled from.
        rescale_betas_zero_snr: whether the last timestep is made pure noise (Lin et al. 2023, algorithm 1).
        final_sigmas_type: whether the last step ends at no noise or at that of timestep 0.
        original_inference_steps: number of steps that the teacher of an LCM or TCD model made.
        timestep_scaling: scale of the timestep in LCM's boundary condition; the larger, the fewer timesteps it affects.
        variance_type: variance of DDPM's noise.
        algorithm_type: family of DPM-Solver: of the predicted picture (++) or noise; with fresh noise (sde) or without.
        solver_type: second-order formula of DPM-Solver, or B(h) of UniPC.
        solver_order: highest order of a step.
        lower_order_final: whether the last steps are of lower order.
        euler_at_final: whether the last step is of first order.
        predict_x0: whether UniPC extrapolates the picture, not the noise.
        disable_corrector: numbers of the steps after which UniPC does not correct.
        lambda_min_clipped: log signal-to-noise of the noisiest timestep that is visited.
        use_lu_lambdas: whether the noise levels are even in their logarithm (Lu et al. 2022).
        interpolation_type: whether Euler's levels are those of the timesteps or even in their logarithm.
        timestep_type: whether Euler's timesteps are those of the model or a quarter of the logarithm of the level.
        sigma_min: least noise level of a spread; None takes the schedule's.
        sigma_max: largest noise level of a spread.
        sigma_data: deviation of EDM's pictures.
        sigma_schedule: spread of EDM's levels.
        rho: exponent of EDM's Karras levels.
        snr_shift_scale: divisor of CogVideoX' signal-to-noise ratios.
        use_flow_sigmas: whether latents are ``(1 - sigma) * picture + sigma * noise``.
        flow_shift: shift of such levels towards noise.
        shift_terminal: last of such levels; None leaves it.
        spread: spread of the noise levels in samplers that work in sigma, see ``samplers.levels``.
        noisiest_level: of the last trained timestep, where torch rounded it otherwise than numpy does; None else.
    """

    kind: str
    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: BetaSchedule = "linear"
    trained_betas: tuple[float, ...] | None = None
    prediction_type: PredictionType = "epsilon"
    timestep_spacing: Spacing = "linspace"
    steps_offset: int = 0
    set_alpha_to_one: bool = True
    skip_prk_steps: bool = False
    clip_sample: bool = False
    clip_sample_range: float = 1.0
    thresholding: bool = False
    dynamic_thresholding_ratio: float = 0.995
    sample_max_value: float = 1.0
    rescale_betas_zero_snr: bool = False
    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"
    original_inference_steps: int = 50
    timestep_scaling: float = 10.0
    variance_type: Literal["fixed_small", "fixed_small_log", "fixed_large"] | None = None
    algorithm_type: Algorithm = "dpmsolver++"
    solver_type: Literal["midpoint", "heun", "bh1", "bh2", "logrho"] = "midpoint"
    solver_order: int = 2
    lower_order_final: bool = True
    euler_at_final: bool = False
    predict_x0: bool = True
    disable_corrector: tuple[int, ...] = ()
    lambda_min_clipped: float = -math.inf
    use_lu_lambdas: bool = False
    interpolation_type: Literal["linear", "log_linear"] = "linear"
    timestep_type: Literal["discrete", "continuous"] = "discrete"
    sigma_min: float | None = None
    sigma_max: float | None = None
    sigma_data: float = 0.5
    sigma_schedule: Literal["karras", "exponential"] = "karras"
    rho: float = 7.0
    snr_shift_scale: float = 3.0
    use_flow_sigmas: bool = False
    flow_shift: float = 1.0
    shift_terminal: float | None = None
    spread: Spread = "trained"
    noisiest_level: float | None = None


_NAMES: Final = frozenset(field.name for field in fields(Settings)) - {"kind", "spread", "noisiest_level"}

_Test: TypeAlias = tuple[Callable[[Any], bool], tuple[object, ...]]


def _one_of(*known: object) -> _Test:
    """Return a test for membership, which unlike ``in`` does not take 1 for True, and the values for the error."""
    return lambda value: any(type(value) is type(one) and value == one for one in known), known


def _whole(least: int, most: float, words: str) -> _Test:
    return lambda value: type(value) is int and least <= value <= most, (words,)


def _number(least: float, most: float, words: str, *, none: bool = False) -> _Test:
    """Return a test for numbers strictly between two bounds."""

    def fits(value: Any) -> bool:  # noqa: ANN401 - any value of a JSON file
        return (none and value is None) or (type(value) in {int, float} and least < value < most)

    return fits, (words,)


_BETAS: Final = ("linear", "scaled_linear", "squaredcos_cap_v2")
_KINDS: Final = ("epsilon", "v_prediction", "sample")
_ON_OR_OFF: Final = (True, False)
_OFF: Final = (False,)
_SWITCH: Final = _one_of(*_ON_OR_OFF)
_POSITIVE: Final = _number(0, math.inf, "numbers above 0")
_SHARE: Final = _number(0, 1, "numbers between 0 and 1")
_LEVEL: Final = _number(0, math.inf, "numbers above 0, or null", none=True)
_COUNT: Final = _whole(1, _MAX_TRAIN_TIMESTEPS, f"whole numbers from 1 to {_MAX_TRAIN_TIMESTEPS}")

# The values that each key may have, as a test and as words for the error. Keys of no entry change no picture.
_TESTS: Final[Mapping[str, _Test]] = {
    "num_train_timesteps": _COUNT,
    "beta_start": _SHARE,
    "beta_end": _SHARE,
    "beta_schedule": _one_of(*_BETAS),
    "trained_betas": (
        lambda value: value is None or (isinstance(value, list | tuple) and all(map(_SHARE[0], value))),
        ("numbers between 0 and 1, one for each timestep",),
    ),
    "prediction_type": _one_of(*_KINDS),
    "timestep_spacing": _one_of("leading", "linspace", "trailing"),
    "steps_offset": _whole(0, math.inf, "whole numbers from 0"),
    "set_alpha_to_one": _SWITCH,
    "skip_prk_steps": _SWITCH,
    "clip_sample": _SWITCH,
    "clip_sample_range": _POSITIVE,
    "thresholding": _SWITCH,
    "dynamic_thresholding_ratio": (
        lambda value: type(value) in {int, float} and 0 <= value <= 1,
        ("numbers from 0 to 1",),
    ),
    "sample_max_value": _POSITIVE,
    "rescale_betas_zero_snr": _SWITCH,
    "final_sigmas_type": _one_of("zero", "sigma_min"),
    "original_inference_steps": _COUNT,
    "timestep_scaling": _POSITIVE,
    "variance_type": _one_of(None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),
    "solver_order": _whole(1, math.inf, "whole numbers from 1"),
    "lower_order_final": _SWITCH,
    "euler_at_final": _SWITCH,
    "predict_x0": _SWITCH,
    "disable_corrector": (
        lambda value: isinstance(value, list | tuple) and all(type(one) is int for one in value),
        ("lists of whole numbers",),
    ),
    "lambda_min_clipped": (lambda value: type(value) in {int, float} and value < math.inf, ("numbers, or -Infinity",)),
    "use_lu_lambdas": _SWITCH,
    "interpolation_type": _one_of("linear", "log_linear"),
    "timestep_type": _one_of("discrete", "continuous"),
    "sigma_min": _LEVEL,
    "sigma_max": _LEVEL,
    NOISIEST_LEVEL: _LEVEL,
    "use_flow_sigmas": _SWITCH,
    "flow_shift": _POSITIVE,
    "snr_shift_scale": _POSITIVE,
    "shift_terminal": _number(0, 1, "numbers between 0 and 1, or null", none=True),
    "solver_p": _one_of(None),
}
_FLOWS: Final = _one_of(*_KINDS, "flow_prediction")
_DPM: Final[Mapping[str, _Test]] = {
    "prediction_type": _FLOWS,
    "solver_type": _one_of("midpoint", "heun"),
    "algorithm_type": _one_of("dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver"),
}
_UP_TO_3: Final = _whole(1, 3, "whole numbers from 1 to 3")
_NO_PICTURES: Final = {"prediction_type": _one_of("epsilon", "v_prediction")}
_EDM: Final = {
    **_NO_PICTURES,
    "sigma_min": _POSITIVE,
    "sigma_max": _POSITIVE,
    "sigma_data": _POSITIVE,
    "sigma_schedule": _one_of("karras", "exponential"),
    "rho": _POSITIVE,
}
# What a class allows else.
_OF_CLASS: Final[Mapping[str, Mapping[str, _Test]]] = {
    "PNDMScheduler": _NO_PICTURES,
    "EulerAncestralDiscreteScheduler": _NO_PICTURES,
    "KDPM2DiscreteScheduler": _NO_PICTURES,
    "KDPM2AncestralDiscreteScheduler": _NO_PICTURES,
    "EulerDiscreteScheduler": {"prediction_type": _one_of(*_KINDS, "original_sample")},
    "HeunDiscreteScheduler": {"beta_schedule": _one_of(*_BETAS, "exp")},
    "DDPMScheduler": {
        "beta_schedule": _one_of(*_BETAS, "sigmoid", "laplace"),
        "variance_type": _one_of("fixed_small", "fixed_small_log", "fixed_large"),
    },
    "DPMSolverMultistepScheduler": _DPM,
    "DPMSolverSinglestepScheduler": {
        **_DPM,
        "algorithm_type": _one_of("dpmsolver++", "dpmsolver", "sde-dpmsolver++"),
        "solver_order": _UP_TO_3,
    },
    "DEISMultistepScheduler": {
        "prediction_type": _FLOWS,
        "solver_type": _one_of("logrho"),
        "algorithm_type": _one_of("deis"),
    },
    "UniPCMultistepScheduler": {
        "prediction_type": _FLOWS,
        "solver_type": _one_of("bh1", "bh2"),
        "use_dynamic_shifting": _one_of(*_OFF),
    },
    "IPNDMScheduler": {"trained_betas": _one_of(None)},
    "EDMEulerScheduler": _EDM,
    "EDMDPMSolverMultistepScheduler": {
        **_EDM,
        "solver_type": _one_of("midpoint", "heun"),
        "algorithm_type": _one_of("dpmsolver++", "sde-dpmsolver++"),
    },
}


def settings_of(
    config: Mapping[str, Any], kind: str, pinned: Mapping[str, object] | None = None, spread: Spread = "trained"
) -> Settings:
    """Read a config as one of diffusers' classes does.

    Keys with an underscore are notes. The keys listed in ``_use_default_values`` were filled in by the
    class that wrote the config, so they count as absent for every other class.

    Args:
        config: diffusers' config.
        kind: class that reads it, one with a sampler.
        pinned: keys that the sampler's name decides.
        spread: that the sampler's name decides.

    Raises:
        UnsupportedScheduleError: a value is malformed, or asks for something that is not implemented.
    """
    own = config.get("_class_name")
    filled_in = config.get("_use_default_values") or ()
    if not isinstance(filled_in, list | tuple):
        raise UnsupportedScheduleError("_use_default_values", filled_in, ("lists of keys",))
    is_own = isinstance(own, str) and ALIASES.get(own, own) == kind
    absent = () if is_own else filled_in
    known = {**CLASSES[kind], **_levels_that_may_hide(kind), **({NOISIEST_LEVEL: None} if is_own else {})}
    said = {key: config[key] for key in known if key in config and key not in absent}
    values = {**known, **normalised(kind, said), **({} if pinned is None else pinned)}
    values = _mended(values)
    tests = {**_TESTS, **_OF_CLASS.get(kind, {})}
    for key, value in values.items():
        if key in tests and not tests[key][0](value):
            raise UnsupportedScheduleError(key, value, tests[key][1])
    _check_together(kind, values)
    fitting: dict[str, Any] = {key: value for key, value in values.items() if key in _NAMES}
    fitting["noisiest_level"] = values.get(NOISIEST_LEVEL)
    return Settings(kind=kind, spread=spread, **fitting)


def _levels_that_may_hide(kind: str) -> Mapping[str, object]:
    """Return keys that diffusers looks up for spread levels, also in classes that do not declare them."""
    return {"sigma_min": None, "sigma_max": None} if _KEYS_OF_SPREADS[0] in CLASSES[kind] else {}


def _mended(values: Mapping[str, object]) -> dict[str, Any]:
    """Return values in the types of ``Settings``.

    A switch may be null, a number or a string, which Python takes for on or off; and a number that JSON has not is a
    string.
    """
    mended: dict[str, Any] = dict(values)
    for key, value in values.items():
        if _TESTS.get(key) is _SWITCH and isinstance(value, int | float | str | None):
            mended[key] = bool(value)
        elif isinstance(value, str):
            mended[key] = _NOT_IN_JSON.get(value, value)
        elif isinstance(value, list):
            mended[key] = tuple(value)
    if mended.get("lambda_min_clipped", 0.0) is None:  # as older exporters wrote minus infinity
        mended["lambda_min_clipped"] = -math.inf
    if mended.get("prediction_type") == "original_sample":
        mended["prediction_type"] = "sample"
    return mended


def _check_together(kind: str, values: Mapping[str, Any]) -> None:
    """Refuse values that diffusers refuses together.

    Raises:
        UnsupportedScheduleError: two values exclude each other.
    """
    spreads = [key for key in _KEYS_OF_SPREADS if values.get(key)]
    if len(spreads) > 1:
        raise UnsupportedScheduleError(spreads[1], values[spreads[1]], (f"False, as {spreads[0]} is True",))
    betas, count = values.get("trained_betas"), values["num_train_timesteps"]
    if betas is not None and len(betas) != count:
        raise UnsupportedScheduleError("trained_betas", f"{len(betas)} numbers", (f"{count} numbers",))
    if (steps := values.get("original_inference_steps", 1)) > count:
        raise UnsupportedScheduleError("original_inference_steps", steps, (f"whole numbers from 1 to {count}",))
    of_noise = values.get("algorithm_type") in {"dpmsolver", "sde-dpmsolver"}
    if of_noise and values["final_sigmas_type"] == "zero":
        raise UnsupportedScheduleError("final_sigmas_type", "zero", ("sigma_min",))
    if of_noise and values["prediction_type"] == "flow_prediction":
        raise UnsupportedScheduleError("prediction_type", "flow_prediction", _KINDS)
    if of_noise and values["thresholding"] and kind == "DPMSolverSinglestepScheduler":
        raise UnsupportedScheduleError("thresholding", values["thresholding"], _OFF)
    with_noise = "sde-dpmsolver++" if kind == "EDMDPMSolverMultistepScheduler" else "sde-dpmsolver"
    if values.get("algorithm_type") == with_noise and values["solver_order"] > 2:  # noqa: PLR2004
        raise UnsupportedScheduleError("solver_order", values["solver_order"], (1, 2))
    if values.get("shift_terminal") is not None and not values["use_flow_sigmas"]:
        raise UnsupportedScheduleError("shift_terminal", values["shift_terminal"], (None,))
