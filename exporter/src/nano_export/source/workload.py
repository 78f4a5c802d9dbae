"""Counts a model's weights, arithmetic and largest intermediate results by the headers of its files and its configs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from nano_export.source.picture_size import vae_factor

__all__ = ["Network", "Workload", "workload_of"]

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]

_TOKENS = 77  # of a prompt
_CONVOLUTION = 4  # sizes of its weight: out, in, height, width
_BLOCK = re.compile(r"(?:(encoder|decoder)\.)?(?:(down|up)_blocks\.(\d+)|mid_block)\.(.*)")
_DECODER_LEVEL = re.compile(r"decoder\.up_blocks\.(\d+)\.")
_HEADS = 8  # diffusers' default
_FP32 = 4
_SAME = 0.9  # of files that hold fp32: headers and tensors that are not read make a small difference


@dataclass(frozen=True)
class Network:
    """A network that was not loaded.

    Attributes:
        shapes: of its tensors, by name.
        config: of the network.
        stored_bytes: of its files; 0 for seeded random weights.
    """

    shapes: Shapes
    config: Mapping[str, Any]
    stored_bytes: int


@dataclass(frozen=True)
class Workload:
    """Sizes of a model at one picture size.

    Attributes:
        weight_bytes: of all networks in fp32, the form in which they are loaded whatever is stored.
        loaded_bytes: of the networks and, while the UNet is loaded, its files: they are mapped as well if they hold
            another precision. The VAE is loaded after it.
        unet_macs: multiply-accumulates of one UNet call for one picture, without guidance.
        decoder_macs: of decoding one picture.
        attention_bytes: the products of queries and keys in the UNet's first self-attention, for one picture.
        picture_bytes: the decoder's widest feature map of one picture.
    """

    weight_bytes: int
    loaded_bytes: int
    unet_macs: float
    decoder_macs: float
    attention_bytes: int
    picture_bytes: int


def workload_of(networks: Mapping[str, Network], size: int) -> Workload:
    """Count what a checkpoint's networks hold and compute.

    Args:
        networks: by their keys in ``WEIGHTS``.
        size: width and height of a picture, in pixels, as ``picture_size`` returns it.
    """
    unet, vae = networks["unet"].shapes, networks["vae"].shapes
    side = size // vae_factor(networks["vae"].config)
    sizes = {name: _FP32 * sum(map(math.prod, network.shapes.values())) for name, network in networks.items()}
    mapped = networks["unet"].stored_bytes
    converted = not _SAME * sizes["unet"] < mapped < sizes["unet"] / _SAME
    weights = sum(sizes.values())
    return Workload(
        weight_bytes=weights,
        loaded_bytes=max(weights, weights - sizes["vae"] + mapped * converted),
        unet_macs=sum(_macs(name, shape, _unet_side(name, unet, side)) for name, shape in unet.items()),
        decoder_macs=sum(
            _macs(name, shape, _decoder_side(name, vae, side))
            for name, shape in vae.items()
            if name.startswith("decoder.")
        ),
        attention_bytes=_FP32 * _heads(networks["unet"].config) * side**4,
        picture_bytes=_FP32 * _widest(vae) * size**2,
    )


def _macs(name: str, shape: tuple[int, ...], side: int) -> float:
    """Return the multiply-accumulates of one weight where feature maps have ``side`` x ``side`` places."""
    if not name.endswith(".weight") or len(shape) < 2:  # noqa: PLR2004 - a norm's scale
        return 0.0
    places = side**2
    if len(shape) == _CONVOLUTION:
        return float(math.prod(shape)) * places
    if "time_emb" in name:
        return float(math.prod(shape))
    if ".attn2.to_k." in name or ".attn2.to_v." in name:
        return float(math.prod(shape)) * _TOKENS
    attended = 2.0 * shape[0] * places * (_TOKENS if ".attn2." in name else places) if ".to_q." in name else 0.0
    return math.prod(shape) * places + attended


def _unet_side(name: str, shapes: Shapes, side: int) -> int:
    """Return the side of the feature maps that a weight of the UNet works on."""
    match = _BLOCK.match(name)
    if match is None:
        return side
    last = max((int(found[1]) for other in shapes if (found := re.match(r"down_blocks\.(\d+)\.", other))), default=0)
    _, way, index, rest = match.groups()
    level = last if way is None else int(index) if way == "down" else last - int(index)
    level += rest.startswith("downsamplers") - rest.startswith("upsamplers")
    return max(side >> max(level, 0), 1)


def _decoder_side(name: str, shapes: Shapes, side: int) -> int:
    """Return the side of the feature maps that a weight of the decoder works on."""
    match = _BLOCK.match(name)
    if match is None:
        return side << _last_level(shapes) if "conv_out" in name else side
    _, way, index, rest = match.groups()
    return side if way is None else side << (int(index) + rest.startswith("upsamplers"))


def _last_level(vae: Shapes) -> int:
    """Return the number of the decoder's last level, whose feature maps are as large as the picture."""
    return max((int(found[1]) for name in vae if (found := _DECODER_LEVEL.match(name))), default=0)


def _heads(unet: Mapping[str, Any]) -> int:
    """Return the heads of the UNet's first self-attention. diffusers' ``attention_head_dim`` is a number of heads."""
    heads = unet.get("num_attention_heads")
    heads = unet.get("attention_head_dim", _HEADS) if heads is None else heads
    first = heads[0] if isinstance(heads, (list, tuple)) and heads else heads
    return first if isinstance(first, int) else _HEADS


def _widest(vae: Shapes) -> int:
    """Return how many channels the decoder's feature maps of full size have at most."""
    pattern = re.compile(rf"decoder\.up_blocks\.{_last_level(vae)}\..*conv1\.weight")
    return max((shape[1] for name, shape in vae.items() if pattern.fullmatch(name)), default=0)
