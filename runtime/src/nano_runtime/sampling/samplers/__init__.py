"""How latents go from noise to picture: one class per sampler behind one protocol, and their names.

A sampler (diffusers: scheduler; k-diffusion: sampler; elsewhere: solver) draws one batch: it holds the history of the
calls so far, so make a new one for the next. Adding one is a file with a class and a line in ``SAMPLERS``.

The name says all: ``dpmpp_2m_karras`` is DPM-Solver++ 2M over Karras' noise levels, whatever the bundle's own scheduler
config says about either. What the config decides is the model's part: betas, kind of prediction, spacing of timesteps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final, Protocol, get_args

from nano_runtime.arrays import F32
from nano_runtime.errors import StrengthError, UnknownSchedulerError
from nano_runtime.sampling.noise import NoiseSource
from nano_runtime.sampling.samplers.consistency import LCM, TCD
from nano_runtime.sampling.samplers.ddim import DDIM
from nano_runtime.sampling.samplers.ddpm import DDPM
from nano_runtime.sampling.samplers.dpmpp import DPMSolverPP
from nano_runtime.sampling.samplers.euler import Euler, EulerAncestral
from nano_runtime.sampling.samplers.heun import Heun
from nano_runtime.sampling.samplers.lms import LMS
from nano_runtime.sampling.samplers.mixing import Mixing
from nano_runtime.sampling.samplers.of_checkpoint import own_sampler
from nano_runtime.sampling.samplers.pndm import PNDM
from nano_runtime.sampling.samplers.unipc import UniPC
from nano_runtime.sampling.schedule import Schedule, Spread

__all__ = ["NOISY", "SAMPLERS", "SPREADABLE", "Sampler", "first_call", "make_sampler", "own_sampler", "split_name"]


class Sampler(Protocol):
    """What the denoising loop needs to know of a sampler. Latents are float32 [batch, channels, height, width]."""

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


_Maker = Callable[[Schedule, int, NoiseSource], Sampler]


def _without_noise(maker: Callable[[Schedule, int], Sampler]) -> _Maker:
    """Return the maker of a sampler that adds no noise."""
    return lambda schedule, steps, _: maker(schedule, steps)


SAMPLERS: Final[Mapping[str, _Maker]] = MappingProxyType(
    {
        "pndm": _without_noise(PNDM),
        "ddim": lambda schedule, steps, noise: DDIM(schedule, steps, noise, eta=0.0),
        "ddim_a": lambda schedule, steps, noise: DDIM(schedule, steps, noise, eta=1.0),
        "ddpm": DDPM,
        "euler": _without_noise(Euler),
        "euler_a": EulerAncestral,
        "heun": _without_noise(Heun),
        "lms": _without_noise(LMS),
        "dpmpp_2m": lambda schedule, steps, _: DPMSolverPP(schedule, steps, order=2, noise=None),
        "dpmpp_3m": lambda schedule, steps, _: DPMSolverPP(schedule, steps, order=3, noise=None),
        "dpmpp_2m_sde": lambda schedule, steps, noise: DPMSolverPP(schedule, steps, order=2, noise=noise),
        "unipc": _without_noise(UniPC),
        "lcm": LCM,
        "tcd": TCD,
    }
)
# Those that work in noise levels: their names may be followed by _karras, _exponential or _beta.
SPREADABLE: Final = ("euler", "heun", "lms", "dpmpp_2m", "dpmpp_3m", "dpmpp_2m_sde", "unipc")
# Those that add noise on their way: with more steps they draw other pictures, not the same ones better.
NOISY: Final = frozenset({"ddim_a", "ddpm", "euler_a", "dpmpp_2m_sde", "lcm", "tcd"})

_CALLS_OF_A_STEP: Final[Mapping[str, int]] = MappingProxyType({"heun": 2})  # where it is not one; diffusers' ``order``


def split_name(name: str) -> tuple[str, Spread]:
    """Split a name into a key of ``SAMPLERS`` and how the noise levels are spread.

    Raises:
        UnknownSchedulerError: there is no sampler of that name.
    """
    if name in SAMPLERS:
        return name, "trained"
    for spread in get_args(Spread):
        base = name.removesuffix(f"_{spread}")
        if spread != "trained" and base != name and base in SPREADABLE:
            return base, spread
    raise UnknownSchedulerError(name, SAMPLERS, SPREADABLE)


def make_sampler(name: str, schedule: Schedule, num_inference_steps: int, noise: NoiseSource | None = None) -> Sampler:
    """Make a fresh sampler for one batch.

    Args:
        name: a key of ``SAMPLERS``; ``_karras``, ``_exponential`` or ``_beta`` may follow one of ``SPREADABLE``.
        schedule: of the model.
        num_inference_steps: 1 to ``schedule.num_train_timesteps``.
        noise: draws the noise that the sampler adds on its way, in the shape of the batch. None will do for a sampler
            that adds none, and for one that is asked for its timesteps only.

    Raises:
        UnknownSchedulerError: there is no sampler of that name.
        StepsError: that many steps do not fit into the schedule.
        UnsupportedScheduleError: the sampler cannot follow this schedule.
    """
    base, spread = split_name(name)
    source = _no_noise if noise is None else noise
    return SAMPLERS[base](replace(schedule, spread=spread), num_inference_steps, source)


def first_call(name: str, num_inference_steps: int, strength: float) -> int:
    """Return the index of the call that a start from a picture begins with, as diffusers' ``get_timesteps`` has it.

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
    return (num_inference_steps - steps) * _CALLS_OF_A_STEP.get(split_name(name)[0], 1)


def _no_noise() -> F32:
    raise TypeError("this sampler adds noise on its way, and was made without a source of it")
