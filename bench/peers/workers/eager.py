"""diffusers: the original, torch in fp32, as it comes."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray

from serve import Draw, Job, Picture, serve


def load(job: Job) -> Draw:
    """Open the checkpoint."""
    torch.set_num_threads(job.threads)
    pipe = StableDiffusionPipeline.from_pretrained(job.model, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    pipe.unet.register_forward_hook(count)

    def draw(prompt: str, noise: NDArray[np.float32]) -> Picture:
        nonlocal calls
        calls = 0
        image = pipe(
            prompt,
            height=job.size,
            width=job.size,
            num_inference_steps=job.steps,
            guidance_scale=job.guidance,
            latents=torch.from_numpy(noise),
        ).images[0]
        return Picture(np.asarray(image), calls)

    return draw


if __name__ == "__main__":
    serve(load)
