"""Which sampler a checkpoint was published with: from a diffusers scheduler config to a name of ours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from nano_runtime.errors import UnsupportedScheduleError

__all__ = ["own_sampler"]

_OF_CLASS: Final[Mapping[str, str]] = {
    "PNDMScheduler": "pndm",
    "DDIMScheduler": "ddim",
    "DDPMScheduler": "ddpm",
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler_a",
    "HeunDiscreteScheduler": "heun",
    "LMSDiscreteScheduler": "lms",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "UniPCMultistepScheduler": "unipc",
    "LCMScheduler": "lcm",
    "TCDScheduler": "tcd",
}
_OF_VARIANT: Final[Mapping[tuple[object, object], str]] = {
    ("dpmsolver++", 2): "dpmpp_2m",
    ("dpmsolver++", 3): "dpmpp_3m",
    ("sde-dpmsolver++", 2): "dpmpp_2m_sde",
}
_SPREADS: Final[Mapping[str, str]] = {
    "use_karras_sigmas": "_karras",
    "use_exponential_sigmas": "_exponential",
    "use_beta_sigmas": "_beta",
}
# Variants that change the picture and are not implemented: only what stands here is.
_ONLY: Final[Mapping[str, tuple[object, ...]]] = {
    "thresholding": (False,),
    "use_lu_lambdas": (False, None),
    "interpolation_type": ("linear",),
    "timestep_type": ("discrete",),
    "sigma_min": (None,),
    "sigma_max": (None,),
    "solver_type": ("midpoint", "bh2"),
    "lower_order_final": (True,),
    "euler_at_final": (False,),
    "lambda_min_clipped": (-math.inf,),
    "predict_x0": (True,),
    "disable_corrector": ([],),
    "solver_p": (None,),
    "variance_type": (None, "fixed_small", "fixed_small_log"),
}


def own_sampler(config: Mapping[str, Any]) -> str:
    """Return the name, for ``make_sampler``, of the sampler that a scheduler config describes.

    Args:
        config: what diffusers wrote, ``_class_name`` included.

    Raises:
        UnsupportedScheduleError: the class, or a variant that the config asks for, is not implemented.
    """
    own = config.get("_class_name")
    if own not in tuple(_OF_CLASS):
        raise UnsupportedScheduleError("_class_name", own, tuple(_OF_CLASS))
    for key, known in _ONLY.items():
        if key in config and config[key] not in known:
            raise UnsupportedScheduleError(key, config[key], known)
    name = _OF_CLASS[own]
    if name == "unipc" and config.get("solver_order", 2) != 2:  # noqa: PLR2004 - the order
        raise UnsupportedScheduleError("solver_order", config["solver_order"], (2,))
    if name == "dpmpp_2m":
        variant = config.get("algorithm_type", "dpmsolver++"), config.get("solver_order", 2)
        if variant not in tuple(_OF_VARIANT):
            known = tuple(f"{algorithm} of order {order}" for algorithm, order in _OF_VARIANT)
            raise UnsupportedScheduleError("algorithm_type", "{} of order {}".format(*variant), known)
        name = _OF_VARIANT[variant]
    return name + next((suffix for key, suffix in _SPREADS.items() if config.get(key)), "")
