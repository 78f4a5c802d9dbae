"""Both halves of the autoencoder as graphs: pictures to latents, and latents to pictures.

The decoder convolves before it enlarges. A 3x3 convolution of a picture enlarged twofold sees each pixel up to four
times. Four 2x2 convolutions of the small picture compute exactly the same, with less than half the products.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import Attention
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from nano_export.networks.attention import attend, split_heads

__all__ = ["VaeDecoder", "VaeEncoder"]

_PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))  # row and column in a square of 2x2 pixels


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


class _ConvolvedUpsample(nn.Module):
    """diffusers' ``Upsample2D``, nearest neighbours twofold and then a 3x3 convolution, as four 2x2 convolutions.

    Rows 2i and 2i + 1 of the large picture are both row i of the small one. So a kernel of rows (a, b, c) centred on
    row 2i sees the small rows (i - 1, i) with weights (a, b + c), and on row 2i + 1 the small rows (i, i + 1) with
    weights (a + b, c). Columns work the same way. The four results are the pixels of every 2x2 square.
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


def _halved(kernel: Tensor, phase: int, dim: int) -> Tensor:
    """Return the two weights that three have on the small picture, for its even (0) or odd (1) rows or columns."""
    first, middle, last = kernel.unbind(dim)
    return torch.stack([first, middle + last] if phase == 0 else [first + middle, last], dim)


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
        query = split_heads(attn.to_q(tokens) * attn.scale, attn.heads)
        key = split_heads(attn.to_k(tokens), attn.heads).transpose(2, 3)
        value = split_heads(attn.to_v(tokens), attn.heads)
        mixed = attend(attn, query, key, value).transpose(1, 2).reshape(hidden_states.shape)
        summed: Tensor = (mixed + hidden_states) / attn.rescale_output_factor
        return summed


def _write_out_attention(part: nn.Module) -> None:
    """Replace the attention processors of a VAE half by the written-out one."""
    for module in part.modules():
        if isinstance(module, Attention):
            module.set_processor(_SpatialAttention())
