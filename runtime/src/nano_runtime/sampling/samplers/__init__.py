"""Samplers: how latents go from noise to picture, in one or two classes a file, and how one is made by its name.

A sampler (diffusers: scheduler; k-diffusion: sampler; elsewhere: solver) draws one batch. It holds the history of the
calls so far, so make a new one for the next batch. To add one, write its file here and its record in
``sampling/sampler_table.py``.

The name decides the method and the spread of its noise levels: ``dpmpp_2m_karras`` is DPM-Solver++ 2M over Karras'
levels, whatever the bundle's own scheduler config says about either. The config decides all else, as in diffusers'
``SomeScheduler.from_config(pipe.scheduler.config)``: betas, kind of prediction, spacing of timesteps, and each option
that the sampler's class has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final, Protocol, cast

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.errors import NoNumbersError, StepsError, StrengthError, UnsupportedScheduleError
from nano_runtime.sampling.arithmetic import arithmetic
from nano_runtime.sampling.noise import NoiseSource, no_noise
from nano_runtime.sampling.sampler_names import split_name
from nano_runtime.sampling.sampler_table import FALLBACK, NOISY, RECORDS, SAMPLERS, SPREADABLE, SamplerRecord
from nano_runtime.sampling.samplers.mixing import Mixing
from nano_runtime.sampling.samplers.of_checkpoint import is_replaced, named_sampler
from nano_runtime.sampling.schedule import Schedule
from nano_runtime.sampling.scheduler_classes import CLASSES

__all__ = [
    "FALLBACK",
    "NOISY",
    "RECORDS",
    "SAMPLERS",
    "SPREADABLE",
    "Sampler",
    "first_call",
    "is_replaced",
    "make_sampler",
    "own_sampler",
    "split_name",
]

_TRIAL_STEPS: Final = (20, 10)  # as many as are drawn by default, and as an export compares


class Sampler(Protocol):
    """The part of a sampler that the denoising loop sees. Latents are float32 [batch, channels, height, width]."""

    @property
    def timesteps(self) -> F32:
        """One entry per call of the network, in order: float32 [calls]. Not always whole, not always ``steps`` many."""

    @property
    def mixing(self) -> Mixing:
        """The scale that its latents are on: how they mix picture and noise before each call."""

    def step(self, noise_pred: F32, index: int, latents: F32) -> F32:
        """Return the latents after call ``index``, in which the network computed ``noise_pred``.

        Calls come in order and each once. The first may have any index, for a start from a half-noised picture; Heun,
        which calls twice a step, wants an even one.
        """


def make_sampler(name: str, schedule: Schedule, num_inference_steps: int, noise: NoiseSource | None = None) -> Sampler:
    """Make a fresh sampler for one batch.

    Args:
        name: a key of ``RECORDS``; ``_karras``, ``_exponential`` or ``_beta`` may follow a spreadable one.
        schedule: of the model.
        num_inference_steps: 1 to ``schedule.num_train_timesteps``.
        noise: draws the noise that the sampler adds on its way, in the shape of the batch. None will do for a sampler
            that adds none, and to ask for the timesteps only.

    Raises:
        UnknownSchedulerError: there is no sampler of that name.
        StepsError: that many steps do not fit into the schedule.
        UnsupportedScheduleError: the sampler cannot follow this schedule, or its numbers lead to none.
    """
    base, spread = split_name(name)
    record = RECORDS[base]
    fresh = {"noise": no_noise if noise is None else noise} if record.noisy else {}
    made = _class_of(record)
    with arithmetic(name):
        return made(schedule.settings(record, spread), num_inference_steps, **fresh, **record.arguments)


def own_sampler(config: Mapping[str, Any]) -> str:
    """Return the name, for ``make_sampler``, of the sampler that draws what a scheduler config describes.

    The sampler is tried on a few numbers: diffusers takes some configs whose pictures are not finite.

    Args:
        config: written by diffusers, ``_class_name`` included.

    Raises:
        UnsupportedScheduleError: the class, or a value, is not implemented, or draws no picture in diffusers either.
    """
    if _is_finite(config):
        return named_sampler(config)
    defaults = CLASSES[RECORDS[split_name(named_sampler(config))[0]].diffusers]
    for key, value in defaults.items():
        if config.get(key, value) != value and _would_be_finite({**config, key: value}):  # so this key is to blame
            raise UnsupportedScheduleError(key, config[key], (value,))
    raise UnsupportedScheduleError("_class_name", config["_class_name"], (RECORDS[FALLBACK].diffusers,))


def _would_be_finite(config: Mapping[str, Any]) -> bool:
    """Return whether a config could be drawn, and ends at numbers."""
    try:
        return _is_finite(config)
    except UnsupportedScheduleError:
        return False


def _is_finite(config: Mapping[str, Any]) -> bool:
    """Return whether the sampler of a config ends at numbers, in the usual numbers of steps that fit.

    Raises:
        UnsupportedScheduleError: the class, or a value, is not implemented.
    """
    name, schedule = named_sampler(config), Schedule.from_config(config)
    for steps in _TRIAL_STEPS:
        latents = np.full((1, 1, 2, 2), 0.5, np.float32)
        try:
            sampler = make_sampler(name, schedule, steps, latents.copy)
            with arithmetic(name):
                for index in range(len(sampler.timesteps)):
                    output = sampler.mixing.scale_model_input(latents, index) * np.float32(0.5)
                    latents = sampler.step(output, index, latents)
        except StepsError:
            continue
        except NoNumbersError as error:
            if isinstance(error.__cause__, np.linalg.LinAlgError):  # of a config that diffusers takes
                return False
            raise
        if not np.isfinite(latents).all():
            return False
    return True


def first_call(name: str, num_inference_steps: int, strength: float) -> int:
    """Return the index of the first call of a start from a picture, as diffusers' ``get_timesteps`` has it.

    Args:
        name: as for ``make_sampler``.
        num_inference_steps: of the whole schedule, of which the first are left out.
        strength: the share of the steps that is run, in (0, 1].

    Raises:
        StrengthError: no step would be left.
    """
    steps = int(num_inference_steps * strength)
    if steps < 1:
        raise StrengthError(strength)
    return (num_inference_steps - steps) * RECORDS[split_name(name)[0]].calls_per_step


def _class_of(record: SamplerRecord) -> Callable[..., Sampler]:
    """Import a sampler's file and return its class."""
    file, name = record.code.split(":")
    return cast("Callable[..., Sampler]", getattr(import_module(f"{__name__}.{file}"), name))
