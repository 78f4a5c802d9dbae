"""Works out the configs of networks in the original (CompVis, A1111) layout from the names and shapes of their tensors.

Three things have no shape, and come from the family: Stable Diffusion 1 has 8 attention heads, Stable Diffusion 2 heads
of 64 channels, and both normalize in 32 groups. CLIP's text encoders have heads of 64 channels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

__all__ = [
    "FAMILIES",
    "OPEN_CLIP",
    "TEXT",
    "UNET",
    "VAE",
    "ShapeError",
    "Shapes",
    "text_config",
    "unet_config",
    "vae_config",
]

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
"""Name of a tensor -> its shape."""

UNET: Final = "model.diffusion_model."
VAE: Final = "first_stage_model."
TEXT: Final = "cond_stage_model.transformer.text_model."
OPEN_CLIP: Final = "cond_stage_model.model."
"""Prefixes of the networks' tensors; the text encoder has the first in Stable Diffusion 1, the second in 2."""

FAMILIES: Final = {TEXT: 1, OPEN_CLIP: 2}
"""Prefix of the text encoder -> Stable Diffusion 1 or 2."""

_SD1_HEADS = 8
_HEAD_CHANNELS = 64
_GROUPS = 32
_SCALING_FACTOR = 0.18215
_CLIP_LAYERS_OF_SD2 = 23  # of 24: the last is not used, and some files do not have it
_BLOCK = re.compile(r"(input_blocks|output_blocks)\.(\d+)\.")


class ShapeError(Exception):
    """Tensors that are missing, or that no Stable Diffusion has; the message says which."""


def unet_config(shapes: Shapes, family: int) -> dict[str, Any]:
    """Return diffusers' config of a UNet.

    Args:
        shapes: of its tensors, without their prefix.
        family: Stable Diffusion 1 or 2.

    Raises:
        ShapeError: blocks of one level differ, tensors are missing, or heads and groups do not divide the channels.
    """
    first = _shape(shapes, "input_blocks.0.0.weight")
    levels = _levels(shapes)
    channels = [level[0][0] for level in levels]
    if any(len(set(level)) > 1 for level in levels) or len({len(level) for level in levels}) > 1:
        raise ShapeError("the blocks of its UNet differ within a level, or in number from level to level")
    layers = len(levels[0])
    outer = [_depth(shapes, f"output_blocks.{(layers + 1) * index}") for index in range(len(levels))]
    depths = [level[0][1] for level in levels]
    keys = [key for key in shapes if key.endswith("attn2.to_k.weight")]
    if not keys:
        raise ShapeError("its UNet does not attend to a prompt")
    config: dict[str, Any] = {
        "_class_name": "UNet2DConditionModel",
        "in_channels": first[1],
        "out_channels": _shape(shapes, "out.2.weight")[0],
        "block_out_channels": channels,
        "layers_per_block": layers,
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths],
        "up_block_types": ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in outer],
        "cross_attention_dim": shapes[keys[0]][1],
        "attention_head_dim": _SD1_HEADS if family == 1 else [_divided(c, _HEAD_CHANNELS) for c in channels],
        "use_linear_projection": any(key.endswith("proj_in.weight") and len(shapes[key]) == 2 for key in shapes),  # noqa: PLR2004
        "norm_num_groups": _GROUPS,
    }
    for count in channels:
        _divided(count, _GROUPS)
        _divided(count, _SD1_HEADS if family == 1 else _HEAD_CHANNELS)
    if set(depths) - {0, 1}:
        config["transformer_layers_per_block"] = [max(depth, 1) for depth in depths]
    if not any(key.startswith("middle_block.") for key in shapes):
        config["mid_block_type"] = None
    return config


def vae_config(shapes: Shapes) -> dict[str, Any]:
    """Return diffusers' config of an autoencoder.

    Args:
        shapes: of its tensors, without their prefix.

    Raises:
        ShapeError: tensors are missing, or groups do not divide the channels.
    """
    channels: list[int] = []
    while (key := f"encoder.down.{len(channels)}.block.0.conv2.weight") in shapes:
        _divided(shapes[key][0], _GROUPS)
        channels.append(shapes[key][0])
    if not channels:
        raise ShapeError("its VAE has no encoder")
    layers = 0
    while f"encoder.down.0.block.{layers}.conv2.weight" in shapes:
        layers += 1
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": _shape(shapes, "encoder.conv_in.weight")[1],
        "out_channels": _shape(shapes, "decoder.conv_out.weight")[0],
        "latent_channels": _shape(shapes, "decoder.conv_in.weight")[1],
        "block_out_channels": channels,
        "layers_per_block": layers,
        "down_block_types": ["DownEncoderBlock2D"] * len(channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(channels),
        "norm_num_groups": _GROUPS,
        "scaling_factor": _SCALING_FACTOR,
    }


def text_config(shapes: Shapes, family: int) -> dict[str, Any]:
    """Return transformers' config of a text encoder.

    Stable Diffusion 2 draws with the last layer but one of OpenCLIP's; diffusers leaves the last out.

    Args:
        shapes: of its tensors, without their prefix: CLIP's names in Stable Diffusion 1, OpenCLIP's in 2.
        family: Stable Diffusion 1 or 2.

    Raises:
        ShapeError: tensors are missing, or its width is no number of heads.
    """
    if family == 1:
        words = _shape(shapes, "embeddings.token_embedding.weight")
        length, inner = _shape(shapes, "embeddings.position_embedding.weight")[0], "encoder.layers.{}.mlp.fc1.weight"
    else:
        words = _shape(shapes, "token_embedding.weight")
        length, inner = _shape(shapes, "positional_embedding")[0], "transformer.resblocks.{}.mlp.c_fc.weight"
    layers = 0
    while inner.format(layers) in shapes:
        layers += 1
    width = _shape(shapes, inner.format(0))[0]
    if family != 1 and (layers > _CLIP_LAYERS_OF_SD2 or "text_projection" in shapes):
        layers -= 1
    return {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "vocab_size": words[0],
        "hidden_size": words[1],
        "intermediate_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": _divided(words[1], _HEAD_CHANNELS),
        "max_position_embeddings": length,
        "hidden_act": "quick_gelu" if family == 1 else "gelu",
        "layer_norm_eps": 1e-05,
        "projection_dim": words[1] if family == 1 else words[1] // 2,
        "bos_token_id": words[0] - 2,
        "eos_token_id": words[0] - 1,
        "pad_token_id": 1,
    }


def _levels(shapes: Shapes) -> list[list[tuple[int, int]]]:
    """Return, for each level of a UNet, the channels of its blocks and how many layers of attention each has."""
    count = 1 + max(int(found[2]) for key in shapes if (found := _BLOCK.match(key)) and found[1] == "input_blocks")
    levels: list[list[tuple[int, int]]] = [[]]
    for index in range(1, count):
        if f"input_blocks.{index}.0.op.weight" in shapes:
            levels.append([])
            continue
        channels = _shape(shapes, f"input_blocks.{index}.0.out_layers.3.weight")[0]
        levels[-1].append((channels, _depth(shapes, f"input_blocks.{index}")))
    if not all(levels):
        raise ShapeError("its UNet has a level without blocks")
    return levels


def _depth(shapes: Shapes, block: str) -> int:
    """Return how many layers of attention a block has."""
    depth = 0
    while f"{block}.1.transformer_blocks.{depth}.attn1.to_q.weight" in shapes:
        depth += 1
    return depth


def _divided(channels: int, by: int) -> int:
    """Return a quotient; no remainder may be left."""
    if channels % by:
        raise ShapeError(f"{channels} channels are no multiple of {by}, as in every Stable Diffusion of that family")
    return channels // by


def _shape(shapes: Shapes, key: str) -> tuple[int, ...]:
    """Return the shape of a tensor that every Stable Diffusion has."""
    try:
        return shapes[key]
    except KeyError:
        raise ShapeError(f"the tensor {key} is missing") from None
