"""Compares a bundle with the original: each part on equal inputs, and whole pictures from equal seeds.

The runtime itself runs the bundle, on each engine that it serves: users get exactly what is judged.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nano_export.errors import ParityError
from nano_export.judge.metrics import psnr_db, relative_rmse, ssim
from nano_export.judge.original import Probe, Reference
from nano_runtime.arrays import F32
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import Backend
from nano_runtime.bundle.wiring import HIDDEN_STATES, TIMESTEP, TIMESTEP_COND, UNET, UNET_PROMPT, UNET_TIME
from nano_runtime.engines import EngineOptions
from nano_runtime.engines.loaded_graphs import LoadedGraphs
from nano_runtime.networks.conditioning import UNetInputs
from nano_runtime.pipeline import Pipeline, Result
from nano_runtime.system.machine import usable_cores

__all__ = ["Scores", "judge", "require_parity", "require_resemblance"]

# Float: only rounding in another order of summation, far from visible.
_LEAST_FLOAT_DB = 70.0
_LARGEST_LATENT_RMSE = 1e-3
# INT8: random weights score 40 dB, trained ones 20 and more. A wrong graph (a wrong scale, a saturated product, a
# swapped axis) scores below 10 dB, as two pictures do that have nothing to do with each other.
_GOOD_INT8_DB = 20.0
_LEAST_INT8_DB = 10.0

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
    """

    component_psnr_db: dict[str, float]
    component_max_abs: dict[str, float]
    image_psnr_db: float
    image_ssim: float
    latent_rmse: float


def judge(bundle: Path, backend: Backend, references: Sequence[Reference]) -> Scores:
    """Compare a bundle with all references on one engine, which computes in f32 where the bundle is not quantized.

    Args:
        bundle: its folder.
        backend: the engine.
        references: pictures and parts of the original.
    """
    graphs = LoadedGraphs(Bundle.open(bundle), backend, EngineOptions(threads=usable_cores(), precision="f32"))
    components: dict[str, list[tuple[float, float]]] = {}
    probes = sorted(
        (probe for reference in references for probe in reference.probes), key=lambda probe: probe.component
    )
    for probe in probes:
        actual = _compute(graphs, probe)
        peak = float(probe.output.max() - probe.output.min())
        difference = float(np.abs(actual - probe.output).max())
        components.setdefault(probe.component, []).append((psnr_db(actual, probe.output, peak), difference))

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
    )


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


def require_resemblance(scores: Scores, backend: Backend) -> None:
    """Warn of INT8 graphs that fall short of their float form; refuse those that compute something else.

    Args:
        scores: of the INT8 graphs, against the original, which their float form equals (``require_parity``).
        backend: the engine that was compared.

    Raises:
        ParityError: a component is as far from the original as if it had nothing to do with it.
    """
    for component, score in scores.component_psnr_db.items():
        if not score >= _LEAST_INT8_DB:
            raise ParityError(f"the int8 {component} on {backend}", f"{score:.1f} dB", f"{_LEAST_INT8_DB:.0f} dB")
    short = {name: score for name, score in scores.component_psnr_db.items() if score < _GOOD_INT8_DB}
    if not scores.image_psnr_db >= _GOOD_INT8_DB:
        short["whole pictures"] = scores.image_psnr_db
    if short:
        figures = ", ".join(f"{name} {score:.1f} dB" for name, score in short.items())
        _log.warning(
            "INT8 on %s falls short of fp32: %s (usual is %.0f dB or more); compare pictures, or export in fp32",
            backend,
            figures,
            _GOOD_INT8_DB,
        )


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
