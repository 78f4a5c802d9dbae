"""openvino-genai: a pipeline written in C++, on the graphs that optimum-intel exports; ``options``: ``precision``."""

from __future__ import annotations

import numpy as np
import openvino
import openvino_genai
from numpy.typing import NDArray

from serve import Draw, Job, Picture, serve


class Fixed(openvino_genai.Generator):
    """Hands out the given noise instead of random numbers."""

    def __init__(self, noise: NDArray[np.float32]) -> None:
        super().__init__()
        self._noise = noise

    def next(self) -> float:
        """Refuse: a sampler that wants more noise than the start is not the one being compared."""
        raise AssertionError("PNDM draws noise once, at the start")

    def randn_tensor(self, shape: openvino.Shape) -> openvino.Tensor:
        """Return the noise, float32 [1, 4, h, w]."""
        assert list(shape) == list(self._noise.shape), (shape, self._noise.shape)  # noqa: S101 - runs without ours
        return openvino.Tensor(self._noise.copy())


def load(job: Job) -> Draw:
    """Open the folder, with static shapes: about a fifth faster than dynamic ones, and what its documents advise."""
    pipe = openvino_genai.Text2ImagePipeline(job.model)
    pipe.reshape(1, job.size, job.size, job.guidance)
    properties: dict[str, int | str] = {"INFERENCE_NUM_THREADS": job.threads}
    if "precision" in job.options:  # otherwise bf16 where the processor has it
        properties["INFERENCE_PRECISION_HINT"] = job.options["precision"]
    if job.cache is not None:
        properties["CACHE_DIR"] = str(job.cache)
    pipe.compile("CPU", **properties)

    def draw(prompt: str, noise: NDArray[np.float32]) -> Picture:
        images = pipe.generate(
            prompt,
            height=job.size,
            width=job.size,
            num_inference_steps=job.steps,
            guidance_scale=job.guidance,
            generator=Fixed(noise),
        )
        # One duration for every run of the UNet, as the pipeline itself measures them.
        calls = len(pipe.get_performance_metrics().raw_metrics.unet_inference_durations)
        return Picture(images.data[0].copy(), calls)

    return draw


if __name__ == "__main__":
    serve(load)
