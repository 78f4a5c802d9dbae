"""Both halves of the autoencoder as graphs: pictures to latents, and latents to pictures.

The decoder convolves before it enlarges. A 3x3 convolution of a picture enlarged twofold sees each pixel up to four
times. Four 2x2 convolutions of the small picture compute exactly the same, with less than half the products.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from nano_export.networks.attention import write_out

__all__ = ["PreviewDecoder", "VaeDecoder", "VaeEncoder"]

_PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))  # row and column in a square of 2x2 pixels


class VaeDecoder(nn.Module):
    """Latents float32 [B, C, h, w], divided by the scaling factor -> pictures float32 [B, 3, 8h, 8w] around [-1, 1].

    ``AutoencoderTiny`` (TAESD) has a decoder of plain convolutions, which stays as it is.
    """

    def __init__(self, vae: AutoencoderKL | AutoencoderTiny) -> None:
        super().__init__()
        write_out(vae.decoder)
        for module in list(vae.decoder.modules()):
            if isinstance(upsamplers := getattr(module, "upsamplers", None), nn.ModuleList):
                module.upsamplers = nn.ModuleList(
                    _ConvolvedUpsample(upsampler) if _is_convolved(upsampler) else upsampler for upsampler in upsamplers
                )
        self.post_quant_conv = getattr(vae, "post_quant_conv", None)
        self.decoder = vae.decoder

    def forward(self, latent_sample: Tensor) -> Tensor:
        """Decode."""
        if self.post_quant_conv is not None:
            latent_sample = self.post_quant_conv(latent_sample)
        picture: Tensor = self.decoder(latent_sample)
        return picture


class VaeEncoder(nn.Module):
    """Pictures float32 [B, 3, H, W] in [-1, 1] -> mean and log-variance of the latents, float32 [B, 2C, H/8, W/8].

    ``AutoencoderTiny`` has no distribution: its latents themselves come out, [B, C, H/8, W/8].
    """

    def __init__(self, vae: AutoencoderKL | AutoencoderTiny) -> None:
        super().__init__()
        write_out(vae.encoder)
        self.encoder = vae.encoder
        self.quant_conv = getattr(vae, "quant_conv", None)

    def forward(self, sample: Tensor) -> Tensor:
        """Encode; the latents are mean + exp(logvar / 2) * noise, times the scaling factor."""
        moments: Tensor = self.encoder(sample)
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        return moments


class PreviewDecoder(nn.Module):
    """The UNet's latents float32 [B, C, h, w], not divided by anything -> pictures float32 [B, 3, H, W]."""

    def __init__(self, vae: AutoencoderKL | AutoencoderTiny) -> None:
        super().__init__()
        self.scaling_factor = float(vae.config.scaling_factor)
        self.vae_decoder = VaeDecoder(vae)

    def forward(self, latent_sample: Tensor) -> Tensor:
        """Divide by the autoencoder's own factor, and decode."""
        picture: Tensor = self.vae_decoder(latent_sample / self.scaling_factor)
        return picture


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


def _is_convolved(upsampler: nn.Module) -> bool:
    """Return whether an upsampler doubles the picture and then applies a 3x3 convolution, and nothing else."""
    if not isinstance(upsampler, Upsample2D) or upsampler.use_conv_transpose or not upsampler.use_conv:
        return False
    return upsampler.interpolate and upsampler.norm is None and upsampler.conv.kernel_size == (3, 3)


def _halved(kernel: Tensor, phase: int, dim: int) -> Tensor:
    """Return the two weights that three have on the small picture, for its even (0) or odd (1) rows or columns."""
    first, middle, last = kernel.unbind(dim)
    return torch.stack([first, middle + last] if phase == 0 else [first + middle, last], dim)
