"""Turns the streams of transformers so that few channels carry most: outliers in exact arithmetic, and not by scaling.

A layer norm takes the mean away and divides by the spread. A rotation that leaves the vector of ones in place changes
neither, so the norm's output turns with its input (SliceGPT, arXiv:2401.15024, section 3.1; QuaRot, arXiv:2404.00456,
turns the other way, to remove outliers). All that writes the stream is turned forward, and all that reads it back. What
the stream varies in most comes to lie on chosen channels. That is how outliers of trained networks look: they run along
a whole stream, in all of its layers, and no scale of a single path takes them away.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from tests.outliers.folded import TOLERANCE, change, copied, draw
from tests.outliers.paths import columns, direct_paths, rows
from torch import Tensor, nn

from nano_export.source.checkpoint import Checkpoint

__all__ = ["rotate"]

_ONE_IN = 60  # channels
_SMALLEST = 1e-3  # weight of a layer norm, below which what it hides cannot be turned


@dataclass(frozen=True)
class _Turned:
    """A stream of a transformer.

    Attributes:
        channels: of the stream.
        writers: weights [channels, ...] and biases [channels] of what adds to it.
        tables: weights [..., channels] whose rows are added to it.
        norms: that read it, each with the weights [..., channels] behind it.
        readers: weights [..., channels] that read it without a norm.
    """

    channels: int
    writers: list[Tensor]
    tables: list[Tensor]
    norms: list[tuple[nn.LayerNorm, list[Tensor]]]
    readers: list[Tensor]


def rotate(checkpoint: Checkpoint, seed: int) -> tuple[Checkpoint, float]:
    """Return a copy of a checkpoint with outliers along its streams, and the ``change`` of its results.

    Raises:
        AssertionError: its latents, pictures or encoded pictures are not the checkpoint's; see ``folded.change``.
    """
    turned = copied(checkpoint)
    streams = list(_streams(turned))
    moments = [_Moment(stream) for stream in streams]
    draw(turned)
    for index, (stream, moment) in enumerate(zip(streams, moments, strict=True)):
        turn = rotation(moment.take(), seed + index)
        _apply(stream, turn)
    changed = change(checkpoint, turned)
    if not changed < TOLERANCE:
        raise AssertionError(f"the rotated checkpoint computes something else: {changed:.1e} of the range")
    return turned, changed


def rotation(moment: Tensor, seed: int) -> Tensor:
    """Return a rotation that keeps the vector of ones, and turns the largest parts of a stream onto some channels.

    Args:
        moment: of second order, float64 [channels, channels].
        seed: of the channels, and of the rest of the rotation.

    Returns:
        float64 [channels, channels], orthogonal.
    """
    count = len(moment)
    random = torch.Generator().manual_seed(seed)
    ones = torch.full((count, 1), count**-0.5, dtype=torch.float64)
    still = torch.eye(count, dtype=torch.float64) - ones @ ones.T
    largest = torch.linalg.eigh(still @ moment @ still).eigenvectors.flip(1)[:, : max(1, count // _ONE_IN)]
    chosen = torch.randperm(count, generator=random)[: largest.shape[1]]
    target = torch.eye(count, dtype=torch.float64)[:, chosen]
    rest = torch.randn(count, count - 1 - largest.shape[1], generator=random, dtype=torch.float64)
    bases = [torch.linalg.qr(torch.cat([ones, first, rest], 1)) for first in (largest, target)]
    # The factorization may turn a vector around: the sign is the diagonal's.
    here, there = (base.Q * base.R.diagonal().sign() for base in bases)
    return there @ here.T


@torch.no_grad()
def _apply(stream: _Turned, turn: Tensor) -> None:
    """Turn all that touches a stream, in place."""
    for weight in stream.writers:
        weight.copy_((turn @ weight.double().view(len(turn), -1)).view_as(weight))
    for weight in stream.tables:
        weight.copy_(weight.double() @ turn.T)
    for norm, weights in stream.norms:
        scale = norm.weight.data.double()
        if not scale.abs().min() > _SMALLEST:
            raise AssertionError("a layer norm hides a channel")
        norm.bias.data.copy_(turn @ (norm.bias.data.double() / scale))
        norm.weight.data.fill_(1)
        for weight in weights:
            weight.copy_((weight.double() * scale) @ turn.T)
    for weight in stream.readers:
        weight.copy_((weight.double().flatten(1) @ turn.T).view_as(weight))


class _Moment:
    """Adds up the second moment of what the norms of a stream read."""

    def __init__(self, stream: _Turned) -> None:
        self._sum = torch.zeros(stream.channels, stream.channels, dtype=torch.float64)
        self._handles = [norm.register_forward_hook(self._watch) for norm, _ in stream.norms]

    def take(self) -> Tensor:
        """Stop watching; return the sum, float64 [channels, channels]."""
        for handle in self._handles:
            handle.remove()
        return self._sum

    def _watch(self, _: nn.Module, inputs: tuple[Tensor, ...], __: object) -> None:
        tokens = inputs[0].flatten(0, -2).double()
        self._sum += tokens.T @ tokens


def _streams(checkpoint: Checkpoint) -> Iterator[_Turned]:
    """Yield the streams of all transformers of the UNet, and the text encoder's."""
    paths = list(direct_paths(checkpoint.unet, checkpoint.text_encoder, checkpoint.vae))
    behind = {path.writers[0].tensor.data_ptr(): [part.tensor for part in path.readers] for path in paths}

    def norms(network: Any) -> list[tuple[nn.LayerNorm, list[Tensor]]]:
        found = [module for module in network.modules() if isinstance(module, nn.LayerNorm)]
        return [(norm, behind[norm.weight.data_ptr()]) for norm in found]

    for module in checkpoint.unet.modules():
        if isinstance(module, Transformer2DModel):
            layers = [module.proj_in]
            for block in module.transformer_blocks:
                attentions = [one for one in (block.attn1, block.attn2) if one is not None]
                layers += [*(one.to_out[0] for one in attentions), block.ff.net[2]]
            yield _Turned(
                channels=module.proj_in.weight.shape[0],
                writers=[part.tensor for part in rows(*layers)],
                tables=[],
                norms=norms(module),
                readers=[part.tensor for part in columns(module.proj_out)],
            )
    encoder: Any = checkpoint.text_encoder
    embeddings, encoder_layers = encoder.embeddings, encoder.encoder.layers
    written = [layer for one in encoder_layers for layer in (one.self_attn.out_proj, one.mlp.fc2)]
    yield _Turned(
        channels=embeddings.token_embedding.weight.shape[1],
        writers=[part.tensor for part in rows(*written)],
        tables=[embeddings.token_embedding.weight.data, embeddings.position_embedding.weight.data],
        norms=norms(encoder),
        readers=[],
    )
