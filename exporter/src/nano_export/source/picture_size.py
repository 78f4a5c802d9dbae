"""Decides how large the pictures of an export are: as asked, or as diffusers' pipeline draws them by default."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nano_export.errors import CheckpointError

__all__ = ["picture_size"]

# diffusers takes a smaller sample_size in a config from before 0.9 for a mistake: Stable Diffusion 1's first configs.
_SMALLEST_BEFORE_0_9 = 64


def picture_size(unet: Mapping[str, Any], vae: Mapping[str, Any], asked: int | None) -> int:
    """Return width and height, in pixels.

    Args:
        unet: its config.
        vae: its config.
        asked: by the user; None takes the size for which the checkpoint was made.

    Raises:
        CheckpointError: no size is asked for, and the config names none, or one that is not square.
    """
    if asked is not None:
        return asked
    sample = unet.get("sample_size")
    sides = sample if isinstance(sample, (list, tuple)) else (sample, sample)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):  # noqa: PLR2004 - a plane
        raise CheckpointError("unet/config.json", f"its sample_size, {sample!r}, names no picture size; give --size")
    factor: int = 2 ** (len(vae["block_out_channels"]) - 1)
    height, width = (int(side) * factor for side in sides)
    if height != width:
        raise CheckpointError(
            "unet/config.json",
            f"its sample_size asks for pictures of {width}x{height} pixels, and bundles are square; give --size",
        )
    if isinstance(sample, int) and sample < _SMALLEST_BEFORE_0_9 and _is_before_0_9(unet.get("_diffusers_version")):
        return _SMALLEST_BEFORE_0_9 * factor
    return height


def _is_before_0_9(version: object) -> bool:
    """Return whether a config was written by a diffusers older than 0.9."""
    match = re.match(r"0\.(\d+)(?:\D|$)", str(version))
    return match is not None and int(match[1]) < 9  # noqa: PLR2004 - as the name says
