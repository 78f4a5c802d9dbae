"""The table of samplers: one record each, with all that the project knows of a sampler beside its own file.

Names, the command line's help, what PNG files say, how checkpoints are read, the tests and the benchmarks follow from
it. It imports no numpy, so that ``--help`` stays quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

__all__ = ["NOISY", "SAMPLERS", "SPREADABLE", "SamplerRecord"]


@dataclass(frozen=True, kw_only=True)
class SamplerRecord:
    """One sampler: its code, what it can do, and its names elsewhere.

    Attributes:
        code: its file in ``samplers/`` and its class there, as "file:Class". The class takes the schedule, the number
            of steps, the keyword ``noise`` if ``noisy``, and ``arguments``.
        arguments: further keywords for the class, which make this sampler of it.
        noisy: whether it adds noise on its way. With more steps such a sampler draws another picture of the prompt, not
            a better one of the same.
        spreadable: whether it works in noise levels, so that _karras, _exponential or _beta may follow its name.
        calls_per_step: how often a step calls the network; diffusers' ``order``.
        a1111: its name in AUTOMATIC1111's web UI; None if it has none there.
        diffusers: diffusers' class that draws the same. The first record of a class is what the class does by default.
        config: keys of the class's config that make it draw the same. All records of a class have the same keys.
        step_options: keywords of the class's ``step`` that do.
        betas: the class's defaults for the betas, where they are not those of ``Schedule``.
    """

    code: str
    arguments: Mapping[str, object] = field(default_factory=dict)
    noisy: bool = False
    spreadable: bool = False
    calls_per_step: int = 1
    a1111: str | None = None
    diffusers: str
    config: Mapping[str, object] = field(default_factory=dict)
    step_options: Mapping[str, float] = field(default_factory=dict)
    betas: Mapping[str, object] = field(default_factory=dict)


SAMPLERS: Final[Mapping[str, SamplerRecord]] = MappingProxyType(
    {
        "pndm": SamplerRecord(
            code="pndm:PNDM",
            a1111="PLMS",
            diffusers="PNDMScheduler",
        ),
        "ddim": SamplerRecord(
            code="ddim:DDIM",
            a1111="DDIM",
            diffusers="DDIMScheduler",
        ),
        "ddim_a": SamplerRecord(
            code="ddim:DDIM",
            arguments={"eta": 1.0},
            noisy=True,
            diffusers="DDIMScheduler",
            step_options={"eta": 1.0},
        ),
        "ddpm": SamplerRecord(
            code="ddpm:DDPM",
            noisy=True,
            a1111="DDPM",
            diffusers="DDPMScheduler",
        ),
        "euler": SamplerRecord(
            code="euler:Euler",
            spreadable=True,
            a1111="Euler",
            diffusers="EulerDiscreteScheduler",
        ),
        "euler_a": SamplerRecord(
            code="euler:EulerAncestral",
            noisy=True,
            a1111="Euler a",
            diffusers="EulerAncestralDiscreteScheduler",
        ),
        "heun": SamplerRecord(
            code="heun:Heun",
            spreadable=True,
            calls_per_step=2,
            a1111="Heun",
            diffusers="HeunDiscreteScheduler",
            betas={"beta_start": 0.00085, "beta_end": 0.012},
        ),
        "lms": SamplerRecord(
            code="lms:LMS",
            spreadable=True,
            a1111="LMS",
            diffusers="LMSDiscreteScheduler",
        ),
        "dpmpp_2m": SamplerRecord(
            code="dpmpp:DPMSolverPP",
            arguments={"order": 2},
            spreadable=True,
            a1111="DPM++ 2M",
            diffusers="DPMSolverMultistepScheduler",
            config={"algorithm_type": "dpmsolver++", "solver_order": 2},
        ),
        "dpmpp_3m": SamplerRecord(
            code="dpmpp:DPMSolverPP",
            arguments={"order": 3},
            spreadable=True,
            a1111="DPM++ 3M",
            diffusers="DPMSolverMultistepScheduler",
            config={"algorithm_type": "dpmsolver++", "solver_order": 3},
        ),
        "dpmpp_2m_sde": SamplerRecord(
            code="dpmpp:DPMSolverPP",
            arguments={"order": 2},
            noisy=True,
            spreadable=True,
            a1111="DPM++ 2M SDE",
            diffusers="DPMSolverMultistepScheduler",
            config={"algorithm_type": "sde-dpmsolver++", "solver_order": 2},
        ),
        "unipc": SamplerRecord(
            code="unipc:UniPC",
            spreadable=True,
            a1111="UniPC",
            diffusers="UniPCMultistepScheduler",
            config={"solver_order": 2},
        ),
        "lcm": SamplerRecord(
            code="consistency:LCM",
            noisy=True,
            a1111="LCM",
            diffusers="LCMScheduler",
            betas={"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"},
        ),
        "tcd": SamplerRecord(
            code="consistency:TCD",
            noisy=True,
            a1111="TCD",
            diffusers="TCDScheduler",
            step_options={"eta": 0.3},  # the default of its ``step``; diffusers' pipelines pass 0 unless told
            betas={"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"},
        ),
    }
)

NOISY: Final = frozenset(name for name, record in SAMPLERS.items() if record.noisy)
"""Names of the samplers that add noise on their way."""

SPREADABLE: Final = tuple(name for name, record in SAMPLERS.items() if record.spreadable)
"""Names of the samplers that a spread may follow."""
