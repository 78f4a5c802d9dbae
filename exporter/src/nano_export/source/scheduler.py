"""Finds the scheduler config that diffusers' ``StableDiffusionPipeline.from_pretrained`` ends up with.

Imports neither torch nor diffusers. Three things change a config on its way: the class comes from
``model_index.json``, keys that are missing take that class's defaults (and are noted in ``_use_default_values``), and
the pipeline's constructor sets ``steps_offset`` to 1 and ``clip_sample`` to false. (Matches diffusers 0.42:
``ConfigMixin.from_config``, ``register_to_config``, and the constructors of its Stable Diffusion pipelines.)
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Final

from nano_export.errors import SchedulerError, UnsupportedModelError
from nano_export.source.json_file import read_json
from nano_export.source.readable import lies_in
from nano_runtime.bundle.wiring import Task
from nano_runtime.drawing.defaults import STEPS
from nano_runtime.errors import StepsError, UnsupportedScheduleError
from nano_runtime.sampling.samplers import (
    FALLBACK,
    RECORDS,
    is_replaced,
    make_sampler,
    own_sampler,
    split_name,
)
from nano_runtime.sampling.schedule import Schedule
from nano_runtime.sampling.scheduler_classes import CLASSES, normalised
from nano_runtime.sampling.settings import NOISIEST_LEVEL, settings_of

__all__ = ["JUDGE_STEPS", "check_whole_timesteps", "completed", "config_file", "drawn_config", "scheduler_of"]

_FILLED_IN: Final = "_use_default_values"
# What the constructor of each task's pipeline sets, if the config says otherwise.
_CORRECTED: Final[Mapping[Task, Mapping[str, object]]] = {
    "text-to-image": {"steps_offset": 1, "clip_sample": False},
    "inpainting": {"steps_offset": 1, "skip_prk_steps": True},
    "instruct-pix2pix": {},
}
# All keys that a class of diffusers has or a pipeline sets.
_KNOWN: Final = frozenset(
    ("_class_name", "_diffusers_version", *chain(*CLASSES.values()), *chain(*_CORRECTED.values()))
)
_UNLIMITED: Final = "lambda_min_clipped"
JUDGE_STEPS: Final = 10
"""Steps in which an export compares pictures with diffusers'."""

_log = logging.getLogger(__name__)


def scheduler_of(folder: Path, task: Task) -> dict[str, Any]:
    """Return the config of a checkpoint's scheduler; it can be drawn.

    Args:
        folder: in diffusers' layout.
        task: of the pipeline that draws with it.

    Raises:
        CheckpointError: a file is missing or damaged.
        UnsupportedModelError: the class is none that Stable Diffusion is drawn with.
        SchedulerError: a value of the config is not implemented, or draws no picture.
    """
    place = folder / "scheduler" / "scheduler_config.json"
    index = folder / "model_index.json"  # training scripts leave folders without one
    said, named = read_json(place), read_json(index).get("scheduler") if index.is_file() else None
    if not lies_in(place, folder):  # the bundle carries on all that it says, and it may be any file of the user
        said = {key: value for key, value in said.items() if key in _KNOWN}
    if named is None:
        named = ["diffusers", said.get("_class_name")]
    if not (isinstance(named, list) and len(named) == 2 and named[0] == "diffusers"):  # noqa: PLR2004 - library and class
        raise UnsupportedModelError(index, f"the scheduler {named!r}", _classes())
    return drawn_config(said, named[1], task, place)


def drawn_config(said: Mapping[str, Any], kind: object, task: Task, place: Path) -> dict[str, Any]:
    """Complete a config, and check that it can be drawn; warn if another sampler has to take its place.

    Args:
        said: content of ``scheduler_config.json``.
        kind: class that diffusers makes of it.
        task: of the pipeline that draws with it.
        place: of the config, for messages.

    Raises:
        UnsupportedModelError: the class is none that Stable Diffusion is drawn with.
        SchedulerError: a value of the config is not implemented, or draws no picture.
    """
    if not isinstance(kind, str) or kind not in CLASSES:
        raise UnsupportedModelError(place, f"the scheduler {kind}", _classes())
    config = completed(said, kind, task)
    try:
        if not is_replaced(config):
            _check_beginning(own_sampler(config), config, place)
            return config
        settings_of(config, RECORDS[FALLBACK].diffusers)
    except UnsupportedScheduleError as error:
        raise SchedulerError(place, error.what, error.hint) from error
    _log.warning("%s: %s is not implemented; %s takes its place and draws other pictures", place, kind, FALLBACK)
    return config


def _check_beginning(name: str, config: Mapping[str, Any], place: Path) -> None:
    """Refuse a schedule that diffusers cannot begin: if its first two timesteps are one, it begins at the second.

    Levels of a spread that are cut to whole timesteps can do that; diffusers then runs out of levels at the end.

    Raises:
        SchedulerError: it begins like that.
    """
    try:
        timesteps = make_sampler(name, Schedule.from_config(config), JUDGE_STEPS).timesteps
    except StepsError:  # too few were trained, or the teacher made fewer
        return
    if RECORDS[split_name(name)[0]].spreadable and timesteps[:1] == timesteps[1:2]:
        raise SchedulerError(
            place,
            f"the first two of {JUDGE_STEPS} timesteps are one, where diffusers fails",
            "diffusers can draw with this spread in other betas only.",
        )


def check_whole_timesteps(config: Mapping[str, Any]) -> None:
    """Check a config against graphs whose timestep is a whole number, as optimum's and openvino-genai's are.

    Warns if timesteps of 20 steps are fractional, and so will be cut.

    Raises:
        SchedulerError: those of the steps in which pictures are compared with diffusers' are fractional.
    """
    kind = config["_class_name"]
    if not _are_whole(config, JUDGE_STEPS):
        raise SchedulerError(
            Path("scheduler") / "scheduler_config.json",
            f"{kind} asks for timesteps that are no whole numbers, and --graph standard has no others",
            "Leave --graph out: the bundle then draws what diffusers draws.",
        )
    if not _are_whole(config, STEPS):
        _log.warning("%s asks for fractional timesteps in most numbers of steps; --graph standard cuts them", kind)


def _are_whole(config: Mapping[str, Any], steps: int) -> bool:
    """Return whether a sampler's timesteps are whole numbers; so many steps that do not fit have none."""
    try:
        timesteps = make_sampler(own_sampler(config), Schedule.from_config(config), steps).timesteps
    except StepsError:
        return True
    return bool((timesteps == timesteps.round()).all())


def completed(said: Mapping[str, Any], kind: str, task: Task = "text-to-image") -> dict[str, Any]:
    """Return the config of the scheduler that diffusers' pipeline makes of a config file.

    Args:
        said: content of ``scheduler_config.json``.
        kind: class of ``model_index.json``, a key of ``CLASSES``.
        task: of the pipeline.
    """
    earlier = said.get(_FILLED_IN)
    absent = {_FILLED_IN, *(earlier if isinstance(earlier, list) else ())}
    config = {key: value for key, value in said.items() if key not in absent}
    filled_in = sorted(key for key in CLASSES[kind] if key not in config)
    if "_class_name" in config:
        config["_class_name"] = kind
    known = normalised(kind, {**CLASSES[kind], **{key: config[key] for key in CLASSES[kind] if key in config}})
    if known.get(_UNLIMITED, 0) is None or known.get(_UNLIMITED) == "-Infinity":  # as programs keep to JSON
        known[_UNLIMITED] = -math.inf
    config = {**config, **known, "_class_name": kind}
    if filled_in:
        config[_FILLED_IN] = filled_in
    for key, value in _CORRECTED[task].items():
        found = config.get(key, value)
        # diffusers asks whether a switch "is True" or "is False": 1 and 0 stay.
        if found is (not value) if isinstance(value, bool) else found != value:
            config[key] = value
    return config


def config_file(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a completed config as diffusers writes it into ``scheduler_config.json``: without notes."""
    return {key: value for key, value in config.items() if key not in {_FILLED_IN, NOISIEST_LEVEL}}


def _classes() -> list[str]:
    return ["diffusers' " + ", ".join(CLASSES)]
