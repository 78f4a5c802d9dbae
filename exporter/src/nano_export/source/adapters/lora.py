"""Merges LoRAs into a checkpoint before its graphs are traced.

The model decides which names a file may have: the name of each linear layer, convolution and norm of the UNet and the
text encoder gives the few spellings that files have for it. Any other name is an error, and so is another shape.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import TypeAlias

import torch
from torch import nn

from nano_export.errors import LoraError, quoted
from nano_export.source.adapters.lora_change import Decomposed, LayerChange, Scaled, fits
from nano_export.source.adapters.lora_config import PREFIX
from nano_export.source.adapters.lora_file import Lora
from nano_export.source.checkpoint import Checkpoint

__all__ = ["FAMILIES", "merge"]

FAMILIES = {768: " (Stable Diffusion 1)", 1024: " (Stable Diffusion 2)", 2048: " (Stable Diffusion XL)"}
"""Width of a text encoder -> the models that have it."""

_ATTENTION = re.compile(r"\.(attn[12])\.(to_[qkv]|to_out)(?:\.0)?$")
_TEXT_ATTENTION = re.compile(r"\.self_attn\.(q|k|v|out)_proj$")
_PROMPT_PROJECTION = re.compile(r".*attn2[._](?:processor[._])?to_[kv]", re.DOTALL)
_SHOWN = 3  # names in a message
_COMPARED = 200  # letters; no layer's name is longer
# Pieces of names -> the models whose layers have such names.
_STRANGERS = {
    "lora_te2": "Stable Diffusion XL",
    "text_encoder_2": "Stable Diffusion XL",
    "label_emb": "Stable Diffusion XL",
    "add_embedding": "Stable Diffusion XL",
    "input_blocks": "Stable Diffusion XL, or has names of the original layout",
    "output_blocks": "Stable Diffusion XL, or has names of the original layout",
    "middle_block": "Stable Diffusion XL, or has names of the original layout",
    "lora_te3": "Stable Diffusion 3",
    "lora_prior": "Stable Cascade",
    "double_blocks": "Flux, or another model with a transformer",
    "single_blocks": "Flux, or another model with a transformer",
    "single_transformer": "Flux, or another model with a transformer",
    "joint_blocks": "Stable Diffusion 3, or another model with a transformer",
    "lora_transformer": "a model with a transformer in place of the UNet",
    "transformer.": "a model with a transformer in place of the UNet",
    "diffusion_model.": "another model, or has names of the original layout",
}

_Layer: TypeAlias = nn.Linear | nn.Conv2d | nn.GroupNorm | nn.LayerNorm


def merge(checkpoint: Checkpoint, loras: Sequence[Lora]) -> None:
    """Change the weights of a checkpoint's UNet and text encoder by all LoRAs, in order, in place and in fp32.

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
            for name, change in lora.layers.items():
                layer = layers[name]
                if change.weight is not None:
                    layer.weight.copy_(change.weight.changed(layer.weight, lora.scale))
                if change.bias is not None and layer.bias is not None:
                    layer.bias += lora.scale * change.bias
                if not all(tensor.isfinite().all() for tensor in layer.parameters()):
                    raise LoraError(lora.path, f"the scale {lora.scale:g} makes {quoted(name)} infinite")


def _layers(checkpoint: Checkpoint) -> dict[str, _Layer]:
    """Return the layers that a LoRA can change, by each of their spellings."""
    return {
        spelling: module
        for network, spellings in ((checkpoint.unet, _unet_spellings), (checkpoint.text_encoder, _text_spellings))
        for name, module in network.named_modules()
        if isinstance(module, _Layer)
        for spelling in spellings(name)
    }


def _unet_spellings(name: str) -> Iterator[str]:
    """Spell a layer of the UNet as kohya, LyCORIS and PEFT do, as diffusers does, and as older diffusers did."""
    flat = name.replace(".", "_")
    yield f"lora_unet_{flat}"
    yield f"lycoris_{flat}"
    yield f"{PREFIX}{name}"
    for spelling in (name, _ATTENTION.sub(r".\1.processor.\2", name), _ATTENTION.sub(r".\1.\2", name)):
        yield spelling
        yield f"unet.{spelling}"


def _text_spellings(name: str) -> Iterator[str]:
    """Spell a layer of the text encoder; most files have ``text_model`` in it, which transformers 5 leaves out."""
    plain = name.removeprefix("text_model.")
    for whole in (f"text_model.{plain}", plain):
        flat = whole.replace(".", "_")
        yield from (f"{prefix}_{flat}" for prefix in ("lora_te", "lora_te1", "lycoris"))
        yield f"{PREFIX}{whole}"
        for spelling in (whole, _TEXT_ATTENTION.sub(r".self_attn.to_\1", whole)):
            yield f"text_encoder.{spelling}"
        yield whole


def _check_fit(lora: Lora, layers: Mapping[str, _Layer], text_width: int) -> None:
    """Refuse a LoRA for another model; the width of its prompts is checked first, because it tells the model."""
    for name, change in lora.layers.items():
        if change.weight is None or not _PROMPT_PROJECTION.fullmatch(name) or isinstance(change.weight, Scaled):
            continue
        if (width := change.weight.shape[1]) != text_width:
            raise LoraError(
                lora.path,
                f"it is for a text encoder of width {width}{FAMILIES.get(width or 0, '')}, "
                f"the model has one of {text_width}{FAMILIES.get(text_width, '')}",
            )
    if strange := [name for name in lora.layers if name not in layers]:
        raise LoraError(lora.path, _strange(strange, len(lora.layers), layers))
    spelled: dict[nn.Module, str] = {}
    for name, change in lora.layers.items():
        layer = layers[name]
        if (why := _misfit(change, layer)) is not None:
            raise LoraError(lora.path, f"{quoted(name)} changes {why}")
        if layer in spelled:
            raise LoraError(lora.path, f"{quoted(spelled[layer])} and {quoted(name)} are the same layer")
        spelled[layer] = name


def _strange(strange: Sequence[str], count: int, layers: Mapping[str, _Layer]) -> str:
    """Say which layers the model does not have, and which model might."""
    nearest = get_close_matches(strange[0][:_COMPARED], layers, n=1, cutoff=0.0)[0]
    other = next((model for piece, model in _STRANGERS.items() if any(piece in name for name in strange)), None)
    return (
        ("" if other is None else f"it is for {other}: ")
        + f"{len(strange)} of its {count} layers are not in the model: "
        + f"{', '.join(map(quoted, strange[:_SHOWN]))} (the nearest name there is {nearest!r})"
    )


def _misfit(change: LayerChange, layer: _Layer) -> str | None:
    """Say how the shapes of a change and of a layer differ; None if they fit."""
    if change.weight is not None:
        if layer.weight is None:
            return "a weight, and the model's layer has none"
        weight, shape = layer.weight.shape, change.weight.shape
        if not fits(shape, weight):
            wanted = weight if len(shape) != 4 else (*weight, 1, 1)[:4]  # noqa: PLR2004 - as a convolution
            return f"{_times(shape)} weights, the model has {_times(wanted)}"
        if isinstance(change.weight, Decomposed) and change.weight.by_column:
            count = change.weight.magnitude.numel()
            if count != weight[1]:
                return f"{count} input channels, the model has {weight[1]}"
    if change.bias is not None:
        if layer.bias is None:
            return "a bias, and the model's layer has none"
        if change.bias.shape != layer.bias.shape:
            return f"{_times(change.bias.shape)} biases, the model has {_times(layer.bias.shape)}"
    return None


def _times(shape: Sequence[int | None]) -> str:
    """Write a shape as 320x320; a size that may be any as a question mark."""
    return "x".join("?" if size is None else str(size) for size in shape)
