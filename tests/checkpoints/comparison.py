"""Draws with a bundle on every engine, and measures how far its picture is from diffusers'."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from tests.checkpoints.given import Given
from tests.checkpoints.outcome import Outcome
from tests.checkpoints.reference import STRENGTH, Reference

from nano_runtime.bundle.manifest import Backend
from nano_runtime.pipeline import Pipeline, Result

__all__ = ["LATENTS", "PICTURE", "compare"]

LATENTS = 1e-4
"""The largest difference of latents, as a share of the reference's range: float32 in another order of summation."""
PICTURE = 2e-3
"""The largest difference of a pixel, in [0, 1]: half a step of eight bits."""


def compare(name: str, bundle: Path, given: Given, reference: Reference, compiled: Path | None) -> Outcome:
    """Draw with a bundle on every engine; OpenVINO looks into a folder for compiled graphs."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    backends: tuple[Backend, ...] = given.options.get("backends", ("onnxruntime", "openvino"))
    latents: dict[str, float] = {}
    pictures: dict[str, float] = {}
    for backend in backends:
        pipeline = Pipeline.from_pretrained(bundle, backend=backend, threads=1, cache=compiled, keep_prompts=False)
        drawn, picture = _draw(pipeline, given, reference)
        pipeline.close()
        if drawn.shape != reference.latents.shape:
            return Outcome(name, "differs", manifest["graph"], message=f"{drawn.shape}, not {reference.latents.shape}")
        span = float(np.ptp(reference.latents))
        latents[backend] = float(np.abs(drawn - reference.latents).max()) / span
        pictures[backend] = float(np.abs(picture - reference.picture).max())
    near = max(latents.values()) <= LATENTS and max(pictures.values()) <= PICTURE
    return Outcome(name, "drawn" if near else "differs", manifest["graph"], latents, pictures)


def _draw(pipeline: Pipeline, given: Given, reference: Reference) -> tuple[Any, Any]:
    """Return the latents after the last step, and the picture."""
    drawing, options = given.drawing, dict(given.draw_options)
    if drawing.from_picture:
        options |= {"image": given.picture(len(reference.picture)), "strength": STRENGTH}
    last: Any = None
    for event in pipeline.stream(
        drawing.prompt,
        negative_prompt=drawing.negative,
        num_inference_steps=drawing.steps,
        guidance_scale=drawing.guidance,
        seed=drawing.seed,
        scheduler=pipeline.own_scheduler,
        output_type="np",
        **options,
    ):
        if isinstance(event, Result):
            return last, np.asarray(event.images, np.float32)[0]
        last = event.latents.copy()
    raise AssertionError("a stream ends with its result")
