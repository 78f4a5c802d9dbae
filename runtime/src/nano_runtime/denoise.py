"""Guidance and the denoising loop: the heart of drawing, knowing nothing of prompts, files or engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nano_runtime.errors import NonFiniteError
from nano_runtime.samplers import Sampler

__all__ = ["Step", "denoise", "guide"]

F32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Step:
    """State after one call of the network.

    Attributes:
        index: of the call, from 0.
        timestep: the call was made for.
        latents: float32 [batch, channels, height, width], on the sampler's scale; the last step's are the picture's.
    """

    index: int
    timestep: float
    latents: F32


def guide(noise_pred_uncond: F32, noise_pred_cond: F32, guidance_scale: float) -> F32:
    """Push the prediction away from the one without (or with the negative) prompt.

    Classifier-free guidance (Ho & Salimans 2022) in the form of Imagen (Saharia et al. 2022, formula 2) and diffusers:
    1 leaves the conditional prediction alone, 0 the unconditional one.
    """
    return noise_pred_uncond + float(guidance_scale) * (noise_pred_cond - noise_pred_uncond)


def denoise(predict: Callable[[F32, int], F32], sampler: Sampler, latents: F32) -> Iterator[Step]:
    """Run the sampler over all its timesteps, one step per iteration; stop iterating to cancel.

    Args:
        predict: the network, guidance included: (scaled latents, index into ``sampler.timesteps``) to an output of the
            same shape, float32.
        sampler: fresh, made for this batch.
        latents: float32 [batch, channels, height, width]: unit noise times ``sampler.init_noise_sigma``. Not changed.

    Yields:
        The state after each call.

    Raises:
        NonFiniteError: the network computed NaN or infinity.
    """
    for index, timestep in enumerate(sampler.timesteps.tolist()):
        noise_pred = predict(sampler.scale_model_input(latents, index), index)
        if not np.isfinite(noise_pred).all():
            raise NonFiniteError("unet", f"call {index + 1} of {len(sampler.timesteps)}, timestep {timestep:g}")
        latents = sampler.step(noise_pred, index, latents)
        yield Step(index, timestep, latents)
