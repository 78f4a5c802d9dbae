"""Random scheduler configs: diffusers' classes, and sensible values of every key that their constructors take."""

from __future__ import annotations

import inspect
from random import Random
from typing import Any

import diffusers
from tests.checkpoints.recipes import BETAS

__all__ = ["COMMON", "RARE", "random_scheduler"]

COMMON = (
    "PNDMScheduler",
    "DDIMScheduler",
    "DDPMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "LCMScheduler",
    "TCDScheduler",
)
"""What repositories and user interfaces name."""

RARE = (
    "DPMSolverSDEScheduler",
    "SASolverScheduler",
    "EDMEulerScheduler",
    "EDMDPMSolverMultistepScheduler",
    "IPNDMScheduler",
    "DDIMParallelScheduler",
    "DDPMParallelScheduler",
    "DDIMInverseScheduler",
    "DPMSolverMultistepInverseScheduler",
    "CosineDPMSolverMultistepScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "FlowMatchLCMScheduler",
    "CMStochasticIterativeScheduler",
    "UnCLIPScheduler",
    "CogVideoXDDIMScheduler",
    "ScoreSdeVeScheduler",
)
"""Other classes that diffusers' pipeline may take."""

VALUES: dict[str, tuple[Any, ...]] = {
    "prediction_type": ("v_prediction", "v_prediction", "sample", "epsilon", "flow_prediction"),
    "timestep_spacing": ("leading", "trailing", "linspace"),
    "steps_offset": (0, 1, 2),
    "clip_sample": (True, False),
    "clip_sample_range": (1.0, 0.5, 2.0),
    "thresholding": (True,),
    "dynamic_thresholding_ratio": (0.995, 0.9, 0.5),
    "sample_max_value": (1.0, 1.5, 3.0),
    "set_alpha_to_one": (True, False),
    "skip_prk_steps": (True, False),
    "rescale_betas_zero_snr": (True, False),
    "variance_type": ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned", None),
    "algorithm_type": (
        "dpmsolver",
        "dpmsolver++",
        "sde-dpmsolver",
        "sde-dpmsolver++",
        "deis",
        "data_prediction",
        "noise_prediction",
    ),
    "solver_type": ("midpoint", "heun", "logrho", "bh1", "bh2"),
    "solver_order": (1, 2, 3),
    "predictor_order": (1, 2, 3),
    "corrector_order": (0, 1, 2, 3),
    "lower_order_final": (True, False),
    "euler_at_final": (True, False),
    "use_karras_sigmas": (True, False),
    "use_exponential_sigmas": (True, False),
    "use_beta_sigmas": (True, False),
    "use_lu_lambdas": (True, False),
    "use_flow_sigmas": (True, False),
    "flow_shift": (1.0, 3.0),
    "final_sigmas_type": ("zero", "sigma_min"),
    "lambda_min_clipped": (float("-inf"), -5.1),
    "interpolation_type": ("linear", "log_linear"),
    "timestep_type": ("discrete", "continuous"),
    "sigma_min": (None, 0.02, 0.1),
    "sigma_max": (None, 14.6, 10.0),
    "predict_x0": (True, False),
    "disable_corrector": ([], [0], [0, 1], [1, 2]),
    "original_inference_steps": (50, 40),
    "timestep_scaling": (10.0, 1.0),
    "num_train_timesteps": (1000, 1000, 1000, 500, 200),
    "rho": (7.0, 5.0),
    "sigma_data": (0.5, 1.0),
    "sigma_schedule": ("karras", "exponential"),
    "shift": (1.0, 3.0),
    "snr_shift_scale": (1.0, 3.0),
    "trained_betas": (None,),
    "use_dynamic_shifting": (False,),
    "time_shift_type": ("exponential",),
    "solver_p": (None,),
    "shift_terminal": (None,),
    "noise_sampler_seed": (None, 3),
}
"""Key -> values to choose from; a class's own default is more likely than any of them."""

FOREIGN = {
    "skip_prk_steps": True,
    "set_alpha_to_one": False,
    "clip_sample": False,
    "sample_max_value": 1.0,
    "solver_type": "midpoint",
}
_BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2", "laplace", "sigmoid")


def random_scheduler(random: Random) -> tuple[dict[str, Any], str]:
    """Return a ``scheduler_config.json``, and the class that ``model_index.json`` names."""
    name = random.choice(COMMON if random.random() < 0.9 else RARE)
    keys = [key for key in inspect.signature(getattr(diffusers, name).__init__).parameters if key in VALUES]
    config: dict[str, Any] = {"_class_name": name, "_diffusers_version": random.choice(("0.6.0", "0.21.4", "0.30.0"))}
    config |= _betas(random)
    config |= {key: random.choice(VALUES[key]) for key in keys if random.random() < random.choice((0.1, 0.4))}
    if random.random() < 0.2:  # as from_config(another scheduler's config) leaves it
        config = {**FOREIGN, **config}
    written = name
    if random.random() < 0.08:  # a file that somebody exchanged
        written = random.choice(COMMON)
    if random.random() < 0.04:
        del config["_class_name"]
    return config, written


def _betas(random: Random) -> dict[str, Any]:
    """Return the betas: Stable Diffusion's mostly, a class's defaults, or others."""
    kind = random.random()
    if kind < 0.75:
        return dict(BETAS)
    if kind < 0.85:
        return {}
    if kind < 0.95:
        return {**BETAS, "beta_schedule": random.choice(_BETAS)}
    start, end, count = 0.0015, 0.0195, 1000
    return {"trained_betas": [start + (end - start) * index / (count - 1) for index in range(count)]}
