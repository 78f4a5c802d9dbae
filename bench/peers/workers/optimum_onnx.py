"""optimum-onnx: diffusers' pipeline in Python, with every network on ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from optimum.onnxruntime import ORTStableDiffusionPipeline

from serve import Draw, Job, Picture, serve


def load(job: Job) -> Draw:
    """Open the folder."""
    torch.set_num_threads(job.threads)
    choices = onnxruntime.SessionOptions()
    choices.intra_op_num_threads = job.threads
    pipe = ORTStableDiffusionPipeline.from_pretrained(job.model, session_options=choices)
    pipe.set_progress_bar_config(disable=True)
    called, calls = pipe.unet.forward, 0

    def counted(*args: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        return called(*args, **options)

    pipe.unet.forward = counted

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
