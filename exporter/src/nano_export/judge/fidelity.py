"""Compares a bundle with the original: each part on equal inputs, and whole pictures from equal seeds.

The runtime itself runs the bundle, on each engine that it serves: users get exactly what is judged.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

from nano_export.errors import GoalError, ParityError
from nano_export.judge.metrics import psnr_db, relative_rmse, ssim
from nano_export.judge.original import Probe, Reference
from nano_runtime.arrays import F32
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import Backend
from nano_runtime.bundle.wiring import (
    HIDDEN_STATES,
    TEXT_ENCODER,
    TIMESTEP,
    TIMESTEP_COND,
    UNET,
    UNET_PROMPT,
    UNET_TIME,
    VAE_DECODER,
    VAE_ENCODER,
)
from nano_runtime.engines import EngineOptions
from nano_runtime.engines.loaded_graphs import LoadedGraphs
from nano_runtime.networks.conditioning import UNetInputs
from nano_runtime.pipeline import Pipeline, Result
from nano_runtime.system.processors import usable_cores

__all__ = [
    "GOALS_DB",
    "PICTURE_GOAL_DB",
    "Scores",
    "goals_for",
    "judge",
    "judge_components",
    "require_goal",
    "require_parity",
    "require_resemblance",
]

# Float: only rounding in another order of summation, far from visible.
_LEAST_FLOAT_DB = 70.0
_LARGEST_LATENT_RMSE = 1e-3
# Two pictures that have nothing to do with each other score less. INT8 scores as little only if a layer is lost in it,
# and then on every engine.
_UNRELATED_DB = 10.0
_ENGINES_APART_DB = 10.0  # of one graph, whose rounding differs: 1 dB and less
_LEAST_SPREAD = 1e-3  # of an output, as a share of the original's

GOALS_DB: Final[Mapping[str, float]] = MappingProxyType(
    {TEXT_ENCODER: 40.0, UNET: 36.0, VAE_DECODER: 44.0, VAE_ENCODER: 36.0}
)
"""PSNR that each INT8 component aims at, on equal inputs. A hoisted UNet's three graphs are judged as one."""
PICTURE_GOAL_DB: Final = 20.0
"""PSNR of whole pictures; below it they show something else. An error of many steps adds up here."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scores:
    """Distances on one engine.

    Attributes:
        component_psnr_db: per component, over all probes, with the range of the expected output as peak.
        component_max_abs: per component, the largest absolute difference.
        image_psnr_db: mean over the pictures, range 1.
        image_ssim: mean over the pictures.
        latent_rmse: mean over the pictures, relative.
        lifeless: components whose output is one value everywhere, where the original's is not.
    """

    component_psnr_db: dict[str, float]
    component_max_abs: dict[str, float]
    image_psnr_db: float
    image_ssim: float
    latent_rmse: float
    lifeless: tuple[str, ...] = ()


def goals_for(min_psnr: float | None) -> dict[str, float]:
    """Return the goal of each INT8 component, in dB: ``min_psnr`` for all; None takes ``GOALS_DB``."""
    return {name: usual if min_psnr is None else min_psnr for name, usual in GOALS_DB.items()}


def judge(bundle: Path, backend: Backend, references: Sequence[Reference]) -> Scores:
    """Compare a bundle with all references on one engine, which computes in f32 where the bundle is not quantized.

    Args:
        bundle: its folder.
        backend: the engine.
        references: pictures and parts of the original.
    """
    graphs = _open(bundle, backend)
    components: dict[str, list[tuple[float, float]]] = {}
    lifeless: dict[str, None] = {}
    for probe, actual in _outputs(graphs, references):
        peak = float(probe.output.max() - probe.output.min())
        difference = float(np.abs(actual - probe.output).max())
        components.setdefault(probe.component, []).append((psnr_db(actual, probe.output, peak), difference))
        if float(actual.max() - actual.min()) < _LEAST_SPREAD * peak:
            lifeless[probe.component] = None

    pipeline = Pipeline(graphs, keep_loaded=True)  # the probes' graphs, too: openvino takes long to compile
    pictures: list[F32] = []
    latents: list[F32] = []
    for reference in references:
        final = reference.latents
        for event in pipeline.stream(
            reference.prompt,
            num_inference_steps=reference.steps,
            guidance_scale=reference.guidance_scale,
            seed=reference.seed,
            output_type="np",
            **reference.pictures,
        ):
            if isinstance(event, Result):
                pictures.append(np.asarray(event.images, np.float32)[0])
                latents.append(final)
            else:
                final = event.latents.copy()
    graphs.close()
    expected = [reference.image for reference in references]
    return Scores(
        component_psnr_db={name: min(score for score, _ in scores) for name, scores in components.items()},
        component_max_abs={name: max(difference for _, difference in scores) for name, scores in components.items()},
        image_psnr_db=float(np.mean([psnr_db(a, e, 1.0) for a, e in zip(pictures, expected, strict=True)])),
        image_ssim=float(np.mean([ssim(a, e, 1.0) for a, e in zip(pictures, expected, strict=True)])),
        latent_rmse=float(np.mean([relative_rmse(a, r.latents) for a, r in zip(latents, references, strict=True)])),
        lifeless=tuple(lifeless),
    )


def judge_components(bundle: Path, backend: Backend, references: Sequence[Reference]) -> dict[str, float]:
    """Return the PSNR of each component alone, as ``Scores.component_psnr_db``, without drawing whole pictures.

    Args:
        bundle: its folder.
        backend: the engine.
        references: parts of the original.
    """
    graphs = _open(bundle, backend)
    found: dict[str, float] = {}
    for probe, actual in _outputs(graphs, references):
        peak = float(probe.output.max() - probe.output.min())
        found[probe.component] = min(found.get(probe.component, np.inf), psnr_db(actual, probe.output, peak))
    graphs.close()
    return found


def require_parity(scores: Scores, backend: Backend) -> None:
    """Refuse float graphs whose results are not the original's.

    INT8 is quantized from float graphs that passed this, so only what quantization costs is left to compare.

    Args:
        scores: of the float graphs.
        backend: the engine that was compared.

    Raises:
        ParityError: the distance of a component, or of a whole picture, is larger than rounding explains.
    """
    for component, score in scores.component_psnr_db.items():
        if not score >= _LEAST_FLOAT_DB:
            raise ParityError(f"the fp32 {component} on {backend}", f"{score:.1f} dB", f"{_LEAST_FLOAT_DB:.0f} dB")
    if not scores.latent_rmse <= _LARGEST_LATENT_RMSE:
        raise ParityError(
            f"a picture drawn on {backend}",
            f"relative latent error {scores.latent_rmse:.1e}",
            f"{_LARGEST_LATENT_RMSE:.0e}",
        )


def require_resemblance(scores: Mapping[Backend, Scores]) -> None:
    """Refuse INT8 graphs that compute something else than their float form, however much rounding there is.

    The files were compared with the float graphs when they were written (``quantize.written``), so what is left is an
    engine that computes them wrongly: numbers that are none, one value everywhere, or a component that is lost on one
    engine and not on the other. Where all engines are as far away, it is the rounding: ``require_goal`` speaks of it.

    Args:
        scores: of the INT8 graphs on each engine, against the original, which their float form equals.

    Raises:
        ParityError: an engine computes something else.
    """
    for backend, score in scores.items():
        for component, psnr in score.component_psnr_db.items():
            what = f"the int8 {component} on {backend}"
            if math.isnan(psnr):
                raise ParityError(what, "no number", "a number")
            if component in score.lifeless:
                raise ParityError(what, "all its values are equal", "a spread like the original's")
            best = max(other.component_psnr_db.get(component, psnr) for other in scores.values())
            if psnr < min(_UNRELATED_DB, best - _ENGINES_APART_DB):
                raise ParityError(what, f"{psnr:.1f} dB", f"the {best:.1f} dB of the same graph on another engine")


def require_goal(scores: Mapping[Backend, Scores], goals: Mapping[str, float], *, strict: bool) -> None:
    """Warn of INT8 graphs that fall short of their goal, with the figures; or refuse them.

    Args:
        scores: of the INT8 graphs on each engine.
        goals: see ``goals_for``.
        strict: whether they are refused.

    Raises:
        GoalError: a component or the pictures fall short, and that is refused.
    """
    for backend, score in scores.items():
        short = _shortfalls(score, goals)
        if not short:
            continue
        figures = f"{', '.join(short)}; whole pictures {score.image_psnr_db:.1f} dB from fp32, on {backend}"
        if strict:
            raise GoalError(figures)
        _log.warning(
            "INT8 falls short of its goal: %s. Compare its pictures with fp32's before you use it, or export without "
            "--int8; --strict refuses such a bundle",
            figures,
        )


def _shortfalls(score: Scores, goals: Mapping[str, float]) -> list[str]:
    """Return what falls short on an engine, with its figure and its goal; pictures only if no component does."""
    short = [
        f"{name} {psnr:.1f} dB of {goals[name]:g}"
        for name, psnr in sorted(score.component_psnr_db.items())
        if name in goals and not psnr >= goals[name]
    ]
    if not short and not score.image_psnr_db >= PICTURE_GOAL_DB:
        return [f"pictures of {PICTURE_GOAL_DB:g} dB"]
    return short


def _open(bundle: Path, backend: Backend) -> LoadedGraphs:
    return LoadedGraphs(Bundle.open(bundle), backend, EngineOptions(threads=usable_cores(), precision="f32"))


def _outputs(graphs: LoadedGraphs, references: Sequence[Reference]) -> Iterator[tuple[Probe, F32]]:
    """Yield all probes, those of a component together, and what the bundle makes of each."""
    probes = sorted(
        (probe for reference in references for probe in reference.probes), key=lambda probe: probe.component
    )
    for probe in probes:
        yield probe, _compute(graphs, probe)


def _compute(graphs: LoadedGraphs, probe: Probe) -> F32:
    """Run one probe through the bundle, for which a hoisted UNet takes three graphs; return the output."""
    batch = len(next(iter(probe.inputs.values())))
    feeds = dict(probe.inputs)
    if probe.component == UNET and graphs.bundle.manifest.graph == "hoisted":
        hidden = feeds.pop(HIDDEN_STATES)
        times: UNetInputs = {name: feeds.pop(name)[:1] for name in (TIMESTEP, TIMESTEP_COND) if name in feeds}
        feeds |= graphs.run(UNET_PROMPT, {HIDDEN_STATES: hidden}, batch=batch)
        feeds |= graphs.run(UNET_TIME, times, batch=1)
    elif probe.component == UNET:
        (timestep,) = [spec for spec in graphs.bundle.component(UNET).inputs if spec.name == TIMESTEP]
        feeds[TIMESTEP] = feeds[TIMESTEP].astype(timestep.dtype)
    outputs = graphs.run(probe.component, feeds, batch=batch)
    return outputs[graphs.bundle.component(probe.component).outputs[0].name]
