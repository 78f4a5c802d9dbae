"""From a diffusers scheduler config to the name of the sampler that a checkpoint was published with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from nano_runtime.errors import UnsupportedScheduleError
from nano_runtime.sampling.sampler_names import SPREADS
from nano_runtime.sampling.sampler_table import SAMPLERS, SPREADABLE

__all__ = ["own_sampler"]

# The implemented values of keys that change the picture, for classes whose records do not name the key.
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
        config: written by diffusers, ``_class_name`` included. Keys that it lacks take the defaults of that class. Keys
            that spread the noise levels are ignored if the class cannot, as in diffusers.

    Raises:
        UnsupportedScheduleError: the class, or a variant that the config asks for, is not implemented.
    """
    own = config.get("_class_name")
    left = {name: record.config for name, record in SAMPLERS.items() if record.diffusers == own}
    if not left:
        raise UnsupportedScheduleError("_class_name", own, dict.fromkeys(one.diffusers for one in SAMPLERS.values()))
    default = next(iter(left.values()))
    for key, known in _ONLY.items():
        if key in config and key not in default and config[key] not in known:
            raise UnsupportedScheduleError(key, config[key], known)
    for key in default:
        said, known = config.get(key, default[key]), tuple(dict.fromkeys(variant[key] for variant in left.values()))
        if said not in known:
            raise UnsupportedScheduleError(key, said, known)
        left = {name: variant for name, variant in left.items() if variant[key] == said}
    name = next(iter(left))
    if name not in SPREADABLE:
        return name
    return name + next((f"_{spread}" for spread in SPREADS if config.get(f"use_{spread}_sigmas")), "")
