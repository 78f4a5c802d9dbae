"""The torch modules that become graphs: tensors in, tensors out, with all that is loop-invariant taken out of the UNet.

The hoisted UNet differs from diffusers' forward pass in four ways, all exact:

- The keys and values of every cross-attention depend on the prompt only. ``PromptKV`` computes them once per prompt,
  already split into heads and, for the keys, scaled by 1/sqrt(d).
- The time embedding and its projection in every residual block depend on the timestep only. ``TimeBiases`` computes
  them for all timesteps of a schedule in one call, and adds the bias of the convolution they are added to.
- A feed-forward layer's values and gates are two products, so that no graph has to take one apart.
- What a transformer's group norm scales and shifts, its first layer does: one linear map after another is one.

The decoder convolves before it enlarges: a 3x3 convolution of a picture enlarged twofold sees each pixel up to four
times, and is four 2x2 convolutions of the small picture, with less than half the products.

Diffusers' blocks are reused as they are: they pass two arguments down untouched, ``temb`` and
``encoder_hidden_states``. Here these carry tuples, and the leaves (``_Pick``, ``_CrossAttention``) take their own item
out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.activations import GEGLU
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from transformers import CLIPTextModel

__all__ = ["HoistedUNet", "PromptKV", "StandardUNet", "TextEncoder", "TimeBiases", "VaeDecoder", "VaeEncoder"]


class TextEncoder(nn.Module):
    """Token ids int64 [B, L] -> hidden states after the final layer norm, float32 [B, L, D]."""

    def __init__(self, model: CLIPTextModel) -> None:
        super().__init__()
        model.set_attn_implementation("eager")  # written out; the fused operator's decomposition bakes the batch in
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        """Encode; the pooled output is not part of Stable Diffusion 1 and 2."""
        hidden: Tensor = self.model(input_ids, return_dict=False)[0]
        return hidden


class VaeDecoder(nn.Module):
    """Latents float32 [B, C, h, w], divided by the scaling factor -> pictures float32 [B, 3, 8h, 8w] around [-1, 1]."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        _write_out_attention(vae.decoder)
        for block in vae.decoder.up_blocks:
            if block.upsamplers is not None:
                block.upsamplers = nn.ModuleList(_ConvolvedUpsample(upsampler) for upsampler in block.upsamplers)
        self.post_quant_conv = vae.post_quant_conv
        self.decoder = vae.decoder

    def forward(self, latent_sample: Tensor) -> Tensor:
        """Decode."""
        if self.post_quant_conv is not None:
            latent_sample = self.post_quant_conv(latent_sample)
        picture: Tensor = self.decoder(latent_sample)
        return picture


class VaeEncoder(nn.Module):
    """Pictures float32 [B, 3, H, W] in [-1, 1] -> mean and log-variance of the latents, float32 [B, 2C, H/8, W/8]."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        _write_out_attention(vae.encoder)
        self.encoder = vae.encoder
        self.quant_conv = vae.quant_conv

    def forward(self, sample: Tensor) -> Tensor:
        """Encode; the latents are mean + exp(logvar / 2) * noise, times the scaling factor."""
        moments: Tensor = self.encoder(sample)
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        return moments


class StandardUNet(nn.Module):
    """Diffusers' UNet with optimum's inputs: sample [B, C, h, w], timestep [1], encoder_hidden_states [B, L, D]."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        for module in unet.modules():
            if isinstance(module, Attention):
                module.set_processor(_StandardAttention())
        _split_gates(unet)
        _fold_norms(unet)
        self.unet = unet

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        """Predict the noise (or whatever the checkpoint predicts), float32 [B, C, h, w]."""
        prediction: Tensor = self.unet(sample, timestep, encoder_hidden_states, return_dict=False)[0]
        return prediction


class PromptKV(nn.Module):
    """Hidden states [B, L, D] -> key and value [B, heads, L, d] of every cross-attention, in order.

    ``names`` are the names of the outputs, which are the names of the UNet inputs they feed.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        attentions = _cross_attentions(unet)
        self.to_k = nn.ModuleList(attention.to_k for _, attention in attentions)
        self.to_v = nn.ModuleList(attention.to_v for _, attention in attentions)
        self.layouts = [(attention.heads, attention.scale) for _, attention in attentions]
        self.names = [f"{name}.{part}" for name, _ in attentions for part in ("key", "value")]

    def forward(self, encoder_hidden_states: Tensor) -> tuple[Tensor, ...]:
        """Project; the scale 1/sqrt(d) of the attention goes into the keys."""
        outputs: list[Tensor] = []
        for to_k, to_v, (heads, scale) in zip(self.to_k, self.to_v, self.layouts, strict=True):
            key = _split_heads(to_k(encoder_hidden_states) * scale, heads)
            outputs += [key, _split_heads(to_v(encoder_hidden_states), heads)]
        return tuple(outputs)


class TimeBiases(nn.Module):
    """Timesteps float32 [T] -> the bias every residual block adds to its channels, float32 [T, C] each, in order.

    Each has the bias of the block's first convolution in it, which is added to the same channels.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        resnets = _resnets(unet)
        self.time_proj = unet.time_proj
        self.time_embedding = unet.time_embedding
        self.projections = nn.ModuleList(
            _linear(projection.weight.data, projection.bias.data + resnet.conv1.bias.data)
            for projection, resnet in ((resnet.time_emb_proj, resnet) for _, resnet in resnets)
        )
        self.names = [f"{name}.time_bias" for name, _ in resnets]

    def forward(self, timestep: Tensor) -> tuple[Tensor, ...]:
        """Embed and project; every block applies SiLU to the embedding first (diffusers' ``ResnetBlock2D``)."""
        embedding = nn.functional.silu(self.time_embedding(self.time_proj(timestep)))
        return tuple(projection(embedding) for projection in self.projections)


class HoistedUNet(nn.Module):
    """The UNet that is left: sample [B, C, h, w], keys and values of the prompt, time biases [1, C] -> prediction.

    Build ``PromptKV`` and ``TimeBiases`` first: this takes over the UNet and replaces its projections.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        for index, (_, attention) in enumerate(_cross_attentions(unet)):
            attention.set_processor(_CrossAttention(2 * index))
            attention.to_k = attention.to_v = None
        for module in unet.modules():
            if isinstance(module, Attention) and module.to_k is not None:
                module.set_processor(_StandardAttention())
        for index, (_, resnet) in enumerate(_resnets(unet)):
            resnet.time_emb_proj, resnet.conv1.bias = _Pick(index), None
            resnet.skip_time_act = True
        _split_gates(unet)
        _fold_norms(unet)
        unet.time_embedding = None
        self.unet = unet

    def forward(self, sample: Tensor, prompt_kv: tuple[Tensor, ...], time_biases: tuple[Tensor, ...]) -> Tensor:
        """Walk diffusers' blocks as ``UNet2DConditionModel.forward`` does, without its projections."""
        unet = self.unet
        hidden = unet.conv_in(sample)
        skips: tuple[Tensor, ...] = (hidden,)
        for block in unet.down_blocks:
            hidden, more = block(hidden, time_biases, **_context(block, prompt_kv))
            skips += more
        hidden = unet.mid_block(hidden, time_biases, **_context(unet.mid_block, prompt_kv))
        for block in unet.up_blocks:
            count = len(block.resnets)
            skips, own = skips[:-count], skips[-count:]
            hidden = block(hidden, own, time_biases, **_context(block, prompt_kv))
        prediction: Tensor = unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden)))
        return prediction


class _SplitGeglu(nn.Module):
    """diffusers' ``GEGLU`` with one linear layer for the values and one for the gates; over the same weights."""

    def __init__(self, geglu: GEGLU) -> None:
        super().__init__()
        self.value, self.gate = (_linear(*half) for half in zip(*(
            parameter.data.chunk(2) for parameter in (geglu.proj.weight, geglu.proj.bias)
        ), strict=True))  # fmt: skip

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Values times the GELU of the gates. Shazeer 2020 (arXiv:2002.05202), equation 5."""
        values: Tensor = self.value(hidden_states)
        return values * nn.functional.gelu(self.gate(hidden_states))


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Return a linear layer over these parameters."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    return layer


def _split_gates(unet: UNet2DConditionModel) -> None:
    """Replace the first layer of every feed-forward network."""
    for module in list(unet.modules()):
        if isinstance(module, FeedForward) and isinstance(module.net[0], GEGLU):
            module.net[0] = _SplitGeglu(module.net[0])


def _fold_norms(unet: UNet2DConditionModel) -> None:
    """Let the first layer of every transformer scale and shift what is normalized in front of it."""
    for module in unet.modules():
        if isinstance(module, Transformer2DModel):
            norm, layer = module.norm, module.proj_in
            weight = layer.weight.data  # [C', C], and [C', C, 1, 1] where it is a convolution
            layer.bias.data = layer.bias.data + weight.flatten(1) @ norm.bias.data
            layer.weight.data = (weight.flatten(1) * norm.weight.data).view_as(weight)
            norm.weight = norm.bias = None


class _ConvolvedUpsample(nn.Module):
    """diffusers' ``Upsample2D``, nearest neighbours twofold and then a 3x3 convolution, as four 2x2 convolutions.

    Rows 2i and 2i + 1 of the large picture are both row i of the small one. So a kernel of rows (a, b, c) that is
    centred on row 2i sees the small rows (i - 1, i) with weights (a, b + c), and on row 2i + 1 the small rows
    (i, i + 1) with weights (a + b, c); columns likewise. The four results are the pixels of every 2x2 square.
    """

    def __init__(self, upsample: Upsample2D) -> None:
        super().__init__()
        weight, bias = upsample.conv.weight.data, upsample.conv.bias
        self.phases = nn.ModuleList()
        for row, column in _PHASES:
            kernel = _halved(_halved(weight, row, dim=2), column, dim=3)
            phase = nn.Conv2d(kernel.shape[1], kernel.shape[0], kernel_size=2)
            phase.weight, phase.bias = nn.Parameter(kernel), bias
            self.phases.append(phase)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C', 2h, 2w]."""
        pixels = torch.cat([
            phase(nn.functional.pad(hidden_states, (1 - column, column, 1 - row, row)))
            for phase, (row, column) in zip(self.phases, _PHASES, strict=True)
        ], dim=1)  # fmt: skip
        batch, channels, height, width = pixels.shape
        squares = pixels.view(batch, 2, 2, channels // 4, height, width).permute(0, 3, 4, 1, 5, 2)
        return squares.reshape(batch, channels // 4, 2 * height, 2 * width)


_PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))  # row and column in a square of 2x2 pixels


def _halved(kernel: Tensor, phase: int, dim: int) -> Tensor:
    """Return the two weights that three have on the small picture, for its even (0) or odd (1) rows or columns."""
    first, middle, last = kernel.unbind(dim)
    return torch.stack([first, middle + last] if phase == 0 else [first + middle, last], dim)


def _context(block: nn.Module, prompt_kv: tuple[Tensor, ...]) -> dict[str, tuple[Tensor, ...]]:
    """Blocks without cross-attention do not take the argument."""
    return {"encoder_hidden_states": prompt_kv} if getattr(block, "has_cross_attention", False) else {}


class _Pick(nn.Module):
    """Stands where a time projection was and returns the bias that was computed outside."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def forward(self, time_biases: Sequence[Tensor]) -> Tensor:
        return time_biases[self.index]


class _CrossAttention:
    """Attention over keys and values that come in ready, at ``index`` and ``index + 1`` of the tuple."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Sequence[Tensor],
        attention_mask: None = None,
    ) -> Tensor:
        key, value = encoder_hidden_states[self.index], encoder_hidden_states[self.index + 1]
        query = _split_heads(attn.to_q(hidden_states), attn.heads)
        return _attend(attn, query, key.transpose(2, 3), value)


class _StandardAttention:
    """Scaled dot-product attention written out, so that every engine sees MatMul, Softmax, MatMul."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: None = None,
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = _split_heads(attn.to_q(hidden_states) * attn.scale, attn.heads)
        key = _split_heads(attn.to_k(context), attn.heads).transpose(2, 3)
        value = _split_heads(attn.to_v(context), attn.heads)
        return _attend(attn, query, key, value)


class _SpatialAttention:
    """The VAE's self-attention over the positions of a feature map [B, C, H, W], with its norm and residual."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: None = None,
        attention_mask: None = None,
        temb: None = None,
    ) -> Tensor:
        tokens = attn.group_norm(hidden_states.flatten(2)).transpose(1, 2)
        query = _split_heads(attn.to_q(tokens) * attn.scale, attn.heads)
        key = _split_heads(attn.to_k(tokens), attn.heads).transpose(2, 3)
        value = _split_heads(attn.to_v(tokens), attn.heads)
        mixed = _attend(attn, query, key, value).transpose(1, 2).reshape(hidden_states.shape)
        summed: Tensor = (mixed + hidden_states) / attn.rescale_output_factor
        return summed


def _write_out_attention(part: nn.Module) -> None:
    """Replace the attention processor of a VAE half by the written-out one."""
    for module in part.modules():
        if isinstance(module, Attention):
            module.set_processor(_SpatialAttention())


def _split_heads(tokens: Tensor, heads: int) -> Tensor:
    """[B, L, heads * d] -> [B, heads, L, d]."""
    return tokens.view(*tokens.shape[:2], heads, -1).transpose(1, 2)


def _attend(attn: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(query key) value, heads merged, through the output projection. Vaswani et al. 2017, equation 1."""
    mixed = torch.softmax(query @ key, dim=-1) @ value
    merged: Tensor = attn.to_out[0](mixed.transpose(1, 2).flatten(2))
    return merged


def _cross_attentions(unet: UNet2DConditionModel) -> list[tuple[str, Attention]]:
    """All attentions over the prompt, in the order of ``named_modules``."""
    return [(n, m) for n, m in unet.named_modules() if isinstance(m, Attention) and m.is_cross_attention]


def _resnets(unet: UNet2DConditionModel) -> list[tuple[str, ResnetBlock2D]]:
    """All residual blocks, in the order of ``named_modules``."""
    return [(n, m) for n, m in unet.named_modules() if isinstance(m, ResnetBlock2D)]
