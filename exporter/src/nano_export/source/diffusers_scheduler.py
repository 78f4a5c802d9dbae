"""Makes diffusers' own scheduler of a completed config, or says in its words why diffusers cannot."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import diffusers

from nano_export.errors import SchedulerError
from nano_export.source.quiet import quiet_libraries
from nano_export.source.scheduler import JUDGE_STEPS
from nano_runtime.errors.escaping import first_line
from nano_runtime.sampling.samplers import FALLBACK, RECORDS, is_replaced

__all__ = ["diffusers_scheduler"]


def diffusers_scheduler(config: dict[str, Any], place: Path) -> Any:  # noqa: ANN401 (diffusers' schedulers share no typed base)
    """Return the checkpoint's own scheduler, or the one that replaces it in the runtime.

    Args:
        config: completed.
        place: of the config, for messages.

    Raises:
        SchedulerError: diffusers does not take a value of it.
    """
    kind = RECORDS[FALLBACK].diffusers if is_replaced(config) else config["_class_name"]
    try:
        with quiet_libraries():
            scheduler = getattr(diffusers, kind).from_config(config)
            if scheduler.config.num_train_timesteps >= JUDGE_STEPS:
                copy.deepcopy(scheduler).set_timesteps(JUDGE_STEPS)
    except Exception as error:  # whatever a value of a wrong type leads to
        raise SchedulerError(
            place, f"diffusers' {kind} fails with it ({first_line(error)})", "diffusers has to draw with it."
        ) from error
    return scheduler
