"""Finds the channels of residual streams that can be scaled together, as far as group norms allow.

A group norm divides by the spread of a whole group. So a group that is scaled as a whole leaves it as it was, but for
its epsilon, which is small beside the variance. A stream's channels are bound together if they are in one group of a
norm that reads them; skips bind the streams of a UNet to each other, where a group lies across two of them. A stream
that no norm reads (the last block before a decoder's or UNet's upsampler, without attention) has free channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from tests.outliers.paths import Component, LinearPath, Part, columns, rows
from torch import nn

__all__ = ["stream_paths"]

_KNOWN = {
    *("CrossAttnDownBlock2D", "CrossAttnUpBlock2D", "DownBlock2D", "UpBlock2D", "UNetMidBlock2DCrossAttn"),
    *("UNetMidBlock2D", "DownEncoderBlock2D", "UpDecoderBlock2D"),
}
_LARGEST = 0.25  # share of a stream's channels in one block; a larger one is no outlier, but the stream itself


@dataclass(eq=False)
class _Stream:
    """A residual stream: all that adds to the same channels, and all that reads them without a norm."""

    channels: int
    writers: list[Part] = field(default_factory=list)
    readers: list[Part] = field(default_factory=list)


class _Walk:
    """The streams of one network, and which of their channels are bound together (a union-find)."""

    def __init__(self) -> None:
        self.streams: list[_Stream] = []
        self._parents: dict[tuple[int, int], tuple[int, int]] = {}

    def stream(self, *writers: nn.Module | None) -> _Stream:
        """Begin a stream that these layers write."""
        parts = list(rows(*writers))
        made = _Stream(parts[0].tensor.shape[0], parts)
        self.streams.append(made)
        return made

    def norm(self, norm: Any, streams: Sequence[_Stream]) -> None:
        """Bind what a group norm over these streams, one behind the other, has in a group."""
        places = [(self.streams.index(one), channel) for one in streams for channel in range(one.channels)]
        size = len(places) // norm.num_groups
        for index, place in enumerate(places):
            self._parents[self._root(place)] = self._root(places[index - index % size])

    def resnet(self, resnet: Any, inputs: Sequence[_Stream]) -> _Stream:
        """Walk a residual block; return the stream behind it."""
        self.norm(resnet.norm1, inputs)
        inner = self.stream(resnet.conv1, resnet.time_emb_proj if resnet.time_embedding_norm == "default" else None)
        self.norm(resnet.norm2, [inner])
        if resnet.conv_shortcut is None:
            (output,) = inputs
            output.writers += rows(resnet.conv2)
            return output
        start = 0
        for one in inputs:
            one.readers += columns(resnet.conv_shortcut, start=start)
            start += one.channels
        return self.stream(resnet.conv2, resnet.conv_shortcut)

    def attention(self, attention: Any, stream: _Stream) -> None:
        """Walk a transformer, or an autoencoder's attention: a norm, and an addition to the stream."""
        if hasattr(attention, "proj_out"):
            self.norm(attention.norm, [stream])
            stream.writers += rows(attention.proj_out)
        else:
            self.norm(attention.group_norm, [stream])
            stream.writers += rows(attention.to_out[0])

    def convolution(self, convolution: Any, stream: _Stream) -> _Stream:
        """Walk a convolution that reads a stream, and begin its own."""
        stream.readers += columns(convolution)
        return self.stream(convolution)

    def paths(self, component: Component, name: str) -> Iterator[LinearPath]:
        """Yield the streams with blocks that are small enough; streams that are bound to each other go together."""
        members: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for index, stream in enumerate(self.streams):
            for channel in range(stream.channels):
                members.setdefault(self._root((index, channel)), []).append((index, channel))
        for number, block in enumerate(members.values()):
            share = max(
                sum(index == one for index, _ in block) / self.streams[one].channels for one in {i for i, _ in block}
            )
            if share > _LARGEST:
                continue
            writers: list[Part] = []
            readers: list[Part] = []
            for index, channel in block:
                stream = self.streams[index]
                writers += [Part(part.tensor, part.dim, part.start + channel) for part in stream.writers]
                readers += [Part(part.tensor, part.dim, part.start + channel) for part in stream.readers]
            text = f"{name}: stream {block[0][0]}, block {number} of {len(block)}"
            yield LinearPath(text, component, tuple(writers), tuple(readers), torch.zeros(1, dtype=torch.int64))

    def _root(self, place: tuple[int, int]) -> tuple[int, int]:
        while (parent := self._parents.get(place, place)) != place:
            place = parent
        return place


def stream_paths(unet: Any, vae: Any) -> Iterator[LinearPath]:
    """Yield the blocks of all residual streams of blocks that are known here."""
    blocks = [*unet.down_blocks, *([unet.mid_block] if unet.mid_block is not None else []), *unet.up_blocks]
    if {type(block).__name__ for block in blocks} <= _KNOWN:
        yield from _unet(unet).paths("unet", "unet")
    for name, half in (("decoder", vae.decoder), ("encoder", vae.encoder)):
        if hasattr(half, "mid_block"):
            yield from _half(half).paths("vae", name)


def _unet(unet: Any) -> _Walk:
    """Walk a UNet as its forward pass does."""
    walk = _Walk()
    stream = walk.stream(unet.conv_in)
    skips = [stream]
    for block in unet.down_blocks:
        for resnet, attention in zip(block.resnets, _attentions(block), strict=True):
            stream = walk.resnet(resnet, [stream])
            if attention is not None:
                walk.attention(attention, stream)
            skips.append(stream)
        for sampler in block.downsamplers or ():
            stream = walk.convolution(sampler.conv, stream)
            skips.append(stream)
    stream = _middle(walk, unet.mid_block, stream)
    for block in unet.up_blocks:
        for resnet, attention in zip(block.resnets, _attentions(block), strict=True):
            stream = walk.resnet(resnet, [stream, skips.pop()])
            if attention is not None:
                walk.attention(attention, stream)
        for sampler in block.upsamplers or ():
            stream = walk.convolution(sampler.conv, stream)
    walk.norm(unet.conv_norm_out, [stream])
    return walk


def _half(half: Any) -> _Walk:
    """Walk an autoencoder's decoder or encoder."""
    walk = _Walk()
    stream = walk.stream(half.conv_in)
    if hasattr(half, "up_blocks"):
        stream = _middle(walk, half.mid_block, stream)
    for block in half.up_blocks if hasattr(half, "up_blocks") else half.down_blocks:
        for resnet in block.resnets:
            stream = walk.resnet(resnet, [stream])
        for sampler in (getattr(block, "upsamplers", None) or getattr(block, "downsamplers", None)) or ():
            stream = walk.convolution(sampler.conv, stream)
    if not hasattr(half, "up_blocks"):
        stream = _middle(walk, half.mid_block, stream)
    walk.norm(half.conv_norm_out, [stream])
    return walk


def _middle(walk: _Walk, block: Any, stream: _Stream) -> _Stream:
    """Walk a block of residual blocks with attentions between them."""
    if block is None:
        return stream
    stream = walk.resnet(block.resnets[0], [stream])
    for attention, resnet in zip(block.attentions, block.resnets[1:], strict=True):
        if attention is not None:
            walk.attention(attention, stream)
        stream = walk.resnet(resnet, [stream])
    return stream


def _attentions(block: Any) -> Sequence[Any]:
    """Return the transformer behind each residual block; None where there is none."""
    return getattr(block, "attentions", None) or [None] * len(block.resnets)
