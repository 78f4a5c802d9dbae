"""Refuses by its configs a checkpoint that diffusers' Stable Diffusion pipelines cannot draw, before weights are read.

All other options of the networks are exported: hoisted, or as diffusers runs them (``networks.hoistable``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nano_export.errors import CheckpointError, UnsupportedModelError
from nano_export.source.json_file import read_json
from nano_export.source.layout import WEIGHTS

__all__ = ["check_architecture", "check_autoencoder"]

# Options of diffusers' UNet for which it wants inputs that the Stable Diffusion pipelines never give it.
_NEEDS_MORE: dict[str, dict[str, str]] = {
    "class_embed_type": dict.fromkeys(("timestep", "identity", "projection", "simple_projection"), "class labels"),
    "addition_embed_type": {
        "text_image": "a picture's embedding",
        "text_time": "a pooled prompt and sizes, as Stable Diffusion XL has",
        "image": "a picture's embedding",
        "image_hint": "a picture's embedding and a hint",
    },
    "encoder_hid_dim_type": dict.fromkeys(("text_image_proj", "image_proj"), "a picture's embedding"),
}
_COLOURS = 3
_LARGEST_FACTOR = 1e6  # in the manifest
_CLASSES = {"unet": "UNet2DConditionModel"}
_UNET = ["UNets that StableDiffusionPipeline draws with"]


def check_architecture(folder: Path) -> None:
    """Refuse networks that need inputs which no prompt gives.

    Raises:
        CheckpointError: files are missing or damaged.
        UnsupportedModelError: diffusers' own pipeline cannot draw it.
    """
    configs = {component: read_json(folder / component / "config.json") for component in WEIGHTS}
    for component, expected in _CLASSES.items():
        if (found := configs[component].get("_class_name", expected)) != expected:
            raise UnsupportedModelError(folder / component, f"the class {found}", [expected])
    if (found := _needs_more(configs["unet"])) is not None:
        raise UnsupportedModelError(folder / "unet", found, _UNET)
    if configs["text_encoder"].get("use_attention_mask"):
        raise UnsupportedModelError(folder / "text_encoder", "use_attention_mask=true", ["text encoders without it"])
    check_autoencoder(configs["vae"], folder / "vae" / "config.json")
    outputs, latents = configs["unet"].get("out_channels", 4), configs["vae"].get("latent_channels", 4)
    if outputs != latents:
        raise UnsupportedModelError(
            folder / "unet", f"out_channels={outputs} with {latents} latent channels of the vae", _UNET
        )


def check_autoencoder(vae: Mapping[str, Any], place: Path) -> None:
    """Refuse an autoencoder of other pictures than coloured ones, or by whose factor no latents can be divided.

    Args:
        vae: its config.
        place: of the config, for messages.

    Raises:
        CheckpointError: the factor is no number above 0.
        UnsupportedModelError: its pictures have another number of channels.
    """
    for key in ("in_channels", "out_channels"):
        if (count := vae.get(key, _COLOURS)) != _COLOURS:
            raise UnsupportedModelError(place, f"{key}={count!r}", ["pictures of 3 channels"])
    factor = vae.get("scaling_factor", 1)
    if type(factor) not in {int, float} or not 0 < factor <= _LARGEST_FACTOR:
        raise CheckpointError(place, f"its scaling_factor is {factor!r}, not a number above 0")


def _needs_more(unet: Mapping[str, Any]) -> str | None:
    """Name the option of a UNet for which it needs further inputs; None if it needs none."""
    if unet.get("class_embed_type") is None and (count := unet.get("num_class_embeds")) is not None:
        return f"num_class_embeds={count!r}, which needs class labels"
    if unet.get("dual_cross_attention"):
        return "dual_cross_attention=true, which needs two prompts"
    for key, values in _NEEDS_MORE.items():
        value = unet.get(key)
        if isinstance(value, str) and value in values:
            return f"{key}={value!r}, which needs {values[value]}"
    return None
