"""Nano's own runtime by the same protocol; ``options`` has ``backend``, maybe ``precision``; ``model`` is a bundle."""

from __future__ import annotations

from typing import Any

import numpy as np

from nano_runtime import Pipeline
from nano_runtime.arrays import F32
from serve import Draw, Job, Picture, serve


def load(job: Job) -> Draw:
    """Open the bundle; its graphs are loaded by the first picture."""
    pipe = Pipeline.from_pretrained(job.model, threads=job.threads, **job.options)

    sampling: dict[str, Any] = {"num_inference_steps": job.steps, "scheduler": "pndm"} if job.steps else {}

    def draw(prompt: str, noise: F32) -> Picture:
        result = pipe(prompt, guidance_scale=job.guidance, latents=noise, **sampling)
        return Picture(np.asarray(result.images[0]), len(result.timings.run_ms["unet"]))

    return draw


if __name__ == "__main__":
    serve(load)
