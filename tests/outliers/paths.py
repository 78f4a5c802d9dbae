"""Finds the linear paths of a Stable Diffusion: channels that some layers write, others read, and nothing bends.

Multiply what is written by a factor and divide where it is read, and the network computes what it computed before. No
part of the exporter is used here: what it equalizes is found anew, from diffusers' and transformers' modules.

Exact paths
    layer norm -> linear layers      attn1 q, k, v; attn2 q; the feed-forward's first layer; CLIP's q, k, v and fc1
    final layer norm -> UNet         keys and values of every cross-attention, or the projection before them
    group norm -> linear layers      a transformer's ``proj_in``; q, k, v of the autoencoder's attention
    value -> output projection       of every attention: its weights mix tokens, never channels
    query against key                each product of two channels keeps its value
    GEGLU's values -> second layer   the gate multiplies each channel on its own
    convolution -> convolution       ``post_quant_conv`` -> ``conv_in``; the encoder's ``conv_out`` -> ``quant_conv``
    activations that are ReLU        norm -> convolution, fc1 -> fc2: ReLU passes positive factors
    time embedding -> blocks         where ``resnet_skip_time_act`` leaves the activation out
    residual streams                 see ``streams``: whole groups of a group norm, or channels that no norm reads

No paths
    SiLU, GELU and quick GELU bend: norm -> SiLU -> convolution, the GEGLU's gates, CLIP's fc1 -> fc2, and the time
    embedding, which an activation follows. A layer norm mixes its channels: so the streams inside transformers and CLIP
    stay, with ``proj_in``, ``to_out``, the feed-forward's second layer and CLIP's embeddings, which write them. The
    latents stay, because noise is added to them: so do the UNet's ``conv_in`` as a reader and ``conv_out`` as a writer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from diffusers.models.activations import GEGLU, SwiGLU
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

__all__ = ["COMPONENTS", "Component", "LinearPath", "Part", "Parts", "columns", "direct_paths", "rows"]

Component: TypeAlias = Literal["unet", "text_encoder", "vae"]
COMPONENTS: tuple[Component, ...] = ("unet", "text_encoder", "vae")


@dataclass(frozen=True)
class Part:
    """Channels of a parameter: a slice along ``dim``, from ``start``."""

    tensor: Tensor
    dim: int
    start: int = 0

    def scale(self, factors: Tensor) -> None:
        """Multiply by a factor per channel, in place."""
        shape = [-1 if dim == self.dim else 1 for dim in range(self.tensor.ndim)]
        self.tensor.narrow(self.dim, self.start, len(factors)).mul_(factors.view(shape))


Parts: TypeAlias = tuple[Part, ...]


@dataclass(frozen=True)
class LinearPath:
    """Channels and all that touches them.

    Attributes:
        name: of the writer and the reader.
        component: that the writer belongs to.
        writers: parts that are multiplied.
        readers: parts that are divided.
        blocks: int64 [channels], number of the block of each channel; a block has one factor.
    """

    name: str
    component: Component
    writers: Parts
    readers: Parts
    blocks: Tensor


def rows(*layers: nn.Module | None, start: int = 0) -> Parts:
    """Return what writes the outputs of layers: the weights of a norm, rows of a matrix or kernel, and biases."""
    parameters = [parameter for layer in layers if layer is not None for parameter in (layer.weight, layer.bias)]
    return tuple(Part(parameter.data, 0, start) for parameter in parameters if isinstance(parameter, Tensor))


def columns(*layers: nn.Module | None, start: int = 0) -> Parts:
    """Return what reads the inputs of linear layers or convolutions."""
    return tuple(Part(layer.weight.data, 1, start) for layer in layers if layer is not None)  # type: ignore[arg-type]


def direct_paths(unet: nn.Module, text_encoder: nn.Module, vae: nn.Module) -> Iterator[LinearPath]:
    """Yield every path but the residual streams."""
    yield from _encoder_paths(text_encoder)
    yield from _prompt_paths(unet, text_encoder)
    yield from _time_paths(unet)
    for name, module in unet.named_modules():
        yield from _module_paths("unet", name, module)
    for name, module in vae.named_modules():
        yield from _module_paths("vae", name, module)
    yield from _autoencoder_paths(vae)


def _path(name: str, component: Component, writers: Parts, readers: Parts, channels: int) -> LinearPath:
    return LinearPath(name, component, writers, readers, torch.arange(channels))


def _module_paths(component: Component, name: str, module: nn.Module) -> Iterator[LinearPath]:
    """Yield the paths inside one module of diffusers."""
    found: list[tuple[str, Parts, Parts, int]] = []
    if isinstance(module, Attention):
        found = list(_attention_paths(module))
    elif isinstance(module, BasicTransformerBlock):
        found = list(_block_paths(module))
    elif isinstance(module, Transformer2DModel):
        found = [("norm -> proj_in", rows(module.norm), columns(module.proj_in), module.norm.num_channels)]
    elif isinstance(module, ResnetBlock2D) and isinstance(module.nonlinearity, nn.ReLU):
        found = [("norm1 -> conv1", rows(module.norm1), columns(module.conv1), module.in_channels)]
        if module.time_embedding_norm == "default":
            found.append(("norm2 -> conv2", rows(module.norm2), columns(module.conv2), module.out_channels))
    for text, writers, readers, channels in found:
        yield _path(f"{name}: {text}", component, writers, readers, channels)


def _attention_paths(attention: Any) -> Iterator[tuple[str, Parts, Parts, int]]:
    """Yield values, queries and the group norm of an attention. Added projections read the prompt."""
    to_k, to_v = attention.to_k, attention.to_v
    added_k, added_v = getattr(attention, "add_k_proj", None), getattr(attention, "add_v_proj", None)
    width = attention.to_out[0].in_features
    yield "value -> to_out", rows(to_v, added_v), columns(attention.to_out[0]), width
    if attention.norm_q is None and attention.norm_k is None:
        yield "query against key", rows(attention.to_q), rows(to_k, added_k), attention.to_q.out_features
    if attention.group_norm is not None:
        own = () if attention.is_cross_attention and added_k is None else (to_k, to_v)
        yield "group_norm", rows(attention.group_norm), columns(attention.to_q, *own), attention.to_q.in_features


def _block_paths(block: Any) -> Iterator[tuple[str, Parts, Parts, int]]:
    """Yield the layer norms and the gated layer of a transformer's block."""
    for norm, attention in ((block.norm1, block.attn1), (block.norm2, block.attn2)):
        if attention is not None and _is_plain(norm):
            own = () if attention.is_cross_attention else (attention.to_k, attention.to_v)
            yield "layer norm -> attention", rows(norm), columns(attention.to_q, *own), attention.to_q.in_features
    first, second = block.ff.net[0], block.ff.net[2]
    if _is_plain(block.norm3):
        yield "norm3 -> ff", rows(block.norm3), columns(first.proj), first.proj.in_features
    if isinstance(first, GEGLU | SwiGLU):
        yield "values -> ff.net.2", rows(first.proj), columns(second), second.in_features


def _encoder_paths(text_encoder: nn.Module) -> Iterator[LinearPath]:
    """Yield the paths inside CLIP's layers."""
    for name, layer in text_encoder.named_modules():
        if not isinstance(layer, CLIPEncoderLayer):
            continue
        attention: Any = layer.self_attn
        mlp: Any = layer.mlp
        query, key, value = attention.q_proj, attention.k_proj, attention.v_proj
        width, inner = query.in_features, mlp.fc2.in_features
        found = [
            ("layer_norm1", rows(layer.layer_norm1), columns(query, key, value), width),
            ("layer_norm2", rows(layer.layer_norm2), columns(mlp.fc1), width),
            ("v_proj -> out_proj", rows(value), columns(attention.out_proj), width),
            ("q_proj against k_proj", rows(query), rows(key), width),
        ]
        if isinstance(mlp.activation_fn, nn.ReLU):
            found.append(("fc1 -> fc2", rows(mlp.fc1), columns(mlp.fc2), inner))
        for text, writers, readers, channels in found:
            yield _path(f"{name}: {text}", "text_encoder", writers, readers, channels)


def _prompt_paths(unet: Any, text_encoder: nn.Module) -> Iterator[LinearPath]:
    """Yield the way of the hidden states from the text encoder into the UNet."""
    attentions = [module for module in unet.modules() if isinstance(module, Attention)]
    prompted: Sequence[Any] = [one for one in attentions if one.is_cross_attention or one.added_kv_proj_dim is not None]
    if (
        not prompted
        or unet.config.addition_embed_type is not None
        or any(one.norm_cross is not None for one in prompted)
    ):
        return  # another layer reads the hidden states, or a norm is in between
    layers = [
        layer
        for one in prompted
        for layer in ((one.to_k, one.to_v) if one.added_kv_proj_dim is None else (one.add_k_proj, one.add_v_proj))
    ]
    projection = unet.encoder_hid_proj
    if isinstance(projection, nn.Linear):
        yield _path("encoder_hid_proj", "unet", rows(projection), columns(*layers), projection.out_features)
        layers = [projection]
    elif projection is not None:
        return
    (norm,) = [one for name, one in text_encoder.named_modules() if name.endswith("final_layer_norm")]
    yield _path("final_layer_norm", "text_encoder", rows(norm), columns(*layers), layers[0].in_features)


def _time_paths(unet: Any) -> Iterator[LinearPath]:
    """Yield the time embedding, where no activation follows it."""
    resnets: Sequence[Any] = [module for module in unet.modules() if isinstance(module, ResnetBlock2D)]
    last = unet.time_embedding.linear_2
    plain = unet.time_embed_act is None and unet.time_embedding.post_act is None and unet.class_embedding is None
    if plain and unet.config.addition_embed_type is None and resnets and all(one.skip_time_act for one in resnets):
        readers = columns(*(one.time_emb_proj for one in resnets))
        yield _path("time_embedding", "unet", rows(last), readers, last.out_features)


def _autoencoder_paths(vae: Any) -> Iterator[LinearPath]:
    """Yield the convolutions around the latents of the autoencoder."""
    for text, first, second in (
        ("post_quant_conv -> conv_in", getattr(vae, "post_quant_conv", None), getattr(vae.decoder, "conv_in", None)),
        ("conv_out -> quant_conv", getattr(vae.encoder, "conv_out", None), getattr(vae, "quant_conv", None)),
    ):
        if first is not None and second is not None:
            yield _path(text, "vae", rows(first), columns(second), first.out_channels)


def _is_plain(norm: object) -> bool:
    """Return whether a norm is a layer norm with weights of its own, and not one that the timestep steers."""
    return isinstance(norm, nn.LayerNorm) and norm.weight is not None
