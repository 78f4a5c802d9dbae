"""Measures how far channels stand out: in the input of each layer, the largest channel beside the median one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nano_export.source.checkpoint import Checkpoint

__all__ = ["ratios"]


@torch.no_grad()
def ratios(checkpoint: Checkpoint) -> Tensor:
    """Return the largest over the median channel, each by its largest magnitude, float32 [layers].

    The layers are the linear layers and convolutions of text encoder, UNet and decoder, with at least 8 channels. They
    run once: on a prompt, on noise, and on the same noise.
    """
    found: list[Tensor] = []

    def watch(layer: nn.Module, inputs: tuple[Tensor, ...], _: object) -> None:
        extent = extents(layer, inputs[0])
        if len(extent) >= 8:
            found.append(extent.max() / extent.median())

    networks: list[Any] = [checkpoint.text_encoder, checkpoint.unet, checkpoint.vae.decoder]
    layers = [one for network in networks for one in network.modules() if isinstance(one, nn.Linear | nn.Conv2d)]
    handles = [layer.register_forward_hook(watch) for layer in layers]
    tokenizer: Any = checkpoint.tokenizer
    ids = tokenizer("a lion", padding="max_length", truncation=True, return_tensors="pt").input_ids
    size = checkpoint.unet.config.sample_size
    latents = torch.randn(1, checkpoint.unet.config.in_channels, size, size, generator=torch.Generator().manual_seed(0))
    checkpoint.unet(latents, torch.tensor(500), checkpoint.text_encoder(ids)[0])
    checkpoint.vae.decode(latents)
    for handle in handles:
        handle.remove()
    return torch.stack(found)


def extents(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Return the largest magnitude of each channel of a layer's input, float32 [channels]."""
    magnitudes = inputs.abs()
    if isinstance(layer, nn.Conv2d):
        return magnitudes.amax((0, 2, 3))
    return magnitudes.flatten(0, -2).amax(0)
