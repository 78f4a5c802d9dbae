"""From a diffusers scheduler config to the name of the sampler that a checkpoint was published with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nano_runtime.errors import UnsupportedScheduleError
from nano_runtime.sampling.sampler_names import SPREADS
from nano_runtime.sampling.sampler_table import RECORDS
from nano_runtime.sampling.scheduler_classes import ALIASES, CLASSES
from nano_runtime.sampling.settings import settings_of

__all__ = ["is_replaced", "named_sampler"]

_HIGHEST_ORDER = 3  # diffusers takes higher ones for it


def is_replaced(config: Mapping[str, Any]) -> bool:
    """Return whether a config's class is one of diffusers' without a sampler here, so that ``FALLBACK`` draws."""
    own = _class_of(config)
    return own in CLASSES and all(record.diffusers != own for record in RECORDS.values())


def named_sampler(config: Mapping[str, Any]) -> str:
    """Return the name of the sampler that a scheduler config describes; it was not tried.

    Args:
        config: written by diffusers, ``_class_name`` included. Keys that it lacks take the defaults of that class. Keys
            that spread the noise levels are ignored if the class cannot, as in diffusers.

    Raises:
        UnsupportedScheduleError: the class, or a value, is not implemented.
    """
    own = _class_of(config)
    left = {name: of for name, of in RECORDS.items() if of.diffusers == own and not of.step_options}
    if not left:
        known = dict.fromkeys(record.diffusers for record in RECORDS.values())
        raise UnsupportedScheduleError("_class_name", config.get("_class_name"), known)
    settings = settings_of(config, str(own))
    for key in ("algorithm_type", "solver_order"):
        said = getattr(settings, key)
        said = min(said, _HIGHEST_ORDER) if key == "solver_order" else said
        left = {name: of for name, of in left.items() if of.config.get(key, said) == said}
    name = next(iter(left))
    if not RECORDS[name].spreadable:
        return name
    return name + next((f"_{spread}" for spread in SPREADS if config.get(f"use_{spread}_sigmas")), "")


def _class_of(config: Mapping[str, Any]) -> str | None:
    """Return the class of a config, or the one that draws the same."""
    own = config.get("_class_name")
    return ALIASES.get(own, own) if isinstance(own, str) else None
