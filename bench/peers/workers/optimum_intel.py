"""optimum-intel: diffusers' pipeline in Python, with every network on OpenVINO; ``options``: ``precision``."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from optimum.intel import OVStableDiffusionPipeline

from serve import Draw, Job, Picture, serve


def load(job: Job) -> Draw:
    """Open the folder, with static shapes."""
    torch.set_num_threads(job.threads)
    properties = {"INFERENCE_NUM_THREADS": str(job.threads)}
    if "precision" in job.options:  # otherwise bf16 where the processor has it
        properties["INFERENCE_PRECISION_HINT"] = job.options["precision"]
    if job.cache is not None:
        properties["CACHE_DIR"] = str(job.cache)
    pipe = OVStableDiffusionPipeline.from_pretrained(job.model, device="CPU", compile=False, ov_config=properties)
    pipe.reshape(batch_size=1, height=job.size, width=job.size, num_images_per_prompt=1)
    pipe.compile()
    pipe.set_progress_bar_config(disable=True)
    compiled, calls = pipe.unet.request, 0

    def counted(*args: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        return compiled(*args, **options)

    pipe.unet.request = counted

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
