"""Draws a checkpoint with diffusers' own pipelines, from its own folder: what every bundle is compared with."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image
from tests.checkpoints.recipes import Drawing

from nano_runtime.arrays import F32

__all__ = ["Reference", "draw", "mask_of", "open_pipeline", "picture_of"]

STRENGTH = 0.6


@dataclass(frozen=True)
class Reference:
    """A picture of diffusers: float32 latents [1, C, h, w] after the last step, and the picture [H, W, 3] in [0, 1]."""

    latents: F32
    picture: F32

    @property
    def finite(self) -> bool:
        """Whether it is a picture at all."""
        return bool(np.isfinite(self.latents).all() and np.isfinite(self.picture).all() and np.ptp(self.latents) > 0)


def open_pipeline(folder: Path, kind: str = "StableDiffusionPipeline", **options: Any) -> Any:
    """Open a folder with one of diffusers' pipeline classes, in fp32, without its safety checker."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = getattr(diffusers, kind).from_pretrained(
            folder, safety_checker=None, torch_dtype=torch.float32, local_files_only=True, **options
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipeline: Any, drawing: Drawing, size: int | None, prepare: Callable[..., Any] | None = None) -> Reference:
    """Draw one picture.

    Args:
        pipeline: of diffusers.
        drawing: what to draw.
        size: width and height, in pixels; None leaves them to the pipeline.
        prepare: returns further arguments of the pipeline, given the size of its pictures.
    """
    latents: list[torch.Tensor] = []

    def keep(_pipe: object, _step: int, _time: object, kept: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        latents.append(kept["latents"].detach().clone())
        return {}

    side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor if size is None else size
    sized: dict[str, Any] = {} if size is None else {"height": size, "width": size}
    if drawing.from_picture:
        pipeline = diffusers.StableDiffusionImg2ImgPipeline(**pipeline.components, requires_safety_checker=False)
        pipeline.set_progress_bar_config(disable=True)
        sized = {"image": picture_of(side), "strength": STRENGTH}
    if prepare is not None:
        sized |= prepare(side)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        result = pipeline(
            drawing.prompt,
            negative_prompt=drawing.negative,
            num_inference_steps=drawing.steps,
            guidance_scale=drawing.guidance,
            generator=torch.Generator("cpu").manual_seed(drawing.seed),
            output_type="np",
            callback_on_step_end=keep,
            **sized,
        )
    return Reference(latents[-1].numpy(), np.asarray(result.images[0], np.float32))


def picture_of(side: int) -> Image.Image:
    """Return a smooth picture of that many pixels a side, to draw from."""
    x, y = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side))
    return Image.fromarray((np.stack([x, y, (1 + np.sin(9 * x * y)) / 2], -1) * 255).round().astype(np.uint8))


def mask_of(side: int) -> Image.Image:
    """Return a mask of that many pixels a side: the right half is to be drawn anew."""
    mask = np.zeros((side, side), np.uint8)
    mask[:, side // 2 :] = 255
    return Image.fromarray(mask)
