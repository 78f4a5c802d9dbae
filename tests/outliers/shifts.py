"""Finds biases that can be shifted: channels whose constant part some layers write, and the next ones take away again.

Outliers of a trained network often have a constant sign. A constant c on the input of a layer with weights W is W c on
its output, which the layer's own bias can take away. Where attention lies between, its weights sum to 1: a constant
part of the values passes through unchanged, and one of the keys adds the same to every score of a query, which softmax
does not see (Vaswani et al. 2017, equation 1).

Not possible are a convolution larger than 1x1 as a reader (its padding is not shifted), queries (what a shift adds to a
score depends on the key), and layers without a bias.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from tests.outliers.paths import Component
from torch import Tensor, nn
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

__all__ = ["Shift", "shifts"]


@dataclass(frozen=True)
class Shift:
    """A bias that can be shifted.

    Attributes:
        name: of the writer and the reader.
        component: that the writer belongs to.
        bias: of the writer, [channels].
        chains: of layers: the constant runs through the weights of each, and the last one's bias takes it away.
    """

    name: str
    component: Component
    bias: Tensor
    chains: tuple[tuple[nn.Module, ...], ...]

    @torch.no_grad()
    def apply(self, constant: Tensor) -> None:
        """Add a constant to each channel, and take it away behind, in place."""
        self.bias.add_(constant)
        for chain in self.chains:
            moved = constant
            for layer in chain:
                weight: Any = layer.weight
                moved = weight.flatten(1) @ moved
            last: Any = chain[-1].bias
            last.sub_(moved)


def shifts(unet: nn.Module, text_encoder: nn.Module, vae: nn.Module) -> Iterator[Shift]:
    """Yield all biases of a Stable Diffusion that can be shifted."""
    networks: tuple[tuple[Component, nn.Module], ...] = (("text_encoder", text_encoder), ("unet", unet), ("vae", vae))
    for component, network in networks:
        for name, module in network.named_modules():
            for text, writer, chains in _found(module):
                readers = all(chain[-1].bias is not None for chain in chains)
                if isinstance(writer.bias, Tensor) and readers:
                    yield Shift(f"{name}: {text}", component, writer.bias.data, chains)
    yield from _prompt(unet, text_encoder)


def _found(module: Any) -> Iterator[tuple[str, Any, tuple[tuple[nn.Module, ...], ...]]]:
    """Yield writers in one module, and what reads them."""
    if isinstance(module, CLIPEncoderLayer):
        attention: Any = module.self_attn
        yield "layer_norm1", module.layer_norm1, ((attention.q_proj,), (attention.k_proj,), (attention.v_proj,))
        yield "layer_norm2", module.layer_norm2, ((module.mlp.fc1,),)
        yield "v_proj", attention.v_proj, ((attention.out_proj,),)
        yield "k_proj", attention.k_proj, ()
    elif isinstance(module, BasicTransformerBlock) and isinstance(module.norm3, nn.LayerNorm):
        yield "norm3", module.norm3, ((module.ff.net[0].proj,),)
    elif isinstance(module, Transformer2DModel):
        yield "norm", module.norm, ((module.proj_in,),)
    elif isinstance(module, Attention) and module.added_kv_proj_dim is None:
        yield "to_v", module.to_v, ((module.to_out[0],),)
        if module.norm_k is None:
            yield "to_k", module.to_k, ()
        if module.group_norm is not None and not module.is_cross_attention:
            yield "group_norm", module.group_norm, ((module.to_q,), (module.to_k,), (module.to_v,))


def _prompt(unet: Any, text_encoder: nn.Module) -> Iterator[Shift]:
    """Yield the final layer norm: the UNet's keys do not feel its shift, and its values carry it to ``to_out``."""
    attentions: list[Any] = [one for one in unet.modules() if isinstance(one, Attention)]
    prompted = [one for one in attentions if one.is_cross_attention or one.added_kv_proj_dim is not None]
    plain = all(one.added_kv_proj_dim is None and one.norm_cross is None and one.norm_k is None for one in prompted)
    if not plain or unet.encoder_hid_proj is not None or unet.config.addition_embed_type is not None:
        return
    (norm,) = [one for name, one in text_encoder.named_modules() if name.endswith("final_layer_norm")]
    chains = tuple((one.to_v, one.to_out[0]) for one in prompted)
    yield Shift("final_layer_norm", "text_encoder", norm.bias.data, chains)
