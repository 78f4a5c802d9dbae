"""diffusers' scheduler classes: the keys of their configs with the defaults, as of diffusers 0.42.

A class that is not implemented here is listed too, because a checkpoint's config is completed by its own class before
another one replaces it. This file imports nothing heavy: the exporter's ``--adopt`` reads configs with it alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["ALIASES", "CLASSES", "normalised"]

_BETAS: Final = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
}
_LATENT_BETAS: Final = {**_BETAS, "beta_start": 0.00085, "beta_end": 0.012}
_THRESHOLD: Final = {"thresholding": False, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0}
_CLIP: Final = {"clip_sample": True, "clip_sample_range": 1.0}
_LEADING: Final = {"timestep_spacing": "leading", "steps_offset": 0}
_LINSPACE: Final = {"timestep_spacing": "linspace", "steps_offset": 0}
_ZERO_SNR: Final = {"rescale_betas_zero_snr": False}
_SPREADS: Final = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
_FLOW: Final = {"use_flow_sigmas": False, "flow_shift": 1.0}
_SHIFT: Final = {"use_dynamic_shifting": False, "time_shift_type": "exponential"}
_LOWEST: Final = {"lambda_min_clipped": -math.inf, "variance_type": None}
_DDIM: Final = {**_BETAS, **_CLIP, "set_alpha_to_one": True, **_THRESHOLD, **_LEADING, **_ZERO_SNR}
_DDPM: Final = {**_BETAS, "variance_type": "fixed_small", **_CLIP, **_THRESHOLD, **_LEADING, **_ZERO_SNR}
_HEUN: Final = {**_LATENT_BETAS, **_SPREADS, **_LINSPACE}
_MULTISTEP: Final = {**_BETAS, "solver_order": 2, **_THRESHOLD, **_SPREADS, **_FLOW, **_LINSPACE}
_DISTILLED: Final = {
    **_LATENT_BETAS,
    "beta_schedule": "scaled_linear",
    "original_inference_steps": 50,
    **_CLIP,
    "clip_sample": False,
    "set_alpha_to_one": True,
    **_THRESHOLD,
    **_LEADING,
    "timestep_scaling": 10.0,
    **_ZERO_SNR,
}
_EDM: Final = {
    "sigma_min": 0.002,
    "sigma_max": 80.0,
    "sigma_data": 0.5,
    "sigma_schedule": "karras",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "rho": 7.0,
    "final_sigmas_type": "zero",
}

CLASSES: Final[Mapping[str, Mapping[str, object]]] = MappingProxyType(
    {
        "PNDMScheduler": {**_BETAS, "skip_prk_steps": False, "set_alpha_to_one": False, **_LEADING},
        "DDIMScheduler": _DDIM,
        "DDIMParallelScheduler": _DDIM,
        "DDPMScheduler": _DDPM,
        "DDPMParallelScheduler": _DDPM,
        "EulerDiscreteScheduler": {
            **_BETAS,
            "interpolation_type": "linear",
            **_SPREADS,
            "sigma_min": None,
            "sigma_max": None,
            **_LINSPACE,
            "timestep_type": "discrete",
            **_ZERO_SNR,
            "final_sigmas_type": "zero",
        },
        "EulerAncestralDiscreteScheduler": {**_BETAS, **_LINSPACE, **_ZERO_SNR},
        "HeunDiscreteScheduler": {**_HEUN, **_CLIP, "clip_sample": False},
        "KDPM2DiscreteScheduler": _HEUN,
        "KDPM2AncestralDiscreteScheduler": _HEUN,
        "LMSDiscreteScheduler": {**_BETAS, **_SPREADS, **_LINSPACE},
        "DPMSolverMultistepScheduler": {
            **_MULTISTEP,
            "algorithm_type": "dpmsolver++",
            "solver_type": "midpoint",
            "lower_order_final": True,
            "euler_at_final": False,
            "use_lu_lambdas": False,
            "final_sigmas_type": "zero",
            **_LOWEST,
            **_ZERO_SNR,
            **_SHIFT,
        },
        "DPMSolverSinglestepScheduler": {
            **_BETAS,
            "solver_order": 2,
            **_THRESHOLD,
            "algorithm_type": "dpmsolver++",
            "solver_type": "midpoint",
            "lower_order_final": False,
            **_SPREADS,
            **_FLOW,
            "final_sigmas_type": "zero",
            **_LOWEST,
            **_SHIFT,
        },
        "DEISMultistepScheduler": {
            **_MULTISTEP,
            "algorithm_type": "deis",
            "solver_type": "logrho",
            "lower_order_final": True,
            **_SHIFT,
        },
        "UniPCMultistepScheduler": {
            **_MULTISTEP,
            "predict_x0": True,
            "solver_type": "bh2",
            "lower_order_final": True,
            "disable_corrector": [],
            "solver_p": None,
            "final_sigmas_type": "zero",
            **_ZERO_SNR,
            **_SHIFT,
            "sigma_min": None,
            "sigma_max": None,
            "shift_terminal": None,
        },
        "LCMScheduler": _DISTILLED,
        "TCDScheduler": _DISTILLED,
        "EDMEulerScheduler": _EDM,
        "EDMDPMSolverMultistepScheduler": {
            **_EDM,
            "solver_order": 2,
            **_THRESHOLD,
            "algorithm_type": "dpmsolver++",
            "solver_type": "midpoint",
            "lower_order_final": True,
            "euler_at_final": False,
        },
        "CogVideoXDDIMScheduler": {
            **_LATENT_BETAS,
            "beta_schedule": "scaled_linear",
            **_CLIP,
            "set_alpha_to_one": True,
            "sample_max_value": 1.0,
            **_LEADING,
            **_ZERO_SNR,
            "snr_shift_scale": 3.0,
        },
        "IPNDMScheduler": {"num_train_timesteps": 1000, "trained_betas": None},
        # Not implemented here:
        "SASolverScheduler": {
            **_BETAS,
            "predictor_order": 2,
            "corrector_order": 2,
            "tau_func": None,
            **_THRESHOLD,
            "algorithm_type": "data_prediction",
            "lower_order_final": True,
            **_SPREADS,
            **_FLOW,
            **_LOWEST,
            **_LINSPACE,
        },
        "DPMSolverSDEScheduler": {**_HEUN, "noise_sampler_seed": None},
    }
)
"""Keys and defaults by class: all that ``StableDiffusionPipeline`` can draw with."""

ALIASES: Final[Mapping[str, str]] = MappingProxyType(
    {"DDIMParallelScheduler": "DDIMScheduler", "DDPMParallelScheduler": "DDPMScheduler"}
)
"""Classes that draw the same as another one."""

# Values of other classes that the constructors of these take for one of their own.
_TAKEN_FOR: Final[Mapping[str, Mapping[str, Mapping[str, str]]]] = {
    "DPMSolverMultistepScheduler": {
        "algorithm_type": {"deis": "dpmsolver++"},
        "solver_type": dict.fromkeys(("logrho", "bh1", "bh2"), "midpoint"),
    },
    "DEISMultistepScheduler": {
        "algorithm_type": dict.fromkeys(("dpmsolver", "dpmsolver++"), "deis"),
        "solver_type": dict.fromkeys(("midpoint", "heun", "bh1", "bh2"), "logrho"),
    },
    "UniPCMultistepScheduler": {"solver_type": dict.fromkeys(("midpoint", "heun", "logrho"), "bh2")},
}


def normalised(kind: str, values: Mapping[str, object]) -> dict[str, object]:
    """Return a class's values as its constructor leaves them: names of other classes' solvers become its own."""
    like = "DPMSolverMultistepScheduler" if "DPMSolver" in kind else kind
    taken = _TAKEN_FOR.get(like, {})
    return {
        key: taken.get(key, {}).get(value, value) if isinstance(value, str) else value for key, value in values.items()
    }
