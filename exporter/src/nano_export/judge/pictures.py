"""Pictures and masks for checkpoints that do not draw without: made up, and the same in every export."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from PIL import Image, ImageDraw

from nano_runtime.bundle.wiring import Task
from nano_runtime.options import DrawOptions

__all__ = ["Pictures", "calls_for", "pictures_for"]

_SHAPES = 6
_WAVES = 4
_TOGETHER = 3  # prompts that share a picture


class Pictures(TypedDict, total=False):
    """The options of a call that are pictures, under the names of diffusers and of ``DrawOptions``."""

    image: Image.Image
    mask_image: Image.Image


def pictures_for(task: Task, size: int, prompt: str) -> Pictures:
    """Return the pictures that a call needs beside its prompt.

    Args:
        task: of the checkpoint.
        size: width and height, in pixels.
        prompt: of the picture; another prompt gets another picture.
    """
    if task == "text-to-image":
        return {}
    rng = np.random.default_rng(zlib.crc32(prompt.encode()))
    image = _picture(rng, size)
    return {"image": image, "mask_image": _mask(rng, size)} if task == "inpainting" else {"image": image}


def calls_for(prompts: Sequence[str], task: Task, size: int) -> list[DrawOptions]:
    """Return the calls that draw each prompt once: one for all, or a few with a picture each.

    Args:
        prompts: to draw.
        task: of the checkpoint.
        size: width and height, in pixels.
    """
    together = len(prompts) if task == "text-to-image" else _TOGETHER
    groups = [prompts[first : first + together] for first in range(0, len(prompts), together)]
    return [DrawOptions(prompt=group, **pictures_for(task, size, group[0])) for group in groups]


def _picture(rng: np.random.Generator, size: int) -> Image.Image:
    """Return a picture with what photos have: soft changes of light, edges, and fine structure."""
    down, across = np.mgrid[0 : 1 : size * 1j, 0 : 1 : size * 1j]
    light = np.full((size, size, 3), rng.uniform(0.2, 0.8, 3))
    for _ in range(_WAVES):
        turn = 2 * np.pi * (rng.uniform(-3, 3) * down + rng.uniform(-3, 3) * across + rng.uniform())
        light += np.sin(turn)[..., np.newaxis] * rng.uniform(-0.2, 0.2, 3)
    light += rng.normal(0, 0.02, light.shape)
    image = Image.fromarray(np.uint8(255 * light.clip(0, 1)))
    draw = ImageDraw.Draw(image)
    for index in range(_SHAPES):
        shape = draw.ellipse if index % 2 else draw.rectangle
        shape(_box(rng, size), fill=tuple(rng.integers(0, 256, 3).tolist()))
    return image


def _mask(rng: np.random.Generator, size: int) -> Image.Image:
    """Return a mask with a white ellipse and a white rectangle: edges that fall between latents."""
    mask = Image.new("L", (size, size))
    draw = ImageDraw.Draw(mask)
    draw.ellipse(_box(rng, size), fill=255)
    draw.rectangle(_box(rng, size), fill=255)
    return mask


def _box(rng: np.random.Generator, size: int) -> tuple[int, int, int, int]:
    """Return a box of a quarter to a half of the picture's sides, as left, top, right, bottom."""
    left, top = rng.integers(0, size // 2, 2).tolist()
    width, height = rng.integers(size // 4, size // 2, 2).tolist()
    return left, top, left + width, top + height
