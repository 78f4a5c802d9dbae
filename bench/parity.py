"""Measures how far every sampler is from diffusers': per step with a small numpy network, and in pictures of `tiny`.

    python -m bench.parity
    python -m bench.parity --engine onnxruntime --engine openvino --steps 20

Prints a table. Samplers that add noise are given the same noise: diffusers by torch's generators, ours by `noise`. The
tests (`tests/parity/test_samplers.py`, `tests/contract/test_sampler_pictures.py`) measure with the functions below.
Every sampler of the table in `sampling/sampler_table.py` is compared with the class of diffusers that its record names.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from nano_export.cli import main as nano_export
from nano_export.judge.original import diffusers_pipeline
from nano_export.source import builtin
from nano_runtime.arrays import F32
from nano_runtime.bundle.manifest import Backend
from nano_runtime.engines import BACKENDS
from nano_runtime.pipeline import Pipeline
from nano_runtime.sampling.noise import NoiseSource, noise_source
from nano_runtime.sampling.sampler_names import SPREADS
from nano_runtime.sampling.samplers import SAMPLERS, SPREADABLE, Sampler, make_sampler, split_name
from nano_runtime.sampling.schedule import Schedule

CONFIG = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}
"""Stable Diffusion's."""
SHAPE = (2, 4, 8, 8)
SEEDS = (3, 4)
STEPS = (1, 2, 5, 20, 50)
PROMPT, NEGATIVE, SEED, GUIDANCE = "A watercolor painting of an otter", "blurry", 7, 7.5
SPREAD_NAMES = tuple(f"{name}_{spread}" for name in SPREADABLE for spread in SPREADS)
REFERENCES = dict(SAMPLERS)
"""The record of each sampler names diffusers' class and what makes it draw the same. A copy, so that a test can put a
wrong one in."""


def scheduler_of(name: str, config: Mapping[str, object]) -> Any:  # noqa: ANN401 (they share no typed base)
    """Return diffusers' scheduler for one of our names and a model with this config."""
    base, spread = split_name(name)
    spread_keys = {} if spread == "trained" else {f"use_{spread}_sigmas": True}
    of = REFERENCES[base]
    return getattr(diffusers, of.diffusers).from_config({**config, **of.config, **spread_keys})


def reference(name: str, config: Mapping[str, object], steps: int) -> tuple[Any, dict[str, Any], list[torch.Generator]]:
    """Return diffusers' scheduler, set up for so many steps, the options of its ``step``, and generators of SEEDS."""
    scheduler, of = scheduler_of(name, config), REFERENCES[split_name(name)[0]]
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    return scheduler, {**of.step_options, **({"generator": generators} if of.noisy else {})}, generators


def network(latents: F32, timestep: float) -> F32:
    """Mix channels and squash, differently at each timestep: smooth, nonlinear, of unit scale."""
    mixed = np.roll(latents, 1, axis=1) * np.float32(0.4) + latents * np.float32(0.8)
    return np.tanh(mixed + np.float32(np.sin(timestep / 150))) * np.float32(0.9)


def ours(sampler: Sampler, noise: NoiseSource) -> list[F32]:
    """Return the latents before the first call of the network, and after each."""
    latents = noise() * np.float32(sampler.mixing.init_noise_sigma)
    trajectory = [latents]
    for index, timestep in enumerate(sampler.timesteps.tolist()):
        output = network(sampler.mixing.scale_model_input(latents, index), timestep)
        latents = sampler.step(output, index, latents)
        trajectory.append(latents)
    return trajectory


def theirs(name: str, config: Mapping[str, object], steps: int) -> list[F32]:
    """Return the same of diffusers' class."""
    scheduler, options, generators = reference(name, config, steps)
    first = torch.cat([torch.randn((1, *SHAPE[1:]), generator=generator) for generator in generators])
    latents = first * scheduler.init_noise_sigma
    trajectory = [latents.numpy()]
    for timestep in scheduler.timesteps:
        scaled = scheduler.scale_model_input(latents, timestep)
        output = torch.from_numpy(network(scaled.numpy(), float(timestep)))
        latents = scheduler.step(output, timestep, latents, **options).prev_sample
        trajectory.append(latents.numpy())
    return trajectory


def drawn(name: str, schedule: Schedule, steps: int) -> list[F32]:
    """Return the trajectory of our sampler of that name."""
    noise = noise_source(SEEDS, SHAPE[1:])
    return ours(make_sampler(name, schedule, steps, noise), noise)


def distance(left: list[F32], right: list[F32]) -> float:
    """Return the largest difference at any step, relative to the step's largest latent."""
    assert len(left) == len(right)  # noqa: S101 - a bench that compares something else is worse than none
    # numpy's maximum: Python's can miss NaN.
    return float(np.max([np.abs(a - b).max() / np.abs(b).max() for a, b in zip(left, right, strict=True)]))


@dataclass(frozen=True)
class Drawing:
    """A whole picture, which both draw from SEED; they return its final latents, float32 [1, 4, 16, 16]."""

    name: str
    steps: int
    guidance: float = GUIDANCE

    def theirs(self, pipeline: StableDiffusionPipeline, config: Mapping[str, object]) -> F32:
        """Draw with diffusers' own pipeline, whose model has this scheduler config."""
        pipeline.scheduler = scheduler_of(self.name, config)
        latents: F32 = pipeline(
            PROMPT,
            negative_prompt=NEGATIVE,
            height=128,
            width=128,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
            generator=torch.Generator("cpu").manual_seed(SEED),
            eta=REFERENCES[split_name(self.name)[0]].step_options.get("eta", 0.0),
            output_type="latent",
        ).images.numpy()
        return latents

    def ours(self, pipe: Pipeline, seed: int = SEED, first: F32 | None = None) -> F32:
        """Draw with the runtime; ``first`` replaces the seed's first noise, but not the noise on the way."""
        result = pipe(
            PROMPT,
            negative_prompt=NEGATIVE,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
            scheduler=self.name,
            seed=seed,
            latents=first,
            output_type="latent",
        )
        return np.asarray(result.images, np.float32)


def table(engines: list[Backend], steps: int) -> Iterator[str]:
    """Yield the lines of a Markdown table: largest distances, relative to the largest latent."""
    columns = ("sampler", "diffusers", "a step", *(f"a picture, {engine}" for engine in engines), "another seed")
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    pipeline, scheduler = diffusers_pipeline(parts := builtin.build("tiny")), parts.scheduler
    with TemporaryDirectory() as folder:
        bundle = Path(folder) / "tiny"
        with contextlib.redirect_stdout(sys.stderr):  # its report is not part of the table
            if nano_export(["tiny", "-o", str(bundle)]) != 0:
                raise SystemExit(1)
        pipes = [Pipeline.from_pretrained(bundle, engine) for engine in engines]
        for name in (*SAMPLERS, *SPREAD_NAMES):
            schedule, kind = Schedule.from_config(CONFIG), REFERENCES[split_name(name)[0]].diffusers
            lengths = (2, 5, 20) if split_name(name)[0] in {"heun", "lms"} else STEPS  # diffusers' take a second each
            step = max(distance(drawn(name, schedule, n), theirs(name, CONFIG, n)) for n in lengths)
            drawing = Drawing(name, steps)
            expected = drawing.theirs(pipeline, scheduler)
            far = [distance([drawing.ours(pipe)], [expected]) for pipe in pipes]
            other = distance([drawing.ours(pipes[0], SEED + 1)], [expected])
            cells = (f"`{name}`", kind, *(f"{one:.1e}" for one in (step, *far)), f"{other:.1f}")
            yield f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.parity", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", action="append", choices=BACKENDS, help="default: all")
    parser.add_argument("--steps", type=int, default=20, help="of the pictures (default: %(default)s)")
    options = parser.parse_args()
    for line in table(options.engine or list(BACKENDS), options.steps):
        print(line, flush=True)


if __name__ == "__main__":
    main()
