"""Decides how large the pictures of an export are: as asked, or as diffusers' pipeline draws them by default."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from nano_export.errors import CheckpointError, ImageSizeError

__all__ = ["halves_evenly", "picture_size", "vae_factor"]

# diffusers takes a smaller sample_size in a config from before 0.9 for a mistake: Stable Diffusion 1's first configs.
_SMALLEST_BEFORE_0_9 = 64
_WHOLE_LATENTS = 8  # pixels; diffusers' pipelines draw no other sizes, whatever the VAE
_LARGEST_SIZE = (
    1024  # pixels; no free dimension of a traced graph may equal one that is fixed: `graph.passes.TRACE_BATCH`
)


def picture_size(unet: Mapping[str, Any], vae: Mapping[str, Any], asked: int | None) -> int:
    """Return width and height, in pixels.

    Args:
        unet: its config.
        vae: its config.
        asked: by the user; None takes the size for which the checkpoint was made.

    Raises:
        CheckpointError: no size is asked for, and the config names none, or one that is not square.
        ImageSizeError: diffusers does not draw pictures of that size, or the picture is too large.
    """
    size = _own_size(unet, vae) if asked is None else asked
    multiple = math.lcm(vae_factor(vae), _WHOLE_LATENTS)
    if size % multiple != 0 or not multiple <= size <= _LARGEST_SIZE:
        raise ImageSizeError(size, multiple, _LARGEST_SIZE, named=asked is not None)
    return size


def halves_evenly(unet: Mapping[str, Any], side: int) -> bool:
    """Return whether every level of a UNet halves a side of the latents without a rest.

    Args:
        unet: its config.
        side: of the latents.
    """
    return side % _halvings("unet", unet.get("block_out_channels", (0,) * 4)) == 0


def vae_factor(vae: Mapping[str, Any]) -> int:
    """Return how many pixels wide a latent is, as diffusers' pipelines count: by the levels of the VAE.

    Args:
        vae: its config. AutoencoderTiny's lists its levels twice.

    Raises:
        CheckpointError: the config has no levels.
    """
    return _halvings("vae", vae.get("block_out_channels", vae.get("decoder_block_out_channels", (0,))))


def _halvings(network: str, levels: object) -> int:
    """Return the factor by which all levels of a network together shrink a side."""
    if not isinstance(levels, (list, tuple)) or not levels:
        raise CheckpointError(f"{network}/config.json", f"its block_out_channels is {levels!r}, not a list of levels")
    return int(2 ** (len(levels) - 1))


def _own_size(unet: Mapping[str, Any], vae: Mapping[str, Any]) -> int:
    """Return the size for which a checkpoint was made."""
    sample = unet.get("sample_size")
    sides = sample if isinstance(sample, (list, tuple)) else (sample, sample)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):  # noqa: PLR2004 - a plane
        raise CheckpointError("unet/config.json", f"its sample_size, {sample!r}, names no picture size; give --size")
    factor = vae_factor(vae)
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
