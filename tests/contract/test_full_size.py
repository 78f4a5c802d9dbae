"""The full-size network against diffusers: fp32, four schedulers, both engines. 13 GB and a quarter of an hour."""

from __future__ import annotations

import gc
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch

from nano_export.cli import main as nano_export
from nano_export.judge.original import diffusers_pipeline
from nano_export.source import builtin
from nano_runtime.pipeline import Pipeline

pytestmark = pytest.mark.slow

STEPS = 20
SEED = 7
PROMPT = "A watercolor painting of an otter"
SCHEDULERS = {
    "pndm": "PNDMScheduler",
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
}
# Rounding differs in 20 steps of an 866 M network; latents are around 1, and another seed is around 1 away.
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("full") / "bundle"
    assert nano_export(["synthetic", "-o", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def expected() -> dict[tuple[str, float], np.ndarray]:
    """Final latents of diffusers' pipeline for every scheduler and guidance scale."""
    parts = builtin.build("synthetic")
    pipe = diffusers_pipeline(parts)
    latents = {}
    for name, scheduler in SCHEDULERS.items():
        for guidance in (7.5, 1.0):
            pipe.scheduler = getattr(diffusers, scheduler).from_config(parts.scheduler)
            latents[name, guidance] = pipe(
                PROMPT,
                num_inference_steps=STEPS,
                guidance_scale=guidance,
                height=128,
                width=128,
                generator=torch.Generator("cpu").manual_seed(SEED),
                output_type="latent",
            ).images.numpy()
    del pipe, parts
    gc.collect()
    return latents


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_latents_are_those_of_diffusers(bundle, expected, backend):
    pipe = Pipeline.from_pretrained(bundle, backend, precision="f32")
    for (name, guidance), reference in expected.items():
        options = {"num_inference_steps": STEPS, "guidance_scale": guidance, "scheduler": name, "output_type": "latent"}
        error = np.abs(pipe(PROMPT, seed=SEED, **options).images - reference).max()
        print(f"{backend} {name} guidance {guidance}: {error:.1e}")  # noqa: T201 (the figure is what one runs this for)
        assert error < TOLERANCE, (name, guidance)
    other = pipe(PROMPT, seed=SEED + 1, **options).images
    assert np.abs(other - reference).max() > 100 * TOLERANCE
    pipe.close()
