"""Decides by a checkpoint's configs whether it is a Stable Diffusion that can be exported, before weights are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nano_export.errors import UnsupportedModelError
from nano_export.source.json_file import read_json
from nano_export.source.layout import WEIGHTS

__all__ = ["check_architecture"]

# Features of diffusers' UNet that Stable Diffusion 1 and 2 do not use -> the value that means "not used".
_UNUSED_UNET_FEATURES: dict[str, Any] = {
    "addition_embed_type": None,
    "class_embed_type": None,
    "encoder_hid_dim": None,
    "time_cond_proj_dim": None,
    "dual_cross_attention": False,
    "only_cross_attention": False,
    "resnet_time_scale_shift": "default",
    "time_embedding_type": "positional",
}


def check_architecture(folder: Path) -> None:
    """Refuse everything but Stable Diffusion 1 and 2, before gigabytes are read.

    Raises:
        CheckpointError: files are missing or damaged.
        UnsupportedModelError: it is not a Stable Diffusion 1 or 2.
    """
    configs = {component: read_json(folder / component / "config.json") for component in WEIGHTS}
    for feature, unused in _UNUSED_UNET_FEATURES.items():
        if (value := configs["unet"].get(feature, unused)) not in (unused, None):
            raise UnsupportedModelError(folder / "unet", f"{feature}={value!r}", ["UNets of Stable Diffusion 1 and 2"])
