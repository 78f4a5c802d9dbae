"""The start of a drawing: noise, or a picture with noise in it, and the channels that some UNets see behind it.

Noise is drawn in the order of diffusers' pipelines. With a picture, a seed's stream is: the VAE encoder's sample, the
noise, with a mask a sample once more (of the masked picture, which only UNets made for inpainting look at), and then
what the sampler asks for. UNets made for inpainting skip the first sample if the strength is 1. For UNets made for
instruct-pix2pix nothing is sampled: the stream begins with the noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.drawing.plan import Plan
from nano_runtime.networks.autoencoder import Encoded, EncodedEdit
from nano_runtime.sampling.arithmetic import arithmetic
from nano_runtime.sampling.noise import NoiseSource
from nano_runtime.sampling.samplers import Sampler

__all__ = ["Start", "Unmasked", "start_of"]


@dataclass(frozen=True, eq=False)
class Unmasked:
    """The part of a picture that stays: clean latents and their noise, float32 [n, C, h, w], where the mask is 0."""

    picture: F32
    noise: F32
    mask: F32

    def put_back(self, sampler: Sampler, index: int, latents: F32) -> None:
        """Put the part that stays into the latents after call ``index``, in place, as noisy as they are by then."""
        last = index + 1 == len(sampler.timesteps)
        proper = self.picture if last else sampler.mixing.add_noise(self.picture, self.noise, index + 1)
        np.copyto(latents, (np.float32(1) - self.mask) * proper + self.mask * latents)


@dataclass(frozen=True, eq=False)
class Start:
    """The state in which the denoising of a batch begins.

    Attributes:
        latents: float32 [n, C, h, w] before the first call, on the sampler's scale.
        first_call: its index.
        unmasked: put back after every call; None without a mask, and for UNets that see the mask.
        behind: float32 [n, K, h, w], the UNet's channels behind the latents; None if it has none.
    """

    latents: F32
    first_call: int
    unmasked: Unmasked | None = None
    behind: F32 | None = None


def start_of(
    plan: Plan, pictures: Sequence[int], sampler: Sampler, noise: NoiseSource, encoded: EncodedEdit | None
) -> Start:
    """Return where some of a plan's pictures begin.

    Matches diffusers' ``StableDiffusionImg2ImgPipeline``, ``StableDiffusionInpaintPipeline`` (around UNets with and
    without channels for the mask) and ``StableDiffusionInstructPix2PixPipeline``.

    Args:
        plan: of the call.
        pictures: indices of those that are drawn together.
        sampler: for them, with ``noise`` as its source.
        noise: the stream of their seeds, from its beginning.
        encoded: the pictures of ``plan.edit``; None without one.
    """

    def drawn() -> F32:
        if plan.latents is not None:
            return plan.latents[pictures]
        unit = noise()
        return unit if plan.variation is None else plan.variation.apply(unit, pictures)

    mixing, edit, first_call = sampler.mixing, plan.edit, plan.first_call
    with arithmetic(plan.scheduler):
        sigma = np.float32(mixing.init_noise_sigma)
    if encoded is None or edit is None:
        return Start(drawn() * sigma, first_call)
    clean = None if encoded.start is None else encoded.start.sample(noise)
    unit = drawn()
    if clean is None or edit.from_noise:
        latents = unit * sigma
    else:
        with arithmetic(plan.scheduler):
            latents = mixing.add_noise(clean, unit, first_call)
    if encoded.seen is not None:
        return Start(latents, first_call, behind=_behind(encoded.seen, encoded.mask, noise, len(pictures)))
    if encoded.start is None or clean is None or encoded.mask is None:
        return Start(latents, first_call)
    encoded.start.sample(noise)  # diffusers samples the masked picture's latents, too
    return Start(latents, first_call, Unmasked(clean, unit, encoded.mask))


def _behind(seen: Encoded, mask: F32 | None, noise: NoiseSource, count: int) -> F32:
    """Return the channels behind the latents: a mask and the masked picture, or without a mask the picture's mode."""
    parts = [seen.mode] if mask is None else [mask, seen.sample(noise)]
    return np.concatenate([np.broadcast_to(part, (count, *part.shape[1:])) for part in parts], axis=1)
