"""The steps from a decoder's output to a Pillow image: to intensities, to bytes, to an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nano_runtime.arrays import F32, U8

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["to_pil", "to_uint8", "to_unit_range"]


def to_unit_range(decoded: F32) -> F32:
    """Map the decoder's output to intensities, as diffusers' ``VaeImageProcessor.denormalize`` and ``pt_to_numpy`` do.

    Args:
        decoded: float32 [n, 3, height, width], nominally in [-1, 1].

    Returns:
        float32 [n, height, width, 3] in [0, 1].
    """
    unit: F32 = np.clip(decoded * np.float32(0.5) + np.float32(0.5), 0, 1).transpose(0, 2, 3, 1)
    return unit


def to_uint8(unit: F32) -> U8:
    """Round intensities in [0, 1] to 0..255, halves to even, as diffusers' ``numpy_to_pil`` does; any shape."""
    return (unit * np.float32(255)).round().astype(np.uint8)


def to_pil(pixels: U8) -> Image:
    """Wrap uint8 [height, width, 3] in a Pillow image."""
    from PIL import Image  # noqa: PLC0415 - callers that ask for arrays need no Pillow

    return Image.fromarray(pixels)
