"""Random valid scheduler configs of every class that diffusers' Stable Diffusion pipeline can hold, by seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from nano_runtime.sampling.sampler_table import RECORDS
from nano_runtime.sampling.scheduler_classes import ALIASES, CLASSES

IMPLEMENTED = tuple(
    kind for kind in CLASSES if ALIASES.get(kind, kind) in {record.diffusers for record in RECORDS.values()}
)
SPREAD_KEYS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")

_BETAS = ["linear", "scaled_linear", "squaredcos_cap_v2"]
# Values of each key that diffusers' constructors take; those that no schedule of the class can be drawn with are kept.
_VALUES: Mapping[str, Callable[[random.Random], Any]] = {
    "num_train_timesteps": lambda dice: dice.choice([1000, 1000, 1000, 500, 999, 128]),
    "beta_start": lambda dice: dice.choice([0.00085, 0.0001, 0.0015, 0.001]),
    "beta_end": lambda dice: dice.choice([0.012, 0.02, 0.0155, 0.014]),
    "beta_schedule": lambda dice: dice.choice(_BETAS),
    "trained_betas": lambda _: None,
    "prediction_type": lambda dice: dice.choice(["epsilon", "epsilon", "v_prediction", "sample"]),
    "timestep_spacing": lambda dice: dice.choice(["leading", "linspace", "trailing"]),
    "steps_offset": lambda dice: dice.choice([0, 1, 1, 2]),
    "set_alpha_to_one": lambda dice: dice.random() < 0.5,
    "skip_prk_steps": lambda dice: dice.random() < 0.5,
    "clip_sample": lambda dice: dice.random() < 0.5,
    "clip_sample_range": lambda dice: dice.choice([1.0, 2.0, 0.5]),
    "thresholding": lambda dice: dice.random() < 0.4,
    "dynamic_thresholding_ratio": lambda dice: dice.choice([0.995, 0.9, 0.5]),
    "sample_max_value": lambda dice: dice.choice([1.0, 1.5, 3.0]),
    "rescale_betas_zero_snr": lambda dice: dice.random() < 0.3,
    "final_sigmas_type": lambda dice: dice.choice(["zero", "sigma_min"]),
    "original_inference_steps": lambda dice: dice.choice([50, 25, 100]),
    "timestep_scaling": lambda dice: dice.choice([10.0, 1.0, 5.5]),
    "solver_order": lambda dice: dice.choice([1, 2, 3]),
    "lower_order_final": lambda dice: dice.random() < 0.6,
    "euler_at_final": lambda dice: dice.random() < 0.4,
    "predict_x0": lambda dice: dice.random() < 0.6,
    "disable_corrector": lambda dice: dice.choice([[], [0], [0, 1, 2], [3]]),
    "lambda_min_clipped": lambda dice: dice.choice([float("-inf"), float("-inf"), -5.1, -3.0]),
    "use_lu_lambdas": lambda dice: dice.random() < 0.3,
    "use_flow_sigmas": lambda dice: dice.random() < 0.1,
    "flow_shift": lambda dice: dice.choice([1.0, 3.0]),
    "interpolation_type": lambda dice: dice.choice(["linear", "log_linear"]),
    "timestep_type": lambda dice: dice.choice(["discrete", "continuous"]),
    "sigma_min": lambda dice: dice.choice([None, 0.002, 0.05]),
    "sigma_max": lambda dice: dice.choice([None, 14.6, 80.0]),
    "sigma_data": lambda dice: dice.choice([0.5, 1.0]),
    "sigma_schedule": lambda dice: dice.choice(["karras", "exponential"]),
    "snr_shift_scale": lambda dice: dice.choice([3.0, 1.0, 0.5]),
    "rho": lambda dice: dice.choice([7.0, 5.0]),
}
_EDM: Mapping[str, list[Any]] = {
    "sigma_min": [0.002, 0.05],
    "sigma_max": [80.0, 14.6],
    "prediction_type": ["epsilon", "v_prediction"],
}
_OF_CLASS: Mapping[str, Mapping[str, list[Any]]] = {
    "DDPMScheduler": {
        "beta_schedule": [*_BETAS, "sigmoid", "laplace"],
        "variance_type": ["fixed_small", "fixed_small_log", "fixed_large"],
    },
    "HeunDiscreteScheduler": {"beta_schedule": [*_BETAS, "exp"]},
    "DPMSolverMultistepScheduler": {
        "algorithm_type": ["dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver"],
        "solver_type": ["midpoint", "heun", "logrho", "bh2"],
        "variance_type": [None, "fixed_small"],
    },
    "DPMSolverSinglestepScheduler": {
        "algorithm_type": ["dpmsolver++", "dpmsolver", "sde-dpmsolver++"],
        "solver_type": ["midpoint", "heun"],
    },
    "DEISMultistepScheduler": {"solver_type": ["logrho", "midpoint"], "algorithm_type": ["deis", "dpmsolver++"]},
    "UniPCMultistepScheduler": {"solver_type": ["bh1", "bh2", "midpoint"], "solver_order": [1, 2, 3, 4]},
    "EDMEulerScheduler": _EDM,
    "EDMDPMSolverMultistepScheduler": {
        **_EDM,
        "algorithm_type": ["dpmsolver++", "sde-dpmsolver++", "deis"],
        "solver_type": ["midpoint", "heun", "bh2"],
    },
}
_LEFTOVERS = ["sigma_max", "skip_prk_steps", "clip_sample", "use_karras_sigmas", "variance_type", "steps_offset"]


def random_config(seed: int) -> dict[str, Any]:
    """Return what a ``scheduler_config.json`` may hold: a class and some of its keys, sometimes another class's too."""
    dice = random.Random(seed)  # noqa: S311 - no secret
    kind = dice.choice(IMPLEMENTED)
    own = _OF_CLASS.get(ALIASES.get(kind, kind), {})
    keys = [key for key in CLASSES[kind] if key in own or key in _VALUES]
    config: dict[str, Any] = {"_class_name": kind, "_diffusers_version": "0.30.0"}
    for key in dice.sample(keys, dice.randint(0, len(keys))):
        config[key] = dice.choice(own[key]) if key in own else _VALUES[key](dice)
    if SPREAD_KEYS[0] in CLASSES[kind] and dice.random() < 0.5:
        config[dice.choice(SPREAD_KEYS)] = True
    if config.get("algorithm_type") in {"dpmsolver", "sde-dpmsolver"} and dice.random() < 0.9:
        config["final_sigmas_type"] = "sigma_min"
    if dice.random() < 0.05 and "trained_betas" in CLASSES[kind]:
        count = config.get("num_train_timesteps", 1000)
        config["trained_betas"] = [0.001 + 0.012 * place / count for place in range(count)]
    if dice.random() < 0.2:
        key = dice.choice(_LEFTOVERS)
        if key not in CLASSES[kind]:
            config[key] = "fixed_small" if key == "variance_type" else _VALUES.get(key, lambda _: True)(dice)
    return config
