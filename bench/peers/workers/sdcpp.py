"""stable-diffusion.cpp through its Python binding; ``options`` has the type of the weights, ``wtype``.

It has no PNDM, so it makes as many steps of Euler as the others make UNet calls. It takes no latents either: its
picture is another one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from stable_diffusion_cpp import StableDiffusion

from serve import Draw, Job, Picture, serve


def load(job: Job) -> Draw:
    """Open the checkpoint; the weights are converted while they are read."""
    calls = 0

    def count(step: int, _steps: int, _seconds: float) -> None:
        nonlocal calls
        calls = step

    pipe = StableDiffusion(
        model_path=str(job.model), wtype=job.options["wtype"], prediction="eps", n_threads=job.threads
    )

    def draw(prompt: str, noise: NDArray[np.float32]) -> Picture:  # noqa: ARG001 - see above
        image = pipe.generate_image(
            prompt=prompt,
            width=job.size,
            height=job.size,
            sample_method="euler",
            sample_steps=job.steps + 1,
            cfg_scale=job.guidance,
            seed=0,
            progress_callback=count,
        )[0]
        return Picture(np.asarray(image.convert("RGB")), calls)

    return draw


if __name__ == "__main__":
    serve(load)
