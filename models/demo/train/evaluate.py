"""Drawing with the model in training, and the curves by which a person follows it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from models.demo.train.unet import build_scheduler
from numpy.typing import NDArray
from PIL import Image, ImageDraw

__all__ = ["draw", "loss_curves"]


@torch.no_grad()
def draw(
    unet: Any,  # noqa: ANN401 - diffusers is untyped
    autoencoder: Any,  # noqa: ANN401
    context: torch.Tensor,
    empty: torch.Tensor,
    *,
    seed: int,
    steps: int,
    guidance: float,
) -> NDArray[np.uint8]:
    """Draw one picture per prompt as the pipeline would: PNDM, classifier-free guidance, decode.

    Args:
        unet: predicts the noise.
        autoencoder: decodes.
        context: float32 [n, 77, width], text encoder output of the prompts.
        empty: float32 [1, 77, width], of the empty prompt.
        seed: of the starting noise.
        steps: PNDM steps (one more call than steps).
        guidance: scale; 1 is none.

    Returns:
        uint8 [n, 128, 128, 3], RGB.
    """
    scheduler = build_scheduler()
    scheduler.set_timesteps(steps)
    count = len(context)
    both = torch.cat([empty.expand(count, -1, -1), context])
    latents = torch.randn(count, 4, 16, 16, generator=torch.Generator().manual_seed(seed))
    for time in scheduler.timesteps:
        twice = torch.cat([latents, latents]).contiguous(memory_format=torch.channels_last)
        without, with_prompt = unet(twice, time, both).sample.chunk(2)
        latents = scheduler.step(without + guidance * (with_prompt - without), time, latents).prev_sample
    latents = (latents / autoencoder.config.scaling_factor).contiguous(memory_format=torch.channels_last)
    pictures = autoencoder.decode(latents).sample.clamp(-1, 1)
    pixels: NDArray[np.uint8] = ((pictures + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return pixels


def loss_curves(log: list[dict[str, float]], path: Path, *, width: int = 900, height: int = 480) -> None:
    """Plot every figure of a training log against the step, on a logarithmic scale, into a PNG.

    Args:
        log: one entry per report, with "step" and the losses; all entries have the same keys.
        path: of the PNG.
        width: of the PNG in pixels.
        height: of the PNG in pixels.
    """
    names = [name for name in log[0] if name != "step"]
    values = {name: np.array([max(entry[name], 1e-6) for entry in log]) for name in names}
    everything = np.log10(np.concatenate(list(values.values())))
    low, high = math.floor(everything.min()), math.ceil(everything.max())
    left, bottom, top = 60, height - 30, 20
    steps = np.array([entry["step"] for entry in log])
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    for decade in range(low, high + 1):
        level = bottom - (decade - low) / max(1, high - low) * (bottom - top)
        pen.line([(left, level), (width - 10, level)], fill="#dddddd")
        pen.text((8, level - 6), f"1e{decade}", fill="black")
    pen.text((left, bottom + 10), f"step 0 to {steps[-1]:.0f}", fill="black")
    shades = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b"]
    for index, name in enumerate(names):
        shade = shades[index % len(shades)]
        across = left + steps / max(1, steps[-1]) * (width - 10 - left)
        down = bottom - (np.log10(values[name]) - low) / max(1, high - low) * (bottom - top)
        pen.line(list(zip(across.tolist(), down.tolist(), strict=True)), fill=shade, width=2)
        pen.text((width - 110, top + 16 * index), name, fill=shade)
    image.save(path)
