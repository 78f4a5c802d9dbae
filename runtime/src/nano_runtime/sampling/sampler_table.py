"""The table of samplers: one record each, with all that the project knows of a sampler beside its own file.

Names, the command line's help, what PNG files say, how checkpoints are read, the tests and the benchmarks follow from
it. It imports no numpy, so that ``--help`` stays quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

__all__ = ["FALLBACK", "NOISY", "RECORDS", "SAMPLERS", "SPREADABLE", "SamplerRecord"]


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
        label: its name in lists for people; None for that of the web UI, which no other sampler has then.
        diffusers: diffusers' class that draws the same.
        config: keys of the class's config that make it draw the same. All records of a class have the same keys; all
            other keys are followed as the checkpoint's config has them.
        step_options: keywords of the class's ``step`` that do. diffusers' pipelines pass none, so a record with any is
            no checkpoint's own sampler.
    """

    code: str
    arguments: Mapping[str, object] = field(default_factory=dict)
    noisy: bool = False
    spreadable: bool = False
    calls_per_step: int = 1
    a1111: str | None = None
    label: str | None = None
    diffusers: str
    config: Mapping[str, object] = field(default_factory=dict)
    step_options: Mapping[str, float] = field(default_factory=dict)


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
            a1111="DDIM",  # with "Eta DDIM: 1"
            label="DDIM a",  # as the web UI names other samplers that add noise
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
        ),
        "dpm2": SamplerRecord(
            code="kdpm2:KDPM2",
            spreadable=True,
            calls_per_step=2,
            a1111="DPM2",
            diffusers="KDPM2DiscreteScheduler",
        ),
        "dpm2_a": SamplerRecord(
            code="kdpm2:KDPM2Ancestral",
            noisy=True,
            spreadable=True,
            calls_per_step=2,
            a1111="DPM2 a",
            diffusers="KDPM2AncestralDiscreteScheduler",
        ),
        "lms": SamplerRecord(
            code="lms:LMS",
            spreadable=True,
            a1111="LMS",
            diffusers="LMSDiscreteScheduler",
        ),
        "dpmpp_2m": SamplerRecord(
            code="dpm_multistep:DPMMultistep",
            spreadable=True,
            a1111="DPM++ 2M",
            diffusers="DPMSolverMultistepScheduler",
            config={"algorithm_type": "dpmsolver++", "solver_order": 2},
        ),
        "dpmpp_3m": SamplerRecord(
            code="dpm_multistep:DPMMultistep",
            spreadable=True,
            a1111="DPM++ 3M",
            diffusers="DPMSolverMultistepScheduler",
            config={"algorithm_type": "dpmsolver++", "solver_order": 3},
        ),
        "dpmpp_2m_sde": SamplerRecord(
            code="dpm_multistep:DPMMultistep",
            noisy=True,
            spreadable=True,
            a1111="DPM++ 2M SDE",
            diffusers="DPMSolverMultistepScheduler",
            config={"algorithm_type": "sde-dpmsolver++", "solver_order": 2},
        ),
        "dpmpp_2s": SamplerRecord(
            code="dpm_singlestep:DPMSinglestep",
            spreadable=True,
            label="DPM++ 2S",
            diffusers="DPMSolverSinglestepScheduler",
            config={"algorithm_type": "dpmsolver++", "solver_order": 2},
        ),
        "deis": SamplerRecord(
            code="deis:DEIS",
            spreadable=True,
            label="DEIS",
            diffusers="DEISMultistepScheduler",
        ),
        "unipc": SamplerRecord(
            code="unipc:UniPC",
            spreadable=True,
            a1111="UniPC",
            diffusers="UniPCMultistepScheduler",
        ),
        "lcm": SamplerRecord(
            code="consistency:LCM",
            noisy=True,
            a1111="LCM",
            diffusers="LCMScheduler",
        ),
        "tcd": SamplerRecord(
            code="consistency:TCD",
            noisy=True,
            a1111="TCD",
            diffusers="TCDScheduler",
            arguments={"eta": 0.3},
            step_options={"eta": 0.3},  # the default of its ``step``; diffusers' pipelines pass 0 unless told
        ),
    }
)


def _dpm(algorithm: str, order: int, steps: Literal["m", "s"]) -> SamplerRecord:
    """Return a variant of DPM-Solver: one of diffusers' algorithms, in several steps or a single one."""
    kind = "Multistep" if steps == "m" else "Singlestep"
    return SamplerRecord(
        code=f"dpm_{kind.lower()}:DPM{kind}",
        noisy=algorithm.startswith("sde"),
        spreadable=True,
        diffusers=f"DPMSolver{kind}Scheduler",
        config={"algorithm_type": algorithm, "solver_order": order},
    )


def _edm(algorithm: str) -> SamplerRecord:
    """Return DPM-Solver++ with EDM's preconditioning, in the order that a config says."""
    return SamplerRecord(
        code="edm:EDMDPM",
        noisy=algorithm.startswith("sde"),
        diffusers="EDMDPMSolverMultistepScheduler",
        config={"algorithm_type": algorithm},
    )


_VARIANTS: Final[Mapping[str, SamplerRecord]] = {
    "tcd_ode": SamplerRecord(code="consistency:TCD", diffusers="TCDScheduler"),
    "edm_euler": SamplerRecord(code="edm:EDMEuler", diffusers="EDMEulerScheduler"),
    "edm_dpmpp": _edm("dpmsolver++"),
    "edm_dpmpp_sde": _edm("sde-dpmsolver++"),
    "cogvideox_ddim": SamplerRecord(code="cogvideox_ddim:CogVideoXDDIM", diffusers="CogVideoXDDIMScheduler"),
    "ipndm": SamplerRecord(code="ipndm:IPNDM", diffusers="IPNDMScheduler"),
    **{f"dpmpp_{order}m": _dpm("dpmsolver++", order, "m") for order in (1,)},
    **{f"dpmpp_{order}m_sde": _dpm("sde-dpmsolver++", order, "m") for order in (1, 3)},
    **{f"dpm_{order}m": _dpm("dpmsolver", order, "m") for order in (1, 2, 3)},
    **{f"dpm_{order}m_sde": _dpm("sde-dpmsolver", order, "m") for order in (1, 2)},
    **{f"dpmpp_{order}s": _dpm("dpmsolver++", order, "s") for order in (1, 3)},
    **{f"dpmpp_{order}s_sde": _dpm("sde-dpmsolver++", order, "s") for order in (1, 2, 3)},
    **{f"dpm_{order}s": _dpm("dpmsolver", order, "s") for order in (1, 2, 3)},
}

RECORDS: Final[Mapping[str, SamplerRecord]] = MappingProxyType({**SAMPLERS, **_VARIANTS})
"""The table, and the rarer names that a checkpoint's config can ask for. ``make_sampler`` takes them all."""

FALLBACK: Final = "euler"
"""Name of the sampler that replaces a class of diffusers that is not implemented. It follows every schedule."""

NOISY: Final = frozenset(name for name, record in RECORDS.items() if record.noisy)
"""Names of the samplers that add noise on their way."""

SPREADABLE: Final = tuple(name for name, record in SAMPLERS.items() if record.spreadable)
"""Names of the samplers that a spread may follow."""
