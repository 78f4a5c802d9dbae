"""Makes outliers of other shapes than ``folded`` and ``rotated``: each kind leaves the function as it was.

Channels of all paths, or of some of them, are scaled, turned around or exchanged. And constants are added which the
next layers do not see: a group norm takes that of a group away, a layer norm that of all channels, the other addend of
a sum that of the first, and one table of embeddings that of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from tests.outliers.folded import TOLERANCE, apply, change, copied, paths_of
from tests.outliers.paths import Part
from torch import Generator, Tensor
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from nano_export.source.checkpoint import Checkpoint

__all__ = ["KINDS", "shape"]

_LARGE = 100.0
_SHARE = 0.03
_CONSTANT = 40.0


def shape(checkpoint: Checkpoint, kind: str, seed: int) -> tuple[Checkpoint, float]:
    """Return a copy of a checkpoint with outliers of one of ``KINDS``, and the ``change`` of its results.

    Raises:
        AssertionError: its latents, pictures or encoded pictures are not the checkpoint's; see ``folded.change``.
    """
    shaped = copied(checkpoint)
    with torch.no_grad():
        KINDS[kind](shaped, torch.Generator().manual_seed(seed))
    changed = change(checkpoint, shaped)
    if not changed < TOLERANCE:
        raise AssertionError(f"the {kind} checkpoint computes something else: {changed:.1e} of the range")
    return shaped, changed


def _scale(factors: Callable[[int, Generator], Tensor], *words: str) -> Callable[[Checkpoint, Generator], None]:
    """Return a maker that scales the paths whose names have one of the words, or all paths."""

    def make(checkpoint: Checkpoint, random: Generator) -> None:
        for path in paths_of(checkpoint):
            drawn = factors(int(path.blocks.max()) + 1, random)
            if not words or any(word in path.name for word in words):
                apply(path, drawn[path.blocks])

    return make


def _single(count: int, random: Generator) -> Tensor:
    """Return one large factor; streams have one block, which becomes large as seldom as a channel does."""
    factors = torch.ones(count)
    index = int(torch.randint(max(count, 30), (), generator=random))
    factors[index : index + 1] = _LARGE
    return factors


def _some(count: int, random: Generator) -> Tensor:
    """Return factors of which some are large, half of them negative."""
    chosen = torch.rand(count, generator=random) < _SHARE
    return torch.where(chosen, _LARGE, 1.0) * _signs(count, random)


def _signs(count: int, random: Generator) -> Tensor:
    """Return a sign for each channel."""
    return torch.where(torch.rand(count, generator=random) < 0.5, -1.0, 1.0)


def _dense(count: int, random: Generator) -> Tensor:
    """Return factors of a wide spread; streams have one block, and less of it, as their norms have an epsilon."""
    return torch.exp((0.8 if count > 1 else 0.3) * torch.randn(count, generator=random))


def _small(count: int, random: Generator) -> Tensor:
    """Return factors of which nearly all are small: gains of norms go down."""
    return torch.where(torch.rand(count, generator=random) < _SHARE, 1.0, 1 / _LARGE)


def _heads(checkpoint: Checkpoint, random: Generator) -> None:
    """Scale queries up and keys down, each head by its own factor, and some channels by more."""
    for path in paths_of(checkpoint):
        count = len(path.blocks)
        if "query against key" in path.name or "k_proj" in path.name:
            heads = torch.exp(1.5 * torch.randn(4, generator=random)).repeat_interleave(-(-count // 4))[:count]
            apply(path, heads * _some(count, random))


def _last(checkpoint: Checkpoint, random: Generator) -> None:
    """Scale every tenth channel in the last block of each network, and nothing else."""
    for path in paths_of(checkpoint):
        drawn = torch.where(torch.rand(int(path.blocks.max()) + 1, generator=random) < 0.1, _LARGE, 1.0)
        if any(word in path.name for word in ("up_blocks.3", "layers.1", "final_layer_norm", "down_blocks.3")):
            apply(path, drawn[path.blocks])


def _permute(checkpoint: Checkpoint, random: Generator) -> None:
    """Exchange channels: those of a gated layer with their gates, and those of CLIP's inner layers."""
    for module in (*checkpoint.unet.modules(), *checkpoint.text_encoder.modules()):
        if isinstance(module, BasicTransformerBlock):
            first, second = module.ff.net[0].proj, module.ff.net[2]
        elif isinstance(module, CLIPEncoderLayer):
            first, second = module.mlp.fc1, module.mlp.fc2
        else:
            continue
        order = torch.randperm(second.in_features, generator=random)
        for start in range(0, first.out_features, len(order)):
            for tensor in (first.weight, first.bias):
                _exchange(Part(tensor, 0, start), order)
        _exchange(Part(second.weight, 1), order)


def _exchange(part: Part, order: Tensor) -> None:
    """Exchange the channels of a part, in place."""
    whole = part.tensor.narrow(part.dim, part.start, len(order))
    whole.copy_(whole.index_select(part.dim, order))


def _norms(checkpoint: Checkpoint, random: Generator) -> None:
    """Scale the residual streams inside transformers and the text encoder as a whole; layer norms do not see it."""
    for module in checkpoint.unet.modules():
        if isinstance(module, Transformer2DModel):
            factor = 30 * float(torch.exp(torch.randn((), generator=random)))
            for layer in _writers(module):
                layer.weight.mul_(factor)
                if layer.bias is not None:
                    layer.bias.mul_(factor)
            module.proj_out.weight.div_(factor)
    _scale(_small, "layer norm ->", "norm3 ->", "layer_norm1", "layer_norm2")(checkpoint, random)


def _writers(transformer: Any) -> list[Any]:
    """Return the layers that write the stream of a transformer."""
    layers = [transformer.proj_in]
    for block in transformer.transformer_blocks:
        if isinstance(block, BasicTransformerBlock):
            layers += [one.to_out[0] for one in (block.attn1, block.attn2) if one is not None]
            layers.append(block.ff.net[2])
    return layers


def _sums(checkpoint: Checkpoint, random: Generator) -> None:
    """Add constants to one addend of a sum, and take them from the other: channels of a few layers stand out."""
    for module in (*checkpoint.unet.modules(), *checkpoint.vae.modules()):
        if not isinstance(module, ResnetBlock2D):
            continue
        pairs = [(module.conv1, module.time_emb_proj), (module.conv2, module.conv_shortcut)]
        for one, other in pairs:
            if other is not None:
                constant = _CONSTANT / 4 * _signs(len(one.bias), random)  # more is lost to the rounding of sums
                constant *= torch.rand(len(constant), generator=random) < 0.2
                one.bias.add_(constant)
                other.bias.sub_(constant)


def _means(checkpoint: Checkpoint, random: Generator) -> None:
    """Add a constant to each group in front of a group norm, and to the streams between layer norms."""
    for module in (*checkpoint.unet.modules(), *checkpoint.vae.modules()):
        if isinstance(module, ResnetBlock2D):
            groups = module.norm2.num_groups
            constant = (_CONSTANT / 4 * _signs(groups, random)).repeat_interleave(len(module.conv1.bias) // groups)
            module.conv1.bias.add_(constant)
        if isinstance(module, Transformer2DModel):
            width = module.proj_in.bias.shape[0]
            constant = torch.full((width,), _CONSTANT / 4)
            module.proj_in.bias.add_(constant)
            module.proj_out.bias.sub_(module.proj_out.weight.flatten(1) @ constant)


def _tables(checkpoint: Checkpoint, random: Generator) -> None:
    """Add constants to one table of the text encoder and take them from the other; the first place has a sink."""
    embeddings: Any = checkpoint.text_encoder
    embeddings = embeddings.embeddings
    tokens, places = embeddings.token_embedding.weight, embeddings.position_embedding.weight
    constant = torch.randn(tokens.shape[1], generator=random)
    constant[torch.rand(len(constant), generator=random) < _SHARE] *= 10
    tokens.add_(constant)
    places.sub_(constant)
    places[0].add_(_CONSTANT / 2)  # all channels of the first token: layer norms take it away


KINDS: Mapping[str, Callable[[Checkpoint, Generator], None]] = {
    "single": _scale(_single),
    "heads": _heads,
    "values": _scale(_some, "value -> to_out", "v_proj"),
    "gated": _scale(_some, "values -> ff.net.2"),
    "streams": _scale(_dense, "stream", "norm -> proj_in", "group_norm"),
    "signs": _scale(_signs, "->", "against", "_norm", "k_proj"),
    "dense": _scale(_dense),
    "last": _last,
    "permuted": _permute,
    "norms": _norms,
    "sums": _sums,
    "means": _means,
    "tables": _tables,
}
"""Kind -> what makes it, in place. See the functions."""
