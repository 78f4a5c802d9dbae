"""diffusers' own ONNX pipeline, deprecated since 0.42: numpy and ONNX Runtime, on the folders of its export script."""

from __future__ import annotations

import numpy as np
import onnxruntime
from diffusers import OnnxStableDiffusionPipeline
from numpy.typing import NDArray

from serve import Draw, Job, Picture, serve


def load(job: Job) -> Draw:
    """Open the folder."""
    choices = onnxruntime.SessionOptions()
    choices.intra_op_num_threads = job.threads
    pipe = OnnxStableDiffusionPipeline.from_pretrained(
        job.model, provider="CPUExecutionProvider", sess_options=choices, safety_checker=None
    )
    pipe.set_progress_bar_config(disable=True)

    def draw(prompt: str, noise: NDArray[np.float32]) -> Picture:
        calls = 0

        def count(*_: object) -> None:
            nonlocal calls
            calls += 1

        image = pipe(
            prompt,
            height=job.size,
            width=job.size,
            num_inference_steps=job.steps,
            guidance_scale=job.guidance,
            latents=noise,
            callback=count,
        ).images[0]
        return Picture(np.asarray(image), calls)

    return draw


if __name__ == "__main__":
    serve(load)
