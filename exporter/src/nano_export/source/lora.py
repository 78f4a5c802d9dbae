"""Merges LoRAs into a checkpoint before its graphs are traced: W += scale * alpha / rank * up @ down.

The model decides which names a file may have: the name of each linear layer and convolution of the UNet and the text
encoder gives the few spellings that files have for it. Any other name is an error, and so is another shape.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches

import torch
from torch import nn

from nano_export.errors import LoraError
from nano_export.source.checkpoint import Checkpoint
from nano_export.source.lora_file import Lora, shown

__all__ = ["merge"]

_ATTENTION = re.compile(r"\.(attn[12])\.(to_[qkv]|to_out)(?:\.0)?$")
_TEXT_ATTENTION = re.compile(r"\.self_attn\.(q|k|v|out)_proj$")
_PROMPT_PROJECTION = re.compile(r".*attn2[._](?:processor\.)?to_[kv]", re.DOTALL)
_FAMILIES = {768: " (Stable Diffusion 1)", 1024: " (Stable Diffusion 2)", 2048: " (Stable Diffusion XL)"}
_SHOWN = 3  # names in a message
_COMPARED = 200  # letters; no layer's name is longer


def merge(checkpoint: Checkpoint, loras: Sequence[Lora]) -> None:
    """Add all LoRAs to the weights of a checkpoint's UNet and text encoder, in place and in fp32.

    Names and shapes of all files are checked before the first weight changes.

    Raises:
        LoraError: a file has a layer that the model does not have, or one of another shape, and nothing was merged; or
            a scale is so large that a weight becomes infinite, and the checkpoint cannot be used any more.
    """
    layers = _layers(checkpoint)
    for lora in loras:
        _check_fit(lora, layers, checkpoint.unet.config.cross_attention_dim)
    with torch.no_grad():
        for lora in loras:
            for name, factors in lora.layers.items():
                weight = layers[name].weight
                weight += lora.file.scale * factors.change().reshape(weight.shape)
                if not weight.isfinite().all():
                    raise LoraError(lora.file.path, f"the scale {lora.file.scale:g} makes {shown(name)} infinite")


def _layers(checkpoint: Checkpoint) -> dict[str, nn.Linear | nn.Conv2d]:
    """Return the layers that a LoRA can change, by each of their spellings."""
    return {
        spelling: module
        for network, spellings in ((checkpoint.unet, _unet_spellings), (checkpoint.text_encoder, _text_spellings))
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        for spelling in spellings(name)
    }


def _unet_spellings(name: str) -> Iterator[str]:
    """Spell a layer of the UNet as kohya does, as diffusers does, and as older diffusers did."""
    yield f"lora_unet_{name.replace('.', '_')}"
    for spelling in (name, _ATTENTION.sub(r".\1.processor.\2", name)):
        yield spelling
        yield f"unet.{spelling}"


def _text_spellings(name: str) -> Iterator[str]:
    """Spell a layer of the text encoder; most files have ``text_model`` in it, which transformers 5 leaves out."""
    plain = name.removeprefix("text_model.")
    yield f"lora_te_text_model_{plain.replace('.', '_')}"
    for spelling in (plain, _TEXT_ATTENTION.sub(r".self_attn.to_\1", plain)):
        yield f"text_encoder.{spelling}"
        yield f"text_encoder.text_model.{spelling}"


def _check_fit(lora: Lora, layers: Mapping[str, nn.Linear | nn.Conv2d], text_width: int) -> None:
    """Refuse a LoRA for another model; the width of its prompts is checked first, because it tells the model."""
    path = lora.file.path
    for name, factors in lora.layers.items():
        if _PROMPT_PROJECTION.fullmatch(name) and (width := factors.shape[1]) != text_width:
            raise LoraError(
                path,
                f"it is for a text encoder of width {width}{_FAMILIES.get(width, '')}, "
                f"the model has one of {text_width}{_FAMILIES.get(text_width, '')}",
            )
    if strange := [name for name in lora.layers if name not in layers]:
        nearest = get_close_matches(strange[0][:_COMPARED], layers, n=1, cutoff=0.0)[0]
        raise LoraError(
            path,
            f"{len(strange)} of its {len(lora.layers)} layers are not in the model: "
            f"{', '.join(map(shown, strange[:_SHOWN]))} (the nearest name there is {nearest!r})",
        )
    spelled: dict[nn.Module, str] = {}
    for name, factors in lora.layers.items():
        layer = layers[name]
        if (wanted := (*layer.weight.shape, 1, 1)[:4]) != factors.shape:
            raise LoraError(
                path, f"{shown(name)} changes {_times(factors.shape)} weights, the model has {_times(wanted)}"
            )
        if layer in spelled:
            raise LoraError(path, f"{shown(spelled[layer])} and {shown(name)} are the same layer")
        spelled[layer] = name


def _times(shape: Sequence[int]) -> str:
    """Write a shape as 320x320."""
    return "x".join(map(str, shape))
