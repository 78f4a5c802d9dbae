"""Trajectories of a scheduler config: diffusers' as its pipelines would run it, and ours."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import diffusers
import numpy as np
import torch
from bench.parity import SEEDS, SHAPE, network, ours

from nano_runtime.arrays import F32
from nano_runtime.bundle.wiring import Task
from nano_runtime.sampling.noise import noise_source
from nano_runtime.sampling.samplers import make_sampler, own_sampler
from nano_runtime.sampling.schedule import Schedule

PIPELINES: Mapping[Task, str] = {
    "text-to-image": "StableDiffusionPipeline",
    "inpainting": "StableDiffusionInpaintPipeline",
    "instruct-pix2pix": "StableDiffusionInstructPix2PixPipeline",
}


def pipelines_scheduler(config: Mapping[str, Any], kind: str, task: Task = "text-to-image") -> Any:
    """Return the scheduler that diffusers' own pipeline holds once it was built with one of this class and config."""
    parts = dict.fromkeys(("vae", "text_encoder", "tokenizer", "unet", "safety_checker", "feature_extractor"))
    scheduler = getattr(diffusers, kind).from_config(dict(config))
    pipeline = getattr(diffusers, PIPELINES[task])(**parts, scheduler=scheduler, requires_safety_checker=False)
    return pipeline.scheduler


def theirs(scheduler: Any, steps: int) -> list[F32]:
    """Return the latents before the first call and after each, as ``StableDiffusionPipeline`` computes them."""
    scheduler.set_timesteps(steps)
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    accepted = inspect.signature(scheduler.step).parameters
    options: dict[str, Any] = {"generator": generators} if "generator" in accepted else {}
    if "eta" in accepted:
        options["eta"] = 0.0  # the default of the pipeline
    latents = torch.cat([torch.randn((1, *SHAPE[1:]), generator=generator) for generator in generators])
    latents = latents * scheduler.init_noise_sigma
    trajectory = [latents.numpy()]
    for timestep in scheduler.timesteps:
        scaled = scheduler.scale_model_input(latents, timestep)
        output = torch.from_numpy(network(scaled.numpy(), float(timestep)))
        latents = scheduler.step(output, timestep, latents, **options, return_dict=False)[0]
        trajectory.append(latents.numpy())
    return trajectory


def drawn_by(config: Mapping[str, Any], steps: int) -> list[F32]:
    """Return the same of the sampler that a completed config describes."""
    noise = noise_source(SEEDS, SHAPE[1:])
    return ours(make_sampler(own_sampler(config), Schedule.from_config(config), steps, noise), noise)


def is_finite(trajectory: list[F32]) -> bool:
    """Return whether all latents are numbers."""
    return all(np.isfinite(latents).all() for latents in trajectory)
