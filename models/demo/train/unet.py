"""The UNet: Nano's block types in miniature, taught to predict noise from a noisy thumbnail and a prompt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from diffusers import DDPMScheduler, PNDMScheduler, UNet2DConditionModel
from models.demo.train.common import State, rate

__all__ = ["Examples", "build_scheduler", "build_unet", "train_unet", "weights"]

SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
}
"""The noise schedule of Stable Diffusion 1 and 2."""


def build_scheduler() -> PNDMScheduler:
    """Stable Diffusion 2.1-base's scheduler, to the letter.

    PNDM has no use for ``clip_sample``. Other samplers that are given this config have: without it, DDIM and DDPM would
    clip latents to [-1, 1].
    """
    said = {"skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1, "clip_sample": False}
    return PNDMScheduler.from_config({**SCHEDULE, **said})


def build_unet(context: int) -> UNet2DConditionModel:
    """SD 2.1's layout (three levels with cross-attention, one without) at about a tenth of its channels.

    Args:
        context: width of the text encoder's hidden states.
    """
    model = UNet2DConditionModel(
        sample_size=16,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        block_out_channels=(32, 64, 160, 192),
        attention_head_dim=(1, 2, 5, 6),  # heads per level in SD 2's reading of this key; 32 channels each
        layers_per_block=1,
        cross_attention_dim=context,
        use_linear_projection=True,
        norm_num_groups=16,
    )
    torch.nn.init.zeros_(model.conv_out.weight)
    return model.to(memory_format=torch.channels_last)


def weights(alphas: torch.Tensor, gamma: float, floor: float) -> torch.Tensor:
    """Loss weights for noise prediction: min-SNR, min(SNR, gamma) / SNR (Hang et al. 2023, equation 8), and a boost.

    Where noise prevails, a small error in the noise is a large one in the picture, and there the prompt decides.
    A floor below 1 measures the picture's error there: the weight is divided by SNR, clamped to floor..1.

    Args:
        alphas: cumulative products of the schedule, float32 [n].
        gamma: the ceiling of the SNR; Nano was trained with 5.
        floor: 1 is plain min-SNR; 0.05 makes concepts come early in the training.
    """
    snr = alphas / (1 - alphas)
    return snr.clamp(max=gamma) / snr / snr.clamp(min=floor, max=1.0)


class Examples(NamedTuple):
    """The training set, small enough to keep whole.

    Attributes:
        latents: float32 [variants, pairs, 4, 16, 16]; a variant is a position and scale.
        context: float32 [pairs + 1, 77, width], text encoder output; the last is the empty prompt.
        trained: int64 [n], the pairs that are not held out.
    """

    latents: torch.Tensor
    context: torch.Tensor
    trained: np.ndarray[tuple[int], np.dtype[np.int64]]


def train_unet(
    state: State,
    examples: Examples,
    *,
    steps: int,
    batch: int,
    peak: float,
    floor: float,
    lowest: int,
    compiled: bool,
    seed: int,
) -> Iterator[tuple[State, dict[str, float]]]:
    """Train up to step `steps`, yielding the state and the loss after every step.

    One prompt in ten is empty, for classifier-free guidance. Timesteps are stratified over the batch, which takes
    the luck of the draw out of the gradient. `floor` is explained at `weights`; `lowest` is the first timestep
    drawn: with a floor below 1 it pays to leave the easy, nearly clean pictures for later.

    `compiled` has torch compile the network: five minutes of one core, and every step takes a third less.
    """
    model, average, optimizer, first = state
    noiser = DDPMScheduler(**SCHEDULE)
    weight = weights(noiser.alphas_cumprod, 5.0, floor)
    model.train()
    network = torch.compile(model) if compiled else model
    for step in range(first, steps):
        rng = np.random.default_rng((seed, step))
        torch.manual_seed(int(rng.integers(2**62)))
        for group in optimizer.param_groups:
            group["lr"] = peak * rate(step, steps)
        pairs = rng.choice(examples.trained, size=batch)
        clean = examples.latents[rng.integers(len(examples.latents), size=batch), pairs]
        prompts = np.where(rng.random(batch) < 0.1, len(examples.context) - 1, pairs)  # noqa: PLR2004 - one in ten
        strata = (np.arange(batch) + rng.random(batch)) / batch
        times = torch.from_numpy((lowest + (1000 - lowest) * strata).astype(np.int64))
        noise = torch.randn_like(clean)
        noisy = noiser.add_noise(clean, noise, times).contiguous(memory_format=torch.channels_last)
        guess = network(noisy, times, examples.context[prompts]).sample
        error = (guess - noise).square().mean((1, 2, 3))
        loss = (weight[times] * error).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update(model)
        late = times >= 500  # noqa: PLR2004 - where the prompt decides
        losses = {"loss": loss.item(), "late": error[late].mean().item(), "norm": norm.item()}
        yield state._replace(step=step + 1), losses
