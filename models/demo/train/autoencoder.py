"""The autoencoder: a small AutoencoderKL whose latents are fixed beforehand, so that both halves learn quickly.

Stable Diffusion's autoencoder finds its own latents, which takes days. Here they are thumbnails: every latent
describes its 8x8 cell by three opponent colours and a contrast, a fixed formula. The decoder then learns to sharpen
thumbnails of things it knows, the encoder learns to evaluate the formula, and the UNet need not wait for either.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from models.demo.knowledge import Knowledge
from models.demo.train.common import State, rate
from models.demo.train.data import SIZE, Glyphs, all_places, compose, draw_places
from torch.nn import functional

__all__ = ["all_thumbnails", "build_autoencoder", "draw_pictures", "thumbnails", "train_autoencoder"]

FACTOR = 8
"""Pixels per latent, as in Stable Diffusion."""

CENTER = (0.0, 0.2, 0.0, 0.2)
SPREAD = (0.4, 0.45, 0.4, 0.22)
"""Means and deviations of the four features over the training pictures, rounded: latents are near unit scale."""


def thumbnails(pictures: torch.Tensor) -> torch.Tensor:
    """The latents of pictures, by formula.

    Features of each 8x8 cell: lightness (R + G + B) / 3, red against blue (R - B) / 2, purple against green
    (R + B) / 2 - G, and contrast, the square root of the lightness' deviation. Opponent colours at unit scale make an
    error in hue cost as much as one in lightness.

    Args:
        pictures: float32 [n, 3, h, w] in -1..1.

    Returns:
        float32 [n, 4, h / 8, w / 8], near zero mean and unit deviation.
    """
    light = pictures.mean(1, keepdim=True)
    red, green, blue = functional.avg_pool2d(pictures, FACTOR).unbind(1)
    mean = functional.avg_pool2d(light, FACTOR)[:, 0]
    variance = functional.avg_pool2d(light.square(), FACTOR)[:, 0] - mean.square()
    contrast = variance.clamp(min=0).sqrt().sqrt()
    features = torch.stack([mean, (red - blue) / 2, (red + blue) / 2 - green, contrast], 1)
    return (features - torch.tensor(CENTER)[:, None, None]) / torch.tensor(SPREAD)[:, None, None]


def build_autoencoder() -> AutoencoderKL:
    """Stable Diffusion's autoencoder in miniature: the same block types, about a tenth of the channels."""
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 16, 48, 96),
        layers_per_block=1,
        latent_channels=4,
        # With few channels, many groups would erase the flat colours: each group forgets its mean and its scale.
        norm_num_groups=1,
        sample_size=SIZE,
        scaling_factor=1.0,
    )
    # The formula has no spread: pin the posterior's log variance to where a sample equals the mean for every purpose.
    with torch.no_grad():
        model.quant_conv.weight[4:] = 0
        model.quant_conv.bias[4:] = -12.0
    _start_as_enlargement(model)
    return model.to(memory_format=torch.channels_last)


@torch.no_grad()
def _start_as_enlargement(model: AutoencoderKL) -> None:
    """Set the decoder up to enlarge thumbnails plainly before it learns anything: flat colours right from step 0.

    Residual branches are silent, the convolutions after upsampling pass pixels through, and eight channels travel to
    the end: red, green, blue, their negatives, and two constants. The constants hold the last normalisation's
    deviation near 1.1 whatever the picture, and silu(x) - silu(-x) = x makes the last activation linear.
    """
    decoder = model.decoder
    for module in decoder.modules():
        if isinstance(module, ResnetBlock2D):
            torch.nn.init.zeros_(module.conv2.weight)
            if module.conv_shortcut is not None:
                module.conv_shortcut.weight[:8] = torch.eye(8, module.conv_shortcut.in_channels)[..., None, None]
                module.conv_shortcut.bias[:8] = 0
        elif isinstance(module, Upsample2D):
            torch.nn.init.dirac_(module.conv.weight)
            torch.nn.init.zeros_(module.conv.bias)
        elif isinstance(module, Attention):
            torch.nn.init.zeros_(module.to_out[0].weight)
    model.post_quant_conv.weight[:] = torch.eye(4)[..., None, None]
    model.post_quant_conv.bias[:] = 0
    # RGB from lightness, red - blue and purple - green: the inverse of the formula in `thumbnails`.
    inverse = torch.tensor([[1, 1, 1 / 3], [1, 0, -2 / 3], [1, -1, 1 / 3]])
    decoder.conv_in.weight[:8] = 0
    decoder.conv_in.bias[:8] = 0
    for rows, sign in ((slice(0, 3), 1), (slice(3, 6), -1)):
        decoder.conv_in.weight[rows, :3, 1, 1] = sign * inverse * torch.tensor(SPREAD[:3])
        decoder.conv_in.bias[rows] = sign * inverse @ torch.tensor(CENTER[:3])
    decoder.conv_in.bias[6:8] = torch.tensor([2.0, -2.0])
    decoder.conv_out.weight[:] = 0
    decoder.conv_out.bias[:] = 0
    for channel in range(3):
        decoder.conv_out.weight[channel, [channel, channel + 3], 1, 1] = torch.tensor([1.1, -1.1])


def palette(knowledge: Knowledge) -> torch.Tensor:
    """The background colours, float32 [colours, 3] in 0..1."""
    return torch.tensor(list(knowledge.colors.values()), dtype=torch.float32) / 255


def draw_pictures(knowledge: Knowledge, glyphs: Glyphs, count: int, rng: np.random.Generator) -> torch.Tensor:
    """Random training pictures, none of a held-out pair.

    Returns:
        float32 [count, 3, SIZE, SIZE] in -1..1.
    """
    trained = [index for index, pair in enumerate(knowledge.pairs) if pair not in knowledge.held_out]
    pair = rng.choice(trained, size=count)
    colors = palette(knowledge)
    return compose(glyphs, colors[pair % len(colors)], pair // len(colors), draw_places(glyphs, count, rng))


def all_thumbnails(knowledge: Knowledge, glyphs: Glyphs) -> torch.Tensor:
    """The latents of every pair in every place, float32 [variants, pairs, 4, 16, 16]."""
    colors = palette(knowledge)
    variants = []
    for place in all_places(glyphs):
        places = np.repeat(place[None], len(colors), 0)
        rows = [
            thumbnails(compose(glyphs, colors, np.full(len(colors), concept), places))
            for concept in range(len(knowledge.names))
        ]
        variants.append(torch.cat(rows))
    return torch.stack(variants)


def _windows(pictures: torch.Tensor, size: int, rng: np.random.Generator) -> torch.Tensor:
    """Cut one `size` x `size` window, on the latents' grid, out of each picture; channels last."""
    starts = rng.integers((SIZE - size) // FACTOR + 1, size=(len(pictures), 2)) * FACTOR
    windows = [
        picture[:, top : top + size, left : left + size] for picture, (top, left) in zip(pictures, starts, strict=True)
    ]
    return torch.stack(windows).contiguous(memory_format=torch.channels_last)


def _edges(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Differences between neighbouring pixels, across and down."""
    return pictures[..., 1:] - pictures[..., :-1], pictures[..., 1:, :] - pictures[..., :-1, :]


def train_autoencoder(
    state: State,
    knowledge: Knowledge,
    glyphs: Glyphs,
    *,
    steps: int,
    batch: int,
    size: int,
    peak: float,
    noise: float,
    seed: int,
) -> Iterator[tuple[State, dict[str, float]]]:
    """Train up to step `steps`, yielding the state and the losses after every step.

    The decoder minimises L1 on pixels plus L1 on pixel differences (so that edges are sharp) from latents with a
    random amount of noise, up to the deviation `noise`: what the UNet gives it later is not exact either. One picture
    in four also goes through the encoder, which minimises the squared error to the formula. Windows of 64 pixels first
    and whole pictures afterwards learn faster than whole pictures throughout: four times the steps.
    """
    model, average, optimizer, first = state
    model.train()
    for step in range(first, steps):
        rng = np.random.default_rng((seed, step))
        torch.manual_seed(int(rng.integers(2**62)))
        for group in optimizer.param_groups:
            group["lr"] = peak * rate(step, steps)
        pictures = _windows(draw_pictures(knowledge, glyphs, batch, rng), size, rng)
        latents = thumbnails(pictures)
        dirt = torch.rand(batch, 1, 1, 1) * noise * torch.randn_like(latents)
        copies = model.decode((latents + dirt).contiguous(memory_format=torch.channels_last)).sample
        pixel = (copies - pictures).abs().mean()
        across, down = (
            (ours - theirs).abs().mean() for ours, theirs in zip(_edges(copies), _edges(pictures), strict=True)
        )
        few = max(1, batch // 4)
        coded = (model.encode(pictures[:few]).latent_dist.mean - latents[:few]).square().mean()
        loss = pixel + across + down + 0.1 * coded
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update(model)
        error = (copies - pictures).detach().square().mean().item() / 4
        losses = {
            "pixel": pixel.item(),
            "edge": (across + down).item(),
            "encoder": coded.item(),
            "psnr": float(-10 * np.log10(error)),
        }
        yield state._replace(step=step + 1), losses
