"""Guidance and the denoising loop: the heart of drawing, without prompts, files or engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.errors import NonFiniteError
from nano_runtime.sampling.arithmetic import arithmetic
from nano_runtime.sampling.samplers import Sampler

__all__ = ["Step", "denoise", "guide", "guide_by_picture"]


@dataclass(frozen=True, eq=False)
class Step:
    """State after one call of the network.

    Attributes:
        index: number of the call, from 0.
        timestep: timestep of the call.
        latents: float32 [batch, channels, height, width], on the sampler's scale; the last step has the picture's.
        network_input: input of the network, of unit variance; float32 like the latents.
        noise_pred: output of the network, float32 like the latents.
    """

    index: int
    timestep: float
    latents: F32
    network_input: F32
    noise_pred: F32


def guide(noise_pred_uncond: F32, noise_pred_cond: F32, guidance_scale: float) -> F32:
    """Push the prediction away from the one for the negative (or empty) prompt.

    Classifier-free guidance (Ho & Salimans 2022) in the form of Imagen (Saharia et al. 2022, formula 2) and diffusers:
    a scale of 1 returns the conditional prediction, 0 the unconditional one. Both are float32 of one shape.
    """
    return noise_pred_uncond + float(guidance_scale) * (noise_pred_cond - noise_pred_uncond)


def guide_by_picture(
    noise_pred_uncond: F32,
    noise_pred_image: F32,
    noise_pred_text: F32,
    guidance_scale: float,
    image_guidance_scale: float,
) -> F32:
    """Push the prediction towards a picture, and from there towards the prompt.

    Brooks et al. 2023 ("InstructPix2Pix", formula 3), in the order of operations of diffusers'
    ``StableDiffusionInstructPix2PixPipeline``. The predictions are float32 of one shape.

    Args:
        noise_pred_uncond: with the negative prompt and no picture.
        noise_pred_image: with the negative prompt and the picture.
        noise_pred_text: with the prompt and the picture.
        guidance_scale: from the second to the third.
        image_guidance_scale: from the first to the second.
    """
    to_text = float(guidance_scale) * (noise_pred_text - noise_pred_image)
    to_image = float(image_guidance_scale) * (noise_pred_image - noise_pred_uncond)
    guided: F32 = noise_pred_uncond + to_text + to_image
    return guided


def denoise(predict: Callable[[F32, int], F32], sampler: Sampler, latents: F32, first_call: int = 0) -> Iterator[Step]:
    """Run the sampler over its timesteps, one step per iteration; stop iterating to cancel.

    Args:
        predict: the network, guidance included: (scaled latents, index into ``sampler.timesteps``) to an output of the
            same shape, float32.
        sampler: a fresh one, made for this batch.
        latents: float32 [batch, channels, height, width] before the first call, on the scale of ``sampler.mixing``:
            unit noise times its ``init_noise_sigma``, or a picture with noise from its ``add_noise``. Not changed.
        first_call: index of the first call; the calls before it are left out.

    Yields:
        The state after each call.

    Raises:
        NonFiniteError: the network computed NaN or infinity, or the sampler did from finite values.
        NoNumbersError: the sampler divides by zero, or the like.
    """
    for index, timestep in enumerate(sampler.timesteps[first_call:].tolist(), first_call):
        with arithmetic("its sampler"):
            network_input = sampler.mixing.scale_model_input(latents, index)
        where = f"call {index + 1} of {len(sampler.timesteps)}, timestep {timestep:g}"
        try:
            noise_pred = predict(network_input, index)
        except NonFiniteError as error:
            raise NonFiniteError(error.component, where) from error
        if not np.isfinite(noise_pred).all():
            raise NonFiniteError("unet", where)
        with arithmetic("its sampler"):
            latents = sampler.step(noise_pred, index, latents)
        if not np.isfinite(latents).all():
            raise NonFiniteError("sampler", where)
        yield Step(index, timestep, latents, network_input, noise_pred)
